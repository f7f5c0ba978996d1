"""Guard: whether a request may reach a page at all, judged by its head, its origin, its kind, its size and its role.

A page that only this machine can reach is still within reach of every site that its user looks at: a browser sends
requests there on behalf of others, and a name of theirs may be made to point here. So a request must name this server,
what changes something must come from this server's own pages, and GraphQL comes as JSON, which no foreign form sends.

Belongs here: the order of these judgements. Does not belong here: who somebody is (``login``), what a role may
(``roles``), slow clients (``connections``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heimdall_assets.domain import Role
from heimdall_assets.web.refusals import Refusal, send_refusal
from heimdall_assets.web.visitors import Visitor

GRAPHQL = "/graphql"
LOGIN, LOGOUT = "/login", "/logout"
"""Answered by the gate, on every site."""
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
MAX_BODY_BYTES = 1_000_000
BODY_S = 20.0
"""For a whole body to come, however it dribbles."""
MAX_SOCKETS = 64
"""Open websockets of all clients together; a browser's page holds one."""
SOCKET_S = 3600.0
"""After which one ends, and the page opens the next: whoever may no longer look is let in no more."""

SECURITY_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
FRAMES = "frame-ancestors 'none'"


@dataclass(frozen=True)
class Site:
    """The pages of one port.

    Attributes:
        hosts: what a request may name as its host, in lower case, with the port where the address has one.
        apps: role -> what serves it.
        check: (role, scope, body) lets pass what the role may, and raises ``Refusal``; None: nothing can be changed.
        shows_pictures: pages of other addresses may show pictures from here.
        forms: paths to which pages of this site send forms, which its application judges.
        policy: a Content-Security-Policy for every answer, beside what the page says itself.
    """

    hosts: frozenset[str]
    apps: Mapping[Role, ASGIApp]
    check: Callable[[Role, Scope, bytes], Awaitable[None]] | None = None
    shows_pictures: bool = False
    forms: frozenset[str] = frozenset()
    policy: str = FRAMES


class Gate(Protocol):
    """Who somebody is."""

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve the gate's own addresses (login, logout); whether this was one of them."""

    async def identify(self, scope: Scope) -> Visitor:
        """Return who asks, and in which role; raises ``Refusal``."""


