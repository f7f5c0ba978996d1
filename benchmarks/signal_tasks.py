"""The signal tasks on IQ, measured: `make bench-signals` writes `signal_tasks.md` and `signal_tasks.json`.

Sessions are simulated with IQ, stored, approved, demodulated and split as the asset graph does it. Figures are those of
the test split, which no choice has seen; the time is that of everything, from the first sample to the last figure.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from joblib.externals.loky import get_reusable_executor
from simulated_iq import observe_all, observe_simulated

from heimdall_assets.evaluation.evaluate import evaluate_model
from heimdall_assets.evaluation.signal_figures import evaluate_signals
from heimdall_assets.evaluation.signal_labels import make_signal_labels
from heimdall_assets.evaluation.signals_table import render_figures, render_signals_table
from heimdall_assets.kinds import SPECTROGRAM_FEATURES, TRAINED_CHECKPOINT
from heimdall_assets.learning.fitting.training import FittedModel, fit_model
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.places import read_places
from heimdall_assets.session_set import SessionSet
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
OTHERS = {
    "Faint: one receiver, -5 to 10 dB": {"seed": 8, "num_sessions": 300, "snr_min_db": -5.0, "snr_max_db": 10.0},
    "Long: one receiver, 10 s": {"seed": 9, "num_sessions": 60, "duration_s": 10.0},
}
"""Worlds that the same heads are judged on without having been trained for them."""

MIX = {"voice_fraction": 0.4, "tone_fraction": 0.3}
"""With nine tenths of voice, as the simulation has it by default, a test split holds too few of the others."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    simulation = SimulationSpec(
        seed=options.seed, num_sessions=options.sessions,
        min_receivers=options.receivers, max_receivers=options.receivers, **MIX,
    )  # fmt: skip
    started, load = _read_clocks(), os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        places = read_places({"HEIMDALL_HOME": str(options.home or folder), "HEIMDALL_TRACKING": "off"})
        stores = places.open_stores()
        split = SplitSpec(val_fraction=0.15, test_fraction=0.25)
        parts, mix = observe_simulated(stores, simulation, "signals", split)
        observed = _read_clocks()
        fitted = fit_model(
            # Positions are no question here: spectrograms would cost their training more than all the rest.
            ModelSpec(multi_target=True, use_spectrograms=False, use_correlations=False),
            TrainingSpec(max_epochs=1, num_threads=options.threads),
            AugmentationSpec(), parts["train"], parts["val"], CheckpointFolder(Path(folder) / "fit"),
        )  # fmt: skip
        trained = _read_clocks()
        judged = evaluate_model(fitted.predict, parts["test"], parts["train"], EvaluationSpec(), fitted.predict_signals)
        done = _read_clocks()
        others = {
            title: judge_other(Path(folder), fitted, parts["train"], **changes) for title, changes in OTHERS.items()
        }
    edges, facts = make_signal_labels(parts["test"])["edges"], fitted.settings["facts"]
    return {
        "simulation": simulation.dump(),
        "mix": mix,
        "num_sessions": {name: len(part) for name, part in parts.items()},
        "num_threads": options.threads,
        "num_epochs": facts["signal_num_epochs"],
        "best_epoch": facts["signal_best_epoch"],
        "cost": {
            "simulating and demodulating": _subtract(observed, started),
            "training": _subtract(trained, observed),
            "judging": _subtract(done, trained),
            "all": _subtract(done, started),
        },
        "num_processors": os.cpu_count(),
        "load_before": load[0],
        "load_after": os.getloadavg()[0],
        "begin_inside": float((edges[:, 0] > 0).mean()),
        "end_inside": float((edges[:, 1] < 1).mean()),
        "signals": judged.metrics["signals"],
        "others": others,
    }


def judge_other(folder: Path, fitted: FittedModel, reference: SessionSet, **changes: Any) -> dict[str, Any]:
    """Return the figures of ``fitted`` over every session of another world."""
    simulation = SimulationSpec.model_validate({"min_receivers": 1, "max_receivers": 1, **MIX, **changes})
    home = folder / f"other-{simulation.seed}"
    stores = read_places({"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off"}).open_stores()
    sessions, _ = observe_all(stores, simulation, "other")
    signals = fitted.predict_signals(sessions)
    assert signals is not None
    return evaluate_signals(sessions, signals, reference, EvaluationSpec())


def _read_clocks() -> tuple[float, float]:
    """Return wall and processor time in s; worker processes are ended first, for only then does theirs count."""
    get_reusable_executor().shutdown(wait=True)
    own = os.times()
    return time.monotonic(), own.user + own.system + own.children_user + own.children_system


def _subtract(end: tuple[float, float], start: tuple[float, float]) -> dict[str, float]:
    return {"wall_s": end[0] - start[0], "cpu_s": end[1] - start[1]}


def render(found: dict[str, Any]) -> str:
    counts, simulation, cost = found["num_sessions"], found["simulation"], found["cost"]
    mix = ", ".join(f"{count} {name}" for name, count in found["mix"].items())
    versions = ", ".join(f"`{kind}` {STAGES[kind].code_version}" for kind in (SPECTROGRAM_FEATURES, TRAINED_CHECKPOINT))
    lines = [
        "# Signal tasks: what was sent and when, from IQ",
        "",
        "Written by `make bench-signals`; figures of the test split, which nothing was chosen on.",
        f"Code versions: {versions}.",
        "",
        f"Simulated with IQ: {simulation['num_sessions']} sessions of {simulation['duration_s']:g} s ({mix}), each",
        f"heard by {simulation['max_receivers']} of the seven stations: levels by the link budget, receivers with all",
        f"their faults. {counts['train']} train, {counts['val']} validate, {counts['test']} test; of the last",
        f"{100 * found['begin_inside']:.0f} % begin and {100 * found['end_inside']:.0f} % end within the recording.",
        "",
        f"Of {found['num_epochs']} epochs of the heads number {found['best_epoch'] + 1} was the best on validation.",
        f"{found['num_processors']} processors, which other work shared (load {found['load_before']:.1f} before,",
        f"{found['load_after']:.1f} after; without others it would be less of wall time):",
        "",
        "| part | wall | processor time |",
        "|---|---|---|",
        *(f"| {name} | {part['wall_s']:.0f} s | {part['cpu_s']:.0f} s |" for name, part in cost.items()),
        "",
        render_signals_table({"signals": found["signals"]}),
        "## The same heads elsewhere",
        "",
        "Trained on the world above, nothing chosen or fitted anew; all sessions of each other world are judged.",
        "",
        *(render_figures(figures["all"], title) for title, figures in found["others"].items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1400)
    parser.add_argument("--receivers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=22)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--home", type=Path, help="folder that keeps the sessions; default: none")
    parser.add_argument("--write", type=Path, default=HERE, help="folder that takes the results")
    options = parser.parse_args()
    found = run(options)
    (options.write / "signal_tasks.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.write / "signal_tasks.md").write_text(render(found))
    print(render(found), flush=True)


if __name__ == "__main__":
    main()
