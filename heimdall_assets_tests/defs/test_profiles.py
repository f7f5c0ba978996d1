"""Profiles on Dagster's side: the jobs of the page, what starts by itself, and the tags that a step reads."""

import sys
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from heimdall_assets.definitions import build_definitions, recover_at
from heimdall_assets.defs.executor.router import Machines
from heimdall_assets.defs.jobs import StartingPoint
from heimdall_assets.defs.origins import tag_profile, tells_mlflow
from heimdall_assets.defs.resources import WeightsAndBiases
from heimdall_assets.defs.sensors import build_approval_sensor, build_weekly_schedule
from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.lineage.tree import describe_facts
from heimdall_assets.manifests import Manifest
from heimdall_assets.profiles.reading import list_profiles, read_profile
from heimdall_assets.specs import RetrainPolicy
from heimdall_assets.stores.computing import read_facts
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import TINY, fill_home, make_places
from heimdall_assets_tests.serving import wait_for

EAGER = RetrainPolicy(min_changed_sessions=1, quiet_period_s=0.0)
OWN = """
name: tiny
purpose: a test
extends: laptop
ModelSpec: {use_spectrograms: false, width: 16, num_layers: 1, num_heads: 2}
TrainingSpec: {max_epochs: 1, num_threads: 1, batch_size: 4}
MachineSpec: {accelerator: cpu, prefetch_batches: 3}
EvaluationSpec: {num_bootstrap: 100}
tracking: {mlflow: false, wandb: always}
"""


def write(folder: Path) -> str:
    (folder / "tiny.yaml").write_text(OWN)
    return str(folder / "tiny.yaml")


def start_from(places: Places, profile: str) -> Places:
    return places.model_copy(update={"profile": profile})


@pytest.mark.parametrize("name", list_profiles())
def test_the_page_has_a_job_for_each_profile_whose_launchpad_begins_with_its_settings(tmp_path: Path, name: str):
    job = build_definitions(make_places(tmp_path)).resolve_job_def(f"release_{name}")
    assert job.tags["heimdall/profile"] == name
    settings = read_profile(name).profile.settings
    config = dg.validate_run_config(job, job.run_config)["ops"][TRAINED_CHECKPOINT]["config"]
    for spec, part in (("TrainingSpec", "training"), ("MachineSpec", "machine"), ("ModelSpec", "model")):
        assert {field: config[part][field] for field in settings[spec]} == settings[spec]
    assert config["training"]["batch_size"] == {"hpc": 512, "workstation": 64, "laptop": 32, "embedded": 16}[name]


def test_a_job_that_no_profile_is_named_for_begins_with_defaults(tmp_path: Path):
    definitions = build_definitions(make_places(tmp_path))
    for name in ("release", "train", "ingest"):
        job = definitions.resolve_job_def(name)
        assert not job.run_config
        assert "heimdall/profile" not in job.tags


def test_a_named_profile_is_what_the_jobs_of_the_page_run_with(tmp_path: Path):
    """The whole way: a job of the page, started as it stands there, on a home with sessions."""
    places = start_from(fill_home(tmp_path / "home"), write(tmp_path))
    job = build_definitions(places).resolve_job_def("train")
    with dg.instance_for_test() as instance:
        result = job.execute_in_process(instance=instance, run_config=job.run_config)
        assert result.success
        (event,) = result.asset_materializations_for_node(TRAINED_CHECKPOINT)
        run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["heimdall/profile"].startswith("tiny (sha256:")
    stores = places.open_stores()
    digest = (event.tags or {})["dagster/data_version"]
    manifest = Manifest.decode(stores.objects.read_bytes(digest))
    assert manifest.specs["TrainingSpec"]["max_epochs"] == 1
    assert manifest.specs["TrainingSpec"]["batch_size"] == 4
    facts = read_facts(stores.objects, digest)
    assert facts is not None
    assert facts["profile"] == run.tags["heimdall/profile"]
    told = describe_facts({**facts, "environment": "0" * 64})
    assert f"profile {facts['profile']}" in told


def ask(places: Places, start: StartingPoint) -> dg.RunRequest:
    sensor = build_approval_sensor(EAGER, places.open_stores, recover_at(places), start)
    with dg.instance_for_test() as instance:
        first = sensor.evaluate_tick(dg.build_sensor_context(instance))
        again = dg.build_sensor_context(instance, cursor=first.cursor)
        requests = first.run_requests or sensor.evaluate_tick(again).run_requests
    assert requests
    return requests[0]


