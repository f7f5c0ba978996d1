"""Users of the page at rest: names, roles and hashes of passwords, and the secret that signs sessions.

Belongs here: one JSON file that its owner alone may read, replaced whole, and the secret beside a home. Does not belong
here: hashing and asking for passwords (``web.passwords``), what a role may (``web.roles``).
"""

import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from heimdall_assets.domain import Role
from heimdall_assets.errors import InvalidIdentifier, InvalidSetting, NotFound, Refused, StorageError
from heimdall_assets.stores.locks import hold_lock
from heimdall_assets.stores.objects.files import describe
from heimdall_assets.stores.objects.regular_files import read_regular_file
from heimdall_assets.stores.plain_files import write_private_file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SECRET_BYTES = 32


@dataclass(frozen=True)
class User:
    """Somebody who may come in.

    Attributes:
        password: its Argon2 hash, as that format writes itself.
    """

    name: str
    role: Role
    password: str


class UsersFile:
    """The file that ``HEIMDALL_USERS`` names."""

    def __init__(self, path: Path):
        self.path = path
        self._read: tuple[tuple[int, ...], dict[str, User]] | None = None

    def list_users(self) -> dict[str, User]:
        """Return the users by name; the file is read again when it was replaced.

        Raises:
            NotFound: there is no such file.
            InvalidSetting: others may read it, or it does not hold users.
        """
        try:
            found = os.stat(self.path)
            mark = (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)
            if self._read is None or self._read[0] != mark:
                _check_private(self.path, found.st_mode)
                self._read = mark, _parse(self.path, read_regular_file(self.path))
        except FileNotFoundError:
            raise NotFound(f"users {self.path}: found no file; heimdall users add NAME --role ROLE makes it") from None
        except OSError as error:
            raise StorageError(f"users {self.path}: could not be read ({describe(error)})") from error
        return self._read[1]

    def add(self, user: User) -> None:
        """Store one more user; the file is made where there is none.

        Raises:
            InvalidIdentifier: the name cannot be one.
            Refused: there is such a user.
        """
        if not _NAME.fullmatch(user.name):
            raise InvalidIdentifier(
                f"user name {user.name!r:.80}: expected 1 to 64 letters, digits or . _ @ -, starting with a letter or "
                "digit"
            )
        with self._change() as users:
            if user.name in users:
                raise Refused(f"user {user.name}: is there already; heimdall users remove {user.name} comes first")
            users[user.name] = user

    def remove(self, name: str) -> None:
        """Store the users without one, who is let in no more.

        Raises:
            NotFound: there is no such user.
        """
        with self._change() as users:
            if name not in users:
                raise NotFound(f"user {name!r:.80}: found no such user in {self.path}")
            del users[name]

    @contextmanager
    def _change(self) -> Iterator[dict[str, User]]:
        with hold_lock(self.path.with_name(f"{self.path.name}.lock"), f"process {os.getpid()}"):
            users = dict(self.list_users()) if self.path.exists() else {}
            yield users
            rows = [asdict(user) for _, user in sorted(users.items())]
            write_private_file(self.path, f"{json.dumps({'users': rows}, indent=2)}\n".encode())


def make_secret(path: Path) -> str:
    """Return the secret in the file ``path``, which is made with a new one where there is none.

    Raises:
        InvalidSetting: others may read it, or it is too short.
    """
    if not path.exists():
        with hold_lock(path.with_name(f"{path.name}.lock"), f"process {os.getpid()}"):
            if not path.exists():
                write_private_file(path, f"{secrets.token_hex(SECRET_BYTES)}\n".encode())
    try:
        _check_private(path, os.stat(path).st_mode)
        found = read_regular_file(path).decode("ascii", "replace").strip()
    except OSError as error:
        raise StorageError(f"secret {path}: could not be read ({describe(error)})") from error
    if len(found) < SECRET_BYTES:
        raise InvalidSetting(f"secret {path}: found {len(found)} characters, expected at least {SECRET_BYTES}")
    return found


def _check_private(path: Path, mode: int) -> None:
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidSetting(f"{path}: found mode {stat.S_IMODE(mode):o}, expected 600: it is its owner's alone")


def _parse(path: Path, data: bytes) -> dict[str, User]:
    try:
        rows = json.loads(data)["users"]
        users = [User(row["name"], Role(row["role"]), row["password"]) for row in rows]
        if not all(_NAME.fullmatch(user.name) and user.password.startswith("$argon2") for user in users):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        roles = ", ".join(Role)
        raise InvalidSetting(
            f"users {path}: found something else, expected a list of name, role ({roles}) and Argon2 hash"
        ) from None
    if len({user.name for user in users}) < len(users):
        raise InvalidSetting(f"users {path}: found a name twice, expected each once")
    return {user.name: user for user in users}
