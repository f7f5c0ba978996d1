"""Sessions: that a browser has logged in, as a signed cookie; a removed user's and a logged-out one are none.

Belongs here: making, reading and ending them. Who somebody is and may is looked up anew with each request, so that a
session says no more than a name. Does not belong here: passwords, the form (``login``).
"""

import hashlib
import secrets
import time

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from heimdall_assets.stores.users import User, UsersFile

SESSION_S = 12 * 3600


class Sessions:
    """The sessions of one page; those that were logged out are remembered until they would have ended."""

    def __init__(self, users: UsersFile, secret: str):
        self._users = users
        self._signer = URLSafeTimedSerializer(
            secret, salt="heimdall session", signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )
        # Pages of other homes on this machine have other ports and the same cookies.
        self.cookie = f"heimdall_{hashlib.sha256(secret.encode()).hexdigest()[:8]}"
        self._ended: dict[str, float] = {}

    def begin(self, user: User, is_secure: bool) -> str:
        """Return the cookie of a new session, as a Set-Cookie header says it."""
        token = self._signer.dumps({"name": user.name, "mark": _mark(user), "id": secrets.token_hex(8)})
        return self._write(str(token), SESSION_S, is_secure)

    def find_user(self, headers: Headers) -> User | None:
        """Return whose session a request is of; None: nobody's."""
        read = self._read(headers)
        user = self._users.list_users().get(read["name"]) if read else None
        # A new password, which is a new hash, ends the sessions of the old one.
        return user if user and read and read["mark"] == _mark(user) else None

    def end(self, headers: Headers, is_secure: bool) -> str:
        """End a request's session; return the cookie that takes the place of its own."""
        read = self._read(headers)
        if read:
            now = time.monotonic()
            self._ended = {name: until for name, until in self._ended.items() if until > now}
            self._ended[read["id"]] = now + SESSION_S
        return self._write("", 0, is_secure)

    def _read(self, headers: Headers) -> dict[str, str] | None:
        try:
            token = cookie_parser(headers.get("cookie", ""))[self.cookie]
            read = self._signer.loads(token, max_age=SESSION_S)
        except (KeyError, BadData):
            return None
        return None if read["id"] in self._ended else dict(read)

    def _write(self, token: str, seconds: int, is_secure: bool) -> str:
        told = f"{self.cookie}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        return f"{told}; Secure" if is_secure else told


def _mark(user: User) -> str:
    return hashlib.sha256(user.password.encode()).hexdigest()[:16]
