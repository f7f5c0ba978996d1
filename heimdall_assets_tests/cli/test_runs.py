"""``heimdall runs``: trainings found by name, shown, followed until they end, compared and judged."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.cli.training.following import Standing, describe_standing, read_standing
from heimdall_assets.pipeline.runs import TrainingRun, find_training, keep_tables
from heimdall_assets.places import read_places
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.runs.folders import FAILED, FINISHED
from heimdall_assets.training_tables import TABLES
from heimdall_assets_tests.told_runs import SETTINGS, begin_run, tell_epochs


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def stores(home: Path) -> Stores:
    return read_places({"HEIMDALL_HOME": str(home)}).open_stores()


def runs(home: Path, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["runs", *arguments], env={"HEIMDALL_HOME": str(home)})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def make_two(stores: Stores) -> tuple[str, str]:
    """A training, and a later one of more width that did better."""
    first = begin_run(stores, "a")
    tell_epochs(first, range(20))
    first.end(FINISHED, checkpoint="c" * 64)
    changed = {**SETTINGS, "ModelSpec": {"kind": "network", "width": 32}}
    second = begin_run(stores, "b", settings=changed)
    tell_epochs(second, range(12), floor=0.5)
    second.end(FAILED, error="the disk")
    return first.id, second.id


def test_a_home_without_trainings_says_so(home: Path, stores: Stores):
    assert json.loads(runs(home, "list", "--json").stdout) == []
    assert "no training yet; heimdall train makes one" in runs(home, "list").stderr
    for command in (["show", "latest"], ["watch"], ["assess", "latest"], ["compare", "x", "y"]):
        said = runs(home, *command, code=2).stderr
        assert "found none in this home yet" in said
        assert len(said.splitlines()) == 1


def test_trainings_are_listed_with_their_figures(home: Path, stores: Stores):
    first, second = make_two(stores)
    rows = json.loads(runs(home, "list", "--json").stdout)
    assert [row["id"] for row in rows] == [second, first]
    assert [row["status"] for row in rows] == [FAILED, FINISHED]
    assert (rows[1]["epochs"], rows[1]["best_epoch"], rows[1]["kind"]) == (20, 19, "network")
    assert rows[1]["checkpoint"] == "c" * 64
    shown = runs(home, "list").stdout
    assert "2 trainings" in shown
    assert first in shown


def test_names_are_ids_their_beginnings_and_latest(home: Path, stores: Stores):
    first, second = make_two(stores)
    for name, meant in (("latest", second), (first, first), (first[:6], first), (second[:3].upper(), second)):
        assert json.loads(runs(home, "show", name, "--json").stdout)["id"] == meant
    typo = first[:-1] + ("0" if first[-1] != "0" else "1")
    said = runs(home, "show", typo, code=2).stderr
    assert f"did you mean {first}?" in said
    assert len(said.splitlines()) == 1
    assert "found no such one" in runs(home, "show", "xx", code=2).stderr


def test_show_tells_settings_tables_and_folder(home: Path, stores: Stores):
    first, _ = make_two(stores)
    told = json.loads(runs(home, "show", first, "--json").stdout)
    assert set(told["tables"]) == set(TABLES)
    assert len(told["tables"]["epoch_metrics"]) == 20
    assert told["settings"] == SETTINGS
    assert Path(told["folder"]) == home / "runs" / first
    shown = runs(home, "show", first).stdout
    assert "20 of at most 20" in shown
    assert "last epochs" in shown


def test_compare_shows_what_differs_and_who_won(home: Path, stores: Stores):
    first, second = make_two(stores)
    told = json.loads(runs(home, "compare", first, second, "--json").stdout)
    assert told["settings"] == {"ModelSpec.width": [16, 32]}
    assert told["best"] == second
    shown = runs(home, "compare", first, second).stdout
    assert f"Lowest val_loss: {second}, epoch 12." in shown
    other = begin_run(stores, "d", data={"train_split": "b" * 64})
    tell_epochs(other, range(3))
    other.end(FINISHED)
    assert json.loads(runs(home, "compare", first, other.id, "--json").stdout)["best"] is None
    assert "validation sessions differ" in runs(home, "compare", first, other.id).stdout
    assert "expected at least 2" in runs(home, "compare", first, code=2).stderr


def test_assess_judges_by_thresholds_of_a_file(home: Path, stores: Stores, tmp_path: Path):
    first, _ = make_two(stores)
    told = json.loads(runs(home, "assess", first, "--json").stdout)
    assert told["tier"] == "acceptable"
    assert told["convergence"]["loss_falls"] is True
    shown = runs(home, "assess", first).stdout
    for said in ("convergence", "val_error_m 90.1", "no red flag", "not measured: span_f1, separation"):
        assert said in shown
    file = tmp_path / "mine.yaml"
    file.write_text("tiers: {mine: {max_val_loss: 2}}\nover_epochs: 3\n")
    assert json.loads(runs(home, "assess", first, "--thresholds", str(file), "--json").stdout)["tier"] == "mine"
    file.write_text("over_epoch: 3\n")
    assert (
        "did you mean AssessmentSpec.over_epochs?"
        in runs(home, "assess", first, "--thresholds", str(file), code=2).stderr
    )
    file.write_text("{")
    assert "found no YAML" in runs(home, "assess", first, "--thresholds", str(file), code=2).stderr


def test_watch_follows_a_training_until_it_ends(home: Path, stores: Stores):
    writer = begin_run(stores, "a")
    tell_epochs(writer, range(2))

    def go_on() -> None:
        time.sleep(1.5)
        tell_epochs(writer, range(2, 5))
        time.sleep(1.5)
        writer.end(FINISHED)

    thread = threading.Thread(target=go_on)
    thread.start()
    lines = [json.loads(line) for line in runs(home, "watch", "--latest", "--json").stdout.splitlines()]
    thread.join()
    assert lines[0]["status"] == "running"
    assert lines[0]["eta_s"] is not None
    assert [line["epoch"] for line in lines] == sorted(line["epoch"] for line in lines)
    assert (lines[-1]["status"], lines[-1]["epoch"], lines[-1]["best_epoch"]) == (FINISHED, 5, 5)
    assert lines[-1]["eta_s"] is None
    shown = runs(home, "watch", writer.id).stdout
    assert "epoch 5/20" in shown
    assert f"training {writer.id}: finished, best val_loss" in shown
    assert "expected one of them" in runs(home, "watch", writer.id, "--latest", code=2).stderr


def test_watch_ends_with_ctrl_c_and_where_the_training_was_killed(home: Path, stores: Stores):
    writer = begin_run(stores, "a")
    tell_epochs(writer, range(2))
    command = [sys.executable, "-c", "from heimdall_assets.cli import main; main()", "runs", "watch"]
    watching = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HEIMDALL_HOME": str(home)},
    )
    assert watching.stdout is not None
    assert "status running" in watching.stdout.readline()
    watching.send_signal(2)
    _, said = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert said.strip() == "Stopped."
    writer.close()
    assert f"training {writer.id}: interrupted" in runs(home, "watch").stdout


def test_what_remains_is_the_time_of_recent_epochs(stores: Stores):
    writer = begin_run(stores, "a")
    tell_epochs(writer, range(4))
    rows = stores.runs.read_tables(writer.id)["epoch_metrics"]
    mean_s = sum(row["epoch_time"] for row in rows) / 4
    now = read_standing(stores, find_training(stores, "latest"))
    assert now.eta_s == pytest.approx(16 * mean_s)
    assert (now.epoch, now.step, now.num_steps) == (4, 0, 4) or now.step == 4


def test_a_standing_is_told_in_words():
    now = Standing("abc", "running", "positions", 3, 20, 7, 40, 61.0, 3725.0, 1.0, 1.2, 1.1, 2, 812.4)
    told = describe_standing(now)
    assert (told["epoch"], told["step"], told["elapsed"], told["at most"]) == ("3/20", "7/40", "0:01:01", "1:02:05")
    assert (told["best val_loss"], told["samples/s"]) == ("1.1000 (epoch 2)", "812")


def test_a_training_of_another_machine_is_found_by_what_is_kept_of_it(home: Path, stores: Stores, tmp_path: Path):
    first, _ = make_two(stores)
    keep_tables(stores, first, "c" * 64)
    before = json.loads(runs(home, "show", first, "--json").stdout)
    (home / "runs" / first).rename(tmp_path / "gone")
    run: TrainingRun = find_training(stores, first)
    assert not run.is_here
    assert json.loads(runs(home, "show", first, "--json").stdout) == {**before, "folder": None}
    assert first in runs(home, "list").stdout
    assert json.loads(runs(home, "assess", first, "--json").stdout)["tier"] == "acceptable"
