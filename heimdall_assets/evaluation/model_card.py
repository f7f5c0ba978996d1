"""Model card: a model's figures and limits in words, as Markdown.

Belongs here: wording. Every number comes from ``metrics.evaluate_predictions`` or a manifest; none is made here.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from heimdall_assets.evaluation.lengths import format_metres
from heimdall_assets.evaluation.outcome import Outcome
from heimdall_assets.evaluation.signals_table import list_worthless, render_signals_table
from heimdall_assets.evaluation.strata import list_groups
from heimdall_assets.evaluation.variants_table import describe_teacher, describe_variants, render_variants_table

if TYPE_CHECKING:
    from jinja2 import Template

_STRATA_TITLES = {
    "num_receivers": "Receivers",
    "snr": "Mean SNR",
    "gdop": "Geometry (GDOP)",
    "region": "Region, from the middle of the receivers",
    "site": "Transmitting site",
    "line_of_sight": "Line of sight",
    "signal_type": "Signal",
    "origin": "Origin",
    "campaign": "Campaign",
    "season": "Season",
}


def render_metrics_table(metrics: Mapping[str, Any]) -> str:
    """Return model, baselines and bound side by side as Markdown, and a sentence that says how the model compares."""
    rows = [_render_row(f"**{metrics['method']}** (model)", metrics, None)]
    rows += [_render_row(name, row, row) for name, row in _sort_baselines(metrics)]
    bound = metrics.get("bound")
    if bound and bound["num_sessions"]:
        cells = ["physical bound", str(bound["num_sessions"]), "-", format_metres(bound["median_m"]),
                 format_metres(bound["p90_m"]), "90 %", "-"]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    head = "| method | sessions | refused | median | p90 | 90 % ellipse covers | model's skill (interval) |"
    lines = [head, "|---|---|---|---|---|---|---|", *rows, "", *describe_verdict(metrics)]
    return "\n".join(lines) + "\n"


def render_short_table(metrics: Mapping[str, Any]) -> str:
    """Return model, baselines and bound by median, p90 and coverage alone, as Markdown: a first look."""
    rows = [(f"**{metrics['method']}** (model)", metrics), *_sort_baselines(metrics)]
    bound = metrics.get("bound")
    if bound and bound["num_sessions"]:
        rows.append(("physical bound", {**bound, "coverage_90": None}))
    lines = ["| method | median | p90 | 90 % ellipse covers |", "|---|---|---|---|"]
    for name, row in rows:
        cells = [name, format_metres(row["median_m"]), format_metres(row["p90_m"]), _percent(row.get("coverage_90"))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _sort_baselines(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(metrics["baselines"].items(), key=lambda item: _rank(item[1]))


def describe_verdict(metrics: Mapping[str, Any]) -> list[str]:
    """Return sentences that say how the model stands beside the baselines, the bound and its own sigma."""
    lines = []
    if metrics["worse_than"]:
        lines.append(f"**The model is worse than {', '.join(metrics['worse_than'])}** by median error.")
    elif metrics["baselines"]:
        lines.append(f"The model's median error is below every baseline's; the best is {metrics['best_baseline']}.")
    unsure = [
        name for name, row in metrics["baselines"].items()
        if name not in metrics["worse_than"] and row["skill_low"] is not None and row["skill_low"] <= 0
    ]  # fmt: skip
    if unsure:
        lines.append(f"The difference to {', '.join(unsure)} may be chance: its interval holds zero.")
    ratio, law = metrics.get("median_error_over_bound"), metrics.get("bound_path_loss")
    if ratio is not None:
        lines.append(f"Its median error is {ratio:.2f} times what physics allows on these sessions.")
        if law is not None:
            lines.append(
                f"For levels that is what a log-distance law (exponent {law['exponent']:.2f}, scatter "
                f"{law['shadowing_db']:.1f} dB) tells; a model that knows the ground may be closer."
            )
    if metrics.get("coverage_90") is not None:
        lines.append(f"Its 90 % ellipses hold the truth in {100 * metrics['coverage_90']:.1f} % of sessions.")
    return [" ".join(lines)] if lines else []


def render_accuracy_table(metrics: Mapping[str, Any]) -> str:
    """Return the share of sessions within each radius, model beside best baseline and bound, as Markdown."""
    best = metrics["baselines"].get(metrics["best_baseline"]) if metrics["best_baseline"] else None
    bound = metrics.get("bound") or {}
    lines = ["| within | model | best baseline | physical bound |", "|---|---|---|---|"]
    # A metrics.json that was read back has its keys in the order of their letters.
    for radius, share in sorted(metrics["accuracy"].items(), key=lambda item: float(item[0])):
        cells = [format_metres(float(radius)), _percent(share), _percent(best["accuracy"][radius] if best else None),
                 _percent((bound.get("accuracy") or {}).get(radius))]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def render_calibration_table(metrics: Mapping[str, Any]) -> str:
    """Return how honest the stated uncertainty is, as Markdown."""
    lines = ["| uncertainty | found | if honest |", "|---|---|---|"]
    for name, value in metrics.items():
        if name.startswith("coverage_"):
            level = name.removeprefix("coverage_")
            lines.append(f"| {level} % ellipse covers | {_percent(value)} | {level} % |")
    facts = [
        ("mean squared z", _number(metrics["mean_squared_z"]), "1"),
        ("ENCE", _number(metrics["ence"]), "0"),
        ("|RMSE - stated sigma|, east", format_metres(metrics["calibration_error_east_m"]), "0 m"),
        ("|RMSE - stated sigma|, north", format_metres(metrics["calibration_error_north_m"]), "0 m"),
        ("negative log likelihood (nats, m)", _number(metrics["nll"]), "-"),
        ("median stated sigma of an axis", format_metres(metrics["sharpness_m"]), "-"),
    ]
    lines += [f"| {name.replace('|', chr(92) + '|')} | {found} | {ideal} |" for name, found, ideal in facts]
    return "\n".join(lines) + "\n"


def render_strata_table(metrics: Mapping[str, Any]) -> str:
    """Return the figures of every group, one table in all, as Markdown."""
    lines = ["| by | group | sessions | median | p90 | 90 % ellipse covers | best baseline's median |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, table in metrics["strata"].items():
        if len(table) < 2 and name not in {"site", "origin"}:
            continue  # one group is the whole set, which the first table shows
        for group in list_groups(table):
            row = table[group]
            cells = [_STRATA_TITLES.get(name, name), group, str(row["num_sessions"]), format_metres(row["median_m"]),
                     format_metres(row["p90_m"]), _percent(row["coverage_90"]),
                     format_metres(row.get("best_baseline_median_m"))]  # fmt: skip
            lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def render_model_card(
    *,
    version: str,
    metrics: Mapping[str, Any],
    data: Mapping[str, Any],
    specs: Mapping[str, Mapping[str, Any]],
    export: Mapping[str, Any] | None = None,
    latency: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    provenance_digest: str | None = None,
    limits: Sequence[str] = (),
    outcome: Outcome | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """Return the ``README.md`` of a release: use, data, figures beside baselines and bound, coverage, limits.

    Args:
        version: of the release, such as v1.2.0.
        metrics: what ``evaluate_predictions`` gave on the test split.
        data: ``num_sessions`` (split -> count), and where known ``sessions_by_origin``, ``sessions_by_campaign``,
            ``num_simulated_sessions`` (added to training alone), ``num_left_out``.
        specs: spec class name -> fields.
        export: summary of the exported model: its files, and ``parity``, of which scalars are listed.
        latency: what was measured of the files' speed.
        environment: what the bits depend on, scalars are listed.
        provenance_digest: SHA-256 of the release's ``provenance.json``.
        limits: sentences beyond those that follow from the figures.
        outcome: whether training made the model better than it started.
        warnings: what the checks on the way found without stopping it.
    """
    model: dict[str, Any] = {"kind": "network", **specs.get("ModelSpec", {})}
    return _load_template().render(
        version=version,
        metrics=metrics,
        model=model,
        data={"num_sessions": {}, "sessions_by_campaign": {}, "num_left_out": 0, **data},
        origins=_describe_mix(data),
        specs=specs,
        parity=_scalars((export or {}).get("parity")),
        variants_table="" if export is None else render_variants_table(export, latency),
        variants=[] if export is None else describe_variants(export, latency),
        taught=describe_teacher(metrics.get("teacher")),
        environment=_scalars(environment),
        provenance_digest=provenance_digest,
        outcome=outcome,
        warnings=warnings,
        limits=[*_describe_untrained(outcome), *_derive_limits(metrics, data, model), *limits],
        metrics_table=render_metrics_table(metrics),
        accuracy_table=render_accuracy_table(metrics),
        calibration_table=render_calibration_table(metrics),
        strata_table=render_strata_table(metrics),
        signals_table=render_signals_table(metrics),
    )


def _describe_untrained(outcome: Outcome | None) -> list[str]:
    if outcome is None or outcome.trained:
        return []
    return [
        f"It did not learn: {outcome.said}. It answers as the network that training started from, with ellipses "
        "calibrated on the validation split."
    ]


def _derive_limits(metrics: Mapping[str, Any], data: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """Return what the figures themselves forbid to claim."""
    limits = []
    origins = set(data.get("sessions_by_origin") or {})
    if origins == {"simulated"}:
        limits.append("Trained and judged on simulated sessions only: its figures hold for the simulator's world.")
    elif "simulated" in origins or data.get("num_simulated_sessions"):
        limits.append("Simulated sessions are part of the data; the table by origin, where there is one, parts them.")
    if model.get("kind") == "single_receiver":
        limits.append(
            "It sees one receiver's spectrogram, which holds a level and no direction or delay: tens of kilometres is "
            "what that input allows, and better figures come from memorised transmitters."
        )
    if metrics["worse_than"]:
        limits.append(f"Use {metrics['best_baseline']} instead where a median matters: this model is worse.")
    if worthless := list_worthless(metrics):
        limits.append(
            "Its signal heads are not shown to be better than classical detection, or than not looking, in: "
            + "; ".join(worthless)
            + ". Take the classical answer there."
        )
    coverage = metrics.get("coverage_90")
    if coverage is not None and not 0.85 <= coverage <= 0.95:
        word = "too small" if coverage < 0.85 else "too large"
        limits.append(f"Its ellipses are {word}: {100 * coverage:.0f} % coverage where 90 % was stated.")
    if metrics["num_sessions"] < 100:
        limits.append(
            f"Judged on {metrics['num_sessions']} sessions: every figure is uncertain, the tails most of all."
        )
    unseen = metrics["strata"].get("site", {}).get("unseen", {}).get("num_sessions", 0)
    if not unseen:
        limits.append(
            "No test session is known to come from a site that training never saw: expect worse at new sites."
        )
    if metrics["num_refused"]:
        limits.append(
            f"It refused {metrics['num_refused']} of {metrics['num_sessions']} sessions; figures are of the rest."
        )
    return limits


def _describe_mix(data: Mapping[str, Any]) -> str:
    parts = [f"{count} {origin}" for origin, count in sorted((data.get("sessions_by_origin") or {}).items())]
    if data.get("num_simulated_sessions"):
        parts.append(f"{data['num_simulated_sessions']} simulated ones added to training alone")
    return ", ".join(parts) or "not recorded"


def _render_row(name: str, row: Mapping[str, Any], skill: Mapping[str, Any] | None) -> str:
    told = "-"
    if skill is not None and skill["skill"] is not None:
        told = _tell_skill(skill["skill"], skill["skill_low"], skill["skill_high"])
    cells = [name, str(row["num_sessions"]), str(row["num_refused"]), format_metres(row["median_m"]),
             format_metres(row["p90_m"]), _percent(row.get("coverage_90")), told]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _tell_skill(skill: float, low: float | None, high: float | None) -> str:
    """Return a skill with its interval; far below zero, where percents say nothing, as a multiple."""
    if skill >= -1.0:
        return f"{_percent(skill)} ({_percent(low).removesuffix(' %')} to {_percent(high).removesuffix(' %')})"
    ends = ["-" if end is None else f"{1.0 - end:,.3g}" for end in (high, low)]
    return f"{1.0 - skill:,.3g} times its median ({ends[0]} to {ends[1]})"


def _rank(row: Mapping[str, Any]) -> float:
    return float("inf") if row["median_m"] is None else float(row["median_m"])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _scalars(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (facts or {}).items() if isinstance(value, int | float | str)}


@cache
def _load_template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Markdown, not HTML; the names inside are checked names and numbers.
    environment = Environment(
        loader=PackageLoader("heimdall_assets.evaluation", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["metres"] = format_metres
    return environment.get_template("model_card.md.jinja")
