"""Variants judged and chosen, gates that refuse, files taken away, and students beside their teachers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.errors import CorruptObject, InvalidInput, InvalidSetting, Refused
from heimdall_assets.kinds import TEST_SPLIT, TRAIN_SPLIT, TRAINED_CHECKPOINT, VAL_SPLIT
from heimdall_assets.learning.export.onnx_file import read_onnx_metadata
from heimdall_assets.learning.file_sizes import foresee_refusal, foresee_sizes
from heimdall_assets.learning.teaching import TaughtTask, Teacher
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.releases.files import export_file, export_stored
from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint, load_metrics
from heimdall_assets.pipeline.stages.model_release import release_model
from heimdall_assets.pipeline.stages.onnx_model import export_checkpoint
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint, train_checkpoint
from heimdall_assets.pipeline.stages.variants import (
    Judged,
    choose_variant,
    find_problems,
    summarize_moves,
)
from heimdall_assets.session_set import Predictions
from heimdall_assets.signals.geodesy import LocalFrame
from heimdall_assets.specs import (
    VARIANTS,
    AugmentationSpec,
    EvaluationSpec,
    ExportSpec,
    ModelSpec,
    TrainingSpec,
)
from heimdall_assets.stores.computing import read_facts
from heimdall_assets_tests.homes import SIMULATION, fill_home, split_home

FEW = SIMULATION.model_copy(update={"num_sessions": 14})
FIT = TrainingSpec(max_epochs=1, num_threads=1)
SINGLE = ModelSpec(kind="single_receiver")
SMALL = ModelSpec(use_spectrograms=False, use_correlations=False, width=8, num_layers=1, num_heads=1)
LOOSE = {"max_variant_median_ratio": 2.0, "max_variant_p90_ratio": 2.0, "max_variant_coverage_change": 1.0}
ALL = ExportSpec(variants=list(VARIANTS), num_calibration_examples=16, **LOOSE)
FIGURES = {"num_sessions": 40, "num_refused": 0, "median_m": 100.0, "p90_m": 300.0, "coverage_90": 0.9}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Places, opened stores and splits by kind of a small home."""
    places = fill_home(tmp_path_factory.mktemp("home"), FEW)
    return places, *split_home(places)


def train(home, model=SINGLE, **changes):
    _, stores, splits = home
    training = FIT.model_copy(update=changes)
    parents = splits[TRAIN_SPLIT], splits[VAL_SPLIT]
    return train_checkpoint(stores.objects, stores.scratch, *parents, model, training, AugmentationSpec()).manifest


@pytest.fixture(scope="module")
def released(home):
    """All variants of a one-receiver model, and its release."""
    _, stores, splits = home
    checkpoint = train(home)
    onnx = export_checkpoint(stores.objects, checkpoint, splits[TEST_SPLIT], ALL).manifest
    spec = EvaluationSpec(num_bootstrap=100)
    judged = evaluate_checkpoint(stores.objects, checkpoint, splits[TEST_SPLIT], spec).manifest
    return onnx, release_model(stores, onnx, judged).manifest.summary["version"]


def test_every_variant_is_judged_and_the_smallest_is_released(home, released):
    _, stores, _ = home
    onnx, version = released
    told = onnx.summary["variants"]
    assert set(told) == set(VARIANTS)
    sizes = {name: row["size_bytes"] for name, row in told.items()}
    assert onnx.summary["variant"] == min(sizes, key=sizes.get) == "int4"
    assert onnx.summary["rejected"] == []
    assert onnx.artifacts["model.onnx"] == onnx.artifacts["int4.onnx"]
    for name, row in told.items():
        assert onnx.artifacts[f"{name}.onnx"].size == row["size_bytes"]
        assert row["test"]["num_sessions"] == onnx.summary["model"]["test"]["num_sessions"] > 0
        assert row["validation"]["median_m"] is not None
        assert row["test"]["moved_median_m"] >= 0
    assert told["fp32"]["test"]["moved_max_sigma"] < told["int4"]["test"]["moved_max_sigma"]
    assert read_onnx_metadata(stores.releases.read_file(version, "model.onnx"))["variant"] == "int4"


def test_times_are_facts_of_the_moment_and_no_part_of_the_result(home, released):
    _, stores, _ = home
    onnx, version = released
    latency = read_facts(stores.objects, onnx.digest)["measured"]["latency"]
    assert set(latency) == {"unit", "pytorch", *VARIANTS}
    for name in ("pytorch", *VARIANTS):
        assert set(latency[name]) == {"1", "32"}
        assert 0 < latency[name]["32"]["p50"] <= latency[name]["32"]["p95"]
    assert "latency" not in json.dumps(onnx.summary)
    card = stores.releases.read_file(version, "README.md").decode()
    assert "| **int4** (released) |" in card
    assert "`model.onnx` is int4: the smallest of 6 that passes ExportSpec" in card
    assert f"{latency['int4']['1']['p50']:.3g} / {latency['int4']['1']['p95']:.3g}" in card
    provenance = json.loads(stores.releases.read_file(version, "provenance.json"))
    node = next(node for node in provenance["nodes"] if node["kind"] == "onnx_model")
    assert node["facts"]["measured"]["latency"] == latency


