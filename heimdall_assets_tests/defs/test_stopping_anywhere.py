"""``heimdall train`` ended in each step of the graph in turn, and the page's whole tree while a run of it trains."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster_graphql import DagsterGraphQLClient

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.defs.accelerator import GPU_POOL
from heimdall_assets.defs.settings import SPLITS_OP, build_run_config
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    CHAMPION_MODEL,
    EVALUATION_METRICS,
    IQ_FILES,
    MODEL_RELEASE,
    ONNX_MODEL,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.manifests import Manifest
from heimdall_assets.specs import Spec, TrainingSpec
from heimdall_assets.stores.database.waiting import BUSY_TIMEOUT_S
from heimdall_assets.variables import Places
from heimdall_assets_tests.defs.test_stopping import PROGRAM, Untouched, list_processes, open_instance, run_untouched
from heimdall_assets_tests.homes import TINY, make_places
from heimdall_assets_tests.serving import Page, run_page, wait_for
from heimdall_assets_tests.stores.promises import find_leftovers

pytestmark = [
    pytest.mark.long,
    # Dagster's own client asks in a way that its library deprecates.
    pytest.mark.filterwarnings("ignore:Using variable_values and operation_name:DeprecationWarning"),
]

# Threads are part of the result: the same number in both runs. So long that a page's whole tree ends before it does.
TRAINING = TrainingSpec(max_epochs=60, early_stopping_patience=60, num_threads=1)
CHOSEN: list[Spec] = [*(spec for spec in TINY if not isinstance(spec, TrainingSpec)), TRAINING]
SECONDS = 900.0
STEPS = (
    APPROVED_MEASUREMENTS, IQ_FILES, SPECTROGRAM_FEATURES, SPLITS_OP, TRAINED_CHECKPOINT, EVALUATION_METRICS,
    ONNX_MODEL, MODEL_RELEASE, CHAMPION_MODEL,
)  # fmt: skip
# A release's provenance holds Dagster's own numbers and times, a champion's manifest that of the release.
COMPARED = (
    APPROVED_MEASUREMENTS, IQ_FILES, SPECTROGRAM_FEATURES, TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT, TRAINED_CHECKPOINT,
    EVALUATION_METRICS, ONNX_MODEL,
)  # fmt: skip


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Untouched:
    return run_untouched(tmp_path_factory.mktemp("untouched"), TRAINING)


@pytest.fixture
def places(untouched: Untouched, tmp_path: Path) -> Places:
    """A home like the one before the untouched run."""
    shutil.copytree(untouched.before, tmp_path / "home")
    places = make_places(tmp_path / "home")
    prepare_dagster_home(places)  # there to be looked at before the command makes it
    return places


def start(places: Places, untouched: Untouched, backend: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "train", "--json", "--settings", str(untouched.settings)],
        env={**os.environ, "HEIMDALL_HOME": str(places.home), "HEIMDALL_EXECUTOR": backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def is_in(instance: dg.DagsterInstance, step: str) -> bool:
    kind = dg.DagsterEventType.STEP_START
    # Of a run that has begun: Dagster's own file of one that has not is made by whoever looks first.
    begun = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    return any(log.step_key == step for run in begun for log in instance.all_logs(run.run_id, of_type=kind))


def check_nothing_left(places: Places, *numbers_of_runs: int) -> None:
    """Nobody holds a place, no run seems under way, no unfinished work lies about, and the one release is whole."""
    with open_instance(places) as instance:
        runs = instance.get_runs()
        assert len(runs) in numbers_of_runs
        assert all(run.is_finished for run in runs), [run.status for run in runs]
        info = instance.event_log_storage.get_concurrency_info(GPU_POOL)
        assert (info.active_slot_count, info.pending_steps) == (0, [])
    stores = places.open_stores()
    assert stores.releases.put_right() == []
    assert [record["version"] for record in stores.releases.list_releases()] == ["v1.0.0"]
    assert [path.name for path in stores.releases.files.root.glob("v*")] == ["v1.0.0"]
    assert stores.releases.find_problems("v1.0.0") == []
    assert {stores.releases.resolve(alias) for alias in ("latest", "challenger", "champion")} == {"v1.0.0"}
    assert stores.measurements.check_ledger() == stores.releases.check_ledger() == []
    assert find_leftovers(places.home) == []
    assert list(places.scratch.iterdir()) == []


@pytest.mark.parametrize("backend", ["in_process", "local"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("step", STEPS)
def test_a_command_ended_in_any_step_goes_on_to_the_same(
    step: str, number: signal.Signals, backend: str, untouched: Untouched, places: Places
):
    # Before the command is: Dagster makes its tables for whoever looks first, and two at once fall over each other.
    with open_instance(places) as instance:
        process = start(places, untouched, backend)
        try:
            wait_for(lambda: process.poll() is not None or is_in(instance, step), SECONDS, step, every_s=0.02)
            # As Ctrl+C in a terminal does, to all of its group; SIGKILL to the one.
            (os.killpg if number is signal.SIGINT else os.kill)(process.pid, number)
            _, said = process.communicate(timeout=SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    # The last step may have ended before the signal came.
    expected = {128 + signal.SIGINT if number is signal.SIGINT else -number, 0 if step == CHAMPION_MODEL else -number}
    assert process.returncode in expected, said
    # A step in a process of its own that is interrupted while it still loads says so as Python does.
    assert backend == "local" or "Traceback" not in said, said

    again = start(places, untouched, backend)
    answer, said = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, said
    summary = json.loads(answer)
    assert summary["version"] == untouched.summary["version"]
    for name in COMPARED:
        assert summary["manifests"][name] == untouched.summary["manifests"][name], name
    check_nothing_left(places, 2)
    wait_for(lambda: not list_processes(places.home), BUSY_TIMEOUT_S, "its processes to end", every_s=0.1)


def launch(page: Page) -> str:
    """Return the run asked for as by the button in the page."""
    client = DagsterGraphQLClient("127.0.0.1", port_number=int(page.address.rpartition(":")[2]))
    return client.submit_job_execution("release", run_config=build_run_config(CHOSEN))


def test_a_page_killed_with_all_it_started_goes_on_to_the_same(untouched: Untouched, places: Places):
    settings = {"HEIMDALL_EXECUTOR": "local", "HEIMDALL_RETRAIN": json.dumps({"quiet_period_s": 86400})}
    with run_page(places.home, settings) as page:
        first = launch(page)
        wait_for(lambda: list(places.scratch.glob("*/last.ckpt")), SECONDS, "an epoch to be kept", page.log, 0.1)
        page.kill()
    assert list(places.scratch.glob("*/last.ckpt")), "the training ended before the page did"

    with run_page(places.home, settings) as page, open_instance(places) as instance:
        second = launch(page)
        wait_for(lambda: instance.get_run_by_id(second).is_finished, SECONDS, "the run to end", page.log)
        assert instance.get_run_by_id(second).status is dg.DagsterRunStatus.SUCCESS
        wait_for(lambda: instance.get_run_by_id(first).is_finished, SECONDS, "the killed run to end", page.log)
        assert instance.get_run_by_id(first).status is dg.DagsterRunStatus.FAILURE
        objects = places.open_stores().objects
        for name in COMPARED:
            made = instance.get_latest_materialization_event(dg.AssetKey(name)).asset_materialization
            manifest = Manifest.decode(objects.read_bytes(made.tags["dagster/data_version"]))
            assert manifest.digest == untouched.summary["manifests"][name], name
        page.stop()
    check_nothing_left(places, 2, 3)  # the daemon tries a killed run once more by itself
    assert list_processes(places.home) == []
