"""The reference table of the localization models: `make bench-localization`, or one part with `--only`.

Simulated sessions are made from seeds; a model is fitted for each world on its own training seeds, calibrated on its
validation seeds and judged on test seeds that nothing else sees. POWDER is read from `--powder FOLDER` where there is
one. Results of parts that did not run this time stay in the table.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from powder import run_powder
from worlds import WORLDS, run_world

from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.pipeline.recipe import STAGES

HERE = Path(__file__).resolve().parent
PARTS = (*WORLDS, "powder")

COLUMNS = ("median m", "90 % m", "30 m", "50 m", "100 m", "50 % ellipse", "90 % ellipse", "calibration error m")
RATIO_TO = (
    "tdoa_least_squares",
    "cauchy_reweighted",
    "tdoa_robust",
    "oracle",
    "oracle_weighted",
    "oracle_of_all",
    "posterior",
    "log_distance",
)

INTRODUCTION = """\
# Localization: every model against every baseline and the bound

Written by `make bench-localization`; figures as measured. Nothing was chosen on simulated test sessions; the test
parts of POWDER's grid and driving splits were looked at several times while the level prior was made, so take those
two as a little optimistic. *30 m, 50 m, 100 m*: share of errors within. *Ellipse*: share of truths inside.
*Calibration error*: |RMSE - root mean variance|, the mean of east and north, which the few sessions with the largest
errors decide. *bound*: what a Gaussian of the Cramer-Rao covariance scatters; for levels that is the bound of a log-
distance law, which a model that knows the ground may pass. `tdoa_robust` is the product's own robust estimator
(Cauchy's loss, many starts, levels and area choose between minima), `cauchy_reweighted` the textbook's. Oracles know
which receivers are blocked: `oracle` leaves them out, `oracle_weighted` gives them a wide sigma, `oracle_of_all` also
knows how their excess is spread. `posterior` knows all about how sessions are drawn, but not who is blocked: no method
without that knowledge can be expected to come closer, whatever it is.
"""


def format_metres(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def format_row(name: str, row: dict[str, Any]) -> str:
    """Return one line of a table; the accuracies at radii that a part was not judged at stay empty."""
    cells = [name, format_metres(row["median_m"]), format_metres(row["p90_m"])]
    cells += [_percent(row["accuracy"].get(radius)) for radius in ("30", "50", "100")]
    cells += [_percent(row.get("coverage_50")), _percent(row.get("coverage_90"))]
    sides = [row.get(f"calibration_error_{axis}_m") for axis in ("east", "north")]
    cells.append(format_metres(None if None in sides else sum(sides) / 2.0))
    return "| " + " | ".join(cells) + " |"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100.0 * value:.1f} %"


def render_test(name: str, metrics: dict[str, Any]) -> list[str]:
    rows = {"**model**": metrics, **metrics["baselines"]}
    bound = metrics["bound"]
    if bound and bound["num_sessions"]:
        rows["*bound*"] = bound
    lines = [f"### {name} ({metrics['num_sessions']} sessions)", "", "| method | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---" * (1 + len(COLUMNS)) + "|")
    answered = {method: row for method, row in rows.items() if row["median_m"] is not None}
    lines += [format_row(*item) for item in sorted(answered.items(), key=lambda item: item[1]["median_m"])]
    said = [f"bound {metrics['median_error_over_bound']:.2f}"] if metrics["median_error_over_bound"] else []
    compared = {
        name: metrics["baselines"][name] for name in (*RATIO_TO, "log_distance") if name in metrics["baselines"]
    }
    for other, row in compared.items():
        if row["skill"] is not None:
            ratio, low, high = (1.0 - row[key] for key in ("skill", "skill_high", "skill_low"))
            said.append(f"{other} {ratio:.2f} ({low:.2f} to {high:.2f})")
    return [*lines, "", "Model's median over that of: " + ", ".join(said) + ".", ""]


def render_corner(corner: dict[str, Any]) -> list[str]:
    lines = ["### The corner: 7 receivers, 1 s, errors below 30 m", ""]
    lines += [
        "*Between*: the source stands between the receivers (in their convex hull); *box*: anywhere in their box."
    ]
    columns = ["signal and clocks"]
    for name in ("between", "box"):
        columns += [f"{name}: median m", "within 30 m", "bound allows", "90 % ellipse"]
    lines += ["", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, parts in corner.items():
        cells = [name]
        for metrics in (parts["between"], parts["box"]):
            share = metrics["accuracy"]["30"]
            cells += [format_metres(metrics["median_m"]), ("**%s**" if share >= 0.9 else "%s") % _percent(share)]
            cells += [_percent(metrics["bound"]["accuracy"]["30"]), _percent(metrics["coverage_90"])]
        lines.append("| " + " | ".join(cells) + " |")
    counted = next(iter(corner.values()))
    return [
        *lines,
        "",
        f"{counted['between']['num_sessions']} of {counted['box']['num_sessions']} sources stand between.",
        "",
    ]


def render_training(cost: dict[str, Any]) -> str:
    if "num_train" not in cost:
        return "Graph and release: " + ", ".join(f"{name} {row['wall_s']:.0f} s" for name, row in cost.items()) + "."
    return (
        f"Trained on {cost['num_train']} sessions in {cost['cpu_s']:.0f} s of processor time "
        f"({cost['wall_s']:.0f} s wall, {cost['num_threads']} thread)."
    )


def render(results: dict[str, Any]) -> str:
    lines = [INTRODUCTION]
    for part in results.values():
        version = f"Code version of `trained_checkpoint`: {part['code_version']}."
        lines += [f"## {part['title']}", "", f"{render_training(part['training'])} {version}", ""]
        for name, metrics in part["tests"].items():
            lines += render_test(name, metrics)
        if "corner" in part:
            lines += render_corner(part["corner"])
    return "\n".join(lines).rstrip() + "\n"


def keep(results: dict[str, Any], part: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return results with one part new, strata left to each release's own metrics.json, and write both files."""
    corner = [metrics for parts in found.get("corner", {}).values() for metrics in parts.values()]
    for metrics in [*found["tests"].values(), *corner]:
        metrics.pop("strata", None)
    results = {**results, part: found | {"code_version": STAGES[TRAINED_CHECKPOINT].code_version}}
    results = {name: results[name] for name in PARTS if name in results}
    (HERE / "localization.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "localization.md").write_text(render(results))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated; default: all")
    parser.add_argument("--sessions", type=int, default=12_000, help="training sessions of each simulated world")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--powder", type=Path, help="folder with POWDER's single_tx.csv and receivers.json")
    options = parser.parse_args()
    path = HERE / "localization.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for part in options.only or PARTS:
        if part != "powder":
            found = run_world(part, options.sessions, options.epochs, options.threads)
        elif options.powder is None:
            print("powder: left out, as --powder names no folder", flush=True)
            continue
        else:
            found = run_powder(options.powder)
        results = keep(results, part, found)
        print(render({part: results[part]}), flush=True)


if __name__ == "__main__":
    main()
