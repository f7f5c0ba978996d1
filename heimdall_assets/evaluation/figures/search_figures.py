"""Figures of a search: which setting mattered, and which values did well together.

Belongs here: drawing. Does not belong here: the trials (``pipeline.searching``).
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from heimdall_assets.evaluation.drawing import COLOURS, CURVE_HEIGHT_IN, QUIET, WIDTH_IN, encode_svg, new_figure
from heimdall_assets.search_space import Dimension, Value
from heimdall_assets.specs import SearchSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAPER = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
"""Behind a label that lines run through."""

Tried = tuple[Mapping[str, Value], float]
"""Setting -> value, and what the trial came to."""


def plot_search(trials: Sequence[Tried], importance: Mapping[str, float], search: SearchSpec) -> dict[str, bytes]:
    """Return the figures of a search as SVG, by name.

    Args:
        trials: the complete ones.
        importance: setting -> its share of the differences; empty: it cannot be told.
        search: what was searched.
    """
    return {
        "importance": _plot_importance(importance, len(trials)),
        "parallel_coordinates": _plot_parallel(trials, search),
    }


def _plot_importance(importance: Mapping[str, float], num_trials: int) -> bytes:
    figure = new_figure(WIDTH_IN, CURVE_HEIGHT_IN)
    axes = figure.add_subplot()
    names = sorted(importance, key=lambda name: importance[name])
    axes.barh(names, [importance[name] for name in names], color=COLOURS[0])
    told = "how much of the differences between trials it explains"
    axes.set_title(told if names else f"cannot be told of {num_trials} complete", fontsize=9, loc="left")
    axes.set(xlabel="importance", xlim=(0, 1))
    axes.tick_params(axis="y", labelsize=7)
    return encode_svg(figure)


def _plot_parallel(trials: Sequence[Tried], search: SearchSpec) -> bytes:
    """Draw each trial as a line over one upright axis a setting; the best in colour, on top."""
    dimensions = search.list_dimensions()
    figure = new_figure(max(WIDTH_IN, 1.3 * (len(dimensions) + 1)), CURVE_HEIGHT_IN)
    axes = figure.add_subplot()
    values = np.array([value for _, value in trials])
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    places = list(range(len(dimensions) + 1))
    order = np.argsort(-values, kind="stable")  # the best last, on top of the others
    for rank, index in enumerate(order):
        params, value = trials[int(index)]
        heights = [*(_place(one, params[one.name]) for one in dimensions), (value - low) / span]
        is_best = rank == len(order) - 1
        share = rank / max(1, len(order) - 1)
        axes.plot(
            places,
            heights,
            color=COLOURS[1] if is_best else QUIET,
            alpha=1.0 if is_best else 0.15 + 0.45 * share,
            linewidth=2.0 if is_best else 0.8,
        )
    _mark(axes, dimensions, low, high)
    axes.set_title(f"{search.objective} of each complete trial (the best in colour)", fontsize=9, loc="left")
    return encode_svg(figure)


def _mark(axes: "Axes", dimensions: Sequence[Dimension], low: float, high: float) -> None:
    for place, one in enumerate(dimensions):
        axes.axvline(place, color="black", linewidth=0.8)
        for value in one.tried:
            axes.annotate(
                f"{value:g}" if _is_number(value) else json.dumps(value), (place, _place(one, value)),
                xytext=(3, 0), textcoords="offset points", fontsize=7, va="center", bbox=_PAPER, zorder=5,
            )  # fmt: skip
    last = len(dimensions)
    axes.axvline(last, color="black", linewidth=0.8)
    for height, value in ((0.0, low), (1.0, high)):
        axes.annotate(
            f"{value:.4g}", (last, height), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center"
        )
    labels = [one.name.replace(".", ".\n") for one in dimensions]
    axes.set_xticks(range(last + 1), [*labels, "objective"], fontsize=6)
    axes.set_yticks([])
    axes.set_xlim(-0.1, last + 0.4)


def _place(one: Dimension, value: Any) -> float:
    """Return where a value stands on the axis of its setting, from 0 to 1."""
    if one.values:
        return one.values.index(value) / max(1, len(one.values) - 1)
    if one.is_log:
        return float(np.log(value / one.low) / np.log(one.high / one.low))
    return float((value - one.low) / (one.high - one.low))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
