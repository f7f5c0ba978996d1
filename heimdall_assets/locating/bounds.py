"""What physics allows: Cramer-Rao bounds of delays, of bearings, of levels, of all, and the dilution by geometry.

Belongs here: bounds, from a known position. Does not belong here: estimating one. A position bound without an inverse
(receivers on one line with the source, too few of them) is infinite, never NaN.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heimdall_assets.locating.arrays import PaddedSessions, pad_sessions
from heimdall_assets.locating.path_loss import PathLoss
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame

SINGULAR_RATIO = 1e-12
"""Ratio of the smaller to the larger eigenvalue of an information matrix below which float64 holds no inverse."""


def compute_delay_bound_s(
    snr_db: ArrayLike, bandwidth_hz: ArrayLike, duration_s: ArrayLike, rms_bandwidth_hz: ArrayLike
) -> FloatArray:
    """Return the smallest possible one-sigma error of one receiver's arrival time in s; inf for a bare carrier.

    Args:
        snr_db: signal to noise within ``bandwidth_hz``.
        bandwidth_hz: of the noise that ``snr_db`` counts.
        duration_s: of the signal.
        rms_bandwidth_hz: centred rms bandwidth of the signal; for FM the rms deviation.

    Source: var >= 1 / (8 pi^2 beta^2 E/N0) with E/N0 = SNR B T (Quazi, IEEE Trans. ASSP 29 (1981) 527).

    Examples:
        One second of FM voice (rms deviation 800 Hz) in a channel of 12.5 kHz at 0, 10, 20 and 30 dB, in ns:

        >>> np.round(compute_delay_bound_s([0.0, 10.0, 20.0, 30.0], 12_500.0, 1.0, 800.0) * 1e9).tolist()
        [1258.0, 398.0, 126.0, 40.0]
    """
    snr = 10.0 ** (np.asarray(snr_db, dtype=np.float64) / 10.0)
    energy = snr * np.asarray(bandwidth_hz, dtype=np.float64) * np.asarray(duration_s, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return 1.0 / (2.0 * np.pi * np.asarray(rms_bandwidth_hz, dtype=np.float64) * np.sqrt(2.0 * energy))


def compute_delay_information(receiver_en: ArrayLike, sigma_s: ArrayLike, at: ArrayLike) -> FloatArray:
    """Return the information that arrival times hold about a position when the emission time is unknown.

    Args:
        receiver_en: float64 (..., R, 2) or (..., R, 3), east, north (up) in m.
        sigma_s: float64 (..., R), one-sigma error of each arrival; inf: none.
        at: float64 (..., 2) or (..., 3), the position; up is 0 where it is not given.

    Returns:
        float64 (..., 2, 2), 1/m^2, about east and north.

    Source: J = G' (D - D 1 1' D / 1' D 1) G, D = diag(1 / variance), G the unit vectors towards the position.

    Examples:
        Four receivers around the source with errors of 1 m each: J is 4 / 2 times the unit matrix, in 1/m^2.

        >>> around = 10_000.0 * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> information = compute_delay_information(around, np.full(4, 1.0 / SIGNAL_SPEED_M_S), np.zeros(2))
        >>> bool(np.allclose(information, 2.0 * np.eye(2)))
        True
    """
    unit, _ = _compute_unit_vectors(receiver_en, at)
    with np.errstate(divide="ignore"):
        weight = 1.0 / np.square(np.asarray(sigma_s, dtype=np.float64) * SIGNAL_SPEED_M_S)
    return _compute_centred_information(unit, weight)


def compute_level_information(
    receiver_en: ArrayLike, sigma_db: ArrayLike, at: ArrayLike, exponent: float
) -> FloatArray:
    """Return the information that levels hold about a position when the transmitted power is unknown.

    Args:
        receiver_en: float64 (..., R, 2) or (..., R, 3), east, north (up) in m.
        sigma_db: float64 (..., R), one-sigma shadowing of each level; inf: none.
        at: float64 (..., 2) or (..., 3), the position.
        exponent: of the path loss.

    Returns:
        float64 (..., 2, 2), 1/m^2, about east and north.

    Source: derivative of -10 n log10(d) by position, -10 n / (ln 10 d) times the unit vector; the unknown power takes
    the place of the unknown emission time (Patwari et al., IEEE Trans. Signal Processing 51 (2003) 2137).

    Examples:
        Twice the shadowing is a quarter of the information:

        >>> around = 10_000.0 * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> calm = compute_level_information(around, np.full(4, 3.0), np.zeros(2), exponent=3.0)
        >>> rough = compute_level_information(around, np.full(4, 6.0), np.zeros(2), exponent=3.0)
        >>> round(float(calm[0, 0] / rough[0, 0]), 6)
        4.0
    """
    unit, distance = _compute_unit_vectors(receiver_en, at)
    slope = 10.0 * exponent / (np.log(10.0) * distance)
    with np.errstate(divide="ignore"):
        weight = np.broadcast_to(1.0 / np.square(np.asarray(sigma_db, dtype=np.float64)), distance.shape)
    return _compute_centred_information(unit * slope[..., None], weight)


def compute_bearing_information(receiver_en: ArrayLike, sigma_rad: ArrayLike, at: ArrayLike) -> FloatArray:
    """Return the information that bearings hold about a position.

    Args:
        receiver_en: float64 (..., R, 2) or (..., R, 3), east, north (up) in m.
        sigma_rad: float64 (..., R), one-sigma error of each bearing; inf: none.
        at: float64 (..., 2) or (..., 3), the position.

    Returns:
        float64 (..., 2, 2), 1/m^2, about east and north.

    Source: derivative of the azimuth, 1 / r across the line of sight and 0 along it (Gavish and Weiss, IEEE Trans.
    Aerospace and Electronic Systems 28 (1992) 817).

    Examples:
        A bearing of 0.01 rad from 10 km to the west: 100 m across, to the north, and nothing along.

        >>> information = compute_bearing_information(np.array([[-10_000.0, 0.0]]), np.array([0.01]), np.zeros(2))
        >>> bool(np.allclose(information, [[0.0, 0.0], [0.0, 1.0 / 100.0**2]]))
        True
    """
    receivers, point = np.asarray(receiver_en, dtype=np.float64), np.asarray(at, dtype=np.float64)
    plane = point[..., None, :2] - receivers[..., :2]
    square = np.maximum(np.square(plane).sum(axis=-1), 1.0)
    slope = np.stack([plane[..., 1], -plane[..., 0]], axis=-1) / square[..., None]
    with np.errstate(divide="ignore"):
        weight = 1.0 / np.square(np.asarray(sigma_rad, dtype=np.float64))
    information: FloatArray = np.einsum("...r,...rj,...rk->...jk", weight, slope, slope)
    return information


def compute_position_covariance(receiver_en: ArrayLike, sigma_s: ArrayLike, at: ArrayLike) -> FloatArray:
    """Return the smallest covariance that any unbiased estimate from arrival times can have.

    Args and source: as ``compute_delay_information``.

    Returns:
        float64 (..., 2, 2), m^2, of east and north; inf on the diagonal where the delays leave a direction open.

    Examples:
        Four receivers around the source whose arrivals err by 10 m: sigma^2 / 2 on either axis. Two leave a direction
        open:

        >>> around = 10_000.0 * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> sigma_s = np.full(4, 10.0 / SIGNAL_SPEED_M_S)
        >>> np.diag(compute_position_covariance(around, sigma_s, np.zeros(2))).round(3).tolist()
        [50.0, 50.0]
        >>> np.diag(compute_position_covariance(around[:2], sigma_s[:2], np.zeros(2))).tolist()
        [inf, inf]
    """
    return invert_information(compute_delay_information(receiver_en, sigma_s, at))


def compute_level_covariance(receiver_en: ArrayLike, sigma_db: ArrayLike, at: ArrayLike, exponent: float) -> FloatArray:
    """Return the smallest covariance that any unbiased estimate from levels can have, float64 (..., 2, 2), m^2.

    Examples:
        Four receivers 10 km around the source: sigma_db ln(10) d / (10 n) a level, and two levels an axis, in m.

        >>> around = 10_000.0 * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> covariance_m2 = compute_level_covariance(around, np.full(4, 6.0), np.zeros(2), exponent=3.0)
        >>> np.sqrt(np.diag(covariance_m2)).round().tolist(), round(6.0 * np.log(10.0) * 10_000.0 / 30.0 / np.sqrt(2.0))
        ([3256.0, 3256.0], 3256)
    """
    return invert_information(compute_level_information(receiver_en, sigma_db, at, exponent))


def compute_combined_covariance(
    receiver_en: ArrayLike, sigma_s: ArrayLike, sigma_db: ArrayLike, at: ArrayLike, exponent: float
) -> FloatArray:
    """Return the smallest covariance from arrival times and levels together, float64 (..., 2, 2), m^2.

    Examples:
        Clocks without use leave what levels say:

        >>> around = 10_000.0 * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> together = compute_combined_covariance(around, np.full(4, np.inf), np.full(4, 6.0), np.zeros(2), 3.0)
        >>> bool(np.allclose(together, compute_level_covariance(around, np.full(4, 6.0), np.zeros(2), 3.0)))
        True
    """
    delays = compute_delay_information(receiver_en, sigma_s, at)
    return invert_information(delays + compute_level_information(receiver_en, sigma_db, at, exponent))


def compute_session_bounds(sessions: SessionSet, path_loss: PathLoss | None = None) -> tuple[FloatArray, FloatArray]:
    """Return the bound of every session at its true source position, for line of sight.

    Args:
        sessions: S sessions; the errors of their arrivals are ``arrival_sigma_s`` and ``timing_sigma_s``, those of
            their bearings ``bearing_sigma_deg``.
        path_loss: how levels fall with distance; None: the bound of delays and bearings alone.

    Returns:
        Covariance (S, 3) in m^2, variance east, variance north, covariance; and its root mean square error (S,) in m.
        NaN where the source is not known, inf where no bound is finite.

    Examples:
        Where all arrivals err by 10 m, the bound is 10 m times the dilution of precision:

        >>> from dataclasses import replace
        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> sessions = simulate_observations(SimulationSpec(), np.arange(1))
        >>> even = replace(sessions, arrival_sigma_s=np.full(7, 10.0 / SIGNAL_SPEED_M_S), timing_sigma_s=np.zeros(7))
        >>> _, rms_m = compute_session_bounds(even)
        >>> np.round(rms_m / compute_gdop(even), 6).tolist()
        [10.0]
    """
    receivers, known, padded = _view_from_source(sessions)
    information = compute_delay_information(receivers, padded.sigma_m / SIGNAL_SPEED_M_S, np.zeros(2))
    if padded.has_bearing.any():
        information = information + compute_bearing_information(receivers, padded.bearing_sigma_rad, np.zeros(2))
    if path_loss is not None:
        sigma_db = np.where(padded.heard, path_loss.shadowing_db, np.inf)
        information = information + compute_level_information(receivers, sigma_db, np.zeros(2), path_loss.exponent)
    matrix = invert_information(information)
    matrix[~known] = np.nan
    covariance = np.stack([matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 0, 1]], axis=1)
    return covariance, np.sqrt(covariance[:, 0] + covariance[:, 1])


def compute_gdop(sessions: SessionSet) -> FloatArray:
    """Return the horizontal dilution of precision of every session's timed receivers at its true source, (S,).

    Root mean square position error in m for one metre of error of every arrival; NaN where the source is not known,
    inf where the geometry leaves a direction open.
    """
    receivers, known, padded = _view_from_source(sessions)
    sigma_s = np.where(padded.timed, 1.0, np.inf) / SIGNAL_SPEED_M_S
    matrix = invert_information(compute_delay_information(receivers, sigma_s, np.zeros(2)))
    return np.where(known, np.sqrt(matrix[:, 0, 0] + matrix[:, 1, 1]), np.nan)


def _view_from_source(sessions: SessionSet) -> tuple[FloatArray, NDArray[np.bool_], PaddedSessions]:
    """Return receivers (S, R, 3) in frames centred on the sources, which sources are known, and the padded sessions."""
    padded = pad_sessions(sessions)
    known = np.isfinite(sessions.source_latitude) & np.isfinite(sessions.source_longitude)
    frame = LocalFrame(
        np.where(known, sessions.source_latitude, padded.frame.latitude[:, 0])[:, None],
        np.where(known, sessions.source_longitude, padded.frame.longitude[:, 0])[:, None],
    )
    return np.stack(frame.to_local(padded.latitude, padded.longitude, padded.altitude_m), axis=-1), known, padded


def _compute_unit_vectors(receiver_en: ArrayLike, at: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return horizontal parts (..., R, 2) of the unit vectors from receivers to ``at``, and distances (..., R) in m.

    A receiver at the position itself has no direction: its unit vector is 0 and its distance 1 m.
    """
    receivers, point = np.asarray(receiver_en, dtype=np.float64), np.asarray(at, dtype=np.float64)
    plane = point[..., None, :2] - receivers[..., :2]
    up = -receivers[..., 2] if receivers.shape[-1] == 3 else np.zeros(receivers.shape[:-1])
    if point.shape[-1] == 3:
        up = up + point[..., None, 2]
    distance = np.maximum(np.sqrt(np.square(plane).sum(axis=-1) + np.square(up)), 1.0)
    return plane / distance[..., None], distance


