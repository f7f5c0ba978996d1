"""Sites: what each of the two ports serves, and the names by which it may be asked for.

Does not belong here: what is let through to them (``guard``), what they serve (``dagster_page``, ``lineage_pages``).
"""

import socket
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp

from heimdall_assets.domain import Role
from heimdall_assets.stores.home import Stores
from heimdall_assets.web.guard import Site
from heimdall_assets.web.lineage_pages import POLICY, build_lineage_app
from heimdall_assets.web.roles import Rules
from heimdall_assets.web.session_pages import SESSIONS
from heimdall_assets.web.visitors import Seals

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def build_page_site(
    bound: socket.socket, apps: Mapping[Role, ASGIApp], rules: Rules, allowed: Iterable[str] = ()
) -> Site:
    """Return Dagster's page on a socket, an application for each role.

    Args:
        allowed: further names that it may be asked for, as a browser's Host header says them.
    """
    return Site(list_hosts(bound, allowed), apps, rules.check)


def build_lineage_site(
    bound: socket.socket,
    open_stores: Callable[[], Stores],
    url: str,
    allowed: Iterable[str] = (),
    seals: Seals | None = None,
) -> Site:
    """Return the pages of releases and sessions on a socket; they may be asked for as ``url`` says.

    Args:
        seals: of the forms by which approvers decide about sessions; None: everything is read only.
    """
    app = build_lineage_app(open_stores, seals)
    forms = frozenset() if seals is None else frozenset({SESSIONS})
    hosts = list_hosts(bound, [*allowed, urlsplit(url).netloc])
    return Site(hosts, dict.fromkeys(Role, app), shows_pictures=True, forms=forms, policy=POLICY)


def read_port(bound: socket.socket) -> int:
    """Return the port that a socket has."""
    return int(bound.getsockname()[1])


def list_hosts(bound: socket.socket, allowed: Iterable[str] = ()) -> frozenset[str]:
    """Return what a request to a socket may call its host: this machine's own names, its address, and the allowed."""
    host, port = bound.getsockname()[:2]
    own = f"[{host}]" if ":" in host else host
    return frozenset({f"{name}:{port}" for name in (*LOOPBACK, own)} | {name.lower() for name in allowed})
