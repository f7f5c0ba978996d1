"""The search as the graph runs it: one asset of several steps, told to MLflow, gone on with after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.definitions import build_definitions
from heimdall_assets.defs.accelerator import ACCELERATOR_TAG, GPU_POOL
from heimdall_assets.defs.jobs import SEARCH
from heimdall_assets.defs.tracking.searches import PARENT_TAG, STATE_TAG, TRIAL_TAG
from heimdall_assets.kinds import HYPERPARAMETER_SEARCH, TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.pipeline.tracing.searches import list_trial_rows
from heimdall_assets.places import read_places
from heimdall_assets.running.graph_run import GraphRun, run_job
from heimdall_assets.specs import ModelSpec, SearchSpec, Spec, TrainingSpec
from heimdall_assets.stores.experiments import EXPERIMENT, ExperimentStore
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import fill_home, ignore, make_places

pytestmark = pytest.mark.filterwarnings(
    # Habits of MLflow and of what it imports.
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
)

TINY: list[Spec] = [
    ModelSpec(use_spectrograms=False, use_correlations=False, width=8, num_layers=1, num_heads=1),
    TrainingSpec(max_epochs=2, num_threads=1, warmup_epochs=1),
]
SPACE = ["TrainingSpec.learning_rate=1e-3|1e-2", "TrainingSpec.batch_size=4|8"]
SETTINGS = {type(spec).__name__: {name: getattr(spec, name) for name in spec.model_fields_set} for spec in TINY}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Places, GraphRun]]:
    """A home whose job ``search`` ran once with two workers, and what it made; MLflow heard of it."""
    home = fill_home(tmp_path_factory.mktemp("searched") / "home").home
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work")
        patch.chdir(folder)
        for name in list(os.environ):
            if name.startswith("MLFLOW_"):
                patch.delenv(name)
        places = read_places({"HEIMDALL_HOME": str(home)})
        yield places, run_job(places, SEARCH, [SearchSpec(space=SPACE, num_workers=2), *TINY], ignore)


def test_the_steps_take_both_splits_and_work_wants_a_gpu(tmp_path):
    definitions = build_definitions(make_places(tmp_path))
    node = definitions.get_repository_def().asset_graph.get(dg.AssetKey(HYPERPARAMETER_SEARCH))
    assert {key.to_user_string() for key in node.parent_keys} == {TRAIN_SPLIT, VAL_SPLIT}
    job = definitions.resolve_job_def("search")
    graph = job.graph.node_named(HYPERPARAMETER_SEARCH).definition
    work = graph.node_named("work_on_search").definition
    assert work.pool == GPU_POOL
    assert work.tags[ACCELERATOR_TAG] == "gpu"
    for name in ("plan_search", "work_on_search", "finish_search"):
        assert TEST_SPLIT not in {one.name for one in graph.node_named(name).definition.input_defs}
    release = definitions.resolve_job_def("release").graph
    assert HYPERPARAMETER_SEARCH not in {node.name for node in release.nodes}


def test_the_graph_tries_each_point_once_and_finds_the_search_again(searched):
    places, ran = searched
    manifest = ran.manifests[HYPERPARAMETER_SEARCH]
    assert manifest.summary["num_complete"] == 4
    rows = list_trial_rows(places.open_stores().objects, manifest)
    assert len({json.dumps(row["params"]) for row in rows}) == 4
    shown = ran.metadata[HYPERPARAMETER_SEARCH]
    assert shown["best"] == manifest.summary["best"]
    assert shown["parallel_coordinates"].endswith(f"/searches/{manifest.digest}/parallel_coordinates.svg)")
    again = run_job(places, SEARCH, [SearchSpec(space=SPACE, num_workers=2), *TINY], ignore)
    assert again.count_computed()[HYPERPARAMETER_SEARCH] == 0
    assert again.manifests[HYPERPARAMETER_SEARCH].digest == manifest.digest


def test_mlflow_holds_the_search_and_below_it_each_trial_once(searched):
    places, ran = searched
    client = ExperimentStore(places.mlflow_uri).open_client()
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    runs = client.search_runs([experiment])
    (parent,) = [run for run in runs if run.data.tags[TRIAL_TAG] == ""]
    assert parent.info.status == "FINISHED"
    manifest = ran.manifests[HYPERPARAMETER_SEARCH]
    assert parent.data.tags["heimdall.manifest"] == manifest.digest
    assert parent.data.tags["heimdall.intent"] == "hyperparameter-search"
    assert parent.data.metrics["best_value"] == manifest.summary["best_value"]
    assert parent.data.params["SearchSpec.sampler"] == "grid"
    children = {int(run.data.tags[TRIAL_TAG]): run for run in runs if run is not parent}
    assert len(runs) == 5
    for row in list_trial_rows(places.open_stores().objects, manifest):
        child = children[row["number"]]
        assert child.info.status == "FINISHED"
        assert child.data.tags[PARENT_TAG] == parent.info.run_id
        assert child.data.tags[STATE_TAG] == row["state"]
        assert child.data.params == {name: str(value) for name, value in row["params"].items()}
        history = client.get_metric_history(child.info.run_id, "val_loss")
        assert [point.value for point in sorted(history, key=lambda point: point.step)] == row["val_losses"]
        assert child.data.metrics["objective"] == row["value"]


def invoke(places: Places, *arguments: str) -> Any:
    environment = {"HEIMDALL_HOME": str(places.home), "HEIMDALL_TRACKING": "off"}
    return CliRunner().invoke(main, list(arguments), env=environment)


def test_the_command_shows_lists_and_writes(searched, tmp_path):
    places, ran = searched
    digest = ran.manifests[HYPERPARAMETER_SEARCH].digest
    (one,) = json.loads(invoke(places, "search", "list", "--json").stdout)["searches"]
    assert one["search"] == digest
    assert "4 complete" in invoke(places, "search", "show").stdout
    shown = json.loads(invoke(places, "search", "show", digest[:9], "--json", "--output", str(tmp_path / "out")).stdout)
    assert len(shown["trials"]) == 4
    assert sum(shown["importance"].values()) == pytest.approx(1)
    assert {Path(file).name for file in shown["files"]} == {
        "best.json", "importance.json", "importance.svg", "parallel_coordinates.svg", "trials.parquet",
    }  # fmt: skip
    assert (tmp_path / "out" / "importance.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "TrainingSpec.lr=1|2"], "SearchSpec: space: TrainingSpec.lr: no such setting, did you mean"),
        (["--space", "nonsense"], "expected Spec.field=a|b|c"),
        (["--space", "TrainingSpec.learning_rate=log(1e-4,1e-2)"], "with sampler grid, expected values a|b|c"),
        (["--set", "SearchSpec.num_trials=0"], "SearchSpec.num_trials: found 0"),
        (["show", "feedfeed"], "search feedfeed: found 0, expected latest or first digits of one of"),
    ],
)
def test_what_is_wrong_is_one_line(searched, arguments, said):
    found = invoke(searched[0], "search", *arguments)
    assert found.exit_code == 2
    (line,) = found.stderr.strip().splitlines()
    assert said in line


def test_where_nothing_was_searched_nothing_is_listed_and_training_says_so(tmp_path):
    places = fill_home(tmp_path / "home")
    assert json.loads(invoke(places, "search", "list", "--json").stdout) == {"searches": [], "not_ended": []}
    found = invoke(places, "train", "--search", "latest")
    assert found.exit_code == 2
    assert "search latest: found no search in this home" in found.stderr


def start_search(home: Path, executor: str, settings: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from heimdall_assets.cli import main; main()", "search", "--json"]
    environment = {"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off", "HEIMDALL_EXECUTOR": executor}
    return subprocess.Popen(
        [*command, "--settings", str(settings), *arguments],
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_trials(home: Path, process: "subprocess.Popen[str]", num_ended: int) -> None:
    """Return once so many trials of the one study have ended; the process that works on it must still live."""
    import sqlite3
    from contextlib import closing

    while process.poll() is None:
        for file in (home / "scratch").glob("search-*/study.db"):
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as connection:
                try:
                    ((count,),) = connection.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchall()
                except sqlite3.OperationalError:  # its tables are being made
                    count = 0
            if count >= num_ended:
                return
        time.sleep(0.05)
    raise AssertionError(f"it ended before {num_ended} trials had: {process.communicate()}")


def end_search(process: "subprocess.Popen[str]", seconds: float = 600.0) -> dict[str, Any]:
    output, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors[-2000:]
    told: dict[str, Any] = json.loads(output)
    return told


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.communicate()


@pytest.mark.parametrize("executor", ["in_process", "local"])
def test_a_search_that_was_killed_goes_on_with_the_same_command(searched, tmp_path, executor):
    """Killed twice; in processes of its own or not, what comes out is what the other home came to undisturbed."""
    home = fill_home(tmp_path / "home").home
    settings = tmp_path / "settings.yaml"
    search = {"space": SPACE, "num_workers": 2}
    settings.write_text(json.dumps({**SETTINGS, "SearchSpec": search}))
    for num_ended in (1, 3):
        process = start_search(home, executor, settings)
        wait_for_trials(home, process, num_ended)
        kill(process)
    told = end_search(start_search(home, executor, settings))
    stores = make_places(home).open_stores()
    ran = searched[1]
    from heimdall_assets.pipeline.stages.hyperparameter_search import read_search

    rows = list_trial_rows(stores.objects, read_search(stores.objects, told["search"]))
    undisturbed = list_trial_rows(searched[0].open_stores().objects, ran.manifests[HYPERPARAMETER_SEARCH])
    kept = ("number", "params", "value", "val_losses", "state")
    assert [[row[name] for name in kept] for row in rows] == [[row[name] for name in kept] for row in undisturbed]


@pytest.mark.long
def test_81_points_end_in_a_quarter_of_an_hour_killed_twice(tmp_path):
    """The default grid, a tiny model, two processors, every trial through the graph."""
    home = fill_home(tmp_path / "home").home
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps(SETTINGS))
    began = time.monotonic()
    for num_ended in (20, 50):
        process = start_search(home, "in_process", settings)
        wait_for_trials(home, process, num_ended)
        kill(process)
    told = end_search(start_search(home, "in_process", settings), 3600.0)
    took_s = time.monotonic() - began
    assert (told["num_trials"], told["num_complete"]) == (81, 81)
    print(f"81 points in {took_s / 60:.1f} min")
    stores = make_places(home).open_stores()
    from heimdall_assets.pipeline.stages.hyperparameter_search import read_search

    rows = list_trial_rows(stores.objects, read_search(stores.objects, told["search"]))
    assert len({json.dumps(row["params"], sort_keys=True) for row in rows}) == 81
