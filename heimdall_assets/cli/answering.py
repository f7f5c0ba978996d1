"""``heimdall serve``: released models of a home answer over HTTP.

Belongs here: the address, the numbers that are told, who may listen to other machines. Does not belong here: the
service (``serving``), pages for people (``cli.serving``).
"""

import ipaddress
from typing import TYPE_CHECKING

import click

from heimdall_assets.cli.serving import HOST, bind_port
from heimdall_assets.cli.terminal.homes import open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_text
from heimdall_assets.errors import InvalidSetting, Refused
from heimdall_assets.places import read_places

if TYPE_CHECKING:
    from heimdall_assets.stores.home import Stores

PORT, WORKERS, QUEUE, MAX_MB, ANSWER_S = 3002, 2, 64, 64, 30.0


@click.command(short_help="Have released models answer over HTTP.")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65535))
@click.option("--host", default=HOST, show_default=True, help="Address to listen on; any other needs service keys.")
@click.option(
    "--workers", default=WORKERS, show_default=True, type=click.IntRange(1, 256), help="Threads that compute."
)
@click.option(
    "--queue", default=QUEUE, show_default=True, type=click.IntRange(0, 100_000), help="Requests that wait for them."
)
@click.option("--max-mb", default=MAX_MB, show_default=True, type=click.IntRange(1, 4000), help="Of one request.")
@click.option(
    "--timeout-s", default=ANSWER_S, show_default=True, type=click.FloatRange(0.1, 3600.0), help="For one answer."
)
@json_option
def serve(port: int, host: str, workers: int, queue: int, max_mb: int, timeout_s: float, as_json: bool) -> None:
    """Have the released models of this home answer at /v1/locate, each caller by the one that the rules say now.

    On this machine whoever asks is answered. Other machines reach it with --host, and show a key that
    heimdall service-keys make gave out: Authorization: Bearer KEY.
    """
    stores = open_home()
    wants_key = _check_keys(stores, host)
    from heimdall_assets.serving.app import Door
    from heimdall_assets.serving.bounds import MB, Bounds
    from heimdall_assets.serving.running import run_service
    from heimdall_assets.serving.service import Service
    from heimdall_assets.web.sites import list_hosts

    size = max_mb * MB
    bounds = Bounds(workers, queue, size, max(4 * size, Bounds.max_held_bytes), answer_s=timeout_s)
    with bind_port("service", host, port, "--port") as bound:
        shown = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        hosts = frozenset() if wants_key else list_hosts(bound, read_places().allowed_hosts)
        if as_json:
            write_json({"address": shown, "wants_key": wants_key, "workers": workers})
        else:
            write_text(f"Models answer at {shown}/v1/locate   described: {shown}/openapi.json   end with Ctrl+C")
        run_service(Service(stores, bounds), bound, Door(hosts, wants_key))


def _check_keys(stores: "Stores", host: str) -> bool:
    """Return whether a key must be shown: wherever other machines reach the service.

    Raises:
        InvalidSetting: ``host`` is no address.
        Refused: nobody has a key.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise InvalidSetting(f"--host: found {host!r:.80}, expected an address such as {HOST} or 0.0.0.0") from None
    if address.is_loopback:
        return False
    if not any(key.counts for key in stores.releases.list_service_keys().values()):
        raise Refused(
            f"service: --host {host} shows it to other machines, found no key that counts, expected one before that: "
            "heimdall service-keys make OWNER"
        )
    return True
