"""The table that people see first: the model beside every baseline and the physical bound."""

from collections.abc import Mapping
from typing import Any


def compare_methods(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per method: the model, each baseline, and the bound where it is known.

    Each has ``median_m``, ``p90_m`` and ``coverage_90``; a baseline also ``ratio``, ``ratio_low`` and ``ratio_high``:
    the model's median over its own on the sessions that both answer, with the interval of
    ``comparison.compare_paired``. Below 1 the model is closer.
    """
    names = ("median_m", "p90_m", "coverage_90")
    rows = [{"method": "model", **{name: metrics.get(name) for name in names}}]
    rows += [
        {"method": method, **{name: figures.get(name) for name in names}, **_compute_ratio(figures)}
        for method, figures in metrics["baselines"].items()
    ]
    if metrics.get("bound") is not None:
        rows.append({"method": "physical bound", **{name: metrics["bound"].get(name) for name in names}})
    return rows


def _compute_ratio(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """Return model over baseline from the model's skill, which is 1 less than that."""
    # The larger the skill, the smaller the ratio: the ends of the interval change places.
    ends = {"ratio": "skill", "ratio_low": "skill_high", "ratio_high": "skill_low"}
    return {name: None if figures.get(end) is None else 1.0 - figures[end] for name, end in ends.items()}