def test_a_variant_is_taken_as_released_as_stored_or_made_now(home, released):
    _, stores, _ = home
    onnx, version = released
    published = export_file(stores, version, None)
    assert published.variant == "int4"
    assert published.data == stores.releases.read_file(version, "model.onnx")
    stored = export_file(stores, version, "fp16")
    assert stored.data == stores.objects.read_bytes(onnx.artifacts["fp16.onnx"].digest)
    assert stored.judged == onnx.summary["variants"]["fp16"]
    checkpoint = onnx.parents[TRAINED_CHECKPOINT]
    made = export_stored(stores, f"sha256:{checkpoint}", "int8_dynamic")
    assert made.data == stores.objects.read_bytes(onnx.artifacts["int8_dynamic.onnx"].digest)
    assert made.judged is None
    assert export_stored(stores, onnx.digest, None).manifest == checkpoint


def run(places, *arguments, code=0):
    environment = {"HEIMDALL_HOME": str(places.home), "HEIMDALL_TRACKING": "off"}
    result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_the_command_writes_the_file_and_says_what_is_known_of_it(home, released, tmp_path):
    places, _, _ = home
    onnx, version = released
    file = tmp_path / "model.onnx"
    told = run(places, "export", version, "onnx", "--variant", "int8_static", "--output", str(file)).output
    assert "int8_static" in told
    assert "(test split)" in told
    as_json = json.loads(run(places, "export", version, "onnx", "--output", str(file), "--json").stdout)
    assert as_json["variant"] == "int4"
    assert as_json["size_bytes"] == file.stat().st_size
    digest = onnx.parents[TRAINED_CHECKPOINT]
    assert "not judged" in run(places, "export", digest, "onnx", "--output", str(file)).output
    stores = places.open_stores()
    checkpoint = Manifest.decode(stores.objects.read_bytes(digest))
    weights = tmp_path / "best.safetensors"
    weights.write_bytes(stores.objects.read_bytes(checkpoint.artifacts["weights.safetensors"].digest))
    by_file = run(places, "export", str(weights), "onnx", "--output", str(file), "--json").stdout
    assert json.loads(by_file)["manifest"] == digest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("latest", "onnx"), "onnx: found no --output, expected a file to write the model to"),
        (("latest", "prov", "--variant", "int4"), "--variant int4: found format prov, expected onnx"),
        (("0" * 64, "onnx", "--output", "X"), "found nothing in"),
        (("none/w.safetensors", "onnx", "--output", "X"), "found no such file, expected weights that a training left"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(home, released, tmp_path, monkeypatch, arguments, said):
    places, _, _ = home
    monkeypatch.chdir(tmp_path)
    result = run(places, "export", *arguments, code=2)
    (line,) = result.stderr.strip().splitlines()
    assert said in line
    assert not list(tmp_path.iterdir())


def test_what_is_no_checkpoint_is_not_exported(home, released):
    _, stores, splits = home
    with pytest.raises(InvalidSetting, match="found a manifest of test_split, expected that of a trained_checkpoint"):
        export_stored(stores, splits[TEST_SPLIT].digest, None)
    with pytest.raises(InvalidSetting, match="found no manifest"):
        export_stored(stores, released[0].artifacts["model.onnx"].digest, None)
    with pytest.raises(InvalidSetting, match="64 hexadecimal digits"):
        export_stored(stores, "nonsense", None)


def test_a_checkpoint_that_is_cut_off_or_a_pickle_is_one_line(home, released):
    _, stores, _ = home
    whole = Manifest.decode(stores.objects.read_bytes(released[0].parents[TRAINED_CHECKPOINT]))
    weights = stores.objects.read_bytes(whole.artifacts["weights.safetensors"].digest)
    for data in (weights[:100], b"\x80\x04pickle"):
        damaged = stores.objects.put_bytes(data, "application/octet-stream")
        artifacts = {**whole.artifacts, "weights.safetensors": damaged}
        manifest = whole.model_copy(update={"artifacts": artifacts})
        digest = stores.objects.put_bytes(manifest.encode(), "application/json").digest
        with pytest.raises(CorruptObject, match=r"weights\.safetensors"):
            export_stored(stores, digest, None)


def test_a_file_over_the_limit_is_rejected_with_what_was_found_and_what_is_allowed(home):
    _, stores, splits = home
    checkpoint = train(home)
    spec = ExportSpec(max_size_mb=2.0, **LOOSE)
    onnx = export_checkpoint(stores.objects, checkpoint, splits[TEST_SPLIT], spec).manifest
    assert onnx.summary["rejected"][0].startswith("fp32: 15.5 MB, expected at most 2 MB (max_size_mb)")
    assert set(onnx.artifacts) == {"model.onnx"}
    judged = evaluate_checkpoint(stores.objects, checkpoint, splits[TEST_SPLIT], EvaluationSpec(num_bootstrap=100))
    version = release_model(stores, onnx, judged.manifest).manifest.summary["version"]
    record = stores.releases.find_record(version)
    assert record["status"] == "rejected"
    assert record["rejected"] == onnx.summary["rejected"]
    assert version not in {row["version"] for row in stores.releases.list_releases() if row["aliases"]}


def test_what_cannot_be_made_of_a_model_is_said_and_stops_only_where_nothing_is_left(home):
    _, stores, splits = home
    checkpoint = train(home, SMALL)
    some = ExportSpec(variants=["int8_dynamic", "fp32", "pruned"], **LOOSE)
    onnx = export_checkpoint(stores.objects, checkpoint, splits[TEST_SPLIT], some).manifest
    assert set(onnx.summary["variants"]) == {"fp32"}
    assert "found no learned product" in onnx.summary["not_made"]["int8_dynamic"]
    assert "found no ConvNeXt block" in onnx.summary["not_made"]["pruned"]
    with pytest.raises(InvalidSetting, match=r"ExportSpec\.variants: int4: found no learned product"):
        export_checkpoint(stores.objects, checkpoint, splits[TEST_SPLIT], ExportSpec(variants=["int4"]))


@pytest.mark.parametrize(
    ("size", "changes", "said"),
    [
        (100_000_000, {}, []),
        (100_000_001, {}, ["100.0 MB, expected at most 100 MB (max_size_mb)"]),
        (1, {"median_m": 105.0}, []),
        (1, {"median_m": 106.0}, ["median error 1.060 of the model's on validation, expected at most 1.05"]),
        (1, {"p90_m": 331.0}, ["p90 error 1.103 of the model's on validation, expected at most 1.1"]),
        (1, {"median_m": None}, ["median error unknown of the model's"]),
        (1, {"num_refused": 2}, ["refuses 2 of 40 validation sessions, the model 0"]),
        (1, {"coverage_90": 0.84}, ["90 % ellipses cover 84.0 % on validation, the model's 90.0 %"]),
        (1, {"coverage_90": 0.96}, ["90 % ellipses cover 96.0 % on validation"]),
    ],
)
def test_each_gate_of_a_variant_fires(size, changes, said):
    found = find_problems(size, {**FIGURES, **changes}, FIGURES, ExportSpec())
    assert len(found) == len(said)
    for line, start in zip(found, said, strict=True):
        assert line.startswith(start)


def test_the_smallest_good_file_is_chosen_and_those_passed_over_are_named():
    judged = [Judged("fp32", 200, []), Judged("int8_dynamic", 60, []), Judged("int4", 40, ["median error 1.3"])]
    choice = choose_variant(judged, ExportSpec())
    assert (choice.name, choice.rejected) == ("int8_dynamic", [])
    assert choice.because.endswith("; not int4: median error 1.3")
    bad = [replace(each, problems=["no"]) for each in judged]
    refused = choose_variant(bad, ExportSpec())
    assert refused.name == "int4"
    assert refused.rejected == ["int4: no", "int8_dynamic: no", "fp32: no"]
    large = choose_variant([Judged("fp32", 785_000_000, ["785.0 MB, expected at most 100 MB"])], ExportSpec())
    assert "a distilled student" in large.rejected[-1]


def test_moves_are_metres_on_the_ground():
    latitude, longitude = np.array([45.0, 44.0, np.nan]), np.array([8.0, 9.0, np.nan])
    covariance = np.full((3, 3), [100.0, 100.0, 0.0])
    model = Predictions(latitude, longitude, covariance, "model")
    north, east, _ = LocalFrame(latitude[:2], longitude[:2]).to_geodetic(np.array([30.0, 0.0]), np.array([40.0, 10.0]))
    moved = Predictions(np.append(north, 1.0), np.append(east, 1.0), covariance, "moved")
    found = summarize_moves(moved, model)
    assert found["moved_median_m"] == pytest.approx(30.0, rel=1e-3)
    assert found["moved_max_m"] == pytest.approx(50.0, rel=1e-3)
    assert found["moved_max_sigma"] == pytest.approx(5.0, rel=1e-3)
    nowhere = replace(model, latitude=np.full(3, np.nan))
    assert set(summarize_moves(nowhere, model).values()) == {None}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variants": []}, "at least 1 item"),
        ({"variants": ["int2"]}, "found 'int2', expected some of fp32, fp16"),
        ({"variants": ["fp32", "fp32"]}, "found fp32 twice, expected each once"),
    ],
)
def test_variants_that_are_none_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        ExportSpec(**fields)


