"""A command that is stopped or killed while it trains: what it leaves, and that the same command then ends the same."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.defs.accelerator import GPU_POOL
from heimdall_assets.defs.orphans import tag_process
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import TINY, fill_home, make_places, release
from heimdall_assets_tests.serving import wait_for

# Threads are part of the result: the same number in both runs.
TRAINING = TrainingSpec(max_epochs=25, early_stopping_patience=25, num_threads=1)
COMPARED = ("trained_checkpoint", "evaluation_metrics", "onnx_model")
PROGRAM = "import sys; from heimdall_assets.cli import main; main(sys.argv[1:])"
SECONDS = 300.0


@dataclass(frozen=True)
class Untouched:
    """What a run that nobody touched made, a copy of its home from before it, and its settings as a file."""

    before: Path
    summary: dict[str, Any]
    settings: Path


def run_untouched(folder: Path, training: TrainingSpec) -> Untouched:
    """Take a new home below ``folder`` to its release while nobody touches it."""
    places = fill_home(folder / "home")
    shutil.copytree(folder / "home", folder / "before")
    return Untouched(folder / "before", release(places, training), write_settings(folder, training))


def write_settings(folder: Path, training: TrainingSpec) -> Path:
    """Return a file with the settings of such a run."""
    chosen = {type(spec): spec for spec in [*TINY, training]}
    settings = folder / "settings.yaml"
    settings.write_text(yaml.safe_dump({kind.__name__: spec.dump() for kind, spec in chosen.items()}))
    return settings


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Untouched:
    return run_untouched(tmp_path_factory.mktemp("untouched"), TRAINING)


@pytest.fixture
def places(untouched: Untouched, tmp_path: Path) -> Places:
    """A home like the one before the untouched run."""
    shutil.copytree(untouched.before, tmp_path / "home")
    return make_places(tmp_path / "home")


@contextmanager
def train(places: Places, untouched: Untouched, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """Give ``heimdall train`` as a user would run it, in a terminal's process group; nothing of it stays."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "train", "--json", "--settings", str(untouched.settings)],
        env={**os.environ, "HEIMDALL_HOME": str(places.home), "HEIMDALL_TRACKING": "off", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_epochs(places: Places) -> None:
    wait_for(lambda: list(places.scratch.glob("*/last.ckpt")), SECONDS, "an epoch to be kept", every_s=0.02)


def list_processes(home: Path) -> list[int]:
    """Every process, whoever started it, that works on this home."""
    mark, found = f"HEIMDALL_HOME={home}".encode(), []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@contextmanager
def open_instance(places: Places) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        yield instance


def check_same(untouched: Untouched, summary: dict[str, Any]) -> None:
    for name in COMPARED:
        assert summary["manifests"][name] == untouched.summary["manifests"][name], name
    assert summary["version"] == untouched.summary["version"]


def finish(places: Places, untouched: Untouched) -> str:
    """Run the same command again, to its end; return what it said beside its answer."""
    with train(places, untouched) as process:
        answer, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    check_same(untouched, json.loads(answer))
    assert list(places.scratch.iterdir()) == []
    with open_instance(places) as instance:
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).active_slot_count == 0
    return said


@pytest.mark.parametrize(
    ("number", "backend"),
    [
        (signal.SIGINT, "in_process"),
        pytest.param(signal.SIGTERM, "in_process", marks=pytest.mark.long),
        pytest.param(signal.SIGINT, "local", marks=pytest.mark.long),
    ],
)
def test_a_stopped_training_keeps_what_it_has_and_goes_on(
    untouched: Untouched, places: Places, number: signal.Signals, backend: str
):
    with train(places, untouched, HEIMDALL_EXECUTOR=backend) as process:
        wait_for_epochs(places)
        # As Ctrl+C in a terminal does, to all of its group; `kill` to the one.
        (os.killpg if number is signal.SIGINT else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == "Stopped. What was done is kept; the same command goes on from there."
    assert "Traceback" not in said, said
    wait_for(lambda: not list_processes(places.home), 20.0, "its processes to end", every_s=0.1)
    with open_instance(places) as instance:
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.CANCELED
        assert not instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).active_slot_count == 0
    (kept,) = places.scratch.iterdir()
    assert {"last.ckpt", "on_exception.ckpt"} <= {path.name for path in kept.iterdir()}
    assert "is gone" not in finish(places, untouched)


@pytest.mark.parametrize("backend", ["in_process", pytest.param("local", marks=pytest.mark.long)])
def test_a_killed_training_costs_the_next_command_one_line(untouched: Untouched, places: Places, backend: str):
    with train(places, untouched, HEIMDALL_EXECUTOR=backend) as process:
        wait_for_epochs(places)
        process.kill()
        process.communicate(timeout=SECONDS)
    with open_instance(places) as instance:
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.STARTED  # nobody could tell
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).active_run_ids == {run.run_id}
    said = finish(places, untouched)
    assert f"run {run.run_id}: process {process.pid} of this run is gone" in said
    with open_instance(places) as instance:
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
    assert list_processes(places.home) == []


def test_a_run_that_waits_says_for_whom_and_obeys(untouched: Untouched, places: Places):
    """The place in the pool is held by a run that lives: this test's own process."""
    prepare_dagster_home(places)
    with open_instance(places) as instance:
        holder = instance.create_run_for_job(dg.job(name="release")(lambda: None), tags=tag_process())
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(GPU_POOL)
        assert storage.claim_concurrency_slot(GPU_POOL, holder.run_id, "trained_checkpoint").is_claimed
        with train(places, untouched) as process:
            line = next(line for line in process.stderr if "waits" in line)
            assert line.strip() == (
                f"trained_checkpoint waits for its place in pool gpu: held by run {holder.run_id} "
                f"(process {os.getpid()} of this machine)"
            )
            process.terminate()
            began_s = time.monotonic()
            process.communicate(timeout=SECONDS)
            took_s = time.monotonic() - began_s
        assert process.returncode == 128 + signal.SIGTERM
        assert took_s < 10.0  # two, and what a busy machine adds
        assert storage.get_concurrency_info(GPU_POOL).active_run_ids == {holder.run_id}
        assert {step.run_id for step in storage.get_concurrency_info(GPU_POOL).pending_steps} <= {holder.run_id}


@pytest.mark.long
def test_a_second_signal_ends_at_once(untouched: Untouched, places: Places):
    with train(places, untouched) as process:
        wait_for_epochs(places)
        process.send_signal(signal.SIGINT)
        assert re.search("Stopping: what is done is kept", next(line for line in process.stderr if "Stopping" in line))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    finish(places, untouched)
