"""What pair tokens are worth on IQ: `make bench-pairs` writes `pair_tokens.md` and `pair_tokens.json`.

Sessions are simulated with IQ (blocked receivers, multipath, all faults), stored, and turned into delays and
correlations as the asset graph does it. The session model is fitted with and without correlations on the same sessions
and seeds, each with simulated sessions without IQ beside them.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from simulated_iq import observe_simulated

from heimdall_assets.evaluation.comparison import compare_paired
from heimdall_assets.evaluation.metrics import evaluate_predictions
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.locating.bounds import compute_session_bounds
from heimdall_assets.locating.classical import ESTIMATORS
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
WORLD = {
    "seed": 17,
    "duration_s": 0.5,
    "min_receivers": 4,
    "max_receivers": 6,
    "snr_min_db": 10.0,
    "snr_max_db": 30.0,
    "blocked_fraction": 0.3,
    "blocked_excess_s": 2e-6,
    "rician_k_db": 6.0,
    "delay_spread_s": 1e-6,
}


def run(options: argparse.Namespace) -> dict[str, Any]:
    simulation = SimulationSpec(num_sessions=options.sessions, **WORLD)
    with tempfile.TemporaryDirectory() as folder:
        stores = read_places({"HEIMDALL_HOME": folder, "HEIMDALL_TRACKING": "off"}).open_stores()
        parts, _ = observe_simulated(stores, simulation, "pairs", SplitSpec(val_fraction=0.2, test_fraction=0.3))
        training = TrainingSpec(
            max_epochs=options.epochs, batch_size=64, learning_rate=1e-3, warmup_epochs=1, num_threads=1,
            num_simulated_sessions=options.beside,
        )  # fmt: skip
        fitted = {}
        for name, sees in (("model", True), ("without_correlations", False)):
            model = ModelSpec(use_spectrograms=False, use_correlations=sees)
            fitted[name] = fit_model(
                model, training, AugmentationSpec(), parts["train"], parts["val"],
                CheckpointFolder(Path(folder) / name),
                on_epoch=lambda epoch, metrics: print(epoch, metrics, flush=True),
            )  # fmt: skip
        test = parts["test"]
        found = {name: one.predict(test) for name, one in fitted.items()}
    others = {name: estimate(test, None) for name, estimate in ESTIMATORS.items()}
    others["without_correlations"] = found["without_correlations"]
    spec, (covariance, _) = EvaluationSpec(), compute_session_bounds(test)
    metrics = evaluate_predictions(test, found["model"], others, covariance, spec)
    metrics.pop("strata", None)
    errors = [np.nan_to_num(compute_residuals(test, one).error_m, nan=np.inf) for one in found.values()]
    assert test.pairs is not None
    return {
        "simulation": simulation.dump(),
        "num_sessions": {name: len(part) for name, part in parts.items()},
        "num_beside": options.beside,
        "num_pairs": {name: len(part.pairs.first) for name, part in parts.items() if part.pairs is not None},
        "comparison": compare_paired(errors[0], errors[1], spec),
        "metrics": metrics,
    }


def render(found: dict[str, Any]) -> str:
    counts, compared, simulation = found["num_sessions"], found["comparison"], found["simulation"]
    lines = [
        "# Pair tokens: what seeing correlations is worth",
        "",
        "Written by `make bench-pairs`; figures of the test split, which nothing was chosen on.",
        f"Code version of `trained_checkpoint`: {STAGES[TRAINED_CHECKPOINT].code_version}.",
        "",
        f"Simulated with IQ: {simulation['num_sessions']} sessions of {simulation['duration_s']:g} s, "
        f"{simulation['min_receivers']} to {simulation['max_receivers']} receivers,",
        f"{100 * simulation['blocked_fraction']:.0f} % of them blocked (mean "
        f"{1e6 * simulation['blocked_excess_s']:g} us),",
        f"multipath of {1e6 * simulation['delay_spread_s']:g} us at K = {simulation['rician_k_db']:g} dB, "
        f"{simulation['snr_min_db']:g} to {simulation['snr_max_db']:g} dB.",
        f"{counts['train']} train (and {found['num_beside']} simulated without IQ), {counts['val']} validate, "
        f"{counts['test']} test.",
        "",
        "| method | median m | 90 % m | 90 % ellipse |",
        "|---|---|---|---|",
    ]
    rows = {"**model**": found["metrics"], **found["metrics"]["baselines"]}
    for name, row in sorted(rows.items(), key=lambda item: item[1]["median_m"]):
        coverage = row.get("coverage_90")
        cells = [
            name,
            f"{row['median_m']:.0f}",
            f"{row['p90_m']:.0f}",
            "" if coverage is None else f"{100 * coverage:.1f} %",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"With correlations the median is {compared['ratio']:.2f} of that without "
        f"({compared['ratio_low']:.2f} to {compared['ratio_high']:.2f}).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=800)
    parser.add_argument("--beside", type=int, default=4000, help="simulated training sessions without IQ")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--write", type=Path, default=HERE, help="folder that takes the results")
    options = parser.parse_args()
    found = run(options)
    (options.write / "pair_tokens.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.write / "pair_tokens.md").write_text(render(found))
    print(render(found), flush=True)


if __name__ == "__main__":
    main()
