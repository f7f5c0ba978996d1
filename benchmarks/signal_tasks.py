"""The signal tasks on IQ, measured: `make bench-signals` writes `signal_tasks.md` and `signal_tasks.json`.

Sessions are simulated with IQ, stored, approved, turned into spectrograms and split as the asset graph does it. Figures
are those of the test split.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from simulated_iq import observe_simulated

from heimdall_assets.evaluation.evaluate import evaluate_model
from heimdall_assets.evaluation.model_card import render_signals_table
from heimdall_assets.evaluation.signal_labels import make_signal_labels
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.learning.fitting.checkpoints import LAST
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.places import read_places
from heimdall_assets.specs import (
    AugmentationSpec,
    EvaluationSpec,
    ModelSpec,
    SimulationSpec,
    SplitSpec,
    TrainingSpec,
)
from heimdall_assets.stores.scratch import CheckpointFolder

HERE = Path(__file__).resolve().parent
MIX = {"voice_fraction": 0.5, "tone_fraction": 0.25}
"""Half voice, a quarter tones, a quarter DTMF: with nine tenths of voice a few hundred sessions hold too few others."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    simulation = SimulationSpec(
        seed=7, num_sessions=options.sessions, min_receivers=options.receivers, max_receivers=options.receivers, **MIX
    )
    with tempfile.TemporaryDirectory() as folder:
        places = read_places({"HEIMDALL_HOME": str(options.home or folder), "HEIMDALL_TRACKING": "off"})
        stores = places.open_stores()
        parts, mix = observe_simulated(stores, simulation, "signals", SplitSpec())
        checkpoints = CheckpointFolder(Path(options.home or folder) / "fit")
        started, wall = time.process_time(), time.monotonic()
        fitted = fit_model(
            ModelSpec(backbone_size=options.backbone, multi_target=True),
            TrainingSpec(
                max_epochs=options.epochs, batch_size=16, learning_rate=3e-3, warmup_epochs=1,
                num_threads=options.threads,
            ),
            AugmentationSpec(), parts["train"], parts["val"], checkpoints,
            on_epoch=lambda epoch, metrics: print(epoch, metrics, flush=True),
            resume_from=LAST if checkpoints.exists(LAST) else None,
        )  # fmt: skip
        cost = {"cpu_s": time.process_time() - started, "wall_s": time.monotonic() - wall}
        judged = evaluate_model(fitted.predict, parts["test"], parts["train"], EvaluationSpec(), fitted.predict_signals)
    edges = make_signal_labels(parts["test"])["edges"]
    return {
        "simulation": simulation.dump(),
        "mix": mix,
        "num_sessions": {name: len(part) for name, part in parts.items()},
        "backbone": options.backbone,
        "num_threads": options.threads,
        "num_epochs": fitted.settings["facts"]["num_epochs"],
        "best_epoch": fitted.settings["facts"]["best_epoch"],
        "training": cost,
        "begin_inside": float((edges[:, 0] > 0).mean()),
        "end_inside": float((edges[:, 1] < 1).mean()),
        "signals": judged.metrics["signals"],
    }


def render(found: dict[str, Any]) -> str:
    counts, simulation, cost = found["num_sessions"], found["simulation"], found["training"]
    mix = ", ".join(f"{count} {name}" for name, count in found["mix"].items())
    recall = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found["signals"]["type"]["recall"].items())
    lines = [
        "# Signal tasks: what was sent and when, from IQ",
        "",
        "Written by `make bench-signals`; figures of the test split, which nothing was chosen on.",
        f"Code version of `trained_checkpoint`: {STAGES[TRAINED_CHECKPOINT].code_version}.",
        "",
        f"Simulated with IQ: {simulation['num_sessions']} sessions of {simulation['duration_s']:g} s ({mix}), each",
        f"heard by {simulation['max_receivers']} of the seven stations: levels by the link budget, receivers with all",
        f"their faults. {counts['train']} train, {counts['val']} validate, {counts['test']} test; of the last",
        f"{100 * found['begin_inside']:.0f} % begin and {100 * found['end_inside']:.0f} % end within the recording.",
        "",
        f"ConvNeXt {found['backbone']} from scratch; of {found['num_epochs']} epochs the best by validation loss was",
        f"number {found['best_epoch']}. {cost['cpu_s']:.0f} s of processor time ({cost['wall_s']:.0f} s wall,",
        f"{found['num_threads']} thread).",
        "",
        render_signals_table({"signals": found["signals"]}),
        f"Recall of the types: {recall}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=450)
    parser.add_argument("--receivers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--backbone", default="atto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--home", type=Path, help="folder that keeps sessions and a broken-off fit; default: none")
    parser.add_argument("--write", type=Path, default=HERE, help="folder that takes the results")
    options = parser.parse_args()
    found = run(options)
    (options.write / "signal_tasks.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.write / "signal_tasks.md").write_text(render(found))
    print(render(found), flush=True)


if __name__ == "__main__":
    main()
