"""By how much a model made again differs: measured, judged by stated tolerances, told by exit status."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heimdall_assets.cli.reproducing import _conclude, _pick_shown
from heimdall_assets.kinds import EVALUATION_METRICS, ONNX_MODEL, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest, encode_canonical_json
from heimdall_assets.media_types import JSON_MEDIA_TYPE, SAFETENSORS_MEDIA_TYPE
from heimdall_assets.pipeline.releases.comparison import _measure
from heimdall_assets.pipeline.releases.deviation import (
    POSITIONS,
    TOLERANCES,
    WEIGHTS,
    Measure,
    Remade,
    Verdict,
    judge_stages,
)
from heimdall_assets.pipeline.releases.measuring import measure_figures, measure_positions, measure_weights
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.tables import artifact_of_table

ELSEWHERE = {"threads torch": [1, 2]}


def answers(latitude: list[float], sigma_m: float = 100.0, **columns: Any) -> pd.DataFrame:
    """A table of answers on one meridian whose standard deviation is the same in all directions."""
    count = len(latitude)
    table = {
        "session_id": [f"s{number}" for number in range(count)],
        "latitude": latitude,
        "longitude": [7.0] * count,
        "variance_east_m2": [sigma_m**2] * count,
        "variance_north_m2": [sigma_m**2] * count,
        "refused": [False] * count,
        **columns,
    }
    return pd.DataFrame(table)


# --- figures


def test_positions_are_measured_in_standard_deviations_of_the_recorded_answer():
    before, after = answers([45.0, 45.1, 45.2]), answers([45.0, 45.101, 45.2002])
    (measure,) = measure_positions(before, after)
    moved_m = float(compute_distance_m(45.1, 7.0, 45.101, 7.0))  # the farthest of the three
    assert measure.difference == pytest.approx(moved_m / 100.0)
    assert measure.name == f"positions, most of all s1 by {moved_m:.3g} m"
    assert measure.tolerance == TOLERANCES[POSITIONS]
    (measure,) = measure_positions(before, before)
    assert measure.difference == 0.0
    assert measure.is_within


def test_answers_to_other_sessions_or_refused_otherwise_are_no_small_difference():
    before = answers([45.0, 45.1])
    others = answers([45.0, 45.1], session_id=["s0", "s7"])
    refusing = answers([45.0, math.nan], refused=[False, True])
    for after in (others, refusing):
        (measure,) = measure_positions(before, after)
        assert measure.difference == math.inf
        assert not measure.is_within
    (measure,) = measure_positions(refusing, refusing)  # what was refused then and now has no place to compare
    assert measure.difference == 0.0
    nobody = answers([math.nan], refused=[True])
    assert list(measure_positions(nobody, nobody)) == []


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjectStore:
    return FolderObjectStore(tmp_path / "objects")


def checkpoint(objects: FolderObjectStore, **weights: Any) -> Manifest:
    from safetensors.numpy import save

    arrays = {name: np.asarray(values, np.float32) for name, values in weights.items()}
    artifact = objects.put_bytes(save(arrays), SAFETENSORS_MEDIA_TYPE)
    return Manifest(kind=TRAINED_CHECKPOINT, code_version="1", artifacts={"weights.safetensors": artifact})


def test_weights_are_measured_by_their_largest(objects: FolderObjectStore):
    then = checkpoint(objects, first=[1.0, -4.0], second=[[0.5]])
    (measure,) = measure_weights(objects, then, checkpoint(objects, first=[1.0, -4.0], second=[[0.5 + 0.25]]))
    assert (measure.name, measure.difference) == ("weights, most of all second", 0.25 / 4.0)
    assert measure.tolerance == TOLERANCES[WEIGHTS]
    for other in (checkpoint(objects, first=[1.0, -4.0]), checkpoint(objects, first=[1.0], second=[[0.5]])):
        (measure,) = measure_weights(objects, then, other)
        assert measure.difference == math.inf


def test_each_figure_that_differs_is_told_and_the_errors_are_judged(objects: FolderObjectStore):
    def evaluation(latitude: list[float], **metrics: Any) -> Manifest:
        told = {"median_m": 100.0, "p90_m": 200.0, "bound": {"ratio": 1.5}, "worse_than": ["centroid"], **metrics}
        artifacts = {
            "metrics.json": objects.put_bytes(encode_canonical_json(told), JSON_MEDIA_TYPE),
            "predictions": artifact_of_table(objects, answers(latitude)),
        }
        return Manifest(kind=EVALUATION_METRICS, code_version="1", artifacts=artifacts)

    then = evaluation([45.0])
    now = evaluation([45.0], median_m=101.0, bound={"ratio": 1.8}, new=1)
    positions, median, bound, new = measure_figures(objects, then, now)
    assert positions.difference == 0.0
    assert (median.name, median.then, median.now, median.difference) == ("median_m", 100.0, 101.0, 0.01)
    tolerance = f"(tolerance {TOLERANCES['median_m']:g})"
    assert median.describe() == f"median_m: 100 then, 101 now; difference 0.01 of it {tolerance}"
    assert (bound.name, bound.tolerance) == ("bound.ratio", None)
    assert bound.difference == pytest.approx(0.2)
    assert (new.name, new.difference) == ("new", math.inf)
    assert len(list(measure_figures(objects, then, then))) == 1


def test_arrays_are_measured_by_their_largest_value():
    then = np.array([1.0 + 0j, 3.0 + 4.0j])
    assert _measure(then, then + np.array([0.0, 0.5])) == 0.1  # 0.5 of |3 + 4j|
    assert _measure(np.array(["a"]), np.array(["b"])) == math.inf
    assert _measure(np.zeros(2), np.ones(2)) == math.inf
    assert _measure(np.ones(2), np.array([1.0, math.nan])) == math.inf


# --- the verdict


def made(*, rules: tuple[str, ...] = (), difference: float | None = 0.1, results: tuple[str, ...] = ("x",)) -> Remade:
    measures = [] if difference is None else [Measure("positions", difference, "sigma", tolerance=1.0)]
    return Remade(TRAINED_CHECKPOINT, list(rules), list(results), ("a", "b"), measures, bool(measures))


SAME = Remade(ONNX_MODEL, [], [])


@pytest.mark.parametrize(
    ("stages", "environment", "verdict"),
    [
        ([SAME, SAME], {}, Verdict.SAME),
        ([SAME, SAME], ELSEWHERE, Verdict.SAME),
        ([SAME, made()], ELSEWHERE, Verdict.WITHIN),
        ([SAME, made()], {"instruction_limits DNNL_MAX_CPU_ISA": [None, "AVX2"]}, Verdict.WITHIN),
        ([SAME, made()], {"package torch": ["2.15.0", "2.16.0"]}, Verdict.WITHIN),
        ([made(rules=("TrainingSpec.num_threads 1 then, 2 now",))], {}, Verdict.WITHIN),
        ([made(rules=("TrainingSpec.num_threads 1 then, 2 now",), difference=2.0)], {}, Verdict.DIFFERS),
        ([made()], {}, Verdict.DIFFERS),  # bits are promised here
        ([made()], {"git_sha": ["a", "b"], "container": [None, "docker"]}, Verdict.DIFFERS),
        ([made(), made(difference=1.01)], ELSEWHERE, Verdict.DIFFERS),
        ([made(difference=math.inf)], ELSEWHERE, Verdict.DIFFERS),
        ([made(difference=None)], ELSEWHERE, Verdict.DIFFERS),  # no number says how far
        ([made(rules=("TrainingSpec.seed 42 then, 7 now",))], ELSEWHERE, Verdict.DIFFERS),
        ([made(rules=("code version 1 then, 2 now",), results=())], ELSEWHERE, Verdict.DIFFERS),
    ],
)
def test_a_model_is_the_same_within_what_a_machine_does_or_another(
    stages: list[Remade], environment: dict[str, Any], verdict: Verdict
):
    assert judge_stages(stages, environment) is verdict


def test_people_are_told_what_is_judged_and_the_figure_that_differs_most():
    judged, small, large = (
        Measure("positions, most of all s1 by 3 m", 0.02, "standard deviations", tolerance=1.0),
        Measure("bound.ratio", 0.1, "of it", 1.0, 1.1),
        Measure("coverage_90", 0.2, "of it", 0.5, 0.6),
    )
    unknown = Measure("new", math.inf, "of it", None, 1.0)
    assert list(_pick_shown([small, judged, unknown, large])) == [judged, large]
    assert list(_pick_shown([unknown])) == []
    other = Remade(TRAINED_CHECKPOINT, [], ["weights"], ("a" * 64, "b" * 64))
    named = f"the first node that comes out otherwise is trained_checkpoint ({'a' * 16} then, {'b' * 16} now)"
    assert _conclude(other, Verdict.DIFFERS, False) == named
    assert _conclude(other, Verdict.DIFFERS, True).startswith(f"{named}; the environment is not the recorded one")
    assert _conclude(other, Verdict.WITHIN, True).startswith(f"{named}; every figure is within what another thread")
    assert _conclude(None, Verdict.SAME, True) == "made again, the same bytes at every stage"
    told = Remade(TRAINED_CHECKPOINT, [], ["weights"], ("a", "b"), [unknown], True).to_json()
    assert told["measures"][0]["is_within"] is True  # told, not judged


# --- by the command, in processes that are told another machine


def reproduce(home: Path, *arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
    program = [sys.executable, "-c", "from heimdall_assets.cli import main; main()", "reproduce", "latest", "--json"]
    places = {"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off"}
    done = subprocess.run(
        [*program, *arguments], env={**os.environ, **places, **variables}, capture_output=True, text=True, cwd=home
    )
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(released_home: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = released_home(tmp_path_factory.mktemp("deviation") / "home")[0].home
    return folder


def find_stage(told: dict[str, Any], stage: str) -> dict[str, Any]:
    (found,) = [each for each in told["stages"] if each["stage"] == stage]
    return dict(found)


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (("--set", "TrainingSpec.num_threads=2"), {}),
        ((), {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41"}),
    ],
    ids=["threads", "instructions"],
)
def test_other_threads_and_instructions_are_within_the_tolerance(
    home: Path, arguments: tuple[str, ...], variables: dict[str, str]
):
    code, told = reproduce(home, *arguments, **variables)
    assert told["tolerances"] == TOLERANCES
    if told["same"]:  # a processor may have nothing that it does otherwise
        assert (code, told["verdict"]) == (0, "same")
        return
    assert (code, told["verdict"]) == (3, "within"), told
    first = find_stage(told, told["first_difference"])
    assert first["node"]["then"] != first["node"]["now"]
    assert all(each["is_within"] for each in first["measures"])


def test_another_seed_differs_and_says_by_how_much(home: Path):
    code, told = reproduce(home, "--set", "TrainingSpec.seed=7")
    assert (code, told["verdict"], told["first_difference"]) == (1, "differs", TRAINED_CHECKPOINT)
    lines = find_stage(told, TRAINED_CHECKPOINT)["differences"]
    named = [line for line in lines if line.startswith(("TrainingSpec.", "ModelSpec.", "AugmentationSpec."))]
    assert named == ["TrainingSpec.seed 42 then, 7 now"]  # two epochs and one thread, no defaults, stay as recorded
    measures = {each["name"].split(",")[0]: each for each in find_stage(told, TRAINED_CHECKPOINT)["measures"]}
    assert measures["weights"]["difference"] > 0.0
    assert measures["positions"]["difference"] > 0.0
    assert measures["median_m"]["then"] != measures["median_m"]["now"]
    assert find_stage(told, EVALUATION_METRICS)["differences"] == []  # of the recorded checkpoint