def test_a_file_too_large_is_foreseen_from_the_settings(home):
    places, _, _ = home
    large = ModelSpec(kind="single_receiver", backbone_size="large")
    assert "about 792 MB (fp32), expected at most 100 MB" in foresee_refusal(large, ExportSpec())
    assert "taught by this one" in foresee_refusal(large, ALL)
    tiny = ModelSpec(kind="single_receiver", backbone_size="tiny")
    assert "int8_dynamic (35 MB)" in foresee_refusal(tiny, ExportSpec())
    assert foresee_refusal(tiny, ALL) is None
    assert foresee_refusal(large, ExportSpec(max_size_mb=1000.0)) is None
    assert foresee_refusal(SMALL, ExportSpec(max_size_mb=0.001)) is None  # nothing is known of it beforehand
    told = run(places, "plan", "--set", "ModelSpec.backbone_size=large", "--json")
    assert "Warning: a large backbone makes a file of about 785 MB (fp32)" in told.stderr
    json.loads(told.stdout)


def test_foreseen_sizes_are_those_of_files(released):
    foreseen = foresee_sizes(SINGLE, ALL)
    for name, row in released[0].summary["variants"].items():
        assert foreseen[name] == pytest.approx(row["size_bytes"], rel=0.05), name


def test_a_student_keeps_its_teacher_and_says_how_far_it_lies_from_it(home):
    _, stores, splits = home
    teacher = train(home, SINGLE.model_copy(update={"backbone_size": "femto"}), seed=1)
    student = train(home, teacher=f"sha256:{teacher.digest}", teacher_share=0.5)
    kept = {name: artifact.digest for name, artifact in student.artifacts.items() if name.startswith("teacher/")}
    assert kept["teacher/manifest.json"] == teacher.digest
    assert kept["teacher/weights.safetensors"] == teacher.artifacts["weights.safetensors"].digest
    history = load_checkpoint(stores.objects, student).history
    assert {"train_label_loss", "train_teacher_loss"} <= set(history[0])
    assert not [name for name in history[0] if name.startswith("val_") and "teacher" in name]
    judged = evaluate_checkpoint(stores.objects, student, splits[TEST_SPLIT], EvaluationSpec(num_bootstrap=100))
    told = load_metrics(stores.objects, judged.manifest)["teacher"]
    assert told["teacher"] == teacher.digest
    assert told["difference_m"] == pytest.approx(told["median_m"] - told["teacher_median_m"])
    assert told["moved_median_m"] > 0
    onnx = export_checkpoint(stores.objects, student, splits[TEST_SPLIT], ExportSpec(**LOOSE)).manifest
    version = release_model(stores, onnx, judged.manifest).manifest.summary["version"]
    card = stores.releases.read_file(version, "README.md").decode()
    assert f"It learned from a teacher, checkpoint `{teacher.digest[:12]}`: median error" in card


