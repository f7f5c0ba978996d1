"""Tracking: every training is one MLflow run that ends as the training did, and no training depends on it."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heimdall_assets.defs.origins import INTENT_TAG
from heimdall_assets.defs.retention import build_tidying
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.running.graph_run import QUIET
from heimdall_assets.specs import RetentionPolicy
from heimdall_assets.stores.computing import Origin, name_user, originate
from heimdall_assets.stores.experiment_entries import Entries, collect_figures
from heimdall_assets.stores.experiments import (
    EXPERIMENT,
    REGISTERED_MODEL,
    ExperimentStore,
    find_run,
    note_run,
)
from heimdall_assets.stores.objects.folder import FolderObjectStore, ObjectStore
from heimdall_assets_tests.homes import make_places

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


CHECKPOINT = "sha256:" + "c" * 64
PSEUDONYM = "person:" + "a" * 32


class Act:
    """What happens at the end of a training."""

    def __init__(self, objects: ObjectStore, act: Callable[[dg.AssetExecutionContext], None]):
        self.objects = objects
        self.act = act


@dg.asset(name="trained_checkpoint", retry_policy=dg.RetryPolicy(max_retries=1))
def training(
    context: dg.AssetExecutionContext, tracking: dg.ResourceParam[ExperimentTracking], act: dg.ResourceParam[Act]
) -> None:
    """Tells of two epochs what a training would, then does what the test asks for."""
    with (
        originate(Origin(PSEUDONYM, is_person=True)),
        tracking.follow(context, {"TrainingSpec.max_epochs": 2, "ModelSpec.kind": "network"}) as tracked,
    ):
        tracked.start(num_samples=10)
        for epoch in range(2):
            tracked.log_epoch(epoch, {"val_loss": 2.0 - epoch})
        act.act(context)
        tracked.finish(act.objects, CHECKPOINT, reused=False)


class Home:
    """A small home whose one asset is tracked."""

    def __init__(self, folder: Path):
        self.places = make_places(folder).model_copy(update={"tracking": True})
        self.objects = FolderObjectStore(self.places.home / "objects")
        self.store = ExperimentStore(self.places.mlflow_uri)
        self._others = set(threading.enumerate())

    def find_monitors(self) -> list[threading.Thread]:
        """Threads that watch a machine and were begun since this home was made."""
        return [
            thread
            for thread in threading.enumerate()
            if thread.name == "SystemMetricsMonitor" and thread not in self._others
        ]

    def train(
        self,
        act: Callable[[dg.AssetExecutionContext], None],
        uri: str | None = None,
        asset: dg.AssetsDefinition = training,
        tags: dict[str, str] | None = None,
    ) -> list[str]:
        """Run the asset; return what its run's log says of MLflow."""
        tracking = ExperimentTracking(tracking_uri=uri or self.places.mlflow_uri, image="registry.example/heimdall:7")
        resources = {"tracking": tracking, "act": Act(self.objects, act)}
        with dg.DagsterInstance.ephemeral() as instance:
            with suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                dg.materialize(
                    [asset], instance=instance, resources=resources, run_config=QUIET, raise_on_error=False, tags=tags
                )
            logs = instance.all_logs(instance.get_run_records(limit=1)[0].dagster_run.run_id)
            return [log.user_message for log in logs if "MLflow is away" in log.user_message]

    def list_runs(self) -> list[Any]:
        """All runs, the latest first."""
        client = self.store.open_client()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose training was tracked once."""
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.train(lambda context: None) == []
    return home


def test_a_training_is_one_finished_run_with_settings_curves_and_origin(home: Home):
    run = home.list_runs()[-1]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"TrainingSpec.max_epochs": "2", "ModelSpec.kind": "network"}
    assert run.data.tags["heimdall.checkpoint"] == CHECKPOINT
    assert run.data.tags["dagster_run_id"]
    curve = home.store.open_client().get_metric_history(run.info.run_id, "val_loss")
    assert [(point.step, point.value) for point in curve] == [(0, 2.0), (1, 1.0)]
    assert {"epoch_time_s", "samples_per_s", "system/cpu_utilization_percentage"} <= run.data.metrics.keys()
    assert find_run(home.objects, CHECKPOINT) == run.info.run_id
    assert home.find_monitors() == []


def test_a_run_names_no_person_and_no_program_of_this_machine(home: Home):
    run = home.list_runs()[-1]
    assert run.data.tags["mlflow.user"] == PSEUDONYM
    assert run.data.tags["mlflow.source.name"] == "heimdall"
    assert run.data.tags["heimdall.image"] == "registry.example/heimdall:7"
    told = {name: value for name, value in run.data.tags.items() if name_user() == value or str(Path.cwd()) in value}
    assert told == {}


def test_what_a_training_is_for_stands_in_name_and_tag(home: Home):
    home.train(lambda context: None, tags={INTENT_TAG: "ablation"})
    ablation, first = home.list_runs()[0], home.list_runs()[-1]
    assert ablation.data.tags["heimdall.intent"] == "ablation"
    assert ablation.info.run_name.startswith("ablation/network/")
    assert first.data.tags["heimdall.intent"] == "production-candidate"
    home.store.open_client().delete_run(ablation.info.run_id)


@dg.asset(name="trained_checkpoint")
def search(
    context: dg.AssetExecutionContext, tracking: dg.ResourceParam[ExperimentTracking], act: dg.ResourceParam[Act]
) -> None:
    """A parent with two trials, each told of one epoch; one trial, and the parent, are tried twice."""
    with tracking.follow(context, {"trials": 2}) as parent:
        parent.start()
    for name, width in (("trial 0", 16), ("trial 1", 32), ("trial 1", 32)):
        with tracking.follow(context, {"ModelSpec.width": width}) as trial:
            trial.start(parent_run_id=parent.run_id, run_name=name)
            trial.log_epoch(0, {"val_loss": 1.0 / width})
    with tracking.follow(context, {"trials": 2}) as again:
        again.start()
        assert again.run_id == parent.run_id
        with tracking.follow(
            context, {"ModelSpec.width": 64}
        ) as trial:  # in the process of the search, while it is open
            trial.start(parent_run_id=again.run_id, run_name="trial 2")
            trial.log_epoch(0, {"val_loss": 0.5})
        again.log_epoch(0, {"best": 0.25})


def test_trials_are_children_of_their_search_and_one_run_each(home: Home):
    before = len(home.list_runs())
    assert home.train(lambda context: None, asset=search) == []
    trials = home.list_runs()[: len(home.list_runs()) - before]
    parent = trials[-1]
    assert [run.info.run_name for run in trials[:-1]] == ["trial 2", "trial 1", "trial 0"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials[:-1]} == {parent.info.run_id}
    assert [run.data.params["ModelSpec.width"] for run in trials[:-1]] == ["64", "32", "16"]
    assert trials[0].data.metrics["val_loss"] == 0.5
    assert parent.data.metrics.keys() & {"val_loss", "best"} == {"best"}
    assert {run.info.status for run in trials} == {"FINISHED"}
    for run in trials:
        home.store.open_client().delete_run(run.info.run_id)


def test_an_embedded_store_knows_no_address(home: Home):
    assert home.list_runs()[-1].info.artifact_uri.startswith("mlflow-artifacts:/heimdall/")
    file = home.places.home / "mlflow.db"
    assert home.places.mlflow_uri == f"sqlite:///{file}"
    held = b"".join(path.read_bytes() for path in file.parent.glob("mlflow.db*"))
    for address in (home.places.home, Path.cwd()):
        assert str(address).encode() not in held


def test_the_run_of_a_killed_training_is_ended(home: Home):
    client = home.store.open_client()
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    killed = client.create_run(experiment, tags={"dagster_run_id": "killed"}).info.run_id
    other = client.create_run(experiment, tags={"dagster_run_id": "under way"}).info.run_id
    assert home.store.end_killed("killed") == [killed]
    assert home.store.end_killed("killed") == []
    assert [client.get_run(name).info.status for name in (killed, other)] == ["KILLED", "RUNNING"]
    client.delete_run(killed)
    client.delete_run(other)


def test_failed_cancelled_and_retried_trainings_end_as_they_did(home: Home):
    def fail_first(context: dg.AssetExecutionContext) -> None:
        if context.retry_number == 0:
            raise RuntimeError("the power went")

    def interrupt(context: dg.AssetExecutionContext) -> None:
        raise dg.DagsterExecutionInterruptedError

    def press_ctrl_c(context: dg.AssetExecutionContext) -> None:
        raise KeyboardInterrupt

    def fail(context: dg.AssetExecutionContext) -> None:
        raise RuntimeError("the power went again")

    before = len(home.list_runs())
    for act in (fail_first, fail, interrupt, press_ctrl_c):
        home.train(act)
    runs = home.list_runs()
    # A second attempt goes on in the run of the first: there is one for each Dagster run.
    assert [run.info.status for run in runs[: len(runs) - before]] == ["KILLED", "KILLED", "FAILED", "FINISHED"]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////dev/null/none.db"])
def test_a_store_that_is_away_costs_one_warning_and_no_training(home: Home, uri: str):
    done = []
    (said,) = home.train(done.append, uri)
    assert "could not open a run" in said
    assert len(done) == 1


def test_a_store_that_goes_away_leaves_no_thread_that_asks_for_it(home: Home, monkeypatch: pytest.MonkeyPatch):
    """The run stays RUNNING there, so its monitor would never end by itself."""
    from dagster_mlflow.resources import MlFlow

    def lose(*told: object) -> None:
        raise OSError("no route")

    @dg.asset(name="trained_checkpoint")
    def cut(
        context: dg.AssetExecutionContext, tracking: dg.ResourceParam[ExperimentTracking], act: dg.ResourceParam[Act]
    ) -> None:
        with tracking.follow(context, {"a": 1}) as tracked:
            tracked.start()
            assert len(home.find_monitors()) == 1
            monkeypatch.setattr(ExperimentStore, "write", lose)
            monkeypatch.setattr(MlFlow, "end_run", lose)
            tracked.tag("heimdall.word", "the first that is not heard")
            tracked.finish(act.objects, CHECKPOINT, reused=True)

    (said,) = home.train(lambda context: None, asset=cut)
    assert "could not tell heimdall.word" in said
    deadline = time.monotonic() + 30.0
    while home.find_monitors() and time.monotonic() < deadline:
        time.sleep(0.05)
    left = home.find_monitors()
    monkeypatch.undo()
    MlFlow.end_run("FAILED")
    assert left == []


def test_figures_versions_and_aliases_are_attached(home: Home):
    run_id = home.list_runs()[-1].info.run_id
    figures = collect_figures({"median_m": 12.5, "baselines": {"tdoa_robust": {"median_m": 20.0}}})
    home.store.write(run_id, Entries(metrics=figures, tags={"heimdall.evaluation": "sha256:e"}))
    assert home.store.register_release(run_id, "v1.0.0", "sha256:r") == "1"
    assert home.store.register_release(run_id, "v1.0.0", "sha256:r") == "1"  # once
    assert home.store.register_release(None, "v1.0.1", "sha256:s") == "2"
    aliases = {"champion": "v1.0.0", "challenger": "v1.0.1"}
    assert home.store.mirror_aliases(home.objects, aliases)
    assert not home.store.mirror_aliases(home.objects, aliases)  # nothing changed, nothing is said

    client = home.store.open_client()
    run = client.get_run(run_id)
    assert run.data.metrics["test/median_m"] == 12.5
    assert run.data.metrics["baseline/tdoa_robust/median_m"] == 20.0
    assert run.data.tags["heimdall.evaluation"] == "sha256:e"
    assert run.data.tags["heimdall.version"] == "v1.0.0"
    champion = client.get_model_version_by_alias(REGISTERED_MODEL, "champion")
    assert champion.tags == {"heimdall.version": "v1.0.0", "heimdall.release": "sha256:r"}
    assert champion.source == "heimdall:/v1.0.0"
    assert champion.run_id == run_id
    assert client.get_model_version_by_alias(REGISTERED_MODEL, "challenger").tags["heimdall.version"] == "v1.0.1"


def test_what_is_told_to_a_store_that_is_away_is_a_warning(home: Home):
    def refuse(store: object) -> None:
        raise OSError("no route")

    on = ExperimentTracking(tracking_uri="sqlite:////dev/null/none.db")
    with dg.build_asset_context() as context:
        on.tell(context, "attach figures", refuse)


def test_a_place_of_files_that_is_away_costs_one_warning_and_no_figure(home: Home, tmp_path: Path):
    """A file lies where the folder of the run's files would be: no user, not even root, can make it."""
    places = home.places.model_copy(update={"mlflow_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"})
    (tmp_path / "mlflow-artifacts").write_bytes(b"")

    @dg.asset(name="trained_checkpoint")
    def filed(
        context: dg.AssetExecutionContext, tracking: dg.ResourceParam[ExperimentTracking], act: dg.ResourceParam[Act]
    ) -> None:
        with tracking.follow(context, lambda: Entries({"a": 1}, files={"card.md": b"card"})) as tracked:
            tracked.start()
            tracked.log_epoch(0, {"val_loss": 2.0})
            tracked.finish(
                act.objects, "sha256:" + "f" * 64, False, lambda: Entries(metrics={"b": 3.0}, files={"x": b"x"})
            )
            tracking.describe(context, tracked.run_id, "figures", lambda: Entries(metrics={"c": 4.0}))

    (said,) = home.train(lambda context: None, places.mlflow_uri, filed)
    assert "could not keep files" in said
    client = ExperimentStore(places.mlflow_uri).open_client()
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.info.status == "FINISHED"
    assert {"val_loss": 2.0, "b": 3.0, "c": 4.0}.items() <= run.data.metrics.items()


