"""Error vectors: how far and in which direction the answers are off, the truth of every session in the middle.

Belongs here: drawing. Where the sources lie, ``error_map`` shows.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.drawing import (
    COLOURS,
    MAP_HEIGHT_IN,
    QUIET,
    WIDTH_IN,
    draw_scale_bar,
    encode_svg,
    new_figure,
    pick_evenly,
    put_legend,
)
from heimdall_assets.evaluation.residuals import Residuals, compute_residuals
from heimdall_assets.physical import Ellipse, Estimate
from heimdall_assets.session_set import Predictions, SessionSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_VECTORS = 100
MAX_ELLIPSES = 8  # more of them hide each other around the truth
FRAMED = 0.9
"""Share of the errors that the frame holds; the rest is drawn on its edge and counted."""


def plot_error_vectors(sessions: SessionSet, predictions: Predictions) -> bytes:
    """Return estimate minus truth in metres east and north as SVG.

    At most ``MAX_VECTORS`` sessions are drawn, evenly picked, ``MAX_ELLIPSES`` of them with their 90 % ellipse; the
    title says how many of how many.
    """
    residuals = compute_residuals(sessions, predictions)
    answered = np.flatnonzero(residuals.answered)
    drawn = pick_evenly(answered, MAX_VECTORS)
    figure = new_figure(WIDTH_IN, MAP_HEIGHT_IN)
    axes = figure.add_subplot()
    if len(drawn):
        _draw_vectors(axes, residuals, drawn)
    num_ellipses = min(int(residuals.is_sure[drawn].sum()), MAX_ELLIPSES)
    figure.suptitle(
        f"Errors: {len(drawn)} of {len(answered)} sessions, {num_ellipses} with their 90 % ellipse", fontsize=10
    )
    axes.set(xlabel="estimate minus truth, east (m)", ylabel="estimate minus truth, north (m)", aspect="equal")
    axes.grid(True, alpha=0.25)
    axes.set_axisbelow(True)
    return encode_svg(figure)


def _draw_vectors(axes: "Axes", residuals: Residuals, drawn: NDArray[np.int64]) -> None:
    """Draw estimate minus truth, the truth in the middle; what lies beyond the frame stands hollow on its edge."""
    from matplotlib.collections import EllipseCollection, LineCollection

    error = np.stack([residuals.east_m[drawn], residuals.north_m[drawn]], 1)
    reach = np.abs(error).max(axis=1)
    half = 1.15 * max(float(np.quantile(reach, FRAMED)), 1e-3)
    beyond = reach > half
    shown = error * np.minimum(1.0, 0.97 * half / np.maximum(reach, 1e-12))[:, None]
    shown[~beyond] = error[~beyond]
    axes.add_collection(
        LineCollection([[(0.0, 0.0), tuple(end)] for end in shown], colors=COLOURS[0], linewidths=0.6, alpha=0.5)
    )
    sure = pick_evenly(np.flatnonzero(residuals.is_sure[drawn]), MAX_ELLIPSES)
    ellipses = [_compute_ellipse(residuals.stated_m2[row]) for row in drawn[sure]]
    axes.add_collection(
        EllipseCollection(
            [2.0 * item.semi_major_m for item in ellipses],
            [2.0 * item.semi_minor_m for item in ellipses],
            [90.0 - item.azimuth_deg for item in ellipses],
            units="xy", offsets=error[sure], offset_transform=axes.transData,
            facecolors="none", edgecolors=QUIET, linewidths=0.8, alpha=0.6,
        )
    )  # fmt: skip
    axes.plot(*shown[~beyond].T, "o", color=COLOURS[0], markersize=4.5, label="estimate", zorder=3)
    if beyond.any():
        axes.plot(*shown[beyond].T, "D", markerfacecolor="white", markeredgecolor=COLOURS[0], markersize=5.5,
                  label=f"beyond the frame ({int(beyond.sum())})", zorder=3)  # fmt: skip
    axes.plot([0.0], [0.0], "+", color=COLOURS[1], markersize=16, markeredgewidth=2.5, label="truth", zorder=4)
    if len(ellipses):
        axes.plot([], [], "-", color=QUIET, linewidth=0.8, label="90 % ellipse")
    axes.set(xlim=(-half, half), ylim=(-half, half))
    draw_scale_bar(axes, 1.0)
    put_legend(axes)


def _compute_ellipse(covariance_m2: NDArray[np.float64]) -> Ellipse:
    east, north, both = (float(value) for value in covariance_m2)
    return Estimate(0.0, 0.0, east, north, both, method="").ellipse(0.9)