def test_a_teacher_that_is_none_or_knows_other_splits_is_refused(home):
    _, stores, splits = home
    with pytest.raises(InvalidSetting, match="found no manifest, expected one of a checkpoint"):
        train(home, teacher=f"sha256:{'0' * 64}")
    with pytest.raises(InvalidSetting, match="found a test_split, expected a trained_checkpoint"):
        train(home, teacher=f"sha256:{splits[TEST_SPLIT].digest}")
    teacher = train(home)
    foreign = teacher.model_copy(update={"parents": {**teacher.parents, TRAIN_SPLIT: splits[TEST_SPLIT].digest}})
    digest = stores.objects.put_bytes(foreign.encode(), "application/json").digest
    with pytest.raises(Refused, match="trained on another train_split: expected the student's"):
        train(home, teacher=f"sha256:{digest}")
    with pytest.raises(InvalidInput, match="a single_receiver model: expected a teacher of kind network"):
        train(home, SMALL, teacher=f"sha256:{teacher.digest}")


def test_a_teacher_with_other_inputs_is_refused(home):
    _, stores, _ = home
    fitted = load_checkpoint(stores.objects, train(home))
    other = {**fitted.statistics, "scale_m": [1.0, 2.0]}
    taught = TaughtTask(fitted.task, Teacher("teacher X", fitted.model.kind, fitted.network, other), 0.5)
    with pytest.raises(InvalidInput, match="teacher X: scale_m is"):
        taught.check_inputs(fitted.statistics)
