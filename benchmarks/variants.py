"""Variants of an exported model: size, speed, metres of each, and a student beside its teacher: `make bench-variants`.

Two models: `tiny`, one receiver's spectrogram to a position, fitted for a few epochs to spectrograms whose level tells
the place, so that what a rounding costs shows in metres; and the default model on simulated sessions of seven
receivers, for speed. Times are processor time of one thread, taken in turns; a ratio is the median of the ratios of
each round, which other work on the machine moves least. Figures as measured.
"""

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heimdall_assets.kinds import TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.learning.export.opened import OpenedModel
from heimdall_assets.learning.export.variants import Sources, make_variant
from heimdall_assets.learning.fitting.fitted import FittedModel
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.learning.teaching import Teacher
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.variants import summarize_figures, summarize_moves
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import VARIANTS, AugmentationSpec, ExportSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets.stores.stopwatch import summarize_times, time_in_turns
from heimdall_assets_tests.homes import SIMULATION, fill_home, split_home
from heimdall_assets_tests.learning.learning_cases import make_sessions

HERE = Path(__file__).resolve().parent
BATCHES = {1: 10.0, 32: 30.0}
"""Examples at once -> seconds for all rounds."""

PLAIN = AugmentationSpec(dropout=0.0, max_shift_frames=0, max_gain_db=0.0)
TRAINING = TrainingSpec(num_threads=1, batch_size=8, warmup_epochs=1, learning_rate=1e-3, seed=1)
"""Small batches: a hundred steps take timm's layer scales from 1e-6, where blocks say nothing, to a tenth."""

CLAIMS = (
    ("default model", 1, "fp32", 1.5, "ONNX over eager"),
    ("tiny", 1, "fp32", 1.5, "ONNX over eager"),
    ("tiny", 1, "int8_dynamic", 3.5, "int8 over eager"),
)


@dataclass(frozen=True)
class Data:
    """Sessions to fit on, to stop by, to judge on."""

    train: SessionSet
    val: SessionSet
    test: SessionSet


def fit(model: ModelSpec, data: Data, epochs: int, teacher: FittedModel | None = None) -> FittedModel:
    training = TRAINING.model_copy(update={"max_epochs": epochs, "teacher_share": 0.7})
    taught = None
    if teacher is not None:
        taught = Teacher("the teacher", teacher.model.kind, teacher.network, teacher.statistics)
    with tempfile.TemporaryDirectory() as folder:
        keep = CheckpointFolder(Path(folder))
        return fit_model(model, training, PLAIN, data.train, data.val, keep, teacher=taught)


def judge(name: str, fitted: FittedModel, data: Data) -> dict[str, Any]:
    """Return sizes, metres and speed of every variant of a model."""
    spec = ExportSpec(variants=list(VARIANTS))
    sources = Sources.export(fitted, spec, {}, lambda: data.train)
    expected = fitted.predict(data.test)
    rows: dict[str, Any] = {"eager": {"test": summarize_figures(expected, data.test)}}
    opened = {}
    for variant in VARIANTS:
        made = make_variant(variant, sources)
        opened[variant] = OpenedModel(fitted, made.data)
        found = opened[variant].predict(data.test)
        rows[variant] = {
            "size_bytes": len(made.data),
            "changed": made.changed,
            "test": summarize_figures(found, data.test) | summarize_moves(found, expected),
        }
        print(name, variant, json.dumps(rows[variant]), flush=True)
    for size, seconds in BATCHES.items():
        calls = {"eager": opened["fp32"].prepare_eager_call(data.test, size)}
        calls |= {variant: each.prepare_call(data.test, size) for variant, each in opened.items()}
        times = time_in_turns(calls, seconds)
        for variant, taken in times.items():
            ratios = [eager / own for eager, own in zip(times["eager"], taken, strict=True)]
            speed = {**summarize_times(taken), "over_eager": float(f"{statistics.median(ratios):.3g}")}
            rows[variant][f"batch_{size}"] = speed
            print(name, variant, size, speed, flush=True)
    return rows


def teach(teacher: FittedModel, data: Data, epochs: int) -> dict[str, Any]:
    """Return what a student of `atto` reaches with a teacher and without, on the same sessions, in as many epochs."""
    its = teacher.predict(data.test)
    found: dict[str, Any] = {"teacher": {"test": summarize_figures(its, data.test)}}
    for name, taught_by in (("student", teacher), ("without a teacher", None)):
        fitted = fit(ModelSpec(kind="single_receiver"), data, epochs, taught_by)
        data_bytes = Sources.export(fitted, ExportSpec(), {}, lambda: data.train).base
        answers = fitted.predict(data.test)
        found[name] = {
            "size_bytes": len(data_bytes),
            "test": summarize_figures(answers, data.test) | summarize_moves(answers, its),
        }
        print(name, json.dumps(found[name]), flush=True)
    return found