@dataclass
class Guard:
    """An ASGI application: the site of the port that was asked, for whoever may.

    Attributes:
        sites: port of this machine -> what is served there.
    """

    sites: Mapping[int, Site]
    gate: Gate
    max_body_bytes: int = MAX_BODY_BYTES
    body_s: float = BODY_S
    _sockets: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one websocket."""
        site = self.sites[scope["server"][1]]
        guarded = _add_headers(send, site)
        try:
            await self._serve(site, scope, receive, guarded)
        except Refusal as refusal:
            await send_refusal(refusal, scope, guarded)

    async def _serve(self, site: Site, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        check_host(headers, site.hosts)
        check_request(scope, site)
        check_origin(scope, headers, site)
        if await self.gate.answer(scope, receive, send):
            return
        visitor = await self.gate.identify(scope)
        scope["user"] = visitor
        app = site.apps[visitor.role]
        if scope["type"] == "websocket":
            await self._serve_socket(app, scope, receive, send)
            return
        check_content(scope, headers, site)
        body = await read_body(scope, receive, self.max_body_bytes, self.body_s)
        if site.check is not None:
            await site.check(visitor.role, scope, body)
        await app(scope, _replay(body, receive), send)

    async def _serve_socket(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if self._sockets >= MAX_SOCKETS:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"websocket: found {MAX_SOCKETS} open, expected fewer")
        self._sockets += 1
        try:
            async with asyncio.timeout(SOCKET_S):
                await app(scope, receive, send)
        except TimeoutError:
            await send({"type": "websocket.close", "code": 1001})
        finally:
            self._sockets -= 1


def check_host(headers: Headers, hosts: frozenset[str]) -> None:
    """Let pass what names this server; a foreign name that was made to point here is refused."""
    found = headers.getlist("host")
    if len(found) != 1 or found[0].lower() not in hosts:
        named = ", ".join(repr(name[:60]) for name in found) or "none"
        raise Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"host: found {named}, expected a name of this server (HEIMDALL_ALLOWED_HOSTS adds some)",
        )


def check_request(scope: Scope, site: Site) -> None:
    """Let pass paths and methods that pages have; a query of GraphQL never stands in an address, which is logged."""
    if not scope["path"].startswith("/"):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"path: found {scope['path'][:60]!r}, expected one that begins with /")
    if "query" in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True) and _is_graphql(scope):
        raise Refusal(HTTPStatus.FORBIDDEN, f"GraphQL: found a query in the address, expected it as {JSON} in a POST")
    if scope["type"] == "websocket":
        if site.check is None:
            raise Refusal(HTTPStatus.FORBIDDEN, "websocket: there is none here")
        return
    takes_posts = site.check is not None or scope["path"] in (LOGIN, LOGOUT, *site.forms)
    allowed = ("GET", "HEAD", "POST") if takes_posts else ("GET", "HEAD")
    if scope["method"] not in allowed:
        told = [(b"allow", ", ".join(allowed).encode())]
        line = f"method: found {scope['method'][:20]}, expected {' or '.join(allowed)}"
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, line, told)


def check_origin(scope: Scope, headers: Headers, site: Site) -> None:
    """Let pass what no other site asked for: a browser says in these headers who did; other programs send neither."""
    reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    origin, fetched = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if not reads and origin is not None and not _is_own(origin, site.hosts):
        raise Refusal(HTTPStatus.FORBIDDEN, f"origin: found {origin[:60]!r}, expected a page of this server")
    if fetched in ("same-origin", "none"):
        return
    kind = headers.get("sec-fetch-dest")
    opens = headers.get("sec-fetch-mode") == "navigate" and kind == "document"
    if not (reads and (opens or (site.shows_pictures and kind == "image"))):
        raise Refusal(
            HTTPStatus.FORBIDDEN, f"origin: found a {fetched[:20]} request, expected one of this server's own"
        )


def _is_own(origin: str, hosts: frozenset[str]) -> bool:
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc in hosts and not parts.path


def check_content(scope: Scope, headers: Headers, site: Site) -> None:
    """Let pass JSON alone: it is what a foreign page's form or script cannot send without being asked first.

    Where the site's own forms come, a form: those carry a seal that no foreign page has.
    """
    if scope["method"] != "POST":
        return
    wanted = FORM if scope["path"] in site.forms else JSON
    found = headers.getlist("content-type")
    kind = found[0].partition(";")[0].strip().lower() if len(found) == 1 else ""
    if kind != wanted:
        named = ", ".join(repr(text[:60]) for text in found) or "none"
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content type: found {named}, expected {wanted}")
    if headers.get("content-encoding"):
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content encoding: found one, expected plain {wanted}")


async def read_body(scope: Scope, receive: Receive, max_bytes: int, seconds: float) -> bytes:
    """Return a request's whole body.

    Raises:
        Refusal: it is larger than ``max_bytes``, does not come within ``seconds``, or its sender has gone.
    """
    stated = Headers(scope=scope).get("content-length", "0")
    too_large = Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: found more than {max_bytes} bytes, expected at most these"
    )
    if not stated.isdecimal() or int(stated) > max_bytes:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refusal(HTTPStatus.BAD_REQUEST, "body: found its sender gone, expected all of it")
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > max_bytes:
                    raise too_large
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        line = f"body: found a part within {seconds:g} s, expected all of it"
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, line) from None


def _is_graphql(scope: Scope) -> bool:
    return bool(scope["path"].rstrip("/") == GRAPHQL)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives ``body`` once more."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _add_headers(send: Send, site: Site) -> Callable[[Message], Awaitable[None]]:
    async def send_with_headers(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            headers.append("Content-Security-Policy", site.policy)
        await send(message)

    return send_with_headers