def test_files_of_old_runs_leave_a_home_and_their_figures_stay(home: Home):
    run = home.list_runs()[-1]
    tracking = ExperimentTracking(tracking_uri=home.places.mlflow_uri)
    folder = tracking.find_files()
    assert folder == home.places.home / "mlflow-artifacts" / EXPERIMENT
    for name in (run.info.run_id, home.list_runs()[0].info.run_id):
        home.store.write_files(name, {"card.md": b"card"})
    for path in (folder / run.info.run_id).rglob("*"):
        os.utime(path, (time.time() - 400 * 86_400,) * 2)
    os.utime(folder / run.info.run_id, (time.time() - 400 * 86_400,) * 2)
    tidy = build_tidying(home.places.open_stores, RetentionPolicy(), folder)
    with dg.DagsterInstance.ephemeral() as instance:
        (line,) = tidy(instance, "somebody else")
        assert line == f"files of MLflow run {run.info.run_id}: left, as HEIMDALL_RETENTION says; its figures stay"
        assert tidy(instance, "somebody else") == []
    assert [path.name for path in folder.iterdir()] == [home.list_runs()[0].info.run_id]
    assert home.list_runs()[-1].data.metrics == run.data.metrics
    assert ExperimentTracking(tracking_uri="http://127.0.0.1:5000").find_files() is None


