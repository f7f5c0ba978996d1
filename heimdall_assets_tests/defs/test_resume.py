"""A training cancelled in the page goes on in the next run, to the bytes of one that nobody touched."""

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heimdall_assets.defs.accelerator import GPU_POOL
from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.manifests import Manifest
from heimdall_assets.running.graph_run import run_graph
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import TINY, fill_home, make_places, release
from heimdall_assets_tests.page import Page, open_page, wait_for
from heimdall_assets_tests.ray_cluster import run_ray

pytestmark = [
    pytest.mark.long,
    # Dagster's own client asks in a way that its library deprecates.
    pytest.mark.filterwarnings("ignore:Using variable_values and operation_name:DeprecationWarning"),
]

# Threads are part of the result: the same number in both runs.
TRAINING = TrainingSpec(max_epochs=150, early_stopping_patience=150, num_threads=1)
ASKED = build_run_config([*(spec for spec in TINY if not isinstance(spec, TrainingSpec)), TRAINING])
KEY = dg.AssetKey("trained_checkpoint")
COMPARED = ("trained_checkpoint", "evaluation_metrics", "onnx_model")


@dataclass(frozen=True)
class Untouched:
    """What a run that nobody touched made, and a copy of its home from before it."""

    before: Path
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Untouched:
    folder = tmp_path_factory.mktemp("untouched")
    places = fill_home(folder / "home")
    shutil.copytree(folder / "home", folder / "before")
    return Untouched(folder / "before", release(places, TRAINING))


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "ray" and importlib.util.find_spec("dagster_ray") is None:
        pytest.skip("dagster-ray is not installed: heimdall-assets[ray]")
    return request.param


@pytest.fixture
def opened(untouched: Untouched, backend: str, tmp_path: Path) -> Iterator[tuple[Page, Places]]:
    """The page on a home like the one before the untouched run, with the backend chosen by environment."""
    shutil.copytree(untouched.before, tmp_path / "home")
    variables = {"HEIMDALL_EXECUTOR": backend, "HEIMDALL_RETRAIN": '{"quiet_period_s": 86400}'}
    with ExitStack() as stack:
        if backend == "ray":
            variables["HEIMDALL_RAY_ADDRESS"] = stack.enter_context(run_ray(tmp_path))
        yield stack.enter_context(open_page(tmp_path / "home", variables)), make_places(tmp_path / "home")


def count_epochs(page: Page, run_id: str) -> int:
    return len(page.list_events(run_id, dg.DagsterEventType.ASSET_OBSERVATION))


def tell_places(page: Page, run_id: str) -> dict[str, str]:
    """Step -> what was said of where it began, last."""
    return {
        event.step_key: event.message for event in page.list_events(run_id, dg.DagsterEventType.STEP_WORKER_STARTING)
    }


def count_taken_slots(page: Page) -> int:
    return page.instance.event_log_storage.get_concurrency_info(GPU_POOL).active_slot_count


def check_places(told: dict[str, str], backend: str) -> None:
    training = told.pop("trained_checkpoint")
    assert ("Ray job" in training) == (backend == "ray"), training
    assert len(told) >= 3
    assert all("of this machine" in text for text in told.values()), told


def kill_training(page: Page, run_id: str) -> None:
    """SIGKILL the process that trains, and return when another trains in its place."""
    (event,) = [
        event
        for event in page.list_events(run_id, dg.DagsterEventType.STEP_WORKER_STARTING)
        if event.step_key == "trained_checkpoint"
    ]
    os.kill(int(event.event_specific_data.metadata["pid"].value), signal.SIGKILL)
    wait_for(lambda: page.list_events(run_id, dg.DagsterEventType.STEP_RESTARTED), "the killed step is not tried again")
    seen = count_epochs(page, run_id)
    wait_for(lambda: count_epochs(page, run_id) >= seen + 2, "the step tried again does not train")


def test_a_cancelled_training_goes_on_to_the_bytes_of_an_untouched_one(
    untouched: Untouched, opened: tuple[Page, Places], backend: str
):
    page, places = opened
    first = page.launch("release", ASKED)
    wait_for(lambda: count_epochs(page, first) >= 2 or page.read(first).is_finished, "no epoch came")
    assert not page.read(first).is_finished, page.list_events(first, dg.DagsterEventType.STEP_FAILURE)
    if backend == "local":
        kill_training(page, first)
    page.client.terminate_run(first)
    assert page.wait_until_ended(first) is dg.DagsterRunStatus.CANCELED
    assert count_epochs(page, first) < TRAINING.max_epochs
    check_places(tell_places(page, first), backend)
    assert count_taken_slots(page) == 0
    (kept,) = places.scratch.iterdir()
    assert {"last.ckpt", "on_exception.ckpt"} <= {path.name for path in kept.iterdir()}

    second = page.launch("release", ASKED)
    assert page.wait_until_ended(second) is dg.DagsterRunStatus.SUCCESS
    check_places(tell_places(page, second), backend)
    said = [log.user_message for log in page.instance.all_logs(second) if log.step_key == "trained_checkpoint"]
    assert any("resuming the training that was interrupted" in text for text in said)
    assert 0 < count_epochs(page, second) < TRAINING.max_epochs - 1
    assert count_taken_slots(page) == 0
    assert list(places.scratch.iterdir()) == []

    objects = places.open_stores().objects
    for name in COMPARED:
        made = page.instance.get_latest_materialization_event(dg.AssetKey(name)).asset_materialization
        manifest = Manifest.decode(objects.read_bytes(made.tags["dagster/data_version"]))
        found = {part: artifact.digest for part, artifact in manifest.artifacts.items()}
        assert found == untouched.summary["digests"][name], name
        assert manifest.digest == untouched.summary["manifests"][name], name


def test_the_command_line_runs_the_same_graph_in_processes_of_their_own(untouched: Untouched, tmp_path: Path):
    shutil.copytree(untouched.before, tmp_path / "home")
    told = []
    places = make_places(tmp_path / "home").model_copy(update={"executor": "local"})
    chosen = {type(spec): spec for spec in [*TINY, TRAINING]}
    made = run_graph(places, "release", list(chosen.values()), lambda *progress: told.append(progress))
    for name in COMPARED:
        assert made["manifests"][name] == untouched.summary["manifests"][name], name
    assert ("trained_checkpoint", "in a process of its own", 1, 1) in told
