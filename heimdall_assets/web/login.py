"""Login: who somebody is, by a form and a cookie for browsers, by HTTP Basic for tools; or that nobody is asked.

Belongs here: the addresses ``/login`` and ``/logout``, and the role of each request. Does not belong here: whether a
request may come at all (``guard``, which has judged host and origin before), what a role may (``roles``).
"""

import base64
import binascii
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from heimdall_assets.domain import Role
from heimdall_assets.errors import HeimdallError
from heimdall_assets.stores.users import User, UsersFile
from heimdall_assets.web.guard import FORM, LOGIN, LOGOUT, read_body
from heimdall_assets.web.passwords import Passwords
from heimdall_assets.web.refusals import Refusal
from heimdall_assets.web.sessions import Sessions
from heimdall_assets.web.visitors import Visitor

MAX_FORM_BYTES, FORM_S = 4000, 10.0
MAX_ADDRESS = 2000

_STYLE = (
    "body{font:16px sans-serif;max-width:22em;margin:15vh auto}label,input,button{display:block;width:100%;"
    "box-sizing:border-box;margin:.4em 0}input,button{font:inherit;padding:.5em}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


@dataclass(frozen=True)
class LoginGate:
    """Lets in the users of a file.

    Attributes:
        read_only: everybody is an auditor here, whatever else the file says.
    """

    passwords: Passwords
    sessions: Sessions
    read_only: bool = False

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve the login's own addresses; whether this was one of them."""
        if scope["type"] != "http" or scope["path"] not in (LOGIN, LOGOUT):
            return False
        if scope["method"] != "POST":
            await _send_form(self._find_by_cookie(scope), scope, send)
        elif scope["path"] == LOGOUT:
            await read_body(scope, receive, MAX_FORM_BYTES, FORM_S)
            cookie = self.sessions.end(Headers(scope=scope), _is_secure(scope))
            await _redirect(LOGIN, cookie, send)
        else:
            await self._log_in(scope, receive, send)
        return True

    async def identify(self, scope: Scope) -> Visitor:
        """Return who asks, and in which role.

        Raises:
            Refusal: nobody whom the file names; a browser that opens a page is led to the form.
        """
        headers = Headers(scope=scope)
        user = self._find_by_cookie(scope) or await self._find_by_header(scope, headers)
        if user:
            return Visitor(Role.AUDITOR if self.read_only else user.role, user.name)
        if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            asked = scope["raw_path"].decode("latin-1")[:MAX_ADDRESS]
            raise Refusal(
                HTTPStatus.SEE_OTHER, "login: wanted", [(b"location", f"{LOGIN}?next={quote(asked)}".encode())]
            )
        # A page's own request would make the browser ask for a password in a window of its own.
        told = [] if headers.get("sec-fetch-site") else [(b"www-authenticate", b'Basic realm="heimdall"')]
        raise Refusal(HTTPStatus.UNAUTHORIZED, f"login: found nobody, expected a user; the form is at {LOGIN}", told)

    def _find_by_cookie(self, scope: Scope) -> User | None:
        try:
            return self.sessions.find_user(Headers(scope=scope))
        except HeimdallError as error:
            raise _explain(error) from error

    async def _find_by_header(self, scope: Scope, headers: Headers) -> User | None:
        kind, _, told = headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(told, validate=True).decode().partition(":")
            return await self.passwords.find_tool(name, password, _read_address(scope))
        except (binascii.Error, UnicodeDecodeError):
            return None
        except HeimdallError as error:
            raise _explain(error) from error

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"login: expected {FORM}")
        body = await read_body(scope, receive, MAX_FORM_BYTES, FORM_S)
        try:
            form = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=4)
        except ValueError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "login: found something else, expected a form") from None
        name, password = (form.get(field, [""])[0] for field in ("name", "password"))
        try:
            user = await self.passwords.find_user(name, password, _read_address(scope))
        except HeimdallError as error:
            raise _explain(error) from error
        if user:
            await _redirect(_read_next(form), self.sessions.begin(user, _is_secure(scope)), send)
        else:
            await _send_form(None, scope, send, "No such name and password.", _read_next(form))


@dataclass(frozen=True)
class OpenGate:
    """Everybody who reaches the page has one role: on a laptop, whose user may do everything, or to look only."""

    role: Role

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve nothing: there is no login."""
        return False

    async def identify(self, scope: Scope) -> Visitor:
        """Return somebody of the one role."""
        return Visitor(self.role)


def open_login(users: UsersFile, secret: str, read_only: bool = False) -> LoginGate:
    """Return the login of the users in a file, whose sessions ``secret`` signs."""
    return LoginGate(Passwords(users), Sessions(users, secret), read_only)


def _explain(error: HeimdallError) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"login: nobody can be let in now; {error}")


def _read_address(scope: Scope) -> str:
    return str(scope["client"][0]) if scope["client"] else ""


def _is_secure(scope: Scope) -> bool:
    """Return whether the browser came over TLS, which a proxy before us may have ended; a lie harms the liar alone."""
    headers = Headers(scope=scope)
    return headers.get("origin", "").startswith("https:") or headers.get("x-forwarded-proto") == "https"


def _read_next(form: dict[str, list[str]]) -> str:
    """Return where a browser goes next: a path of this server, and no other server's address."""
    found = form.get("next", ["/"])[0][:MAX_ADDRESS]
    plain = found.isascii() and found.isprintable() and not set('\\ "<>') & set(found)
    return found if plain and found.startswith("/") and not found.startswith("//") else "/"


async def _redirect(path: str, cookie: str, send: Send) -> None:
    headers = [(b"location", path.encode()), (b"set-cookie", cookie.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": int(HTTPStatus.SEE_OTHER), "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _send_form(user: User | None, scope: Scope, send: Send, line: str = "", target: str | None = None) -> None:
    if target is None:
        target = _read_next(parse_qs(scope["query_string"].decode("latin-1")))
    inside = (
        f'<p>{escape(user.name)}, {user.role}. <a href="/">Open the page</a></p>'
        f'<form method="post" action="{LOGOUT}"><button>Log out</button></form>'
        if user
        else f'<p role="alert">{escape(line)}</p><form method="post" action="{LOGIN}">'
        f'<input type="hidden" name="next" value="{escape(target)}">'
        '<label>Name <input name="name" autocomplete="username" autofocus required></label>'
        '<label>Password <input name="password" type="password" autocomplete="current-password" required></label>'
        "<button>Log in</button></form>"
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Heimdall: login</title>'
        f"<style>{_STYLE}</style><h1>Heimdall</h1>{inside}</html>"
    ).encode()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(page)).encode()),
        (b"content-security-policy", _POLICY.encode()),
        (b"cache-control", b"no-store"),
    ]
    status = HTTPStatus.UNAUTHORIZED if line else HTTPStatus.OK
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else page})
