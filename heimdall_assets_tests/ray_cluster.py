"""A local Ray with one logical GPU, on 127.0.0.1, for holders of a token; ends with the test."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from heimdall_assets_tests.servers import find_free_port

START_S = 180.0
NUM_STARTS = 3
HOST = """
import signal, sys, time, ray
from ray._private import node, services

# Ray allows its node half a minute and its agents 15 s to start, which a busy machine exceeds, and has no setting for
# it: the node is waited for longer, and its agents start when the dashboard no longer needs the processor.
def find_node(*arguments, find=services.get_node, deadline_s=time.monotonic() + 150.0):
    while True:
        try:
            return find(*arguments)
        except RuntimeError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)

def start_processes(self, start=node.Node.start_ray_processes):
    while busy() > 0.3:
        pass
    start(self)

def busy():
    def count():
        spent = 0.0
        for process in services.psutil.Process().children(recursive=True):
            try:
                spent += sum(process.cpu_times()[:2])
            except services.psutil.Error:
                pass
        return spent
    before = count()
    time.sleep(2.0)
    return (count() - before) / 2.0

services.get_node, node.Node.start_ray_processes = find_node, start_processes
ray.init(num_cpus=2, num_gpus=1, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=int(sys.argv[1]),
         _temp_dir=sys.argv[2], object_store_memory=100_000_000, log_to_driver=False)
print("ready", ray.get_runtime_context().gcs_address, flush=True)
signal.pause()
"""


AS_A_NODE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Named for other systems, heeded on all: the node's address is 127.0.0.1, else Ray takes a reachable one. Whatever
joins such a cluster as a node must hold it too: Ray would look for the cluster at the reachable address."""


@dataclass(frozen=True)
class Cluster:
    """A local Ray: the addresses at which it is reached, and the process that all of it ends with."""

    dashboard: str
    head: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @contextmanager
    def serve_clients(self) -> Iterator[str]:
        """Give the address for machines that are no node; its server ends with the test."""
        port = find_free_port()
        arguments = ["--address", self.head, "--host", "127.0.0.1", "--port", str(port)]
        process = _start_apart(["-m", "ray.util.client.server", *arguments], self.log.with_suffix(".clients"))
        try:
            _wait_for_port(port)
            yield f"ray://127.0.0.1:{port}"
        finally:
            _stop(process)

    def kill(self) -> None:
        """End all of it at once, as a machine that loses power."""
        os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def run_ray(folder: Path) -> Iterator[str]:
    """Give the address of its dashboard; its log is written into ``folder``.

    This process's environment holds the token meanwhile.
    """
    with run_cluster(folder) as cluster:
        yield cluster.dashboard


@contextmanager
def run_cluster(folder: Path) -> Iterator[Cluster]:
    """Give the cluster; its log is written into ``folder``. This process's environment holds the token meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        for attempt in range(NUM_STARTS):
            port, log = find_free_port(), folder / f"ray_{attempt}"
            # A short path of its own: Ray's sockets lie in it, and their names may not be long.
            sockets = Path(f"/tmp/ray-{secrets.token_hex(4)}")
            process = _start_apart(["-c", HOST, str(port), str(sockets)], log)
            try:
                if head := _wait_until_ready(process, log):
                    yield Cluster(f"http://127.0.0.1:{port}", head, process, log)
                    return
            finally:
                _stop(process)
                shutil.rmtree(sockets, ignore_errors=True)
        # Ray's own time limits cannot all be set: on a machine that is too busy it does not come up.
        pytest.fail(f"Ray did not start in {NUM_STARTS} attempts: {log.read_text(errors='replace')[-4000:]}")


def _start_apart(arguments: list[str], log: Path) -> "subprocess.Popen[bytes]":
    settings = {
        # A cancelled step is given time to save; Ray's own 3 s would kill it.
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "120",
        "RAY_agent_register_timeout_ms": "150000",
        **AS_A_NODE,
    }
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", *arguments],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return the address of its head, nothing where it did not come up."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("ready ")]
        if said:
            return said[0].split()[1]
        time.sleep(0.2)
    return ""


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5.0).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
