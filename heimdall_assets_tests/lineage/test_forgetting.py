"""Five retrainings, then a session erased, a person erased, and what nobody needs removed: each still answers.

The runs of the first three are deleted in Dagster and all assets wiped. Each question is asked in a new process, of the
home and of a copy of it. The last model is one that learned for several epochs.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.specs import ModelSpec, SimulationSpec, TrainingSpec
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import ignore, make_places, release

pytestmark = pytest.mark.long

SIMULATION = SimulationSpec(num_sessions=20, min_receivers=4, max_receivers=4, duration_s=0.8)
NUM_RETRAININGS = 5
LEARNING = (
    ModelSpec(kind="single_receiver", use_spectrograms=False, width=16, num_layers=1, num_heads=2),
    TrainingSpec(max_epochs=12, num_threads=1),
)
LONG_AGO = time.time() - 100 * 86_400


@dataclass
class Past:
    """What was approved for each release, which session was erased, what gc removed, how long the last one learned."""

    places: Places
    approved: dict[str, set[str]]
    erased: str
    collected: dict[str, Any]
    best_epoch: int | None


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    places = make_places(tmp_path_factory.mktemp("past"))
    approved, runs = {}, []
    stores = places.open_stores()
    for count in range(NUM_RETRAININGS):
        more = SIMULATION.model_copy(update={"num_sessions": SIMULATION.num_sessions + 2 * count})
        import_simulated(stores, more, "demo", ignore)
        made = release(places, *(LEARNING if count == NUM_RETRAININGS - 1 else ()))
        rows = stores.measurements.list_sessions(approval_status=ApprovalStatus.APPROVED)
        approved[made["version"]] = {str(row["id"]) for row in rows}
        runs.append(made["run_id"])
        split = Manifest.decode(stores.objects.read_bytes(made["manifests"]["train_split"]))
        names = [str(name) for name in load_table(stores.objects, split.artifacts["table"])["session_id"]]
        stores.measurements.decide(names[:1], ApprovalStatus.REJECTED, "Bob", "moved while it was recorded")
    checkpoint = Manifest.decode(stores.objects.read_bytes(made["manifests"]["trained_checkpoint"]))
    stores.measurements.close()
    erased = sorted(set.intersection(*approved.values()))[0]
    ask(places.home, "erase", "session", erased, "--by", "Zoe", "--reason", "their owner asked")
    ask(places.home, "erase", "person", "Bob", "--by", "Zoe", "--reason", "he asked")
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance:
        for run_id in runs[:3]:
            instance.delete_run(run_id)
        instance.wipe_assets(instance.all_asset_keys())
    for path in (places.home / "objects").rglob("*"):
        if path.is_file():
            os.utime(path, (LONG_AGO, LONG_AGO))
    return Past(places, approved, erased, ask(places.home, "gc"), checkpoint.summary["best_epoch"])


@pytest.fixture(scope="module", params=["in place", "copied"])
def home(request: pytest.FixtureRequest, past: Past, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "in place":
        return past.places.home
    target = tmp_path_factory.mktemp("elsewhere") / "another home"
    shutil.copytree(past.places.home, target)
    return target


def ask(home: Path, *arguments: str) -> Any:
    """What a command answers, in a process of its own."""
    program = [sys.executable, "-c", "from heimdall_assets.cli import main; main()", *arguments, "--json"]
    environment = {**os.environ, "HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=900, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_something_went_and_the_last_model_learned(past: Past) -> None:
    assert len(past.collected["objects"]) > 0
    assert past.best_epoch is not None
    assert past.best_epoch > 3


def test_lineage_holds_for_all_five(past: Past, home: Path) -> None:
    for version, approved in past.approved.items():
        sessions = ask(home, "lineage", version, "--table", "sessions")
        assert {row["session_id"] for row in sessions} == approved
        assert ask(home, "lineage", version)["model"]["version"] == version
    uses = ask(home, "lineage", "--session", past.erased)["releases"]
    assert [use["version"] for use in uses] == list(past.approved)


def test_verify_holds_for_all_five_and_tells_of_the_erasure(past: Past, home: Path) -> None:
    for version in past.approved:
        told = ask(home, "verify", version)
        assert told["ok"], told
        gone = [one for one in told["findings"] if one["kind"] == "recording"]
        assert len(gone) == 4
        assert all("by Zoe (their owner asked)" in one["found"] for one in gone)


def test_all_five_are_made_again_bit_by_bit(past: Past, home: Path) -> None:
    for version in past.approved:
        told = ask(home, "reproduce", version)
        assert told["same"], told
        assert {stage["stage"] for stage in told["stages"]} >= {"train_split", "trained_checkpoint", "onnx_model"}
        assert set(told["skipped"]) == {"iq_files", "spectrogram_features"}
