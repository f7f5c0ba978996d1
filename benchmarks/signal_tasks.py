"""The signal tasks on IQ, measured: `make bench-signals` writes `signal_tasks.md` and `signal_tasks.json`.

Sessions are simulated with IQ, stored, approved, turned into spectrograms and split as the asset graph does it, and a
model is fitted twice, with and without signal heads, on the same sessions. Figures are those of the test split.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from heimdall_assets.learning.judging import judge_model
from heimdall_assets.learning.model_card import format_metres, render_signals_table
from heimdall_assets.learning.signal_labels import make_signal_labels
from heimdall_assets.learning.splits import assign_splits
from heimdall_assets.learning.training import fit_model
from heimdall_assets.places import read_places
from heimdall_assets.specs import (
    AugmentationSpec,
    DatasetSpec,
    DelaySpec,
    EvaluationSpec,
    FeatureSpec,
    ModelSpec,
    RecordingSpec,
    SimulationSpec,
    SplitSpec,
    TimingSpec,
    TrainingSpec,
)
from heimdall_assets.stores.datasets import observe_sessions
from heimdall_assets.stores.simulated import import_simulated

HERE = Path(__file__).resolve().parent
MIX = {"voice_fraction": 0.5, "tone_fraction": 0.25}
"""Half voice, a quarter tones, a quarter DTMF: with nine tenths of voice a few hundred sessions hold too few others."""


def tell(what: str, done: int, total: int) -> None:
    if done % 100 < 4 or done == total:
        print(what, done, "of", total, flush=True)


def run(options: argparse.Namespace) -> dict[str, Any]:
    simulation = SimulationSpec(
        seed=7, num_sessions=options.sessions, min_receivers=options.receivers, max_receivers=options.receivers, **MIX
    )
    with tempfile.TemporaryDirectory() as folder:
        places = read_places({"HEIMDALL_HOME": folder, "HEIMDALL_TRACKING": "off"})
        stores = places.open_stores()
        mix = import_simulated(stores, simulation, "signals", tell)
        rows = stores.measurements.read_approved(DatasetSpec()).rows
        sessions, _ = observe_sessions(
            stores.objects, rows, RecordingSpec(), FeatureSpec(), DelaySpec(), TimingSpec(), tell
        )
        splits = assign_splits(rows, SplitSpec()).set_index("session_id")["split"].reindex(sessions.session_id)
        parts = {name: sessions.take((splits == name).to_numpy().nonzero()[0]) for name in ("train", "val", "test")}
        fitted, cost = {}, {}
        for multi_target in (False, True):
            started = time.process_time()
            training = TrainingSpec(max_epochs=options.epochs, batch_size=16, num_threads=options.threads)
            fitted[multi_target] = fit_model(
                ModelSpec(backbone_size=options.backbone, multi_target=multi_target),
                training, AugmentationSpec(), parts["train"], parts["val"], Path(folder) / f"fit-{multi_target}",
                on_epoch=lambda epoch, metrics: print(epoch, metrics, flush=True),
            )  # fmt: skip
            cost[multi_target] = time.process_time() - started
        metrics = {
            multi_target: judge_model(
                model.predict, parts["test"], parts["train"], EvaluationSpec(), model.predict_signals
            ).metrics
            for multi_target, model in fitted.items()
        }
    edges = make_signal_labels(parts["test"])["edges"]
    return {
        "simulation": simulation.dump(),
        "mix": mix,
        "num_sessions": {name: len(part) for name, part in parts.items()},
        "backbone": options.backbone,
        "epochs": options.epochs,
        "best_epoch": fitted[True].settings["facts"]["best_epoch"],
        "cpu_s": {"with signal heads": cost[True], "position alone": cost[False]},
        "begin_inside": float((edges[:, 0] > 0).mean()),
        "end_inside": float((edges[:, 1] < 1).mean()),
        "signals": metrics[True]["signals"],
        "recall": metrics[True]["signals"]["type"]["recall"],
        "position": {
            name: {key: metrics[multi_target][key] for key in ("median_m", "p90_m", "coverage_90")}
            for name, multi_target in (("with signal heads", True), ("position alone", False))
        },
    }


def render(found: dict[str, Any]) -> str:
    counts, simulation = found["num_sessions"], found["simulation"]
    mix = ", ".join(f"{count} {name}" for name, count in found["mix"].items())
    recall = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found["recall"].items())
    lines = [
        "# Signal tasks: what was sent and when, from IQ",
        "",
        "Written by `make bench-signals`; figures of the test split, which nothing was chosen on.",
        "",
        f"Simulated with IQ: {simulation['num_sessions']} sessions of {simulation['duration_s']:g} s ({mix}), each heard by "
        f"{simulation['max_receivers']} of the seven stations, levels by the link budget, receivers with all their faults. "
        f"{counts['train']} train, {counts['val']} validate, {counts['test']} test; of these "
        f"{100 * found['begin_inside']:.0f} % begin and {100 * found['end_inside']:.0f} % end within the recording.",
        "",
        f"ConvNeXt {found['backbone']} from scratch, best of {found['epochs']} epochs: {found['best_epoch']}; "
        f"{found['cpu_s']['with signal heads']:.0f} s of processor time with the heads, "
        f"{found['cpu_s']['position alone']:.0f} s without.",
        "",
        render_signals_table({"signals": found["signals"]}),
        f"Recall of the types: {recall}.",
        "",
        "## What the heads cost the position",
        "",
        "| model | median | 90 % | 90 % ellipse covers |",
        "|---|---|---|---|",
    ]
    for name, row in found["position"].items():
        shown = [format_metres(row["median_m"]), format_metres(row["p90_m"]), f"{100 * row['coverage_90']:.0f} %"]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=600)
    parser.add_argument("--receivers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--backbone", default="atto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, default=HERE, help="folder that takes the results")
    options = parser.parse_args()
    found = run(options)
    (options.write / "signal_tasks.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.write / "signal_tasks.md").write_text(render(found))
    print(render(found), flush=True)


if __name__ == "__main__":
    main()
