"""An embedded experiment store: nothing is cut in silence, and files rest beside it, wherever that is."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from heimdall_assets.errors import StorageError
from heimdall_assets.stores.experiment_entries import MAX_PARAM, Data, Entries
from heimdall_assets.stores.experiment_files import find_folder
from heimdall_assets.stores.experiment_monitor import MachineMonitor
from heimdall_assets.stores.experiments import EXPERIMENT, ExperimentStore

pytestmark = pytest.mark.filterwarnings(
    # Habits of MLflow and of what it imports.
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExperimentStore]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        store = ExperimentStore(f"sqlite:///{tmp_path_factory.mktemp('home') / 'mlflow.db'}")
        store.ensure_experiment()
        yield store


def begin(store: ExperimentStore, name: str) -> str:
    return store.find_or_begin({"dagster_run_id": name}, name, {"mlflow.user": "person:x"})


def test_a_run_is_begun_once_and_found_by_its_tags(store: ExperimentStore):
    first = begin(store, "once")
    assert begin(store, "once") == first
    assert begin(store, "twice") != first
    run = store.open_client().get_run(first)
    assert run.info.run_name == "once"
    assert run.data.tags["mlflow.user"] == "person:x"


def test_more_settings_than_a_batch_holds_are_all_there_and_a_long_one_says_so(store: ExperimentStore):
    params = {f"Spec.field{number}": number for number in range(230)} | {"Spec.text": "x" * (MAX_PARAM + 1)}
    tags = {f"tag{number}": str(number) for number in range(130)} | {"long": "y" * 6000}
    metrics = {f"figure{number}": number / 7 for number in range(150)}
    run_id = begin(store, "many")
    store.write(run_id, Entries(params=params, tags=tags, metrics=metrics))
    data = store.open_client().get_run(run_id).data
    assert {f"Spec.field{number}": str(number) for number in range(230)}.items() <= data.params.items()
    assert data.params["Spec.text"].startswith("501 characters, sha256:")
    assert data.params["Spec.text"].endswith("whole in config/")
    assert data.tags["long"].startswith("6000 characters, sha256:")
    assert data.tags["tag129"] == "129"
    assert data.metrics == metrics


def test_a_setting_that_changed_later_is_a_tag_and_the_first_one_stays(store: ExperimentStore):
    run_id = begin(store, "changed")
    store.write(run_id, Entries(params={"EvaluationSpec.seed": 1, "EvaluationSpec.confidence": 0.9}))
    store.write(run_id, Entries(params={"EvaluationSpec.seed": 2, "EvaluationSpec.confidence": 0.9}))
    data = store.open_client().get_run(run_id).data
    assert data.params == {"EvaluationSpec.seed": "1", "EvaluationSpec.confidence": "0.9"}
    assert data.tags["EvaluationSpec.seed"] == "2"
    assert "EvaluationSpec.confidence" not in data.tags


def test_data_is_kept_by_digest_and_counts(store: ExperimentStore):
    run_id, digest = begin(store, "data"), "d" * 64
    store.write(run_id, Entries(data=[Data("train_split", "training", digest, {"num_sessions": 3})]))
    (kept,) = store.open_client().get_run(run_id).inputs.dataset_inputs
    assert (kept.dataset.name, kept.dataset.digest) == ("train_split", digest[:36])
    assert digest in kept.dataset.source
    assert kept.dataset.profile == '{"num_sessions": 3}'
    assert [(tag.key, tag.value) for tag in kept.tags] == [("mlflow.data.context", "training")]


def test_files_rest_beside_the_database_and_replace_those_of_their_name(store: ExperimentStore):
    run_id, folder = begin(store, "files"), find_folder(store.uri)
    assert folder == Path(store.uri.removeprefix("sqlite:///")).parent / "mlflow-artifacts"
    store.write_files(run_id, {"plots/losses.svg": b"old", "card.md": b"card"})
    store.write_files(run_id, {"plots/losses.svg": b"new"})
    kept = folder / EXPERIMENT / run_id / "artifacts"
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()} == {
        "plots/losses.svg",
        "card.md",
    }
    assert (kept / "plots" / "losses.svg").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", ""])
def test_no_file_leaves_its_run(store: ExperimentStore, name: str):
    with pytest.raises(StorageError, match="expected a path below it"):
        store.write_files(begin(store, "escape"), {name: b"x"})


def test_files_are_not_written_to_a_folder_that_somebody_else_named(store: ExperimentStore, tmp_path: Path):
    client = store.open_client()
    experiment = client.create_experiment("theirs", artifact_location=str(tmp_path / "theirs"))
    run_id = client.create_run(experiment).info.run_id
    with pytest.raises(StorageError, match="expected a server that hands out files, or a bucket"):
        store.write_files(run_id, {"card.md": b"card"})
    assert not (tmp_path / "theirs").exists()


def test_a_machine_is_watched_until_the_run_ends_and_no_thread_is_left(store: ExperimentStore):
    run_id = begin(store, "watched")
    monitor = MachineMonitor(store.uri, run_id)
    monitor.start()
    assert "SystemMetricsMonitor" in {thread.name for thread in threading.enumerate()}
    monitor.stop()
    monitor.stop()  # once more is nothing
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}
    client = store.open_client()
    names = set(client.get_run(run_id).data.metrics)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= names
    again = MachineMonitor(store.uri, run_id)  # a second attempt goes on behind the first one's points
    again.start()
    again.stop()
    steps = [point.step for point in client.get_metric_history(run_id, "system/cpu_utilization_percentage")]
    assert sorted(steps) == list(range(len(steps)))
    assert len(steps) >= 2
