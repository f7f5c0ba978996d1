"""Variants judged: what each file of a model costs in metres, and which of them is released.

Belongs here: figures of a file on sessions, the gates of ``ExportSpec``, the choice. Does not belong here: how variants
are made (``learning.export``), what a release must reach beside other models (``stages.gates``).

The choice is made on the validation split, and the figures that people read are those of the test split: had the test
split chosen, its figures would be those of the luckiest file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heimdall_assets.counts import say_count
from heimdall_assets.evaluation.metrics import compute_metrics
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.specs import EvaluationSpec, ExportSpec

FIGURES = ("num_sessions", "num_refused", "median_m", "p90_m", "coverage_90")

MB = 1e6


@dataclass(frozen=True)
class Judged:
    """One file with its figures.

    Attributes:
        name: of the variant.
        size_bytes: of the file.
        problems: what keeps it from being released, a line each; empty: nothing.
    """

    name: str
    size_bytes: int
    problems: list[str]


@dataclass(frozen=True)
class Choice:
    """The file that is released, why, and, where none may be, what keeps each from it."""

    name: str
    because: str
    rejected: list[str]


def summarize_figures(predictions: Predictions, sessions: SessionSet) -> dict[str, Any]:
    """Return what is compared of answers to sessions: how many, median and 90 % error in metres, coverage."""
    metrics = compute_metrics(compute_residuals(sessions, predictions), EvaluationSpec.model_validate({}))
    return {name: metrics[name] for name in FIGURES}


def summarize_moves(found: Predictions, model: Predictions) -> dict[str, Any]:
    """Return by how much answers lie from the model's own: in metres, and the largest in its sigmas.

    Of sessions that both answer; None where there is none.
    """
    both = np.isfinite(found.latitude) & np.isfinite(model.latitude)
    if not both.any():
        return dict.fromkeys(("moved_median_m", "moved_p90_m", "moved_max_m", "moved_max_sigma"))
    places = [side[both] for side in (model.latitude, model.longitude, found.latitude, found.longitude)]
    moved_m = np.asarray(compute_distance_m(*places), np.float64)
    sigma_m = np.sqrt(model.covariance_m2[both, :2].mean(axis=1))
    return {
        "moved_median_m": float(np.median(moved_m)),
        "moved_p90_m": float(np.quantile(moved_m, 0.9)),
        "moved_max_m": float(moved_m.max()),
        "moved_max_sigma": float((moved_m / sigma_m).max()),
    }


def find_problems(size_bytes: int, figures: Mapping[str, Any], model: Mapping[str, Any], spec: ExportSpec) -> list[str]:
    """Return why a file may not be released, one line for each gate; an unknown figure passes none.

    Args:
        size_bytes: of the file.
        figures: what ``summarize_figures`` gave for it on the validation split.
        model: the same of the model itself.
        spec: the gates.
    """
    found = []
    if size_bytes > spec.max_size_mb * MB:
        found.append(f"{size_bytes / MB:.1f} MB, expected at most {spec.max_size_mb:g} MB (max_size_mb)")
    if figures["num_refused"] != model["num_refused"]:
        refused = f"refuses {figures['num_refused']} of {say_count(model['num_sessions'], 'validation session')}"
        found.append(f"{refused}, the model {model['num_refused']}")
    for name, largest, setting in (
        ("median_m", spec.max_variant_median_ratio, "max_variant_median_ratio"),
        ("p90_m", spec.max_variant_p90_ratio, "max_variant_p90_ratio"),
    ):
        ratio = compute_ratio(figures[name], model[name])
        if ratio is None or ratio > largest:
            what = name.removesuffix("_m")
            said = "unknown" if ratio is None else f"{ratio:.3f}"
            found.append(f"{what} error {said} of the model's on validation, expected at most {largest:g} ({setting})")
    if model["coverage_90"] is not None:
        change = abs((figures["coverage_90"] or 0.0) - model["coverage_90"])
        if change > spec.max_variant_coverage_change:
            found.append(
                f"90 % ellipses cover {100 * (figures['coverage_90'] or 0.0):.1f} % on validation, the model's "
                f"{100 * model['coverage_90']:.1f} %, expected a change of at most "
                f"{spec.max_variant_coverage_change:g} (max_variant_coverage_change)"
            )
    return found


def compute_ratio(value: float | None, reference: float | None) -> float | None:
    """Return ``value`` over ``reference``; None where one of them is unknown.

    >>> compute_ratio(3.0, 2.0), compute_ratio(0.0, 0.0), compute_ratio(None, 2.0)
    (1.5, 1.0, None)
    """
    if value is None or reference is None:
        return None
    if reference == 0.0:
        return 1.0 if value == 0.0 else None
    return value / reference


def choose_variant(judged: Sequence[Judged], spec: ExportSpec) -> Choice:
    """Return the smallest file without a problem; where each has one, the smallest of all, rejected."""
    ranked = sorted(judged, key=lambda each: (each.size_bytes, each.name))
    passed = [each for each in ranked if not each.problems]
    if passed:
        return Choice(passed[0].name, _explain(passed[0], ranked, spec), [])
    lines = [f"{each.name}: {problem}" for each in ranked for problem in each.problems]
    if all(each.size_bytes > spec.max_size_mb * MB for each in ranked):
        lines.append("a smaller file takes other ExportSpec.variants, a smaller backbone_size, or a distilled student")
    return Choice(ranked[0].name, f"none of {', '.join(each.name for each in judged)} passes ExportSpec", lines)


def _explain(chosen: Judged, ranked: Sequence[Judged], spec: ExportSpec) -> str:
    size = f"{chosen.size_bytes / MB:.1f} MB of at most {spec.max_size_mb:g}"
    if len(ranked) == 1:
        return f"the only one asked for: {size}"
    smaller = [each for each in ranked if each.problems and each.size_bytes <= chosen.size_bytes]
    told = "; ".join(f"{each.name}: {each.problems[0]}" for each in smaller)
    return f"the smallest of {len(ranked)} that passes ExportSpec: {size}" + (f"; not {told}" if told else "")