def test_what_a_later_step_tells_is_not_worked_out_where_nobody_hears_it():
    def refuse() -> Entries:
        raise AssertionError

    on = ExperimentTracking(tracking_uri="sqlite:////dev/null/none.db")
    off = ExperimentTracking(tracking_uri="sqlite:////dev/null/none.db", enabled=False)
    with dg.build_asset_context() as context:
        on.describe(context, None, "figures", refuse)  # an untracked checkpoint
        on.describe(context, "r" * 32, "figures", refuse)  # the store is away
        off.describe(context, "r" * 32, "figures", refuse)


def test_nothing_is_told_where_tracking_is_off(tmp_path: Path):
    def refuse(store: object) -> None:
        raise AssertionError

    off = ExperimentTracking(tracking_uri="sqlite:////dev/null/none.db", enabled=False)
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
        "accuracy": {"30": 0.25, "100": 1.0},
        "why": "text",
        "p90_m": None,
        "baselines": {"tdoa_robust": {"median_m": 7}, "prior_centre": {"median_m": None}},
        "bound": None,
    }
    assert collect_figures(metrics) == {
        "test/median_m": 3.5,
        "test/num_sessions": 4.0,
        "test/accuracy_30m": 0.25,
        "test/accuracy_100m": 1.0,
        "baseline/tdoa_robust/median_m": 7.0,
    }


def test_which_run_made_a_checkpoint_is_remembered_and_damage_is_as_good_as_none(tmp_path: Path):
    objects = FolderObjectStore(tmp_path / "objects")
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