def make_default(folder: Path, num_sessions: int) -> tuple[FittedModel, Data]:
    simulation = SIMULATION.model_copy(
        update={"num_sessions": num_sessions, "min_receivers": 7, "max_receivers": 7, "duration_s": 0.8}
    )
    stores, splits = split_home(fill_home(folder, simulation))
    data = Data(*(load_sessions(stores.objects, splits[kind]) for kind in (TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT)))
    return fit(ModelSpec(), data, 1), data


def write(result: dict[str, Any]) -> str:
    lines = ["# Variants of an exported model\n", "Written by `make bench-variants`; figures as measured.\n"]
    lines.append(
        f"One thread, processor time, in turns; load of the machine {result['load'][0]:.1f} before and "
        f"{result['load'][1]:.1f} after. MB are 1,000,000 bytes.\n"
    )
    for name, rows in result["models"].items():
        lines += [f"## {name}\n", "| file | MB | median m | p90 m | 90 % ellipse covers | answers moved by m (median, "
                  "largest) | batch 1: p50 ms | over eager | batch 32: p50 ms | over eager |",
                  "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for variant, row in rows.items():
            test, one, many = row["test"], row["batch_1"], row["batch_32"]
            size = f"{row['size_bytes'] / 1e6:.1f}" if "size_bytes" in row else "-"
            moved = f"{test['moved_median_m']:.3g}, {test['moved_max_m']:.3g}" if "moved_median_m" in test else "-"
            lines.append(
                f"| {variant} | {size} | {test['median_m']:,.0f} | {test['p90_m']:,.0f} | "
                f"{100 * test['coverage_90']:.0f} % | {moved} | {one['p50']:.3g} | {one['over_eager']:.2f} | "
                f"{many['p50']:.3g} | {many['over_eager']:.2f} |"
            )
        lines.append("")
    lines.append(
        "The default model is fitted for one epoch and hardly listens to its backbone yet: its table is one of size "
        "and speed, and its metres say nothing of what a rounding costs.\n"
    )
    lines += ["## What was asked\n", "| | asked | measured |", "|---|---|---|"]
    for name, size, variant, asked, what in CLAIMS:
        found = result["models"][name][variant][f"batch_{size}"]["over_eager"]
        lines.append(f"| {what}, {name}, batch {size} | at least {asked:g} | {found:.2f} |")
    taught = result["taught"]
    lines += ["", f"## A student of `atto` taught by `{result['teacher']}`\n"]
    lines += [
        "| model | MB | median m | p90 m | from the teacher's answers, m (median, p90) |",
        "|---|---|---|---|---|",
    ]
    for name, row in taught.items():
        test = row["test"]
        size = f"{row['size_bytes'] / 1e6:.1f}" if "size_bytes" in row else f"{result['teacher_bytes'] / 1e6:.1f}"
        moved = f"{test['moved_median_m']:,.0f}, {test['moved_p90_m']:,.0f}" if "moved_median_m" in test else "-"
        lines.append(f"| {name} | {size} | {test['median_m']:,.0f} | {test['p90_m']:,.0f} | {moved} |")
    difference = taught["student"]["test"]["median_m"] - taught["teacher"]["test"]["median_m"]
    lines.append(f"\nMedian error of the student less that of its teacher: {difference:,.0f} m.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", default="tiny", help="backbone of the teacher")
    parser.add_argument("--sessions", type=int, default=40, help="to train tiny, the teacher and the student on")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = [os.getloadavg()[0]]
    parts = [
        make_sessions(number, seed=seed, first=1000 * seed, mels=128)
        for seed, number in ((1, options.sessions), (2, 30), (3, 60))
    ]
    data, models = Data(*parts), {}
    teacher = fit(ModelSpec(kind="single_receiver", backbone_size=options.teacher), data, options.epochs)
    taught = teach(teacher, data, 2 * options.epochs)
    tiny = teacher
    if options.teacher != "tiny":
        tiny = fit(ModelSpec(kind="single_receiver", backbone_size="tiny"), data, options.epochs)
    models["tiny"] = judge("tiny", tiny, data)
    with tempfile.TemporaryDirectory() as folder:
        models["default model"] = judge("default model", *make_default(Path(folder), 16))
    load.append(os.getloadavg()[0])
    result = {
        "load": load,
        "models": models,
        "teacher": options.teacher,
        "teacher_bytes": 4 * sum(value.size for value in teacher.weights.values()),
        "taught": taught,
    }
    (HERE / "variants.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    text = write(result)
    (HERE / "variants.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
