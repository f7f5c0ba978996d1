"""Error map: where receivers and sources lie, each source in the colour of its error.

Belongs here: drawing. Its scale is that of the network, hundreds of kilometres, where an error of some hundred metres
is a dot: which way the answers are off, ``error_vectors`` shows.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.drawing import (
    COLOURS,
    MAP_HEIGHT_IN,
    WIDTH_IN,
    draw_scale_bar,
    encode_svg,
    new_figure,
    pick_evenly,
    put_legend,
)
from heimdall_assets.evaluation.residuals import Residuals, compute_residuals
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import LocalFrame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SESSIONS = 100
MAX_RECEIVERS = 200
MAX_CLASSES = 6


def plot_error_map(sessions: SessionSet, predictions: Predictions) -> bytes:
    """Return receivers and sources in local kilometres as SVG, each source in the colour of its error.

    At most ``MAX_SESSIONS`` sessions are drawn, evenly picked; the title says how many of how many.
    """
    residuals = compute_residuals(sessions, predictions)
    answered = np.flatnonzero(residuals.answered)
    drawn = pick_evenly(answered, MAX_SESSIONS)
    figure = new_figure(WIDTH_IN, MAP_HEIGHT_IN)
    axes = figure.add_subplot()
    if len(drawn):
        _draw_places(axes, sessions, residuals, drawn)
    figure.suptitle(f"Where the errors are: {len(drawn)} of {len(answered)} sessions", fontsize=10)
    axes.set(xlabel="east (km)", ylabel="north (km)", aspect="equal")
    axes.grid(True, alpha=0.25)
    axes.set_axisbelow(True)
    return encode_svg(figure)


def _draw_places(axes: "Axes", sessions: SessionSet, residuals: Residuals, drawn: NDArray[np.int64]) -> None:
    """Draw receivers, and sources coloured by the size of their error in classes of 1, 3, 10 ... metres."""
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm

    latitude, longitude = sessions.source_latitude[drawn], sessions.source_longitude[drawn]
    frame = LocalFrame(float(latitude.mean()), float(longitude.mean()))
    source = np.stack(frame.to_local(latitude, longitude)[:2]) / 1e3
    known = np.unique(np.stack([sessions.receiver_latitude, sessions.receiver_longitude], 1), axis=0)[:MAX_RECEIVERS]
    receiver = np.stack(frame.to_local(known[:, 0], known[:, 1])[:2]) / 1e3
    bounds = list_classes(residuals.error_m[drawn])
    colours = colormaps["cividis_r"].resampled(len(bounds))
    points = axes.scatter(
        source[0], source[1], c=residuals.error_m[drawn],
        cmap=colours, norm=BoundaryNorm(bounds, colours.N, extend="min"),
        s=34, edgecolors="black", linewidths=0.5, label="source", zorder=3,
    )  # fmt: skip
    axes.plot(*receiver, "^", color=COLOURS[1], markeredgecolor="black", markersize=9, label="receiver", zorder=4)
    bar = axes.figure.colorbar(points, ax=axes, shrink=0.85, pad=0.02)
    bar.set_label("error (m)")
    bar.ax.minorticks_off()
    everything = np.concatenate([source, receiver], axis=1)
    margin = 0.08 * max(*np.ptp(everything, axis=1), 0.1)
    axes.set_xlim(everything[0].min() - margin, everything[0].max() + margin)
    axes.set_ylim(everything[1].min() - 1.6 * margin, everything[1].max() + margin)
    draw_scale_bar(axes, 1e3)
    put_legend(axes)


def list_classes(error_m: NDArray[np.float64]) -> list[float]:
    """Return the bounds of the classes that errors are coloured by: 1, 3, 10 ... metres, the largest error within.

    Examples:
        >>> list_classes(np.array([20.0, 90.0, 800.0]))
        [10.0, 30.0, 100.0, 300.0, 1000.0]
        >>> list_classes(np.array([5.0]))
        [3.0, 10.0]
    """
    steps = [mantissa * 10.0**power for power in range(-3, 8) for mantissa in (1.0, 3.0)]
    first = int(np.searchsorted(steps, error_m.min(), side="right")) - 1
    last = int(np.searchsorted(steps, error_m.max(), side="right"))
    # What is smaller than the smallest class has the first colour too: it is good.
    return steps[max(first, last - MAX_CLASSES, 0) : max(last, 1) + 1]
