"""Tracking: every training is one MLflow run that ends as the training did, and no training depends on it."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heimdall_assets.definitions import build_definitions
from heimdall_assets.defs.running import QUIET, run_graph
from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.defs.tracking import ExperimentTracking
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.manifests import Manifest
from heimdall_assets.places import Places, prepare_dagster_home, read_places
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.stores.experiments import (
    EXPERIMENT,
    REGISTERED_MODEL,
    ExperimentStore,
    collect_figures,
    find_run,
    note_run,
)
from heimdall_assets.stores.objects import open_object_store
from heimdall_assets_tests.homes import TINY, fill_home, ignore, make_places

pytestmark = pytest.mark.filterwarnings(
    # Habits of MLflow and of what it imports.
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::dagster.BetaWarning",
    "ignore::ResourceWarning",
)


@pytest.fixture(scope="module", autouse=True)
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory while MLflow works, in which it must leave nothing."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work")
        patch.chdir(folder)
        for name in list(os.environ):
            if name.startswith("MLFLOW_"):
                patch.delenv(name)
        yield folder
        assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Places, dict[str, Any]]:
    """A tracked home whose graph ran once."""
    places = replace(fill_home(tmp_path_factory.mktemp("home")), tracking=True)
    return places, run_graph(places, "release", TINY, ignore)


def open_client(places: Places) -> Any:
    return ExperimentStore(places.mlflow_uri, places.mlflow_artifacts).open_client()


def list_runs(places: Places) -> list[Any]:
    """All runs, the latest first."""
    client = open_client(places)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def test_a_training_is_one_finished_run_with_settings_curves_and_origin(released):
    places, summary = released
    (run,) = list_runs(places)
    assert run.info.status == "FINISHED"
    assert run.data.params["TrainingSpec.max_epochs"] == "2"
    assert run.data.params["ModelSpec.width"] == "16"
    assert run.data.tags["heimdall.checkpoint"] == summary["manifests"]["trained_checkpoint"]
    assert run.data.tags["dagster_run_id"] == summary["run_id"]
    curve = open_client(places).get_metric_history(run.info.run_id, "val_loss")
    assert [point.step for point in curve] == [0, 1]
    assert find_run(places.open_stores().objects, summary["manifests"]["trained_checkpoint"]) == run.info.run_id


def test_figures_and_version_are_attached_to_the_run(released):
    places, summary = released
    (run,) = list_runs(places)
    row = next(row for row in summary["comparison"] if row["method"] == "model")
    assert run.data.metrics["test/median_m"] == pytest.approx(row["median_m"])
    assert "baseline/tdoa_robust/median_m" in run.data.metrics
    assert run.data.tags["heimdall.evaluation"] == summary["manifests"]["evaluation_metrics"]
    assert run.data.tags["heimdall.version"] == summary["version"]


def test_aliases_and_versions_are_mirrored(released):
    places, summary = released
    client = open_client(places)
    champion = client.get_model_version_by_alias(REGISTERED_MODEL, "champion")
    assert champion.tags["heimdall.version"] == summary["version"]
    assert champion.tags["heimdall.release"] == summary["manifests"]["model_release"]
    assert Path(champion.source.removeprefix("file://")) == Path(summary["folder"])
    assert client.get_model_version_by_alias(REGISTERED_MODEL, "challenger").version == champion.version


def test_a_release_is_registered_once_and_aliases_are_told_once(released):
    places, summary = released
    store = ExperimentStore(places.mlflow_uri, places.mlflow_artifacts)
    number = store.register_release(None, summary["version"], Path(summary["folder"]), "sha256:0")
    assert number == store.register_release(None, summary["version"], Path(summary["folder"]), "sha256:0") == "1"
    same = {"champion": summary["version"], "challenger": summary["version"]}
    assert not store.mirror_aliases(places.open_stores().objects, same)


def test_artifacts_go_below_the_home(released):
    places, _ = released
    (run,) = list_runs(places)
    assert run.info.artifact_uri.startswith(places.mlflow_artifacts.as_uri())


def test_a_run_that_computes_nothing_makes_no_run(released):
    places, summary = released
    again = run_graph(places, "release", TINY, ignore)
    assert again["manifests"]["trained_checkpoint"] == summary["manifests"]["trained_checkpoint"]
    (run,) = list_runs(places)
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("trained_checkpoint"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["mlflow_run_id"].value == run.info.run_id


def train_and(places: Places, learning_rate: float, act: Callable[[], None] | None) -> dg.DagsterRunStatus:
    """Run the graph up to the checkpoint, do ``act`` after the first epoch, and return how the run ended."""

    def listen(asset: str, what: str, done: int, total: int) -> None:
        if act is not None and (asset, what, done) == ("trained_checkpoint", "epochs trained", 1):
            act()

    from heimdall_assets.defs.progress import listen as attach

    specs = [*TINY[:1], TrainingSpec(max_epochs=2, num_threads=1, learning_rate=learning_rate)]
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance, attach(listen):
        job = build_definitions(places).resolve_job_def("train")
        run_config = {**build_run_config(specs), **QUIET}
        with suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)
        return instance.get_run_records(limit=1)[0].dagster_run.status


def test_failed_and_cancelled_trainings_end_as_they_did_and_the_next_goes_on_to_the_same_bytes(released):
    places, _ = released
    before = len(list_runs(places))

    def cancel() -> None:
        raise KeyboardInterrupt

    def fail() -> None:
        raise RuntimeError("the power went")

    assert train_and(places, 3e-4, cancel) != dg.DagsterRunStatus.SUCCESS
    (folder,) = (places.home / "scratch").iterdir()
    assert (folder / "last.ckpt").exists() or (folder / "on_exception.ckpt").exists()
    assert [run.info.status for run in list_runs(places)][: len(list_runs(places)) - before] == ["KILLED"]
    assert train_and(places, 3e-4, None) == dg.DagsterRunStatus.SUCCESS
    assert list(places.home.joinpath("scratch").iterdir()) == []

    assert train_and(places, 4e-4, fail) == dg.DagsterRunStatus.SUCCESS  # retried once, and resumed: epoch 1 is past
    statuses = [run.info.status for run in list_runs(places)]
    assert statuses[: len(statuses) - before] == ["FINISHED", "FAILED", "FINISHED", "KILLED"]

    resumed, uninterrupted = [], []
    other = fill_home(places.home.parent / "other")
    for rate in (3e-4, 4e-4):
        train_and(places, rate, None)
        resumed.append(read_checkpoint(places))
        train_and(other, rate, None)
        uninterrupted.append(read_checkpoint(other))
    for one, another in zip(resumed, uninterrupted, strict=True):
        assert one.artifacts["weights.safetensors"].digest == another.artifacts["weights.safetensors"].digest


def read_checkpoint(places: Places) -> Manifest:
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("trained_checkpoint"))
    assert event is not None
    assert event.asset_materialization is not None
    digest = (event.asset_materialization.tags or {})["dagster/data_version"]
    return Manifest.decode(places.open_stores().objects.read_bytes(digest))


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////dev/null/none.db"])
def test_a_store_that_is_away_costs_one_warning_and_no_training(released, uri: str, caplog):
    places, _ = released
    rate = 5e-4 if uri.startswith("http") else 6e-4
    with caplog.at_level("WARNING"):
        assert train_and(replace(places, mlflow_uri=uri), rate, None) == dg.DagsterRunStatus.SUCCESS
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        run_id = instance.get_run_records(limit=1)[0].dagster_run.run_id
        said = [log.user_message for log in instance.all_logs(run_id) if "MLflow is away" in log.user_message]
    assert len(said) == 1, said
    assert "could not open a run" in said[0]


def test_nothing_is_told_where_tracking_is_off(tmp_path: Path):
    def refuse(store: object) -> None:
        raise AssertionError

    off = ExperimentTracking(tracking_uri="sqlite:////dev/null/none.db", artifacts=str(tmp_path), enabled=False)
    with dg.build_asset_context() as context:
        off.tell(context, "anything", refuse)


def test_the_switch_is_on_or_off(tmp_path: Path):
    assert not make_places(tmp_path).tracking
    assert read_places({"HEIMDALL_HOME": str(tmp_path)}).tracking
    with pytest.raises(InvalidSetting, match="HEIMDALL_TRACKING: found 'maybe', expected on or off"):
        read_places({"HEIMDALL_HOME": str(tmp_path), "HEIMDALL_TRACKING": "maybe"})


def test_figures_are_finite_names_and_numbers():
    metrics = {
        "median_m": 3.5,
        "num_sessions": 4,
        "passed": True,
        "why": "text",
        "p90_m": None,
        "baselines": {"tdoa_robust": {"median_m": 7}, "prior_centre": {"median_m": None}},
        "bound": None,
    }
    assert collect_figures(metrics) == {
        "test/median_m": 3.5,
        "test/num_sessions": 4.0,
        "baseline/tdoa_robust/median_m": 7.0,
    }


def test_which_run_made_a_checkpoint_is_remembered_and_damage_is_as_good_as_none(tmp_path: Path):
    objects = open_object_store(str(tmp_path / "objects"), recordings=str(tmp_path / "recordings"))
    checkpoint = "sha256:" + "a" * 64
    assert find_run(objects, checkpoint) is None
    note_run(objects, checkpoint, "run1")
    assert find_run(objects, checkpoint) == "run1"
    digest = objects.read_reference(objects.list_references("experiments/")[0])
    assert digest is not None
    path = objects.local_path(digest)
    path.chmod(0o600)
    path.write_bytes(b"{}")
    assert find_run(objects, checkpoint) is None
