"""The reference table of the localization models: `make bench-localization`, or one part with `--only`.

Simulated sessions are made here from seeds; a model is fitted for each world on its own training seeds, calibrated on
its validation seeds and judged on test seeds that nothing else sees. POWDER is read from `--powder FOLDER` where there
is one. Results of parts that did not run this time stay in the table.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heimdall_assets.domain import Predictions, SessionSet
from heimdall_assets.learning.network_data import assemble_table, join_sessions
from heimdall_assets.learning.network_graph import to_degrees
from heimdall_assets.learning.network_tokens import take_apart
from heimdall_assets.learning.physics import (
    Delays,
    GaussNewton,
    compute_covariance,
    compute_delay_residuals,
    compute_mean,
    compute_step,
)
from heimdall_assets.learning.residuals import compute_residuals
from heimdall_assets.learning.training import FittedModel, fit_model
from heimdall_assets.locating.bounds import compute_session_bounds
from heimdall_assets.locating.classical import ESTIMATORS, ORACLES
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import AugmentationSpec, ModelSpec, SimulationSpec, TrainingSpec

HERE = Path(__file__).resolve().parent
TRAIN_SEED, VAL_SEED, TEST_SEED = 1001, 1002, 1003
NUM_VAL, NUM_TEST = 3000, 4000

SEVENTY_NS = {"min_receivers": 3, "max_receivers": 7, "clock_bias_s": 0.0, "clock_jitter_s": 70e-9}
BLOCKED = {"snr_min_db": 5.0, "snr_max_db": 30.0, "blocked_fraction": 0.3, "blocked_excess_s": 2e-6}
WORLDS: dict[str, dict[str, Any]] = {
    "line_of_sight": {"snr_min_db": 0.0, "snr_max_db": 30.0},
    "blocked_silent": BLOCKED | {"blocked_loss_db": 0.0},
    "blocked_weaker": BLOCKED | {"blocked_loss_db": 15.0},
}
TITLES = {
    "line_of_sight": "Simulated, line of sight, 3 to 7 receivers, clocks 70 ns, trained on 0 to 30 dB",
    "blocked_silent": "Simulated, 30 % of receivers blocked (mean 2 us), 5 to 30 dB, levels say nothing about it",
    "blocked_weaker": "Simulated, 30 % of receivers blocked (mean 2 us), 5 to 30 dB, and 15 dB weaker for it",
}
CORNERS: dict[str, dict[str, Any]] = {
    "27 to 30 dB, clocks 30 ns": {"snr_min_db": 27.0, "snr_max_db": 30.0, "clock_jitter_s": 30e-9},
    "30 to 35 dB, clocks 20 ns": {"snr_min_db": 30.0, "snr_max_db": 35.0, "clock_jitter_s": 20e-9},
}
"""Where the specification's 90 % below 30 m is a matter of reach, not of luck."""


def simulate(world: str, seed: int, num: int, network: str = "italian", **changes: Any) -> SessionSet:
    spec = SimulationSpec(seed=seed, **(SEVENTY_NS | WORLDS[world] | changes))
    return simulate_observations(spec, np.arange(num), network)  # type: ignore[arg-type]


def fit(world: str, num_train: int, num_epochs: int, num_threads: int) -> tuple[FittedModel, dict[str, Any]]:
    train = join_sessions(
        [
            simulate(world, TRAIN_SEED, round(0.7 * num_train)),
            simulate(world, TRAIN_SEED + 100, round(0.3 * num_train), "random"),
        ]
    )
    val = simulate(world, VAL_SEED, NUM_VAL)
    training = TrainingSpec(
        max_epochs=num_epochs, batch_size=128, learning_rate=5e-4, warmup_epochs=0, num_threads=num_threads
    )
    started, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit_model(
            ModelSpec(dropout=0.0), training, AugmentationSpec(dropout=0.0, max_gain_db=0.0), train, val, Path(folder),
            on_epoch=lambda epoch, metrics: print(world, epoch, metrics, flush=True),
        )  # fmt: skip
    cost = {"num_train": len(train), "wall_s": time.monotonic() - started, "cpu_s": time.process_time() - cpu}
    return fitted, cost | {"num_threads": num_threads, "num_weights": fitted.settings["facts"]["num_weights"]}


def locate_by_reweighting(sessions: SessionSet) -> Predictions:
    """Return the textbook's robust least squares: the plain solution, reweighted by Cauchy's loss until it rests.

    ``tdoa_robust`` is the stronger one: many starts under the robust loss itself, levels choosing between minima.

    Source: Holland and Welsch, Communications in Statistics 6 (1977) 813, scale 2.385.
    """
    table = assemble_table(sessions)
    session = take_apart(torch.from_numpy(table.receivers))
    weight = torch.where(session.timed, session.sigma.square().reciprocal(), 0.0)
    wide = torch.stack([0.5 / session.spread, torch.zeros_like(session.spread), 0.5 / session.spread], -1)
    nothing = torch.zeros_like(weight)
    mean = torch.zeros(len(sessions), 2)
    delays = Delays(session.receivers, session.ground, session.arrival, weight, mean, wide, nothing, nothing)
    state = GaussNewton().search(delays, session.spread)[:, :1]
    factor = wide
    for _ in range(30):
        residual = compute_delay_residuals(state, delays)[0]
        reweighted = weight.unsqueeze(1)
        for _ in range(3):
            centred = residual - compute_mean(residual, reweighted).unsqueeze(-1)
            reweighted = weight.unsqueeze(1) / (1.0 + weight.unsqueeze(1) * (centred / 2.385).square())
        step, factor = compute_step(state, delays, torch.full_like(residual[..., 0], 1e-2), reweighted)
        state = state + step
    latitude, longitude = to_degrees(state[:, 0].double(), torch.from_numpy(table.origin_deg))
    covariance = compute_covariance(factor[:, 0].double()).numpy() * 1e6
    return Predictions(latitude.numpy(), longitude.numpy(), covariance, "cauchy_reweighted")


