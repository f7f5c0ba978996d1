"""``heimdall train`` ended in each step of the graph in turn, and the page's whole tree in each step of its run."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
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
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.places import read_places
from heimdall_assets.specs import Spec, TrainingSpec
from heimdall_assets.stores.database.waiting import BUSY_TIMEOUT_S
from heimdall_assets.stores.objects.addresses import BucketAddress, parse_place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets.variables import Places
from heimdall_assets_tests.defs.test_stopping import (
    PROGRAM,
    Untouched,
    list_processes,
    open_instance,
    run_untouched,
    write_settings,
)
from heimdall_assets_tests.homes import SIMULATION, TINY, ignore, make_places, release
from heimdall_assets_tests.s3_server import S3Server
from heimdall_assets_tests.servers import PostgresServer
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
PAGE = {"HEIMDALL_EXECUTOR": "local", "HEIMDALL_RETRAIN": json.dumps({"quiet_period_s": 86400})}
"""Settings of a page whose sensor asks for no run of its own meanwhile."""
STEPS = (
    APPROVED_MEASUREMENTS, IQ_FILES, SPECTROGRAM_FEATURES, SPLITS_OP, TRAINED_CHECKPOINT, EVALUATION_METRICS,
    ONNX_MODEL, MODEL_RELEASE, CHAMPION_MODEL,
)  # fmt: skip
# A release's provenance holds Dagster's own numbers and times, a champion's manifest that of the release.
COMPARED = (
    APPROVED_MEASUREMENTS, IQ_FILES, SPECTROGRAM_FEATURES, TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT, TRAINED_CHECKPOINT,
    EVALUATION_METRICS, ONNX_MODEL,
)  # fmt: skip


@dataclass(frozen=True)
class Servers:
    """A database and a bucket as they were before the untouched run, to copy."""

    postgres: PostgresServer
    s3: S3Server
    rows: str
    bucket: str

    def copy(self, name: str) -> dict[str, str]:
        """Return the variables of places like these that nobody else has."""
        bucket = self.open_bucket("")
        for key in list(bucket.list_keys("before")):
            bucket.put(f"{name}/{key.removeprefix('before/')}", bucket.get(key))
        return self.name_places(name, self.postgres.create_database(self.rows))

    def name_places(self, name: str, rows: str) -> dict[str, str]:
        return {
            **self.s3.environment,
            "HEIMDALL_DATABASE_URL": self.postgres.url(rows),
            "HEIMDALL_DAGSTER_URL": self.postgres.url(self.postgres.create_database()),
            "HEIMDALL_OBJECTS": f"s3://{self.bucket}/{name}/objects",
            "HEIMDALL_MODELS": f"s3://{self.bucket}/{name}/models",
        }

    def open_bucket(self, prefix: str) -> Bucket:
        address = parse_place(f"s3://{self.bucket}/{prefix}".rstrip("/"), "bucket")
        assert isinstance(address, BucketAddress)
        return Bucket(address, self.s3.endpoint)


@dataclass(frozen=True)
class Beginning:
    """What each kill starts from; ``servers``: None where everything lies in the home."""

    untouched: Untouched
    servers: Servers | None = None


def begin_on_servers(postgres: PostgresServer, s3: S3Server, folder: Path) -> Beginning:
    """Take a database and a bucket to their release while nobody touches them."""
    servers = Servers(postgres, s3, postgres.create_database(), s3.create_bucket())
    with pytest.MonkeyPatch.context() as patch:
        set_variables(patch, servers.name_places("before", servers.rows))
        stores = read_places({**os.environ, "HEIMDALL_HOME": str(folder / "before")}).open_stores()
        import_simulated(stores, SIMULATION, "demo", ignore)
        stores.measurements.close()  # nobody may be connected to what is copied
        shutil.rmtree(folder / "before" / "cache")
        set_variables(patch, servers.copy("untouched"))
        shutil.copytree(folder / "before", folder / "home")
        made = release(read_places({**os.environ, "HEIMDALL_HOME": str(folder / "home")}), TRAINING)
    return Beginning(Untouched(folder / "before", made, write_settings(folder, TRAINING)), servers)


def set_variables(patch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)


@pytest.fixture(scope="module", params=["home", "servers"])
def beginning(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Beginning:
    folder = tmp_path_factory.mktemp("untouched")
    if request.param == "home":
        return Beginning(run_untouched(folder, TRAINING))
    return begin_on_servers(request.getfixturevalue("postgres"), request.getfixturevalue("s3"), folder)


@pytest.fixture
def untouched(beginning: Beginning) -> Untouched:
    return beginning.untouched


@pytest.fixture
def places(beginning: Beginning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Places like those before the untouched run."""
    shutil.copytree(beginning.untouched.before, tmp_path / "home")
    places = make_places(tmp_path / "home")
    if beginning.servers is not None:
        set_variables(monkeypatch, beginning.servers.s3.environment)  # the keys with which it is copied
        set_variables(monkeypatch, beginning.servers.copy(secrets.token_hex(6)))
        places = read_places({**os.environ, "HEIMDALL_HOME": str(tmp_path / "home")})
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
    assert stores.releases.files.list_versions() == {"v1.0.0"}
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


def end(page: Page, number: signal.Signals) -> None:
    """End a page as a power cut does, or as Ctrl+C in its terminal."""
    if number is signal.SIGINT:
        page.interrupt()
    else:
        page.kill()


def go_on(places: Places, untouched: Untouched, first: str) -> dg.DagsterRunStatus:
    """Ask a new page for the same run, and judge what it makes and leaves; return how the first one ended."""
    with run_page(places.home, PAGE) as page, open_instance(places) as instance:
        second = launch(page)
        wait_for(lambda: instance.get_run_by_id(second).is_finished, SECONDS, "the run to end", page.log)
        assert instance.get_run_by_id(second).status is dg.DagsterRunStatus.SUCCESS
        # The daemon tries a killed run once more by itself.
        wait_for(lambda: all(run.is_finished for run in instance.get_runs()), SECONDS, "each run to end", page.log)
        objects = places.open_stores().objects
        for name in COMPARED:
            made = instance.get_latest_materialization_event(dg.AssetKey(name)).asset_materialization
            manifest = Manifest.decode(objects.read_bytes(made.tags["dagster/data_version"]))
            assert manifest.digest == untouched.summary["manifests"][name], name
        status = instance.get_run_by_id(first).status
        page.stop()
    check_nothing_left(places, 2, 3)
    assert list_processes(places.home) == []
    return status


def test_a_page_killed_with_all_it_started_goes_on_to_the_same(untouched: Untouched, places: Places):
    with run_page(places.home, PAGE) as page:
        first = launch(page)
        wait_for(lambda: list(places.scratch.glob("*/last.ckpt")), SECONDS, "an epoch to be kept", page.log, 0.1)
        page.kill()
    assert list(places.scratch.glob("*/last.ckpt")), "the training ended before the page did"
    assert go_on(places, untouched, first) is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("step", STEPS)
def test_a_page_ended_in_any_step_goes_on_to_the_same(
    step: str, number: signal.Signals, untouched: Untouched, places: Places
):
    with run_page(places.home, PAGE) as page, open_instance(places) as instance:
        first = launch(page)
        wait_for(lambda: is_in(instance, step), SECONDS, step, page.log, 0.02)
        end(page, number)
    expected = {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    if step == CHAMPION_MODEL:  # the last, which may have ended before the signal came
        expected.add(dg.DagsterRunStatus.SUCCESS)
    assert go_on(places, untouched, first) in expected
