"""A whole run of the graph as MLflow hears of it: in the home, in a home that was moved, and on a server."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from heimdall_assets.defs.origins import tag_intent
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.kinds import TEST_SPLIT, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest, compute_digest
from heimdall_assets.places import read_places
from heimdall_assets.running.graph_run import QUIET, run_graph
from heimdall_assets.specs import EvaluationSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.computing import name_user
from heimdall_assets.stores.experiment_entries import Entries
from heimdall_assets.stores.experiments import EXPERIMENT, REGISTERED_MODEL, ExperimentStore
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import TINY, fill_home, ignore
from heimdall_assets_tests.mlflow_server import run_mlflow

pytestmark = [
    # Habits of MLflow and of what it imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CHAIN = {
    "DatasetSpec", "RecordingSpec", "FeatureSpec", "DelaySpec", "SplitSpec", "TimingSpec", "ModelSpec", "TrainingSpec",
    "AugmentationSpec", "MachineSpec", "EvaluationSpec", "ExportSpec", "GateSpec",
}  # fmt: skip
FILES = {
    "checkpoint/settings.json", "checkpoint/weights.safetensors", "config/evaluation.yaml", "config/export.yaml",
    "config/gates.yaml", "config/release.yaml", "config/settings.yaml", "environment/packages.txt",
    "evaluation/importance.json", "evaluation/metrics.json", "model_card.md", "plots/error_cdf.svg",
    "plots/error_map.svg", "plots/error_vectors.svg", "plots/importance.svg", "plots/losses.svg",
    "plots/reliability.svg", "predictions/examples.csv",
}  # fmt: skip
FIGURES = {
    *(f"{split}/{name}" for split in ("train", "val", "test") for name in ("accuracy_30m", "accuracy_50m",
      "accuracy_100m", "median_m", "coverage_90", "num_sessions")),
    "train_loss", "val_loss", "epoch_time_s", "samples_per_s", "wall_time_s", "latency/p50_ms", "latency/p95_ms",
    "importance/arrivals/increase_m", "importance/levels/increase_m", "onnx/size_bytes",
    "onnx/max_position_error_sigma", "system/cpu_utilization_percentage", "bound/median_m",
}  # fmt: skip


def train(home: Path, *specs: Any, **variables: str) -> tuple[dict[str, Any], Places]:
    """Return what a whole run made, and where; nothing was lost on the way to MLflow."""
    places = read_places({"HEIMDALL_HOME": str(home), "HEIMDALL_IMAGE": "registry.example/heimdall:7", **variables})
    chosen = {type(spec): spec for spec in [*TINY, *specs]}
    summary = run_graph(places, "release", list(chosen.values()), ignore, "to see it", tag_intent("baseline"))
    with dg.DagsterInstance.from_config(str(places.dagster_home)) as instance:
        logs = instance.all_logs(summary["run_id"])
    assert [log.user_message for log in logs if "MLflow" in log.user_message and log.level >= 30] == []
    return summary, places


def find_run(uri: str, dagster_run: str) -> tuple[Any, Any]:
    """Return a client and the one run that stands for a run of the graph."""
    client = ExperimentStore(uri).open_client()
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    (run,) = client.search_runs([experiment], f"tags.dagster_run_id = '{dagster_run}'")
    return client, run


def list_files(client: Any, run_id: str, below: str = "") -> Iterator[str]:
    for item in client.list_artifacts(run_id, below or None):
        if item.is_dir:
            yield from list_files(client, run_id, item.path)
        else:
            yield item.path


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in, in which MLflow must leave nothing."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work")
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        yield folder
        assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def trained(work: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Places]:
    """A home whose graph ran once, told to the store in it."""
    home = tmp_path_factory.mktemp("tracked") / "home"
    fill_home(home)
    return train(home)


def read_manifest(places: Places, digest: str) -> Manifest:
    return Manifest.decode(places.open_stores().objects.read_bytes(digest))


def test_a_run_holds_every_setting_of_the_chain_and_what_the_data_were(trained):
    summary, places = trained
    _, run = find_run(places.mlflow_uri, summary["run_id"])
    params = run.data.params
    assert {name.partition(".")[0] for name in params} == CHAIN | {"data"}
    assert params["TrainingSpec.max_epochs"] == "2"
    assert params["EvaluationSpec.accuracy_radii_m"] == json.dumps(EvaluationSpec().accuracy_radii_m)
    test = read_manifest(places, summary["manifests"][TEST_SPLIT])
    assert params["data.num_sessions.test_split"] == str(test.summary["num_sessions"])
    assert float(params["data.share.test_split"]) == pytest.approx(test.summary["num_sessions"] / 20, abs=1e-4)
    assert params["data.snapshot"] == summary["manifests"]["approved_measurements"]
    assert params["data.preprocessing"] == summary["manifests"]["spectrogram_features"]
    assert json.loads(params["data.origins"]) == {"simulated": 20}
    kept = {item.dataset.name: (item.dataset.digest, item.tags[0].value) for item in run.inputs.dataset_inputs}
    contexts = {"train_split": "training", "val_split": "validation", "test_split": "testing"}
    assert kept == {name: (summary["manifests"][name][:36], context) for name, context in contexts.items()}


def test_a_run_holds_figures_of_all_splits_speed_and_machine(trained):
    summary, places = trained
    _, run = find_run(places.mlflow_uri, summary["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics.keys() >= FIGURES
    counts = [run.data.metrics[f"{split}/num_sessions"] for split in ("train", "val", "test")]
    assert sum(counts) == 20
    assert 0 < run.data.metrics["latency/p50_ms"] <= run.data.metrics["latency/p95_ms"]


def test_a_run_says_who_why_and_under_which_environment_and_names_nobody(trained):
    summary, places = trained
    _, run = find_run(places.mlflow_uri, summary["run_id"])
    tags = run.data.tags
    assert tags["heimdall.intent"] == "baseline"
    assert run.info.run_name.startswith("baseline/network/")
    assert tags["heimdall.reason"] == "to see it"
    assert tags["heimdall.image"] == "registry.example/heimdall:7"
    assert {"heimdall.python", "heimdall.packages_sha256", "heimdall.code_sha256", "heimdall.version.torch"} <= set(
        tags
    )
    assert places.open_stores().read_names()[tags["mlflow.user"]] == name_user()
    assert tags["heimdall.checkpoint"] == summary["manifests"][TRAINED_CHECKPOINT]
    assert tags["heimdall.version"] == summary["version"]


def test_the_same_graph_once_more_adds_nothing_to_what_mlflow_holds(trained):
    _, places = trained

    def measure() -> int:
        told = [*places.home.glob("mlflow.db*"), *(places.home / "mlflow-artifacts").rglob("*")]
        return sum(path.stat().st_size for path in told if path.is_file())

    before = measure()
    summary, _ = train(places.home)
    assert not any(summary["computed"].values())
    assert measure() == before


def test_files_of_a_home_that_was_moved_are_handed_out_where_it_is(trained, tmp_path: Path):
    summary, places = trained
    shutil.copytree(places.home, tmp_path / "before")
    home = (tmp_path / "before").rename(tmp_path / "after")
    with run_mlflow(tmp_path, f"sqlite:///{home / 'mlflow.db'}", home / "mlflow-artifacts") as port:
        client, run = find_run(f"http://127.0.0.1:{port}", summary["run_id"])
        run_id = run.info.run_id
        assert set(list_files(client, run_id)) == FILES
        path = Path(client.download_artifacts(run_id, "checkpoint/weights.safetensors", str(tmp_path)))
        checkpoint = read_manifest(places, summary["manifests"][TRAINED_CHECKPOINT])
        assert compute_digest(path.read_bytes()) == checkpoint.artifacts["weights.safetensors"].digest
        settings = yaml.safe_load(
            Path(client.download_artifacts(run_id, "config/settings.yaml", str(tmp_path))).read_text()
        )
        assert settings.keys() == CHAIN - {"EvaluationSpec", "ExportSpec", "GateSpec"}
        examples = Path(client.download_artifacts(run_id, "predictions/examples.csv", str(tmp_path))).read_text()
        rows = list(csv.DictReader(io.StringIO(examples)))
        assert len(rows) == run.data.metrics["test/num_sessions"]
        errors = sorted(float(row["error_m"]) for row in rows)
        assert errors[-1] == pytest.approx(run.data.metrics["test/max_m"], abs=0.1)


def test_a_server_is_told_the_same_and_the_types_of_signals_that_were_confused(work, tmp_path: Path):
    fill_home(tmp_path / "home")
    specs = [ModelSpec(use_spectrograms=False, width=16, num_layers=1, num_heads=2, multi_target=True)]
    specs += [TrainingSpec(max_epochs=1, num_threads=1)]
    with run_mlflow(tmp_path, f"sqlite:///{tmp_path / 'server.db'}") as port:
        uri = f"http://127.0.0.1:{port}"
        summary, _ = train(tmp_path / "home", *specs, MLFLOW_TRACKING_URI=uri)
        client, run = find_run(uri, summary["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.metrics.keys() >= FIGURES
        assert {name.partition(".")[0] for name in run.data.params} == CHAIN | {"data"}
        files = set(list_files(client, run.info.run_id))
        assert files == FILES | {"evaluation/confusion.csv", "plots/confusion.svg"}
        path = Path(client.download_artifacts(run.info.run_id, "evaluation/confusion.csv", str(tmp_path)))
        champion = client.get_model_version_by_alias(REGISTERED_MODEL, "champion")
        assert (champion.source, champion.run_id) == (f"heimdall:/{summary['version']}", run.info.run_id)
        (head, *rows) = list(csv.reader(path.read_text().splitlines()))
        assert head == ["sent", "voice", "tone", "dtmf"]
        assert sum(int(count) for row in rows for count in row[1:]) == run.data.metrics["test/num_sessions"]


def test_a_server_that_dies_while_a_model_trains_costs_one_warning_and_leaves_no_run_active(work, tmp_path: Path):
    import mlflow

    with ExitStack() as server:
        port = server.enter_context(run_mlflow(tmp_path, f"sqlite:///{tmp_path / 'server.db'}"))
        tracking = ExperimentTracking(tracking_uri=f"http://127.0.0.1:{port}")
        done = []

        @dg.asset(name="trained_checkpoint")
        def training(context: dg.AssetExecutionContext) -> None:
            with tracking.follow(context, lambda: Entries({"a": 1}, files={"a.txt": b"a"})) as tracked:
                tracked.start()
                done.append(mlflow.active_run().info.run_id)
                server.close()
                for epoch in range(3):
                    tracked.log_epoch(epoch, {"val_loss": 1.0})
            done.append(tracked.run_id)

        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([training], instance=instance, run_config=QUIET)
            logs = [log.user_message for log in instance.all_logs(result.run_id)]
    assert len(set(done)) == 1
    (said,) = [line for line in logs if "MLflow is away" in line]
    assert "could not log an epoch" in said
    assert mlflow.active_run() is None
