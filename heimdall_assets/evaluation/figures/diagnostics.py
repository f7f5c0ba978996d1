"""Diagnostics: plots of an evaluation as small SVG files, the same bytes each time.

Belongs here: drawing. Does not belong here: any figure that is not already in the errors or the residuals.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.drawing import COLOURS, CURVE_HEIGHT_IN, MAP_HEIGHT_IN, WIDTH_IN, encode_svg, new_figure
from heimdall_assets.evaluation.figures.error_map import plot_error_map
from heimdall_assets.evaluation.figures.error_vectors import plot_error_vectors
from heimdall_assets.evaluation.residuals import Residuals, compute_residuals
from heimdall_assets.session_set import SessionSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from heimdall_assets.evaluation.evaluate import Evaluation

MAX_CURVE_POINTS = 150
NUM_RELIABILITY_BINS = 10


def plot_diagnostics(sessions: SessionSet, evaluation: "Evaluation") -> dict[str, bytes]:
    """Return every plot of an evaluation: name -> SVG bytes, each below 100 kB."""
    model = compute_residuals(sessions, evaluation.predictions)
    errors = {evaluation.predictions.method: model.error_m[model.answered]}
    for name, baseline in evaluation.baselines.items():
        other = compute_residuals(sessions, baseline)
        errors[name] = other.error_m[other.answered]
    return {
        "error_cdf": plot_error_cdf(errors, evaluation.bound_m),
        "reliability": plot_reliability(model),
        "error_map": plot_error_map(sessions, evaluation.predictions),
        "error_vectors": plot_error_vectors(sessions, evaluation.predictions),
    }


def plot_error_cdf(errors_m: Mapping[str, NDArray[np.float64]], bound_m: NDArray[np.float64] | None = None) -> bytes:
    """Return the share of sessions below each error, one curve a method, as SVG.

    Args:
        errors_m: method -> metres (any number); the first is the model and drawn strongest.
        bound_m: root mean square bound of each session in metres, drawn as a circular Gaussian's errors; None: none.
    """
    figure = new_figure(WIDTH_IN, CURVE_HEIGHT_IN)
    axes = figure.add_subplot()
    for index, (name, values) in enumerate(errors_m.items()):
        if len(values):
            _draw_cdf(axes, values, name, COLOURS[index % len(COLOURS)], 2.4 if index == 0 else 1.1, "-")
    if bound_m is not None and np.isfinite(bound_m).any():
        known = np.asarray(bound_m)[np.isfinite(bound_m)]
        # A circular Gaussian's radius has quantile rms * sqrt(-ln(1 - p)); all sessions' quantiles make the mixture.
        radii = np.sqrt(-np.log1p(-(np.arange(32) + 0.5) / 32))
        _draw_cdf(axes, np.outer(known, radii).ravel(), "physical bound", "black", 1.4, "--")
    axes.set(xscale="log", xlabel="error (m)", ylabel="share of sessions", ylim=(0.0, 1.0))
    axes.grid(True, alpha=0.3)
    if axes.get_lines():
        axes.legend(loc="upper left", fontsize=7, framealpha=0.7)
    return encode_svg(figure)


def plot_reliability(residuals: Residuals) -> bytes:
    """Return stated against found error of one axis, in bins of stated sigma, as SVG; honest ones lie on the line."""
    figure = new_figure(WIDTH_IN, MAP_HEIGHT_IN)
    axes = figure.add_subplot()
    sure = residuals.is_sure
    if sure.any():
        variance = np.concatenate([residuals.variance_east_m2[sure], residuals.variance_north_m2[sure]])
        error = np.concatenate([residuals.east_m[sure], residuals.north_m[sure]])
        bins = np.array_split(np.argsort(variance, kind="stable"), min(NUM_RELIABILITY_BINS, len(variance)))
        stated = np.array([math.sqrt(variance[rows].mean()) for rows in bins])
        found = np.array([math.sqrt(np.mean(error[rows] ** 2)) for rows in bins])
        # Standard error of a root mean square of n Gaussian values: 1 / sqrt(2 n) of it.
        spread = found / np.sqrt([2.0 * len(rows) for rows in bins])
        both = np.concatenate([stated, found[found > 0]])
        limits = [both.min() * 0.7, both.max() * 1.4]
        axes.plot(limits, limits, "--", color="black", linewidth=1.0, label="honest")
        axes.errorbar(stated, found, yerr=spread, fmt="o-", color=COLOURS[0], markersize=4, label="found")
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
        axes.legend(loc="upper left", fontsize=7)
    axes.tick_params(axis="x", which="both", labelrotation=45)
    axes.set(xlabel="stated sigma of an axis (m)", ylabel="root mean square error (m)")
    axes.grid(True, alpha=0.3)
    return encode_svg(figure)


def _draw_cdf(axes: "Axes", values: NDArray[np.float64], label: str, colour: str, width: float, style: str) -> None:
    shares = np.linspace(0.0, 1.0, min(len(values), MAX_CURVE_POINTS) + 1)
    # A logarithmic axis has no zero: a millimetre stands for it.
    metres = np.maximum(np.quantile(values, shares), 1e-3)
    axes.plot(metres, shares, style, color=colour, linewidth=width, label=label, drawstyle="default")
