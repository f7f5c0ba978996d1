"""A local Ray with one logical GPU, on 127.0.0.1, for holders of a token; ends with the test."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
print("ready", flush=True)
signal.pause()
"""


@contextmanager
def run_ray(folder: Path) -> Iterator[str]:
    """Give the address of its dashboard; its log is written into ``folder``.

    This process's environment holds the token meanwhile.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        for attempt in range(NUM_STARTS):
            port, log = find_free_port(), folder / f"ray_{attempt}"
            # A short path of its own: Ray's sockets lie in it, and their names may not be long.
            sockets = Path(f"/tmp/ray-{secrets.token_hex(4)}")
            process = _start(port, sockets, log)
            try:
                if _wait_until_ready(process, log):
                    yield f"http://127.0.0.1:{port}"
                    return
            finally:
                _stop(process)
                shutil.rmtree(sockets, ignore_errors=True)
        # Ray's own time limits cannot all be set: on a machine that is too busy it does not come up.
        pytest.fail(f"Ray did not start in {NUM_STARTS} attempts: {log.read_text(errors='replace')[-4000:]}")


def _start(port: int, sockets: Path, log: Path) -> "subprocess.Popen[bytes]":
    settings = {
        # A cancelled step is given time to save; Ray's own 3 s would kill it.
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "120",
        "RAY_agent_register_timeout_ms": "150000",
        # Named for other systems, heeded on all: the node's address is 127.0.0.1, else Ray takes a reachable one.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", HOST, str(port), str(sockets)],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if "ready" in log.read_text(errors="replace").splitlines():
            return True
        time.sleep(0.2)
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