def test_what_starts_by_itself_begins_with_the_profile_where_nothing_is_released(tmp_path: Path):
    places = fill_home(tmp_path / "home")
    start = StartingPoint(read_profile(write(tmp_path)))
    first = ask(places, start)
    config = first.run_config["ops"][TRAINED_CHECKPOINT]["config"]
    assert (config["training"]["max_epochs"], config["model"]["width"]) == (1, 16)
    assert first.tags["heimdall/profile"].startswith("tiny (sha256:")
    assert ask(places, StartingPoint()).run_config == {"ops": {}}

    schedule = build_weekly_schedule(places.open_stores, start)
    with dg.instance_for_test() as instance:
        (request,) = schedule.evaluate_tick(dg.build_schedule_context(instance)).run_requests
    assert request.run_config == first.run_config
    assert request.tags["heimdall/wandb"] == "always"


def test_a_retraining_keeps_what_decides_results_and_uses_its_machine_as_the_profile_says(tmp_path: Path):
    start = StartingPoint(read_profile(write(tmp_path)))
    again = start.configure_again(TINY)  # two epochs, 64 in a batch: a champion's
    config = again["ops"][TRAINED_CHECKPOINT]["config"]
    assert (config["training"]["max_epochs"], config["training"]["batch_size"]) == (2, 64)
    assert config["machine"]["prefetch_batches"] == 3
    dg.validate_run_config(build_definitions(make_places(tmp_path)).resolve_job_def("release"), again)
    assert StartingPoint().configure_again(TINY) == build_run_config(TINY)


def test_what_a_profile_asks_of_a_cluster_stands_with_the_executor(tmp_path: Path):
    start = StartingPoint(read_profile("hpc"), "k8s")
    config = start.configure()
    assert config["execution"]["config"]["accelerator"] == {"num_gpus": 4, "num_cpus": 16, "memory_gib": 64.0}
    job = build_definitions(make_places(tmp_path)).resolve_job_def("release")
    dg.validate_run_config(job, config)
    assert "execution" not in StartingPoint(read_profile("hpc"), "in_process").configure()
    assert Machines("k8s", "").accelerator.num_gpus == 1  # what a run says wins over it


def test_steps_elsewhere_are_told_no_profile_for_their_run_is_configured(tmp_path: Path):
    places = start_from(make_places(tmp_path), str(tmp_path / "only-here.yaml"))
    assert places.share()["HEIMDALL_PROFILE"] == ""


def run_of(tags: dict[str, str]) -> dg.DagsterRun:
    return dg.DagsterRun(job_name="release", run_id="0" * 32, tags=tags)


def test_who_is_told_of_a_training_is_what_its_runs_tags_say(tmp_path: Path):
    assert tells_mlflow(run_of({}))
    assert tells_mlflow(run_of(tag_profile(read_profile("laptop"))))
    assert not tells_mlflow(run_of(tag_profile(read_profile(write(tmp_path)))))


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(line)


def follow(folder: Path, wanted: str) -> tuple[list[str], list[Path]]:
    """Return what is warned of, and which files are left, where a training of two epochs is followed."""
    context = SimpleNamespace(run=run_of({"heimdall/wandb": wanted}), log=Log())
    with WeightsAndBiases(folder).follow(context, {"TrainingSpec.seed": 42}) as curves:  # type: ignore[arg-type]
        curves.start()
        for epoch in range(2):
            curves.log_epoch(epoch, {"train_loss": 1.0 / (epoch + 1)})
    return context.log.lines, [path for path in folder.rglob("*") if path.is_file()]


def test_weights_and_biases_that_is_absent_costs_a_warning_and_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert follow(tmp_path / "wandb", "never") == ([], [])
    assert follow(tmp_path / "wandb", "installed")[0] == [
        "Weights & Biases is told nothing: heimdall-assets[wandb] is not installed"
    ]
    (line,) = follow(tmp_path / "wandb", "always")[0]
    assert line.endswith("could not open a run: found no package wandb; install heimdall-assets[wandb]")


def test_weights_and_biases_keeps_curves_and_settings_in_files_of_its_own(tmp_path: Path):
    pytest.importorskip("wandb", reason="heimdall-assets[wandb] is not installed")
    lines, files = follow(tmp_path / "wandb", "always")
    assert lines == []
    (kept,) = [path for path in files if path.suffix == ".wandb"]
    # Its own process writes it, and may be a moment behind.
    wait_for(lambda: b"train_loss" in kept.read_bytes(), 60.0, "the curves", kept)
    assert b"TrainingSpec.seed" in kept.read_bytes()
