"""Dagster's page on a home, as ``heimdall ui`` opens it, and runs asked for and cancelled in it."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_graphql import DagsterGraphQLClient

from heimdall_assets_tests.servers import find_free_port

START_S = 240.0
STEP_S = 600.0
"""The longest wait for any one thing that a run does: a busy machine loads PyTorch in a minute."""


class Page:
    """An open page: its runs are launched and terminated as by the buttons in it."""

    def __init__(self, port: int, instance: dg.DagsterInstance):
        self.client = DagsterGraphQLClient("127.0.0.1", port_number=port)
        self.instance = instance

    def launch(self, job: str, config: dict[str, Any]) -> str:
        """Return the id of a new run of a job."""
        return self.client.submit_job_execution(job, run_config=config)

    def wait_until_ended(self, run_id: str) -> dg.DagsterRunStatus:
        """Return the status in which a run ended."""
        wait_for(lambda: self.read(run_id).is_finished, f"run {run_id} does not end")
        return self.read(run_id).status

    def read(self, run_id: str) -> dg.DagsterRun:
        """Return a run as it stands."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def list_events(self, run_id: str, kind: dg.DagsterEventType) -> list[Any]:
        """Return a run's events of one kind, in order."""
        return [log.dagster_event for log in self.instance.all_logs(run_id, of_type=kind)]


def wait_for(condition: Any, otherwise: str, wait_s: float = STEP_S) -> None:
    """Return once ``condition()`` holds."""
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)


@contextmanager
def open_page(home: Path, variables: dict[str, str]) -> Iterator[Page]:
    """Give the page on ``home``, whose processes have ``variables`` in their environment; all of them end with it."""
    port, log = find_free_port(), home / "page.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                "from heimdall_assets.cli import main; main()",
                "ui",
                "--port",
                str(port),
            ],
            env={**os.environ, "HEIMDALL_HOME": str(home), **variables},
            cwd=home,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: _answers(port, process, log), "the page did not open", START_S)
        with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
            yield Page(port, instance)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()


def _answers(port: int, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
            return True
    except OSError:
        return False
