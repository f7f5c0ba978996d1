"""Diagnostics: plots of a evaluation as small SVG files, the same bytes each time.

Belongs here: drawing. Does not belong here: any figure that is not already in the errors or the residuals.
"""

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import Ellipse, Estimate
from heimdall_assets.evaluation.residuals import Residuals, compute_residuals
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import LocalFrame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from heimdall_assets.evaluation.evaluate import Evaluation

MAX_CURVE_POINTS = 150
MAX_MAP_SESSIONS = 100
MAX_MAP_ELLIPSES = 30  # some 900 bytes each
NUM_RELIABILITY_BINS = 10

# Okabe & Ito, colours that every kind of colour vision tells apart.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#666666"]


def plot_diagnostics(sessions: SessionSet, evaluation: "Evaluation") -> dict[str, bytes]:
    """Return every plot of a evaluation: name -> SVG bytes, each below 100 kB."""
    model = compute_residuals(sessions, evaluation.predictions)
    errors = {evaluation.predictions.method: model.error_m[model.answered]}
    for name, baseline in evaluation.baselines.items():
        other = compute_residuals(sessions, baseline)
        errors[name] = other.error_m[other.answered]
    return {
        "error_cdf": plot_error_cdf(errors, evaluation.bound_m),
        "reliability": plot_reliability(model),
        "error_map": plot_error_map(sessions, evaluation.predictions),
    }


def plot_error_cdf(errors_m: Mapping[str, NDArray[np.float64]], bound_m: NDArray[np.float64] | None = None) -> bytes:
    """Return the share of sessions below each error, one curve a method, as SVG.

    Args:
        errors_m: method -> metres (any number); the first is the model and drawn strongest.
        bound_m: root mean square bound of each session in metres, drawn as a circular Gaussian's errors; None: none.
    """
    figure, axes = _new_figure(6.4, 4.0)
    for index, (name, values) in enumerate(errors_m.items()):
        if len(values):
            _draw_cdf(axes, values, name, _COLOURS[index % len(_COLOURS)], 2.4 if index == 0 else 1.1, "-")
    if bound_m is not None and np.isfinite(bound_m).any():
        known = np.asarray(bound_m)[np.isfinite(bound_m)]
        # A circular Gaussian's radius has quantile rms * sqrt(-ln(1 - p)); all sessions' quantiles make the mixture.
        radii = np.sqrt(-np.log1p(-(np.arange(32) + 0.5) / 32))
        _draw_cdf(axes, np.outer(known, radii).ravel(), "physical bound", "black", 1.4, "--")
    axes.set(xscale="log", xlabel="error (m)", ylabel="share of sessions", ylim=(0.0, 1.0))
    axes.grid(True, alpha=0.3)
    if axes.get_lines():
        axes.legend(loc="upper left", fontsize=7, framealpha=0.7)
    return _encode(figure)


def plot_reliability(residuals: Residuals) -> bytes:
    """Return stated against found error of one axis, in bins of stated sigma, as SVG; honest ones lie on the line."""
    figure, axes = _new_figure(4.2, 4.0)
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
        axes.errorbar(stated, found, yerr=spread, fmt="o-", color=_COLOURS[0], markersize=4, label="found")
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
        axes.legend(loc="upper left", fontsize=7)
    axes.tick_params(axis="x", which="both", labelrotation=45)
    axes.set(xlabel="stated sigma of an axis (m)", ylabel="root mean square error (m)")
    axes.grid(True, alpha=0.3)
    return _encode(figure)


