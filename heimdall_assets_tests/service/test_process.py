"""``heimdall serve`` as a process: what it says when it cannot start, and that it finishes what is under way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets_tests.servers import find_free_port
from heimdall_assets_tests.service.cases import Client, make_session
from heimdall_assets_tests.service.running import wait_until
from heimdall_assets_tests.service.test_bounds import head, read_status


def invoke(home: Path, *arguments: str) -> str:
    environment = {"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off"}
    done = CliRunner().invoke(main, ["serve", *arguments], env=environment)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    return line


def test_what_cannot_be_served_is_one_line_and_exit_2(released: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot be had" in invoke(released, "--port", str(taken.getsockname()[1]))
    assert "no key that counts" in invoke(released, "--host", "0.0.0.0")
    assert "expected an address" in invoke(released, "--host", "example.org")
    assert "nothing there yet" in invoke(tmp_path / "none")


@contextmanager
def serve(home: Path):
    port = find_free_port()
    environment = {**os.environ, "HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from heimdall_assets.cli import main; main()", "serve", "--port", str(port), "--json"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip

    def is_ready() -> bool:
        assert process.poll() is None, process.stderr.read().decode()
        try:
            with closing(Client(port)) as client:
                return client.ask("/readyz")[0] == 200
        except OSError:
            return False

    try:
        wait_until(is_ready)
        yield process, port
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_what_is_under_way_is_finished_and_then_it_ends(home: Path, name: signal.Signals) -> None:
    body = json.dumps(make_session()).encode()
    with serve(home) as (process, port), socket.create_connection(("127.0.0.1", port), timeout=20) as asking:
        asking.sendall(head(port, len(body)) + body[:100])
        with closing(Client(port)) as client:
            in_flight: Callable[[], bool] = lambda: "heimdall_in_flight 2.0" in client.ask("/metrics")[1]  # noqa: E731
            wait_until(in_flight)
        process.send_signal(name)
        wait_until(lambda: not accepts(port))
        asking.sendall(body[100:])
        answer = b""
        while chunk := asking.recv(65536):
            answer += chunk
        assert read_status(answer) == 200
        assert process.wait(10.0) == 0
        said, complaints = process.communicate()
        assert json.loads(said)["address"] == f"http://127.0.0.1:{port}"
        assert complaints == b""


def test_a_client_that_never_finishes_holds_nothing_up(home: Path) -> None:
    with serve(home) as (process, port), socket.create_connection(("127.0.0.1", port), timeout=20) as asking:
        asking.sendall(head(port, 1000) + b"{")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20.0) == 0


def accepts(port: int) -> bool:
    time.sleep(0.02)
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
