"""Watching: the graph tells of a training in its folder; trouble with that costs a warning; old folders leave."""

from pathlib import Path

import dagster as dg

from heimdall_assets.defs.progress import Work, listen, report_to, tell_detail
from heimdall_assets.defs.retention import build_tidying
from heimdall_assets.people import is_pseudonym
from heimdall_assets.pipeline.runs import find_training, list_trainings, read_training_tables
from heimdall_assets.specs import RetentionPolicy, TrainingSpec
from heimdall_assets.stores.runs.folders import FINISHED
from heimdall_assets.training_tables import EPOCHS
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import fill_home, release


def read_log(places: Places, run_id: str) -> list[str]:
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        return [log.user_message for log in instance.all_logs(run_id) if log.step_key == "trained_checkpoint"]


def test_a_training_of_the_graph_from_its_folder_to_its_end(tmp_path: Path):
    """One home, for each run costs seconds: told of, found again without a folder, in trouble, and old."""
    places = fill_home(tmp_path / "home")
    made = release(places)
    stores = places.open_stores()
    (run,) = list_trainings(stores)
    told = run.told
    assert (told["status"], told["checkpoint"]) == (FINISHED, made["manifests"]["trained_checkpoint"])
    assert told["dagster_run_id"] == made["run_id"]
    assert is_pseudonym(told["started_by"])
    assert {"DatasetSpec", "FeatureSpec", "SplitSpec", "ModelSpec", "TrainingSpec"} <= set(told["settings"])
    assert set(told["data"]) == {"train_split", "val_split"}
    assert told["versions"]["torch"]
    assert run.releases == (made["version"],)
    assert find_training(stores, made["version"]).id == run.id
    assert len(read_training_tables(stores, run)[EPOCHS]) == 2
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("trained_checkpoint"))
        assert event is not None
        assert event.asset_materialization is not None
        page = event.asset_materialization.metadata["training_page"].value
        records = instance.fetch_observations(dg.AssetKey("trained_checkpoint"), limit=1).records
        observed = records[0].asset_observation.metadata
        assert observed["training_page"].value == page
        assert f"{page}/losses.svg" in str(observed["curves_so_far"].value)
    assert str(page).endswith(f"/runs/{run.id}")

    release(places)  # everything is found again
    assert len(list_trainings(stores)) == 1

    runs = places.home / "runs"
    runs.rename(tmp_path / "aside")
    runs.write_text("no folder")
    troubled = release(places, TrainingSpec(max_epochs=1, num_threads=1))
    assert troubled["computed"]["trained_checkpoint"] == 1
    warned = [line for line in read_log(places, troubled["run_id"]) if "the training goes on" in line]
    assert len(warned) == 1
    runs.unlink()
    (tmp_path / "aside").rename(runs)

    release(places, TrainingSpec(max_epochs=1, num_threads=1, seed=3))
    assert len(list_trainings(stores)) == 2
    tidy = build_tidying(places.open_stores, RetentionPolicy(training_folders=1))
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        lines = [line for line in tidy(instance, "nobody") if "training" in line]
    assert lines == [f"training {run.id}: its folder removed, as HEIMDALL_RETENTION says"]
    assert not (runs / run.id).exists()
    assert {one.id: one.is_here for one in list_trainings(stores)}[run.id] is False  # kept beside its checkpoint


def test_work_with_a_detail_is_the_same_work():
    heard = []
    context = dg.build_asset_context()
    with listen(lambda *told: heard.append(told)):
        report = report_to(context, "asset")
        report("epochs trained", 1, 3)
        tell_detail("asset", Work("epochs trained", "step 2/9"), 1, 3)
    assert heard == [("asset", "epochs trained", 1, 3)] * 2
    assert [getattr(what, "detail", "") for _, what, *_ in heard] == ["", "step 2/9"]
    tell_detail("asset", Work("epochs trained", "step 3/9"), 1, 3)  # nobody listens
    assert len(heard) == 2