def plot_error_map(sessions: SessionSet, predictions: Predictions) -> bytes:
    """Return truths, answers, 90 % ellipses and receivers in local kilometres as SVG.

    At most ``MAX_MAP_SESSIONS`` sessions are drawn, evenly picked, ``MAX_MAP_ELLIPSES`` of them with their ellipse; the
    title says how many of how many.
    """
    figure, axes = _new_figure(6.4, 5.2)
    residuals = compute_residuals(sessions, predictions)
    drawn = np.flatnonzero(residuals.answered)
    total = len(drawn)
    if total:
        drawn = _pick_evenly(drawn, MAX_MAP_SESSIONS)
        truth = np.stack([sessions.source_latitude[drawn], sessions.source_longitude[drawn]])
        frame = LocalFrame(*truth.mean(axis=1))
        _draw_map(axes, frame, sessions, predictions, residuals, drawn)
        axes.legend(loc="upper left", fontsize=7, framealpha=0.7)
    num_ellipses = min(int(residuals.is_sure[drawn].sum()), MAX_MAP_ELLIPSES)
    axes.set_title(f"{len(drawn)} of {total} sessions, {num_ellipses} with their 90 % ellipse", fontsize=9)
    axes.set(xlabel="east (km)", ylabel="north (km)", aspect="equal")
    axes.grid(True, alpha=0.3)
    return _encode(figure)


def _draw_map(
    axes: "Axes",
    frame: LocalFrame,
    sessions: SessionSet,
    predictions: Predictions,
    residuals: Residuals,
    drawn: NDArray[np.int64],
) -> None:
    from matplotlib.collections import EllipseCollection, LineCollection

    source_e, source_n, _ = frame.to_local(sessions.source_latitude[drawn], sessions.source_longitude[drawn])
    answer_e, answer_n, _ = frame.to_local(predictions.latitude[drawn], predictions.longitude[drawn])
    truth, answer = np.stack([source_e, source_n], 1) / 1e3, np.stack([answer_e, answer_n], 1) / 1e3
    places = np.unique(np.stack([sessions.receiver_latitude, sessions.receiver_longitude], 1), axis=0)[:200]
    station_e, station_n, _ = frame.to_local(places[:, 0], places[:, 1])
    axes.add_collection(LineCollection(list(np.stack([truth, answer], 1)), colors=_COLOURS[1], linewidths=0.6))
    sure = _pick_evenly(np.flatnonzero(residuals.is_sure[drawn]), MAX_MAP_ELLIPSES)
    ellipses = [_compute_ellipse(residuals.stated_m2[row]) for row in drawn[sure]]
    axes.add_collection(
        EllipseCollection(
            [2e-3 * item.semi_major_m for item in ellipses],
            [2e-3 * item.semi_minor_m for item in ellipses],
            [90.0 - item.azimuth_deg for item in ellipses],
            units="xy", offsets=answer[sure], offset_transform=axes.transData,
            facecolors="none", edgecolors=_COLOURS[0], linewidths=0.4, alpha=0.5,
        )
    )  # fmt: skip
    axes.plot(*truth.T, ".", color=_COLOURS[2], markersize=3, label="truth")
    axes.plot(*answer.T, ".", color=_COLOURS[0], markersize=3, label=predictions.method)
    axes.plot(station_e / 1e3, station_n / 1e3, "^", color="black", markersize=4, label="receivers")
    everything = np.concatenate([truth, answer, np.stack([station_e, station_n], 1) / 1e3])
    # A wild answer must not shrink all others to a dot: the view holds the middle 98 %.
    low, high = np.quantile(everything, [0.01, 0.99], axis=0)
    margin = 0.08 * max(*(high - low), 0.1)
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)


def _compute_ellipse(covariance_m2: NDArray[np.float64]) -> Ellipse:
    east, north, both = (float(value) for value in covariance_m2)
    return Estimate(0.0, 0.0, east, north, both, method="").ellipse(0.9)


def _pick_evenly(rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return at most ``limit`` of ``rows``, first and last among them."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), limit)).astype(np.int64)]


def _draw_cdf(axes: "Axes", values: NDArray[np.float64], label: str, colour: str, width: float, style: str) -> None:
    shares = np.linspace(0.0, 1.0, min(len(values), MAX_CURVE_POINTS) + 1)
    # A logarithmic axis has no zero: a millimetre stands for it.
    metres = np.maximum(np.quantile(values, shares), 1e-3)
    axes.plot(metres, shares, style, color=colour, linewidth=width, label=label, drawstyle="default")


def _new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _encode(figure: "Figure") -> bytes:
    """Return the figure as SVG without date, tool or random ids; text stays text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    with rc_context({"svg.hashsalt": "heimdall", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)
    return buffer.getvalue()
