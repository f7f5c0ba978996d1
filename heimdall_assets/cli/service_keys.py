"""``heimdall service-keys``: who may ask the service, since when, until when."""

from dataclasses import asdict
from typing import Any

import click

from heimdall_assets.cli.terminal.homes import open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_notice, write_table, write_text
from heimdall_assets.counts import say_count

DAYS = 365


@click.group("service-keys", short_help="Who may ask the service for positions.")
def service_keys() -> None:
    """Keys that callers of the service show. A hash of each lies in the ledger, the key itself nowhere."""


@service_keys.command(short_help="Make a key and show it, once.")
@click.argument("owner")
@click.option("--days", type=int, default=DAYS, show_default=True, help="Until it expires, 1 to 3650.")
@click.option("--by", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
@json_option
def make(owner: str, days: int, by: str, reason: str, as_json: bool) -> None:
    """Make a key for OWNER, the name that rules of serving know the caller by; it is shown now and never again."""
    key, shown = open_home().releases.make_service_key(owner, days, by, reason)
    if as_json:
        write_json({"id": key.id, "owner": key.owner, "expires_at": key.expires_at, "key": shown})
    else:
        write_text(shown)
        write_notice(f"key {key.id} of {key.owner} counts until {key.expires_at[:10]}; it is not shown again")


@service_keys.command("list", short_help="List keys, those that count no more too.")
@json_option
def list_keys(as_json: bool) -> None:
    """List keys: whose each is, whether it counts, when it was used last; none of them can be shown again."""
    keys = list(open_home().releases.list_service_keys().values())
    if as_json:
        write_json([asdict(key) for key in keys])
        return
    rows: list[list[Any]] = [
        [key.id, key.owner, key.state, key.made_at[:10], key.expires_at[:10], key.last_used_on, key.reason]
        for key in keys
    ]
    write_table(say_count(len(rows), "key"), ["id", "owner", "state", "made", "expires", "last used", "why"], rows)


@service_keys.command(short_help="Have a key let nobody in any more.")
@click.argument("key")
@click.option("--by", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
@json_option
def revoke(key: str, by: str, reason: str, as_json: bool) -> None:
    """Have KEY (its id) let nobody in any more, from the next request on."""
    open_home().releases.revoke_service_key(key, by, reason)
    if as_json:
        write_json({"revoked": key})
    else:
        write_text(f"key {key}: revoked")
