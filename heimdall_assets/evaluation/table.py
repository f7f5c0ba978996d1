"""The table that people see first: the model beside every baseline and the physical bound."""

from typing import Any


def compare_methods(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per method: the model, each baseline, and the bound where it is known."""
    names = ("median_m", "p90_m", "coverage_90")
    rows = [{"method": "model", **{name: metrics.get(name) for name in names}}]
    rows += [
        {"method": method, **{name: figures.get(name) for name in names}}
        for method, figures in metrics["baselines"].items()
    ]
    if metrics.get("bound") is not None:
        rows.append({"method": "physical bound", **{name: metrics["bound"].get(name) for name in names}})
    return rows