def judge(sessions: SessionSet, fitted: FittedModel) -> dict[str, Any]:
    """Return one row of figures a method, and the model's ratios."""
    found = {"model": fitted.predict(sessions)}
    untrained = fitted.task.build_network(fitted.model, fitted.statistics)
    found["model_untrained"] = fitted.task.predict(untrained, sessions, fitted.statistics, {})
    found["cauchy_reweighted"] = locate_by_reweighting(sessions)
    found |= {name: estimate(sessions, None) for name, estimate in ESTIMATORS.items()}
    if sessions.blocked is not None and sessions.blocked.any():
        found |= {name: estimate(sessions, None) for name, estimate in ORACLES.items()}
    _, bound_m = compute_session_bounds(sessions)
    rows: dict[str, Any] = {}
    for name, predictions in found.items():
        residuals = compute_residuals(sessions, predictions)
        error, squared = residuals.error_m, residuals.mahalanobis_squared
        judged = np.isfinite(error)
        rows[name] = {
            "answered": float(judged.mean()),
            "median_m": float(np.median(error[judged])),
            "p90_m": float(np.percentile(error[judged], 90)),
            "within_30_m": float(np.mean(np.where(judged, error, np.inf) < 30.0)),
            "coverage_50": float(np.mean(squared[judged] < -2.0 * np.log(0.5))),
            "coverage_90": float(np.mean(squared[judged] < -2.0 * np.log(0.1))),
            "median_error_over_bound": float(np.median((error / bound_m)[judged])),
        }
    rows["bound"] = {"median_m": float(np.median(bound_m)), "p90_m": float(np.percentile(bound_m, 90))}
    return rows


def run_world(world: str, options: argparse.Namespace) -> dict[str, Any]:
    fitted, cost = fit(world, options.sessions, options.epochs, options.threads)
    result: dict[str, Any] = {"title": TITLES[world], "training": cost}
    if world != "line_of_sight":
        result["tests"] = {"5 to 30 dB": judge(simulate(world, TEST_SEED, NUM_TEST), fitted)}
        return result
    result["tests"] = {
        f"{snr:g} dB": judge(simulate(world, TEST_SEED + 1, NUM_TEST, snr_min_db=snr, snr_max_db=snr), fitted)
        for snr in (0.0, 10.0, 20.0, 30.0)
    }
    for name, changes in CORNERS.items():
        result["tests"][f"corner: 7 receivers, {name}, source within the network"] = judge(
            simulate(world, TEST_SEED + 2, NUM_TEST, min_receivers=7, area_margin_deg=0.0, **changes), fitted
        )
    return result


def render(results: dict[str, Any]) -> str:
    lines = ["# Localization: every model against every baseline and the bound", ""]
    lines += ["Written by `make bench-localization`; figures as measured, nothing chosen on test sessions.", ""]
    for part in results.values():
        lines += [f"## {part['title']}", ""]
        cost = part["training"]
        lines += [
            f"Trained on {cost['num_train']} sessions in {cost['cpu_s']:.0f} s of processor time "
            f"({cost['wall_s']:.0f} s wall, {cost['num_threads']} thread).",
            "",
        ]
        for name, rows in part["tests"].items():
            lines += [
                f"### {name}",
                "",
                "| method | median m | 90 % m | error / bound | within 30 m | 50 % ellipse | 90 % ellipse |",
            ]
            lines += ["|---|---|---|---|---|---|---|"]
            for method, row in sorted(rows.items(), key=lambda item: item[1]["median_m"]):
                shown = [f"{row['median_m']:.0f}", f"{row['p90_m']:.0f}"]
                keys = ("median_error_over_bound", "within_30_m", "coverage_50", "coverage_90")
                shown += [f"{row[key]:.3g}" if key in row else "" for key in keys]
                lines.append(f"| {method} | " + " | ".join(shown) + " |")
            lines.append("")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(WORLDS), help="one part; default: all")
    parser.add_argument("--sessions", type=int, default=24_000, help="training sessions of each world")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    path = HERE / "localization.json"
    for world in [options.only] if options.only else WORLDS:
        found = run_world(world, options)
        results = json.loads(path.read_text()) if path.is_file() else {}
        results[world] = found
        results = {name: results[name] for name in [*WORLDS, *results] if name in results}
        path.write_text(json.dumps(results, indent=1, sort_keys=False) + "\n")
        (HERE / "localization.md").write_text(render(results))
        print(render({world: results[world]}), flush=True)


if __name__ == "__main__":
    main()
