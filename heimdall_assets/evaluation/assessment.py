"""Assessment: how a training went, judged by its tables: did it converge, how far did it come, what looks wrong.

Belongs here: verdicts. Does not belong here: what looks wrong (``red_flags``), measuring (the tables are
``training_tables``), thresholds that somebody chooses (``AssessmentSpec``), drawing. Loads no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from heimdall_assets.evaluation.red_flags import WINDOW, Curves, Flag, Tables, collect_curves, compute_mean, find_flags
from heimdall_assets.specs import AssessmentSpec


@dataclass(frozen=True)
class Assessment:
    """How a training went.

    Attributes:
        convergence: question -> whether so; None: it was not measured, or not for long enough.
        tier: the best degree of success that was reached; None: none was.
        tiers: name -> what it lacks; empty: it was reached.
        flags: red flags, the worst first.
        figures: what was judged.
        not_measured: questions that the training gave no numbers for.
    """

    convergence: dict[str, bool | None]
    tier: str | None
    tiers: dict[str, list[str]]
    flags: list[Flag]
    figures: dict[str, float | int | None]
    not_measured: list[str]

    def dump(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def assess_training(tables: Tables, told: Mapping[str, Any], spec: AssessmentSpec) -> Assessment:
    """Return how a training went.

    Args:
        tables: table -> rows, as its folder holds them.
        told: its metadata: ``settings``, ``status``.
        spec: thresholds.
    """
    curves = collect_curves(tables, told, spec)
    convergence = _judge_convergence(curves)
    figures = _collect_figures(curves)
    tiers = {name: _list_lacking(asked, figures) for name, asked in spec.tiers.items()}
    reached = next((name for name, lacking in tiers.items() if figures["epochs"] and not lacking), None)
    return Assessment(
        convergence=convergence,
        tier=reached,
        tiers=tiers,
        flags=find_flags(curves),
        figures=figures,
        not_measured=[name for name, value in {**convergence, **figures}.items() if value is None],
    )


def _judge_convergence(curves: Curves) -> dict[str, bool | None]:
    val, over = curves.val, curves.spec.over_epochs
    settled = None
    if len(val) > over:
        changes = [abs(new - old) for old, new in pairwise(val[-over - 1 :])]
        settled = max(changes) < curves.spec.max_val_loss_change
    low, high = curves.spec.gradient_norm
    return {
        "loss_falls": None if len(curves.train) < 2 else compute_mean(curves.train[-WINDOW:]) < curves.train[0],
        "val_loss_settled": settled,
        "all_finite": all(map(math.isfinite, curves.every_number)) if curves.every_number else None,
        "gradients_healthy": all(low < norm < high for norm in curves.norms) if curves.norms else None,
    }


def _collect_figures(curves: Curves) -> dict[str, float | int | None]:
    best = min(range(len(curves.val)), key=curves.val.__getitem__) if curves.val else None
    at_best = best is not None and len(curves.error_m) == len(curves.val)
    return {
        "epochs": len(curves.val),
        "best_epoch": best,
        "val_loss": None if best is None else curves.val[best],
        "val_error_m": curves.error_m[best] if best is not None and at_best else None,
        "span_f1": max(curves.span_f1, default=None),
        "separation": max(curves.separation, default=None),
        "gradient_norm": compute_mean(curves.norms) if curves.norms else None,
    }


def _list_lacking(asked: Mapping[str, float], figures: Mapping[str, float | int | None]) -> list[str]:
    """Return what a tier lacks; a figure that this kind of model does not have asks for nothing."""
    lacking = []
    for name, bound in asked.items():
        end, _, figure = name.partition("_")
        value = figures.get(figure)
        if value is None:
            continue
        if (end == "max" and not value <= bound) or (end == "min" and not value >= bound):
            lacking.append(f"{figure} {value:.4g}, expected at {'most' if end == 'max' else 'least'} {bound:g}")
    if all(figures.get(name.partition("_")[2]) is None for name in asked):
        lacking.append("none of what it asks for was measured")
    return lacking
