"""Five retrainings of the real graph with additions and withdrawals: every one of them still answers for itself.

The Dagster runs of the first three are deleted and all assets wiped; lineage and verify are asked in new processes.
"""

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.lineage.provenance import find_facts
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.specs import SimulationSpec
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import ignore, make_places, release

pytestmark = pytest.mark.long

SIMULATION = SimulationSpec(num_sessions=20, min_receivers=4, max_receivers=4, duration_s=0.8)
NUM_RETRAININGS = 5
WITHDRAWN = "moved while it was recorded"
PROMOTED = "better at unseen sites"


@dataclass
class History:
    """What was approved for each release, in order; who was withdrawn after it; the runs that made them."""

    places: Places
    approved: dict[str, set[str]]
    withdrawn: dict[str, str]
    runs: list[str]


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    places = make_places(tmp_path_factory.mktemp("history"))
    told = History(places, {}, {}, [])
    stores = places.open_stores()
    for count in range(NUM_RETRAININGS):
        more = SIMULATION.model_copy(update={"num_sessions": SIMULATION.num_sessions + 2 * count})
        import_simulated(stores, more, "demo", ignore)  # approves what is pending, never what was withdrawn
        made = release(places)
        approved = stores.measurements.list_sessions(approval_status=ApprovalStatus.APPROVED)
        told.approved[made["version"]] = {row["id"] for row in approved}
        told.runs.append(made["run_id"])
        split = Manifest.decode(stores.objects.read_bytes(made["manifests"]["train_split"]))
        chosen = str(load_table(stores.objects, split.artifacts["table"])["session_id"].iloc[0])
        stores.measurements.decide([chosen], ApprovalStatus.REJECTED, "Bob", WITHDRAWN)
        told.withdrawn[made["version"]] = chosen
    command("models", "promote", next(iter(told.approved)), "--by", "Zoe", "--reason", PROMOTED, home=places.home)
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance:
        for run_id in told.runs[:3]:
            instance.delete_run(run_id)
        instance.wipe_assets(instance.all_asset_keys())
    stores.measurements.close()
    return told


def command(*arguments: str, home: Path, code: int = 0) -> str:
    """What a command prints, in this process."""
    environment = {"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off"}
    result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout


