"""The page's own process: ``heimdall ui`` starts it as ``python -m heimdall_assets.web`` and ends it.

Belongs here: what is served on which port, and to whom. It is handed both sockets, bound, and reads everything else
from its environment. Does not belong here: the lock, the recovery and the end of the whole group (``cli.serving``).
"""

import asyncio
import logging
import os
import socket
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import click

from heimdall_assets.domain import Role
from heimdall_assets.places import read_places
from heimdall_assets.stores.users import UsersFile, make_secret
from heimdall_assets.web.dagster_page import find_run, open_app, open_instance, read_schema, run_code_server, run_daemon
from heimdall_assets.web.guard import Gate, Guard
from heimdall_assets.web.login import OpenGate, open_login
from heimdall_assets.web.roles import Rules
from heimdall_assets.web.serving import build_server, serve
from heimdall_assets.web.sites import build_lineage_site, build_page_site, read_port
from heimdall_assets.web.visitors import Seals

if TYPE_CHECKING:
    from heimdall_assets.variables import Places


@click.command()
@click.argument("page", type=int)
@click.argument("lineage", type=int)
@click.option("--workspace", help="File that says where a code server runs; a daemon runs elsewhere too.")
@click.option("--read-only", is_flag=True)
def main(page: int, lineage: int, workspace: str | None, read_only: bool) -> None:
    """Serve on the bound sockets whose descriptors are PAGE and LINEAGE."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    places = read_places()
    os.environ.pop("HEIMDALL_SESSION_SECRET", None)  # neither the daemon nor a run has a use for it
    sockets = [socket.socket(fileno=descriptor) for descriptor in (page, lineage)]
    secret = _find_secret(places, read_only)
    gate = _open_gate(places, secret, read_only)
    seals = None if read_only or secret is None else Seals(secret)
    with ExitStack() as stack:
        instance = stack.enter_context(open_instance())
        daemon = None
        if workspace is not None:
            code = ["--workspace", workspace]
        else:
            code = stack.enter_context(run_code_server(instance))
            daemon = stack.enter_context(run_daemon(instance, code))
        apps = {}
        if read_only or places.users is not None:
            apps[Role.AUDITOR] = stack.enter_context(open_app(instance, code, read_only=True))
        if not read_only:
            app = stack.enter_context(open_app(instance, code, read_only=False))
            apps |= {Role.OPERATOR: app, Role.APPROVER: app}
        rules = Rules(read_schema(), find_run(instance))
        hosts = places.allowed_hosts
        sites = {
            read_port(sockets[0]): build_page_site(sockets[0], apps, rules, hosts),
            read_port(sockets[1]): build_lineage_site(sockets[1], places.open_stores, places.lineage_url, hosts, seals),
        }
        ended = asyncio.run(serve(build_server(Guard(sites, gate)), sockets, daemon))
    sys.exit(int(ended))


def _find_secret(places: "Places", read_only: bool) -> str | None:
    """Return what signs logins and forms; None: there are none."""
    if places.users is None and read_only:
        return None
    return places.session_key or make_secret(places.home / "page.secret")


def _open_gate(places: "Places", secret: str | None, read_only: bool) -> Gate:
    if places.users is None or secret is None:
        return OpenGate(Role.AUDITOR if read_only else Role.APPROVER)
    return open_login(UsersFile(places.users), secret, read_only)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # told to stop before it served
        main()
