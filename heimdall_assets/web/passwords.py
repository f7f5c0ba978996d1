"""Passwords: whether one is somebody's, in the same time for a name that nobody has, and slower with each wrong guess.

Belongs here: hashing (Argon2), counting and delaying guesses. Nothing that was typed is logged but the name of a user
who is one: people type passwords into the wrong field. Does not belong here: where hashes rest (``stores.users``), how
somebody is asked (``login``).
"""

import hmac
import logging
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.stores.users import User, UsersFile
from heimdall_assets.web.refusals import Refusal

MIN_CHARACTERS, MAX_CHARACTERS = 12, 256
AT_ONCE = 2
"""Hashes computed at the same time, 64 MiB each."""
FREE_OF_PAIR, FREE_OF_NAME, FREE_OF_ADDRESS = 5, 20, 50
"""Wrong guesses without a wait: of one name from one address, of one name, from one address."""
LONGEST_WAIT_S = 60.0
FORGET_S = 900.0
MAX_KEYS = 10_000
REMEMBER_S = 300.0
"""A tool that sends its password with each request is asked for its hash this often."""

_LOGGER = logging.getLogger("heimdall_assets.web")
_HASHER = PasswordHasher()

Key = tuple[str, ...]


def hash_password(password: str) -> str:
    """Return the Argon2 hash of a password.

    Raises:
        InvalidSetting: it is too short or too long.
    """
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise InvalidSetting(
            f"password: found {len(password)} characters, expected {MIN_CHARACTERS} to {MAX_CHARACTERS}"
        )
    return _HASHER.hash(password)


class Guesses:
    """Wrong guesses of late, and how long whoever made them waits before the next."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._wrong: dict[Key, tuple[int, float]] = {}

    def begin(self, name: str, address: str) -> None:
        """Count a guess, as wrong until it is known to be right.

        Raises:
            Refusal: too many were wrong; it says how many seconds to wait.
        """
        now = self._clock()
        for key, free in _list_keys(name, address).items():
            count, last = self._wrong.get(key, (0, now))
            if now - last > FORGET_S:
                del self._wrong[key]
            elif count >= free and (left := min(2.0 ** (count - free), LONGEST_WAIT_S) - (now - last)) > 0:
                seconds = int(left) + 1
                raise Refusal(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"login: found {count} wrong passwords of late, expected a wait of {seconds} s before the next",
                    [(b"retry-after", str(seconds).encode())],
                )
        for key in _list_keys(name, address):
            self._wrong[key] = (self._wrong.pop(key, (0, now))[0] + 1, now)  # the latest stand last
        while len(self._wrong) > MAX_KEYS:
            del self._wrong[next(iter(self._wrong))]

    def count(self, name: str, address: str) -> int:
        """Return how many guesses of a name from an address were wrong of late."""
        return self._wrong.get((name, address), (0, 0.0))[0]

    def forgive(self, name: str, address: str) -> None:
        """Say that the guess just begun was right."""
        for key in _list_keys(name, address):
            count, last = self._wrong.pop(key, (1, 0.0))
            if count > 1 and key != (name, address):
                self._wrong[key] = (count - 1, last)


def _list_keys(name: str, address: str) -> dict[Key, int]:
    return {
        (name, address): FREE_OF_PAIR,
        ("name", name, ""): FREE_OF_NAME,
        ("address", address, ""): FREE_OF_ADDRESS,
    }


class Passwords:
    """Whose password one is."""

    def __init__(self, users: UsersFile, clock: Callable[[], float] = time.monotonic):
        self.users = users
        self.guesses = Guesses(clock)
        self._clock = clock
        self._limiter = CapacityLimiter(AT_ONCE)
        self._nobodys = _HASHER.hash(secrets.token_hex())
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, tuple[str, float]] = {}

    async def find_user(self, name: str, password: str, address: str) -> User | None:
        """Return the user whose name and password these are; None: nobody's.

        Raises:
            Refusal: too many guesses were wrong.
        """
        self.guesses.begin(name, address)
        user = self.users.list_users().get(name)
        told = user.password if user else self._nobodys
        typed = password if len(password) <= MAX_CHARACTERS else ""
        right = await to_thread.run_sync(_verify, told, typed, limiter=self._limiter)
        if user and right:
            self.guesses.forgive(name, address)
            return user
        who = name if user else "a name that nobody has"
        _LOGGER.warning("login: wrong password for %s, %d of late", who, self.guesses.count(name, address))
        return None

    async def find_tool(self, name: str, password: str, address: str) -> User | None:
        """Return the same, without a hash for each request of a tool that was right a moment ago."""
        mark = hmac.digest(self._key, f"{len(name)}:{name}{password}".encode(), "sha256")
        user = self.users.list_users().get(name)
        told, at = self._right.get(mark, ("", 0.0))
        if user and told == user.password and self._clock() - at < REMEMBER_S:
            return user
        user = await self.find_user(name, password, address)
        if user:
            if len(self._right) >= MAX_KEYS:
                self._right.clear()
            self._right[mark] = (user.password, self._clock())
        return user


def _verify(told: str, password: str) -> bool:
    try:
        return _HASHER.verify(told, password)
    except (VerificationError, InvalidHashError):
        return False
