"""A home in which jobs of the toy graph run as a user's would, and what Dagster recorded of them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.defs.accelerator import GPU_POOL
from heimdall_assets.running.graph_run import QUIET
from heimdall_assets_tests.defs.toy_graph import JOBS
from heimdall_assets_tests.homes import make_places

ROOT = Path(__file__).resolve().parents[2]


class Toy:
    """A folder with an instance of its own, in which jobs of the toy graph run as a user's would."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.home = prepare_dagster_home(make_places(folder / "home"))
        self.instance = dg.DagsterInstance.from_config(str(self.home))

    def run(self, job: str, config: dict[str, Any] | None = None) -> "Run":
        """Run a job whose executor is this process and whose steps are others."""
        asked = dg.reconstructable(JOBS[job])
        # Dagster keeps the job that it made last, with the settings of the test that ran it.
        type(asked).get_definition.cache_clear()
        type(asked).get_repository_definition.cache_clear()
        made = dg.execute_job(asked, self.instance, run_config={**QUIET, **(config or {})}, raise_on_error=False)
        return Run(self.instance, made.run_id)

    def run_until(self, job: str, name: str, config: dict[str, Any] | None = None) -> "Run":
        """Run a job and cancel it, as the page does, as soon as a step has written file ``name``."""

        def cancel() -> None:
            self.wait_for(name)
            (record,) = self.instance.get_run_records(limit=1)
            self.instance.report_run_canceling(record.dagster_run)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        run = self.run(job, config)
        thread.join()
        return run

    @contextmanager
    def start(self, job: str, config: dict[str, Any] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a job in a process of its own, which is killed (SIGKILL) at the end if it still runs."""
        settings = self.folder / "config.yaml"
        settings.write_text(json.dumps(config or {}))
        program = ["-m", "dagster", "job", "execute", "-m", JOBS[job].__module__, "-j", job, "-c", str(settings)]
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *program],
            cwd=ROOT,
            env={**os.environ, "DAGSTER_HOME": str(self.home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_for(self, name: str, wait_s: float = 90.0) -> str:
        """Return what a step wrote into file ``name``."""
        path = self.folder / name
        deadline = time.monotonic() + wait_s
        while not (path.exists() and path.read_text()):
            assert time.monotonic() < deadline, f"{name} never came"
            time.sleep(0.05)
        return path.read_text()

    def forget(self) -> None:
        """Remove what steps of earlier runs wrote."""
        for left in self.folder.glob("*.*"):
            left.unlink()

    def find_runs(self, job: str, limit: int) -> list["Run"]:
        """Return the latest runs of a job."""
        records = self.instance.get_run_records(dg.RunsFilter(job_name=job), limit=limit)
        return [Run(self.instance, record.dagster_run.run_id) for record in records]

    def mark_killed_run(self) -> None:
        """Do what a page's daemon does once it sees that the latest run's process is gone: fail it, free its slots."""
        (record,) = self.instance.get_run_records(limit=1)
        self.instance.report_run_failed(record.dagster_run)
        self.instance.event_log_storage.free_concurrency_slots_for_run(record.dagster_run.run_id)

    def count_taken_slots(self) -> int:
        return self.instance.event_log_storage.get_concurrency_info(GPU_POOL).active_slot_count


class Run:
    """What Dagster recorded of a run."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str):
        self.logs = [log.dagster_event for log in instance.all_logs(run_id) if log.dagster_event is not None]
        run = instance.get_run_by_id(run_id)
        assert run is not None
        self.run_id = run_id
        self.status = run.status

    def facts(self, asset: str) -> dict[str, Any]:
        for event in self.logs:
            if event.is_step_materialization and event.asset_key == dg.AssetKey(asset):
                metadata = event.step_materialization_data.materialization.metadata
                return {name: value.value for name, value in metadata.items()}
        raise AssertionError(f"{asset} was not materialized: {[event.message for event in self.logs]}")

    def tell(self) -> list[str]:
        """Return everything that was said, for a test that failed."""
        return [f"{event.event_type_value}: {event.message} {event.event_specific_data}" for event in self.logs]

    def messages(self, kind: dg.DagsterEventType) -> list[str]:
        found = [event for event in self.logs if event.event_type == kind]
        return [str(getattr(event.event_specific_data, "error", None) or event.message) for event in found]


@contextmanager
def open_toy(folder: Path) -> Iterator[Toy]:
    """Give a toy whose steps' processes find the graph and its folder."""
    toy = Toy(folder)
    with pytest.MonkeyPatch.context() as patch, toy.instance:
        patch.setenv("TOY_FOLDER", str(folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        yield toy
