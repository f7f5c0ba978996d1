import json

import numpy as np
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.errors import InvalidInput, Refused
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.trainings.crossvalidation import JudgedFold, judge_fold, summarize_folds
from heimdall_assets.running.latest import read_latest
from heimdall_assets.specs import EvaluationSpec
from heimdall_assets.stores.objects.tables import load_table

SETTINGS = [
    *("--set", "ModelSpec.width=16", "--set", "ModelSpec.num_layers=1", "--set", "ModelSpec.num_heads=2"),
    *("--set", "ModelSpec.use_spectrograms=false", "--set", "TrainingSpec.max_epochs=1"),
    *("--set", "TrainingSpec.num_threads=1", "--set", "EvaluationSpec.num_bootstrap=100"),
]


@pytest.fixture(scope="module")
def made(released_home, tmp_path_factory):
    return released_home(tmp_path_factory.mktemp("folds") / "home")


def heimdall(made, *arguments, code=0):
    environment = {"HEIMDALL_HOME": str(made[0].home)}
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_each_session_that_is_no_test_is_judged_once_and_nothing_is_released(made):
    told = json.loads(heimdall(made, "crossvalidate", "--folds", "2", *SETTINGS, "--json").stdout)
    stores = made[0].open_stores()
    objects = stores.objects
    assert [row["fold"] for row in told["folds"]] == [0, 1]
    assert told["num_trained_now"] == 2
    validated, tested = [], set()
    for row in told["folds"]:
        checkpoint = Manifest.decode(objects.read_bytes(row["checkpoint"]))
        assert set(checkpoint.parents) == {"train_split", "val_split"}  # the test split is no ancestor
        val = Manifest.decode(objects.read_bytes(checkpoint.parents["val_split"]))
        validated += load_table(objects, val.artifacts["table"])["session_id"].tolist()
        tested |= set(validated)
    test = Manifest.decode(objects.read_bytes(made[1]["manifests"]["test_split"]))
    unseen = set(load_table(objects, test.artifacts["table"])["session_id"])
    everything = {row["id"] for row in stores.measurements.list_sessions()}
    assert sorted(validated) == sorted(everything - unseen)
    assert told["pooled"]["num_sessions"] == len(validated)
    assert told["pooled"]["median_low_m"] <= told["pooled"]["median_m"] <= told["pooled"]["median_high_m"]
    medians = [row["median_m"] for row in told["folds"]]
    assert told["figures"]["median_m"]["mean"] == pytest.approx(np.mean(medians))
    assert told["figures"]["median_m"]["sd"] == pytest.approx(np.std(medians, ddof=1))
    assert [row["version"] for row in stores.releases.list_releases()] == ["v1.0.0"]
    latest = read_latest(made[0], stores, "val_split")  # folds are of a comparison, not of the home
    assert latest.digest == made[1]["manifests"]["val_split"]

    again = heimdall(made, "crossvalidate", "--folds", "2", *SETTINGS).stdout
    assert "0 folds trained now, the others found again; no test session was looked at." in again
    assert "median error over folds:" in again
    other = objects.read_bytes(told["folds"][1]["checkpoint"])
    with pytest.raises(Refused, match="fold 1: found val_split"):
        judge_fold(objects, 1, Manifest.decode(other), val.model_copy(update={"summary": {}}), EvaluationSpec())


def make_fold(number: int, ids: list[str], errors: list[float]) -> JudgedFold:
    row = {
        "fold": number,
        "median_m": float(np.median([error for error in errors if np.isfinite(error)])),
        "p90_m": 1.0,
        "coverage_90": None,
        "best_val_loss": 0.0,
    }
    return JudgedFold(row, np.array(ids), np.array(ids), np.array(errors))


def test_folds_are_put_together_as_they_are():
    spec = EvaluationSpec(num_bootstrap=200)
    told = summarize_folds([make_fold(0, ["a", "b", "c"], [1, 2, 3]), make_fold(1, ["d", "e"], [4, np.inf])], spec)
    assert told["figures"]["median_m"]["min"] == 2.0
    assert told["figures"]["coverage_90"] is None
    assert told["pooled"]["median_m"] == 3.0
    assert told["pooled"]["num_refused"] == 1
    with pytest.raises(InvalidInput, match="session a: validates in several folds"):
        summarize_folds([make_fold(0, ["a"], [1]), make_fold(1, ["a"], [1])], spec)
    with pytest.raises(InvalidInput, match="found 1, expected at least 2"):
        summarize_folds([make_fold(0, ["a"], [1])], spec)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--folds", "1"), "1 is not in the range"),
        (("--folds", "40"), "of 40"),
        (("--set", "SplitSpec.num_folds=3"), "SplitSpec.num_folds: found folds of its own"),
        (("--campaign", "dem"), "campaign dem: found no sessions, did you mean demo?"),
    ],
)
def test_folds_that_cannot_be_are_one_line(made, arguments, said):
    result = heimdall(made, "crossvalidate", *arguments, *SETTINGS, code=2)
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert said in lines[-1]
