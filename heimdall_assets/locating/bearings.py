"""Bearings as rows beside arrivals: residuals, their slopes, and where the lines of two of them cross.

A bearing is the azimuth of the geodesic from a receiver to the source, from true north over east. Its error is an
angle, counted the short way round, and a direction finder that is wrong by half a turn is an outlier like any other.

Belongs here: angles in local frames. Does not belong here: the cost that they enter (``least_squares``), ways
(``sphere``).

Legend of shapes: S sessions, K states, R receiver slots, T pairs of receivers.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.arrays import PaddedSessions
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame, compute_azimuth_deg

MAX_CROSSED = 7
"""Receivers whose bearings are crossed for starts, the sharpest ones: 21 pairs."""

MIN_CROSSING = 1e-3
"""Sine of the angle below which two lines are parallel: they cross beyond all that is heard."""


@dataclass(frozen=True)
class BearingRows:
    """Bearings of S sessions in one local frame a session; float64 (S, R), radians.

    Attributes:
        azimuth_rad: from true north over east; 0 where there is none.
        sigma_rad: inf where there is none.
        turn_rad: what the true azimuth is more than the frame's straight line, exact at the frame's centre.
    """

    azimuth_rad: FloatArray
    sigma_rad: FloatArray
    turn_rad: FloatArray


def state_bearings(padded: PaddedSessions, frame: LocalFrame) -> BearingRows | None:
    """Return the sessions' bearings in ``frame``; None: there are none."""
    if not padded.has_bearing.any():
        return None
    east, north, _ = frame.to_local(padded.latitude, padded.longitude)
    true_deg = compute_azimuth_deg(padded.latitude, padded.longitude, frame.latitude, frame.longitude)
    turn = wrap_angle(np.radians(true_deg) - np.arctan2(-east, -north))
    return BearingRows(padded.bearing_rad, padded.bearing_sigma_rad, turn)


def compute_bearing_residuals(
    rows: BearingRows, east_m: FloatArray, north_m: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return residuals in rad and slopes of the azimuth to the east and north in rad/m, each (S, K, R).

    Args:
        rows: the bearings.
        east_m, north_m: float64 (S, K, R), from the receivers to the states.

    Source: azimuth atan2(e, n), whose derivatives are n / d^2 and -e / d^2.
    """
    square = np.maximum(np.square(east_m) + np.square(north_m), 1.0)
    azimuth = np.arctan2(east_m, north_m) + rows.turn_rad[:, None]
    return wrap_angle(rows.azimuth_rad[:, None] - azimuth), north_m / square, -east_m / square


def wrap_angle(angle_rad: FloatArray) -> FloatArray:
    """Return angles within half a turn of 0.

    Examples:
        >>> np.degrees(wrap_angle(np.radians([190.0, -350.0, 10.0]))).round(6).tolist()
        [-170.0, 10.0, 10.0]
    """
    wrapped: FloatArray = (angle_rad + np.pi) % (2.0 * np.pi) - np.pi
    return wrapped


def cross_bearings(rows: BearingRows, east_m: FloatArray, north_m: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return where the lines of each two bearings cross, (S, T, 2) in m, and which of these are real.

    A line goes both ways: one of two may be wrong by half a turn.

    Args:
        rows: the bearings.
        east_m, north_m: float64 (S, R), the receivers.
    """
    order = np.argsort(rows.sigma_rad, axis=1, kind="stable")[:, :MAX_CROSSED]
    if order.shape[1] < 2:
        return np.zeros((len(order), 1, 2)), np.zeros((len(order), 1), dtype=bool)
    pair = np.array(list(combinations(range(order.shape[1]), 2)))

    def pick(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        both = np.take_along_axis(values, order, axis=1)[:, pair]
        return both[..., 0], both[..., 1]

    angle = rows.azimuth_rad - rows.turn_rad
    (e1, e2), (n1, n2), (a1, a2) = pick(east_m), pick(north_m), pick(angle)
    sine = np.sin(a1 - a2)
    sharp = np.abs(sine) > MIN_CROSSING
    # The first line from (e1, n1) along (sin a1, cos a1), as far as the second one.
    along = ((n2 - n1) * np.sin(a2) - (e2 - e1) * np.cos(a2)) / np.where(sharp, -sine, 1.0)
    points = np.stack([e1 + along * np.sin(a1), n1 + along * np.cos(a1)], axis=-1)
    known = np.logical_and(*pick(np.isfinite(rows.sigma_rad)))
    return np.where(sharp[..., None], points, 0.0), sharp & known
