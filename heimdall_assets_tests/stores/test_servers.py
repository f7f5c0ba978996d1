"""The throw-away PostgreSQL: it never outlives the tests, and says why where it does not start."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from heimdall_assets_tests import servers
from heimdall_assets_tests.servers import PostgresServer

PROGRAM = """
import sys, time
from heimdall_assets_tests.servers import run_postgres
with run_postgres() as server:
    print(server.port, server.folder, flush=True)
    time.sleep(100)
"""


def find_server(port: int) -> list[int]:
    """Processes whose command line names the port."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"port={port}".encode() in words:
            found.append(int(folder.name))
    return found


@pytest.mark.usefixtures("postgres")  # which skips where there are no binaries
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_the_process_that_started_it(end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        word, folder = process.stdout.readline().split()
        port = int(word)
        assert find_server(port)
        os.kill(process.pid, end)
    deadline = time.monotonic() + 20
    while find_server(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert find_server(port) == []
    shutil.rmtree(folder, ignore_errors=True)  # a killed process cleans nothing


def test_databases_are_fresh_copies(postgres: PostgresServer) -> None:
    one, two = postgres.create_database(), postgres.create_database()
    assert one != two
    for name in (one, two):
        postgres.drop_database(name)


def test_a_server_that_cannot_start_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where the server's user can reach it
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "initdb").write_text("#!/bin/sh\necho the reason why >&2\nexit 3\n")
        (folder / "initdb").chmod(0o755)
        monkeypatch.setenv("HEIMDALL_PG_BIN", name)
        with pytest.raises(RuntimeError, match="the reason why"), servers.run_postgres():
            pass
