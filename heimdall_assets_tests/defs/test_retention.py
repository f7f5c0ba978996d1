"""Retention: runs that changed nothing leave the history; what lineage, an asset or somebody waiting needs stays."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heimdall_assets.defs.retention import UNCHANGED_TAG, build_tidying
from heimdall_assets.pipeline.releases.reading import list_cited_runs
from heimdall_assets.specs import DatasetSpec, RetentionPolicy
from heimdall_assets.stores.scratch import remove_old_work
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import release

KEPT = RetentionPolicy().unchanged_runs
NUM_RUNS = KEPT + 3


@pytest.fixture(scope="module")
def places(
    released_home: Callable[[Path], tuple[Places, dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> Places:
    """A home with one run that made a release, and then more that changed nothing than are kept."""
    places, _ = released_home(tmp_path_factory.mktemp("retention") / "home")
    for _ in range(NUM_RUNS):
        release(places)
    return places


def list_runs(places: Places) -> list[dg.DagsterRun]:
    """Return every run of the history, newest first."""
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        return list(instance.get_runs())


def measure(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file())


@pytest.mark.long  # runs, again and again
def test_runs_without_changes_leave_the_history_and_the_disk(places: Places):
    runs = list_runs(places)
    assert len(runs) == 1 + KEPT + 1  # the one that released, those kept, and the one that has just ended
    assert [run.tags.get(UNCHANGED_TAG) for run in runs] == [None, *["yes"] * KEPT, "no"]
    files = {path.stem for path in (places.dagster_home / "history" / "runs").glob("*.db")}
    assert files - {".db"} == {run.run_id for run in runs} | {"index"}  # ".db": of events that no run told
    assert list_cited_runs(places.open_stores()) == {runs[-1].run_id}


def test_one_more_costs_next_to_nothing(places: Places):
    release(places)
    before = measure(places.home)
    release(places)
    assert measure(places.home) - before < 50_000


def test_a_run_that_holds_an_assets_latest_event_stays(places: Places):
    """As where somebody materialized one asset alone since: what the others last said is in an older run."""
    tidy = build_tidying(places.open_stores, RetentionPolicy(unchanged_runs=1, run_days=1e-9))
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        newest, *_, released = instance.get_runs()
        told = dg.AssetMaterialization("iq_files", tags={"dagster/data_version": "x"})
        instance.report_runless_asset_event(told)
        waiting = instance.create_run_for_job(dg.job(name="release")(lambda: None))
        lines = tidy(instance, "somebody else")
        assert len(lines) == KEPT
        assert all(line.endswith("left the history, as HEIMDALL_RETENTION says") for line in lines)
        kept = {run.run_id for run in instance.get_runs()}
        assert kept == {newest.run_id, released.run_id, waiting.run_id}
        assert tidy(instance, "somebody else") == []
        instance.delete_run(waiting.run_id)


def test_a_run_that_failed_or_decided_anew_is_none_without_changes(places: Places):
    with pytest.raises(Exception, match="expected at least 1"):
        release(places, DatasetSpec(campaigns=["nobody's"]))
    release(places)  # looks at the one before
    (failed,) = [run for run in list_runs(places) if run.status is dg.DagsterRunStatus.FAILURE]
    assert failed.tags[UNCHANGED_TAG] == "no"


def test_only_old_work_leaves_scratch(tmp_path: Path):
    for name, age_days in (("old", 40), ("young", 20), ("resumed", 40)):
        folder = tmp_path / "scratch" / name
        folder.mkdir(parents=True)
        (folder / "last.ckpt").write_bytes(b"x")
        for path in (folder / "last.ckpt", folder):
            os.utime(path, (time.time() - age_days * 86_400,) * 2)
    (tmp_path / "scratch" / "resumed" / "epoch-003.ckpt").write_bytes(b"y")
    assert remove_old_work(tmp_path / "scratch", 30.0) == ["old"]
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == ["resumed", "young"]
    assert remove_old_work(tmp_path / "none", 30.0) == []