def ask_anew(*arguments: str, home: Path) -> Any:
    """What a command answers, in a process of its own."""
    program = [sys.executable, "-c", "from heimdall_assets.cli import main; main()", *arguments, "--json"]
    environment = {**os.environ, "HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=600, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_lineage_and_verify_hold_for_all_five_in_new_processes(history):
    assert list(history.approved) == ["v1.0.0", "v1.0.1", "v1.0.2", "v1.0.3", "v1.0.4"]
    for version, approved in history.approved.items():
        told = ask_anew("lineage", version, home=history.places.home)
        sessions = ask_anew("lineage", version, "--table", "sessions", home=history.places.home)
        assert {row["session_id"] for row in sessions} == approved
        assert all(row["approved_by"] and row["approved_at"] and row["approval_reason"] for row in sessions)
        assert all(node["event"]["run_id"] in history.runs for node in told["nodes"])
        environment = find_facts(told, "trained_checkpoint")["environment"]
        assert {"lock_sha256", "python", "git_sha", "git_dirty", "packages", "processor", "threads"} <= set(environment)
        assert environment["cpu_capability"] is not None
        assert environment["threads"]["torch"] > 0
        verified = ask_anew("verify", version, home=history.places.home)
        assert verified["ok"]
        assert {finding["severity"] for finding in verified["findings"]} == {"notice"}
        gone = [finding for finding in verified["findings"] if finding["kind"] == "dagster_event"]
        assert len(gone) == 1  # wiped, and said so


def test_a_withdrawn_session_names_the_releases_that_used_it_and_no_later_one(history):
    versions = list(history.approved)
    for version, session in history.withdrawn.items():
        uses = ask_anew("lineage", "--session", session, home=history.places.home)["releases"]
        expected = [name for name in versions[: versions.index(version) + 1] if session in history.approved[name]]
        assert [use["version"] for use in uses] == expected
        assert version in expected


def flip(path: Path, place: int | None = None) -> bytes:
    """Change one bit of a file; return its bytes as they were."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2 if place is None else place] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    return whole


def verify(history: History, version: str, code: int) -> list[dict[str, Any]]:
    """What an audit finds wrong."""
    told = json.loads(command("verify", version, "--json", home=history.places.home, code=code))
    return [finding for finding in told["findings"] if finding["severity"] == "error"]


def find_object(history: History, digest: str) -> Path:
    return history.places.open_stores().objects.local_path(digest)


def list_nodes(history: History, version: str) -> dict[str, Any]:
    told = json.loads(command("lineage", version, "--json", home=history.places.home))
    return {node["kind"]: node for node in told["nodes"]}


def test_one_flipped_byte_in_an_object_or_manifest_is_found_and_made_again(history):
    """Of the first model, whose data is approved no more: nothing but making it again brings the bytes back."""
    nodes = list_nodes(history, "v1.0.0")
    flipped = {
        nodes["trained_checkpoint"]["artifacts"]["weights.safetensors"]["digest"]: "object",
        nodes["spectrogram_features"]["summary"]["shards"][0]: "object",
        nodes["evaluation_metrics"]["artifacts"]["metrics.json"]["digest"]: "object",
        nodes["trained_checkpoint"]["digest"]: "manifest",
    }
    for digest, kind in flipped.items():
        path = find_object(history, digest)
        whole = flip(path)
        (found,) = verify(history, "v1.0.0", 1)
        assert found["kind"] == kind
        assert found["name"].endswith(digest)
        assert "v1.0.0" in found["releases"]
        path.write_bytes(whole)
    for digest in flipped:
        flip(find_object(history, digest))
    told = json.loads(command("reproduce", "v1.0.0", "--repair", "--json", home=history.places.home))
    assert told["same"]
    assert set(told["restored"]) == set(flipped)
    assert verify(history, "v1.0.0", 0) == []


def test_one_flipped_byte_in_a_recording_names_every_release_that_used_it(history):
    rows = json.loads(command("lineage", "v1.0.1", "--table", "measurements", "--json", home=history.places.home))
    first = next(row for row in rows if row["session_id"] == history.withdrawn["v1.0.1"])
    path = find_object(history, first["iq_digest"])
    whole = flip(path)
    (found,) = verify(history, "v1.0.1", 1)
    assert found["kind"] == "recording"
    users = [version for version, approved in history.approved.items() if history.withdrawn["v1.0.1"] in approved]
    assert found["releases"] == users
    assert "heimdall import" in found["next_command"]
    history.places.open_stores().objects.put_bytes(whole, "application/x-npy")  # what an import does with the same file
    assert verify(history, "v1.0.1", 0) == []


@pytest.mark.parametrize(
    "name", ["model.onnx", "config.yaml", "README.md", "provenance.json", "SHA256SUMS", "verify_release.py"]
)
def test_one_flipped_byte_in_a_release_file_is_found_and_repaired(history, name):
    flip(history.places.open_stores().releases.files.folder("v1.0.2") / name)
    found = verify(history, "v1.0.2", 1)
    assert {finding["name"].split()[0] for finding in found} == {f"v1.0.2/{name}"}
    assert found[0]["kind"] == ("provenance" if name == "provenance.json" else "release_file")
    told = json.loads(command("verify", "v1.0.2", "--repair", "--json", home=history.places.home))
    assert told["ok"]
    assert name in told["repaired"][0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (WITHDRAWN, "approval_events"),
        (PROMOTED, "promotion_events"),
        ("simulated with seed 42", "approval_events"),
        ('"model.onnx":{"sha256":"', "model_releases"),
    ],
)
def test_one_flipped_byte_in_a_ledger_row_is_found_and_a_backup_restores_it(history, text, name):
    path = history.places.home / "heimdall.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    backup = flip(path, path.read_bytes().index(text.encode()) + len(text) - 1)
    named = set()
    for version in history.approved:
        asked = CliRunner().invoke(main, ["verify", version, "--json"], env={"HEIMDALL_HOME": str(history.places.home)})
        if asked.exit_code == 2:  # a row that is no JSON any more is one line that names it
            named.add(asked.stderr.removeprefix("Error: ").split()[0])
            continue
        told = json.loads(asked.stdout)
        named |= {finding["name"].split()[0] for finding in told["findings"] if finding["severity"] == "error"}
    path.write_bytes(backup)
    assert named & {name, "log_entries"}  # the same words stand in both, and which come first the database decides
    for version in history.approved:
        assert verify(history, version, 0) == []