def _compute_centred_information(rows: FloatArray, weight: FloatArray) -> FloatArray:
    """Return rows' (W - w w' / sum w) rows, (..., 2, 2): least squares with one unknown constant common to all rows."""
    total = np.maximum(weight.sum(axis=-1), np.finfo(np.float64).tiny)
    share = weight / total[..., None]
    centred = rows - np.einsum("...r,...rk->...k", share, rows)[..., None, :]
    information: FloatArray = np.einsum("...r,...rj,...rk->...jk", weight, centred, centred)
    return information


def invert_information(information: FloatArray) -> NDArray[np.float64]:
    """Return the inverse of symmetric matrices (..., 2, 2); inf on the diagonal, 0 beside it, where there is none.

    Examples:
        >>> np.diag(invert_information(np.array([[4.0, 0.0], [0.0, 0.25]]))).tolist()
        [0.25, 4.0]
        >>> invert_information(np.array([[1.0, 1.0], [1.0, 1.0]])).tolist()  # nothing is known along one diagonal
        [[inf, 0.0], [0.0, inf]]
    """
    a, b, c = information[..., 0, 0], information[..., 0, 1], information[..., 1, 1]
    determinant = a * c - b * b
    regular = determinant > SINGULAR_RATIO * np.square(a + c)
    safe = np.where(regular, determinant, 1.0)
    out = np.empty_like(information)
    out[..., 0, 0], out[..., 1, 1] = np.where(regular, c / safe, np.inf), np.where(regular, a / safe, np.inf)
    out[..., 0, 1] = out[..., 1, 0] = np.where(regular, -b / safe, 0.0)
    return out
