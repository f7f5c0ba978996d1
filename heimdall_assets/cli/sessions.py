"""``heimdall sessions``: list, show, approve, reject."""

from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.output import json_option, write_json, write_table
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places

if TYPE_CHECKING:
    from heimdall_assets.stores.measurements import MeasurementStore

STATUSES = [str(status) for status in ApprovalStatus]


def open_measurements() -> "MeasurementStore":
    """Return the database of this home."""
    return read_places().open_stores().measurements


@click.group()
def sessions() -> None:
    """List sessions and decide which may be learned from."""


@sessions.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only sessions of this approval status.")
@click.option("--campaign", help="Only sessions of this campaign.")
@json_option
def list_sessions(status: str | None, campaign: str | None, as_json: bool) -> None:
    """List sessions."""
    rows = open_measurements().list_sessions(
        approval_status=None if status is None else ApprovalStatus(status), campaign=campaign
    )
    if as_json:
        write_json(rows)
        return
    columns = ["id", "session_name", "campaign", "origin", "approval_status", "num_measurements"]
    write_table(f"{len(rows)} sessions", columns, [[row[name] for name in columns] for row in rows])


@sessions.command()
@click.argument("session")
@json_option
def show(session: str, as_json: bool) -> None:
    """Show a session (id or name) with its measurements and every decision about it."""
    found = open_measurements().find_session(session)
    if as_json:
        write_json(found)
        return
    simple = [(name, value) for name, value in found.items() if not isinstance(value, list | dict)]
    write_table(f"session {session}", ["field", "value"], simple)
    for part in ("measurements", "approval_events"):
        _write_part(part, found[part])


def _write_part(title: str, rows: list[dict[str, Any]]) -> None:
    names = [name for name in (rows[0] if rows else {}) if any(row[name] not in (None, {}, "") for row in rows)]
    write_table(f"{len(rows)} {title}", names, [[row[name] for name in names] for row in rows])


def _decide(
    decision: ApprovalStatus,
    names: tuple[str, ...],
    campaign: str | None,
    everything: bool,
    by: str,
    reason: str,
    as_json: bool,
) -> None:
    store = open_measurements()
    if bool(names) + (campaign is not None) + everything != 1:
        raise InvalidSetting(
            "expected sessions by id or name, or --campaign NAME, or --all-pending: exactly one of them"
        )
    if names:
        ids = store.resolve_sessions(names)
    else:
        pending = None if campaign is not None and decision is ApprovalStatus.REJECTED else ApprovalStatus.PENDING
        ids = [row["id"] for row in store.list_sessions(approval_status=pending, campaign=campaign)]
    count = store.decide(ids, decision, by, reason)
    if as_json:
        write_json({"decision": decision, "num_sessions": count})
    else:
        click.echo(f"{decision}: {count} sessions")


def _decision_command(name: str, decision: ApprovalStatus, text: str) -> click.Command:
    @sessions.command(name, help=text)
    @click.argument("names", nargs=-1, metavar="[SESSION]...")
    @click.option("--campaign", help="Every session of this campaign (approve: those pending).")
    @click.option("--all-pending", "everything", is_flag=True, help="Every pending session.")
    @click.option("--by", required=True, help="Who decides.")
    @click.option("--reason", required=True, help="Why.")
    @json_option
    def command(
        names: tuple[str, ...], campaign: str | None, everything: bool, by: str, reason: str, as_json: bool
    ) -> None:
        _decide(decision, names, campaign, everything, by, reason, as_json)

    return command


approve = _decision_command("approve", ApprovalStatus.APPROVED, "Approve sessions: their transmitter is known.")
reject = _decision_command("reject", ApprovalStatus.REJECTED, "Reject sessions, or withdraw an earlier approval.")
