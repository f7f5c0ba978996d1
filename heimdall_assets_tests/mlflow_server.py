"""A real MLflow server on 127.0.0.1, over a database of its own; ends with the test."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from heimdall_assets_tests.servers import die_with_parent, find_free_port

START_S = 180.0
STOP_S = 10.0
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def run_mlflow(folder: Path, store: str, artifacts: Path | None = None) -> Iterator[int]:
    """Give the port of a server whose runs are kept at the address ``store``, ready to be asked.

    Args:
        folder: its log, and its files where ``artifacts`` is None.
        store: address of its database.
        artifacts: folder of the files that it hands out.

    Raises:
        RuntimeError: it did not start; the message holds its log.
    """
    port, log = find_free_port(), folder / "mlflow.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*command, "--artifacts-destination", str(artifacts or folder / "artifacts")],
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "MLFLOW_BACKEND_STORE_URI": store, **QUIET},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        _wait(process, port, log)
        yield port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(f"MLflow: not ready after {START_S} s\n{log.read_text(errors='replace')[-4000:]}")
