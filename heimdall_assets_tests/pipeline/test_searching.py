"""A search tries each point once, whoever works on it and whoever is killed; it never sees the test split."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psycopg2
import pytest
from optuna.trial import TrialState

from heimdall_assets.errors import InvalidInput, NotFound, Refused
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    HYPERPARAMETER_SEARCH,
    IQ_FILES,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    VAL_SPLIT,
)
from heimdall_assets.lineage.walk import list_followed
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.keeping.needed import Reach
from heimdall_assets.pipeline.planning import plan_materialization
from heimdall_assets.pipeline.recipe import STAGES, list_needed
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.searching.pruning import build_pruner, judge
from heimdall_assets.pipeline.searching.sampling import order_grid, suggest
from heimdall_assets.pipeline.searching.trial_book import open_book
from heimdall_assets.pipeline.stages.hyperparameter_search import (
    find_search,
    finish_search,
    name_search,
    open_studies,
    plan_search,
    work_on_search,
)
from heimdall_assets.pipeline.stages.trained_checkpoint import read_training, train_checkpoint
from heimdall_assets.pipeline.tracing.indexing import open_whole_index
from heimdall_assets.pipeline.tracing.searches import (
    find_past,
    list_searches,
    list_trial_rows,
    list_unfinished,
    take_settings,
)
from heimdall_assets.pipeline.tracing.uses import find_origins
from heimdall_assets.places import read_places
from heimdall_assets.search_space import list_grid
from heimdall_assets.specs import AugmentationSpec, ModelSpec, SearchSpec, TrainingSpec
from heimdall_assets.stores.objects.tables import artifact_of_table, load_table
from heimdall_assets_tests.conftest import make_quick_folder
from heimdall_assets_tests.homes import SIMULATION, ignore
from heimdall_assets_tests.pipeline.searched import (
    GRID,
    RANGES,
    RATES,
    TINY_MODEL,
    TINY_TRAINING,
    fill_searched,
    make_order,
    open_searched,
    run_search,
)


@pytest.fixture(scope="module")
def home():
    """Opened stores and splits of one home, in which each test searches something else."""
    with make_quick_folder() as folder:
        yield open_searched(fill_searched(folder / "home"))


def drive_kills(folder: Path, kills: int, **search: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "heimdall_assets_tests.pipeline.search_kills", str(folder)]
    done = subprocess.run(
        [*command, json.dumps({"kills": kills, "search": search})],
        env={**os.environ, "OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_kills(found: dict[str, Any], num_trials: int) -> None:
    expected = found["expected"]
    assert expected["ended"] == list(range(num_trials))
    for trial in found["trials"]:
        assert trial["manifest"] == expected["manifest"], trial["call"]
        assert sorted([*trial["before"], *trial["ended"]]) == list(range(num_trials))  # none lost, none twice
        assert trial["left"] == []


def test_a_kill_anywhere_in_a_search_ends_with_the_same_bytes(quick_path):
    found = drive_kills(quick_path, 3, space=RANGES[:2], sampler="tpe", num_trials=6, pruner="asha")
    check_kills(found, 6)
    assert found["expected"]["summary"]["num_pruned"] > 0
    assert any(trial["before"] for trial in found["trials"])


@pytest.mark.long
@pytest.mark.parametrize("pruner", ["none", "asha", "hyperband"])
@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_kill_at_many_calls(quick_path, sampler, pruner):
    space = RANGES if sampler == "tpe" else GRID
    check_kills(drive_kills(quick_path, 25, space=space, sampler=sampler, num_trials=6, pruner=pruner), 6)


def test_each_point_of_a_grid_is_tried_once_and_the_best_is_taken(home):
    stores, splits = home
    search = SearchSpec(space=GRID)
    order = make_order(splits, search)
    result, ended = run_search(stores, order)
    rows = list_trial_rows(stores.objects, result.manifest)
    points = [json.dumps(row["params"], sort_keys=True) for row in rows]
    assert sorted(points) == sorted(json.dumps(point, sort_keys=True) for point in list_grid(search.list_dimensions()))
    assert ended == list(range(6))
    best = min(rows, key=lambda row: row["value"])
    assert result.manifest.summary["best_trial"] == best["number"]
    assert result.manifest.summary["best_value"] == best["value"] == min(row["value"] for row in rows)
    # A trial is the very fit that anybody gets of these settings, and is found where it was made.
    fits = order.apply(best["params"])
    alone = train_checkpoint(stores.objects, stores.scratch, splits[TRAIN_SPLIT], splits[VAL_SPLIT], *fits)
    assert alone.reused
    assert alone.manifest.digest == best["checkpoint"]
    assert [record["val_loss"] for record in read_training(stores.objects, alone.manifest)[0]] == best["val_losses"]
    # The same search is found, and nobody works.
    again, ended = run_search(stores, order)
    assert again.reused
    assert ended == []
    assert find_search(stores.objects, order).digest == result.manifest.digest
    assert find_past(stores, result.manifest.digest[:8]).manifest.digest == result.manifest.digest
    assert set(result.manifest.artifacts) >= {"importance.svg", "parallel_coordinates.svg", "best.json", "trials"}


def test_the_order_of_a_grid_follows_from_the_seed():
    one, other = (order_grid(SearchSpec(seed=seed)) for seed in (1, 2))
    assert one != other
    assert len(one) == 81
    assert order_grid(SearchSpec(seed=1)) == one


def test_the_test_split_is_no_parent():
    assert STAGES[HYPERPARAMETER_SEARCH].parents == (TRAIN_SPLIT, VAL_SPLIT)
    assert TEST_SPLIT not in list_needed(HYPERPARAMETER_SEARCH)


def plant(stores: Any, splits: dict[str, Manifest], where: str) -> dict[str, Manifest]:
    """Return splits like those, but with the sources of the sessions of one of them moved far away."""
    objects = stores.objects
    features = read_parent(objects, splits[TRAIN_SPLIT], SPECTROGRAM_FEATURES)
    pinned = read_parent(objects, splits[TRAIN_SPLIT], IQ_FILES)
    snapshot = read_parent(objects, splits[TRAIN_SPLIT], APPROVED_MEASUREMENTS)
    rows = load_table(objects, snapshot.artifacts["table"])
    members = load_table(objects, splits[where].artifacts["table"])["session_id"]
    is_moved = rows["session_id"].isin(members)
    assert is_moved.any()
    rows.loc[is_moved, "source_latitude"] += 0.7
    artifacts = {**snapshot.artifacts, "table": artifact_of_table(objects, rows)}
    below = snapshot.model_copy(update={"artifacts": artifacts})
    for manifest in (pinned, features):
        objects.put_bytes(below.encode(), JSON_MEDIA_TYPE)
        below = manifest.model_copy(update={"parents": {below.kind: below.digest}})
    objects.put_bytes(below.encode(), JSON_MEDIA_TYPE)
    return {kind: one.model_copy(update={"parents": {below.kind: below.digest}}) for kind, one in splits.items()}


def test_a_planted_leak_changes_nothing_for_the_test_split_alone_holds_it(home, monkeypatch):
    """Labels of test sessions that would decide the search if anything of it saw them."""
    stores, splits = home
    opened, read_bytes = set[str](), type(stores.objects).read_bytes
    note = lambda self, digest: (opened.add(digest), read_bytes(self, digest))[1]  # noqa: E731
    monkeypatch.setattr(type(stores.objects), "read_bytes", note)
    search = SearchSpec(space=["TrainingSpec.learning_rate=2e-4|5e-3"], objective="val_median_m", seed=7)
    seen = {}
    for name, made in {"as it is": splits, "test": plant(stores, splits, TEST_SPLIT)}.items():
        result, ended = run_search(stores, make_order(made, search))
        assert len(ended) == 2
        rows = list_trial_rows(stores.objects, result.manifest)
        seen[name] = [(row["params"], row["value"], row["val_losses"]) for row in rows]
    assert seen["test"] == seen["as it is"]
    tables = {kind: one.artifacts["table"].digest for kind, one in splits.items()}
    assert {tables[TRAIN_SPLIT], tables[VAL_SPLIT]} <= opened
    # The guard fires: labels of a split that is seen do decide it.
    result, _ = run_search(stores, make_order(plant(stores, splits, VAL_SPLIT), search))
    rows = list_trial_rows(stores.objects, result.manifest)
    assert [(row["params"], row["value"], row["val_losses"]) for row in rows] != seen["as it is"]


def test_trials_that_do_worse_are_pruned_and_optuna_says_the_same(home):
    stores, splits = home
    search = SearchSpec(space=[RATES, "TrainingSpec.weight_decay=1e-5|1e-3|1e-1"], pruner="asha", reduction_factor=2)
    order = make_order(splits, search, max_epochs=4)
    result, _ = run_search(stores, order)
    assert result.manifest.summary["num_pruned"] >= 2
    assert result.manifest.summary["num_complete"] >= 1
    rows = list_trial_rows(stores.objects, result.manifest)
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert all(row["value"] is None and row["checkpoint"] is None for row in pruned)
    assert all(len(row["val_losses"]) in (1, 2, 4) for row in pruned)  # the rungs of two
    assert list(stores.scratch.rglob("*.ckpt")) == []
    # Optuna's own pruner, one study in memory from first to last, decides the same.
    pruner = build_pruner(search, 4)
    study = optuna.create_study(pruner=pruner)
    for row in rows:
        trial = study.ask()
        stopped = False
        for epoch, loss in enumerate(row["val_losses"], start=1):
            trial.report(loss, epoch)
            stopped = trial.should_prune()
            assert stopped == (row["state"] == "pruned" and epoch == len(row["val_losses"]))
        study.tell(trial, None if stopped else row["value"], TrialState.PRUNED if stopped else TrialState.COMPLETE)


def test_a_pruner_that_is_asked_again_answers_the_same(home):
    """A kill after the pruner wrote what it saw, and before its answer was heard."""
    stores, _ = home
    search = SearchSpec(space=["TrainingSpec.learning_rate=log(1e-4,1e-2)"], sampler="random", num_trials=3)
    search = search.model_copy(update={"pruner": "asha", "reduction_factor": 2})
    with open_book(open_studies(stores), "asked-again", search) as book:
        book.enter_all()
        pruner = build_pruner(search, 3)
        assert pruner is not None
        for loss in (1.0, 2.0):
            trial = book.claim("run/0")
            trial.report(loss, 1)
            answers = {judge(book.load(), trial, build_pruner(search, 3), 1) for _ in range(3)}
            assert answers == {loss == 2.0}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_workers_share_the_trials_of_one_study(kind, quick_path, request):
    variables = {"HEIMDALL_HOME": str(quick_path / "home"), "HEIMDALL_TRACKING": "off"}
    if kind == "postgresql":
        server = request.getfixturevalue("postgres")
        name = server.create_database(request.getfixturevalue("postgres_template"))
        variables["HEIMDALL_DATABASE_URL"] = server.url(name)
    places = read_places(variables)
    import_simulated(places.open_stores(), SIMULATION, "demo", ignore)
    stores, splits = open_searched(places)
    search = SearchSpec(space=GRID, num_workers=2)
    order = make_order(splits, search)
    assert plan_search(stores, order, lambda owner: False) == 6
    workers = [start_worker(slot, search, variables) for slot in (0, 1)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    ended = [json.loads(worker.communicate(timeout=600)[0]) for worker in workers]
    assert all(ended)
    assert sorted([*ended[0], *ended[1]]) == list(range(6))
    assert finish_search(stores, order).manifest.summary["num_complete"] == 6
    assert list_unfinished(stores) == []
    files = [path.name for path in stores.scratch.rglob("study.db")]
    if kind == "sqlite":
        assert files == ["study.db"]
        return
    assert files == []
    with psycopg2.connect(server.url(name).replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_schema FROM information_schema.tables WHERE table_name = 'trials'")
        assert cursor.fetchall() == [("heimdall_search",)]
    connection.close()


def start_worker(slot: int, search: SearchSpec, variables: dict[str, str]) -> Any:
    command = [sys.executable, "-m", "heimdall_assets_tests.pipeline.search_worker", str(slot)]
    return subprocess.Popen(
        [*command, json.dumps(search.dump())],
        env={**os.environ, **variables, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_others_are_at_is_left_to_them_and_taken_up_once_they_left(home):
    stores, splits = home
    search = SearchSpec(space=GRID, seed=11)
    order = make_order(splits, search)
    plan_search(stores, order, lambda owner: False)
    with open_book(open_studies(stores), name_search(order), search) as book:
        claimed = [book.claim(f"other/{slot}").number for slot in (0, 1)]
    assert claimed == [0, 1]
    with pytest.raises(Refused, match="found 2 trials under way in another run"):
        plan_search(stores, order, lambda owner: True)
    ended: list[int] = []
    work_on_search(stores, order, "run/0", lambda trial: ended.append(trial.number))
    assert ended == [2, 3, 4, 5]
    with pytest.raises(Refused, match="2 trials of 6 not ended"):
        finish_search(stores, order)
    (mine,) = (one for one in list_unfinished(stores) if one["study"] == name_search(order))
    assert {"num_trials": 6, "under way": 2, "waiting": 0}.items() <= mine.items()
    _, ended = run_search(stores, order)
    assert ended == [0, 1]


def test_a_trial_whose_values_contradict_each_other_fails_and_says_why(home):
    stores, splits = home
    search = SearchSpec(space=["ModelSpec.num_heads=1|3"], seed=3)
    result, _ = run_search(stores, make_order(splits, search))
    rows = {row["params"]["ModelSpec.num_heads"]: row for row in list_trial_rows(stores.objects, result.manifest)}
    assert rows[3]["state"] == "failed"
    assert rows[3]["reason"] == "ModelSpec: width 8: expected a multiple of num_heads 3"
    assert rows[1]["state"] == "complete"
    with pytest.raises(InvalidInput, match=r"no trial came to its end; ModelSpec: width 8: expected a multiple"):
        run_search(stores, make_order(splits, SearchSpec(space=["ModelSpec.num_heads=3|5"])))


def test_a_training_takes_what_was_found_and_its_lineage_walks_to_the_search(home):
    stores, splits = home
    search = SearchSpec(space=["TrainingSpec.learning_rate=1e-3|4e-3"], max_epochs=1)
    result, _ = run_search(stores, make_order(splits, search))
    found = result.manifest.digest
    assert list_searches(stores)[-1].manifest.digest == found
    chosen, told = take_settings(stores.objects, result.manifest, [TrainingSpec(max_epochs=2, learning_rate=0.5)])
    specs = {type(spec): spec for spec in chosen}
    assert specs[ModelSpec] == TINY_MODEL
    assert specs[TrainingSpec].found_by == found
    assert (specs[TrainingSpec].max_epochs, specs[TrainingSpec].batch_size) == (2, TINY_TRAINING.batch_size)
    assert len(told) == 1
    assert told[0].startswith("TrainingSpec.learning_rate: taken as 0.5, the search found 0.00")
    chosen, told = take_settings(stores.objects, result.manifest, [])
    assert told == []
    fits = [next(spec for spec in chosen if type(spec) is cls) for cls in (ModelSpec, TrainingSpec, AugmentationSpec)]
    made = train_checkpoint(stores.objects, stores.scratch, splits[TRAIN_SPLIT], splits[VAL_SPLIT], *fits).manifest
    assert found in list_followed(made)
    # What a release holds of the checkpoint holds the search: its manifest and all that it is made of.
    held = {artifact.digest for artifact in made.artifacts.values()}
    assert held >= {found, *(artifact.digest for artifact in result.manifest.artifacts.values())}
    reach = Reach(stores.objects)
    reach.walk([made.digest], "the test")
    assert found in reach.manifests
    with open_whole_index(stores) as whole:
        origins = find_origins(stores, whole.edges, made.digest)
    assert {"kind": HYPERPARAMETER_SEARCH, "digest": found}.items() <= next(
        one for one in origins if one["kind"] == HYPERPARAMETER_SEARCH
    ).items()
    plan = {step.asset: step.action for step in plan_materialization(stores, fits)}
    assert plan["trained_checkpoint"] == "reuse"
    assert HYPERPARAMETER_SEARCH not in plan


def test_what_names_no_search_or_one_of_other_splits_is_refused(home):
    stores, splits = home
    split = splits[TRAIN_SPLIT]
    fit = (stores.objects, stores.scratch, split, splits[VAL_SPLIT], TINY_MODEL)
    for digest, said in (("0" * 64, "found no such result"), (split.digest, "found train_split, expected")):
        stores.objects.put_bytes(split.encode(), JSON_MEDIA_TYPE)
        with pytest.raises(NotFound, match=f"TrainingSpec.found_by .*{said}"):
            train_checkpoint(*fit, TINY_TRAINING.model_copy(update={"found_by": digest}), AugmentationSpec())
    result, _ = run_search(stores, make_order(splits, SearchSpec(space=["ModelSpec.dropout=0|0.3"], max_epochs=1)))
    salted = {**split.specs, "SplitSpec": {**split.specs["SplitSpec"], "salt": "other"}}
    fit = (*fit[:2], split.model_copy(update={"specs": salted}), *fit[3:])
    with pytest.raises(
        Refused, match=r"split by SplitSpec.salt '42', expected 'other': it may have seen this test split"
    ):
        train_checkpoint(
            *fit, TINY_TRAINING.model_copy(update={"found_by": result.manifest.digest}), AugmentationSpec()
        )
    with pytest.raises(NotFound, match="expected latest or first digits of one of"):
        find_past(stores, "feedfeed")


def test_values_drawn_are_steady_and_within_their_ranges(home):
    """The same trial of the same search draws the same, in whatever process and however often it was begun."""
    stores, _ = home
    search = SearchSpec(space=RANGES, sampler="tpe", num_trials=12)
    drawn = []
    for study in ("steady-1", "steady-2"):
        with open_book(open_studies(stores), study, search) as book:
            book.enter_all()
            values = []
            while (trial := book.claim("run/0")) is not None:
                params = suggest(trial, search.list_dimensions())
                values.append(params)
                book.load().tell(trial.number, float(params["TrainingSpec.learning_rate"]))
                if study == "steady-2":  # as after a kill: half of the values were drawn by another process
                    book.free(lambda owner: True)
            drawn.append(values)
    assert drawn[0] == drawn[1]
    rates = np.array([params["TrainingSpec.learning_rate"] for params in drawn[0]])
    assert ((rates >= 1e-4) & (rates <= 3e-2)).all()
    assert len(set(rates)) == 12
    assert {params["TrainingSpec.batch_size"] for params in drawn[0]} <= {4, 8}
    assert np.median(rates[6:]) < np.median(rates[:6]) * 3  # estimators look where it went well
