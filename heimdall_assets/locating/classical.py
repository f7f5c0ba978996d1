"""The registry of classical estimators, and the one answer about a single session.

Belongs here: choosing among estimators, and refusing. Does not belong here: how any of them works (``tdoa``,
``levels``, ``simple``).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from heimdall_assets.errors import CannotLocate, InvalidInput, InvalidSetting
from heimdall_assets.locating.arrays import SAME_POINT_M, PaddedSessions, compute_extent_m, pad_sessions
from heimdall_assets.locating.estimates import take_estimate, to_matrix
from heimdall_assets.locating.least_squares import MIN_ROWS, MIN_TIMED
from heimdall_assets.locating.levels import locate_by_levels
from heimdall_assets.locating.path_loss import MIN_HEARD
from heimdall_assets.locating.posterior import QUANTILE_90
from heimdall_assets.locating.simple import locate_prior_centre, locate_strongest_receiver, locate_weighted_centroid
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.physical import Estimate
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import LocalFrame

Estimator = Callable[[SessionSet, SessionSet | None], Predictions]

ESTIMATORS: dict[str, Estimator] = {
    "prior_centre": locate_prior_centre,
    "strongest_receiver": locate_strongest_receiver,
    "weighted_centroid": locate_weighted_centroid,
    "log_distance": locate_by_levels,
    "tdoa_least_squares": partial(locate_by_delays, robust=False),
    "tdoa_robust": partial(locate_by_delays, robust=True),
    "bearings": partial(locate_by_delays, robust=True, bearings="alone"),
    "arrivals_and_bearings": partial(locate_by_delays, robust=True, bearings="joined"),
}
"""Name -> estimator of (sessions, reference); the reference, if any, is the training split and never the judged one."""

ORACLES: dict[str, Estimator] = {
    "oracle": partial(locate_by_delays, robust=False, blocked="dropped"),
    "oracle_weighted": partial(locate_by_delays, robust=False, blocked="weighted"),
}
"""Least squares that know which receivers have no line of sight, for tables about simulated sessions only."""


NARROWED_SHARE = 0.25
"""Levels whose ellipse is a larger part of the area's than this hardly say more than the area does."""

IMPOSSIBLE_SIGMAS = 5.0
"""A difference of arrivals that exceeds the longest possible one by so many sigmas is a broken clock."""


def locate_session(
    sessions: SessionSet, index: int, method: str = "auto", reference: SessionSet | None = None
) -> Estimate:
    """Return the position of one session with an honest covariance.

    ``auto`` takes ``tdoa_robust`` with at least three timed receivers, ``bearings`` with at least two bearings,
    ``arrivals_and_bearings`` with both (unless arrivals tell nothing), or ``log_distance`` with at least three levels.
    With levels and another of them, the other where its ellipse has less than half the area or levels do not narrow
    the area; so clocks too poor for delays, or delays that no position explains, leave it to the levels. Else it takes
    ``strongest_receiver`` with any level. Infinite levels are no levels.

    Args:
        sessions: holds the session.
        index: which of its sessions.
        method: a name in ``ESTIMATORS``, or ``auto``.
        reference: sessions with known sources, to learn area and path loss from.

    Raises:
        InvalidInput: there is no session of that index.
        InvalidSetting: there is no estimator of that name.
        CannotLocate: the session has no receivers, all of them at one point, neither delays nor levels, or too little
            for the method asked for; the message says which.

    Examples:
        Clocks of a few tens of ns leave the answer to the delays, free-running ones to the levels:

        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> for clock_class in ("gnss_calibrated", "none"):
        ...     sessions = simulate_observations(SimulationSpec(clock_class=clock_class), np.arange(1))
        ...     print(locate_session(sessions, 0).method)
        tdoa_robust
        log_distance
    """
    if not 0 <= index < len(sessions):
        raise InvalidInput(f"session index {index}: expected 0 to {len(sessions) - 1}")
    if method != "auto" and method not in ESTIMATORS:
        raise InvalidSetting(f"method {method!r}: expected auto, {', '.join(ESTIMATORS)}")
    one = sessions.take(np.array([index]))
    name = str(one.session_id[0])
    padded = pad_sessions(one)
    _check_receivers(name, padded)
    methods = _list_methods(name, padded) if method == "auto" else [method]
    estimates = [_take(ESTIMATORS[chosen](one, reference), chosen) for chosen in methods]
    found = [estimate for estimate in estimates if estimate is not None]
    if not found:
        raise CannotLocate(f"session {name}: {' and '.join(methods)} cannot locate it from {_describe(one, padded)}")
    first, last = found[0], found[-1]
    return last if _prefer_levels(first, last, one, padded, reference) else first


def _take(predictions: Predictions, method: str) -> Estimate | None:
    """Return the only row of ``predictions``; None where it was refused or holds a number that is not finite."""
    values = (predictions.latitude[0], predictions.longitude[0], *predictions.covariance_m2[0])
    if (predictions.refused is not None and predictions.refused[0]) or not np.isfinite(values).all():
        return None
    return take_estimate(replace(predictions, method=method), 0)


def _prefer_levels(
    delays: Estimate, levels: Estimate, one: SessionSet, padded: PaddedSessions, reference: SessionSet | None
) -> bool:
    """Return whether levels tell more than delays do, not only the area that both start from.

    Their ellipse must be smaller, and either delays tell nothing, or levels narrow the area and agree with the delays.
    A small ellipse that is the area's own would else win over delays that say the source is far outside.
    """
    if _compute_area_m2(delays) < 0.5 * _compute_area_m2(levels):
        return False
    if delays.method != "bearings" and _tell_nothing(padded):
        return True
    area = _take(locate_prior_centre(one, reference), "prior_centre")
    assert area is not None  # the session has receivers
    east, north, _ = LocalFrame(delays.latitude, delays.longitude).to_local(levels.latitude, levels.longitude)
    offset = np.array([float(east), float(north)])
    agree = offset @ np.linalg.solve(to_matrix(delays) + to_matrix(levels), offset) < QUANTILE_90
    return bool(agree) and _compute_area_m2(levels) < NARROWED_SHARE * _compute_area_m2(area)


def _tell_nothing(padded: PaddedSessions) -> bool:
    """Return whether arrivals of one session are worse than any place within reach differs by, or impossible.

    No two arrivals differ by more than the way between their receivers.
    """
    rows = np.flatnonzero(padded.timed[0])
    apart = np.hypot(*(values[0, rows, None] - values[0, rows] for values in (padded.east_m, padded.north_m)))
    late = np.abs(padded.arrival_m[0, rows, None] - padded.arrival_m[0, rows])
    sigma = np.hypot(padded.sigma_m[0, rows, None], padded.sigma_m[0, rows])
    return bool((sigma >= apart).all() or (late > apart + IMPOSSIBLE_SIGMAS * sigma).any())


def _compute_area_m2(estimate: Estimate) -> float:
    """Return the area of the 90 % ellipse."""
    ellipse = estimate.ellipse(0.90)
    return float(np.pi * ellipse.semi_major_m * ellipse.semi_minor_m)


def _check_receivers(name: str, padded: PaddedSessions) -> None:
    num_present = int(padded.present.sum())
    if num_present == 0:
        raise CannotLocate(f"session {name}: found no receiver at a known position, expected at least 1")
    extent = compute_extent_m(padded.east_m, padded.north_m, padded.present)[0, 0]
    if num_present > 1 and extent <= SAME_POINT_M:
        raise CannotLocate(
            f"session {name}: all {num_present} receivers stand at one point, so nothing tells direction"
        )


def _list_methods(name: str, padded: PaddedSessions) -> list[str]:
    """Return what can locate the session: delays and bearings, levels or both, else its strongest receiver."""
    methods = []
    first = _choose_first(padded)
    for method, usable, is_enough in (
        (first, padded.observed if padded.has_bearing.any() else padded.timed, int(padded.num_rows[0]) >= MIN_ROWS),
        ("log_distance", padded.heard, int(padded.heard.sum()) >= MIN_HEARD),
    ):
        extent = compute_extent_m(padded.east_m, padded.north_m, usable)[0, 0]
        if is_enough and extent > SAME_POINT_M:
            methods.append(method)
    if methods:
        return methods
    if padded.heard.any():
        return ["strongest_receiver"]
    bearings = f", {int(padded.has_bearing.sum())} bearings" if padded.has_bearing.any() else ""
    raise CannotLocate(
        f"session {name}: {int(padded.present.sum())} receivers with {int(padded.timed.sum())} usable delays{bearings} "
        f"and no finite level; expected at least {MIN_TIMED} delays, 2 bearings or 1 level"
    )


def _choose_first(padded: PaddedSessions) -> str:
    """Return the estimator of what one session has of delays and bearings.

    One arrival tells nothing, nor do arrivals of broken clocks: where bearings suffice, they are left alone.
    """
    num_bearings = padded.has_bearing.sum()
    if not num_bearings:
        return "tdoa_robust"
    is_alone = padded.timed.sum() < 2 or (num_bearings >= MIN_ROWS and _tell_nothing(padded))
    return "bearings" if is_alone else "arrivals_and_bearings"


def _describe(one: SessionSet, padded: PaddedSessions) -> str:
    bearings = f", {int(padded.has_bearing.sum())} bearings" if padded.has_bearing.any() else ""
    text = f"{int(padded.timed.sum())} timed arrivals{bearings} and {int(padded.heard.sum())} finite levels"
    infinite = int(np.isinf(one.level_db).sum())
    return text + (f" ({infinite} infinite levels ignored)" if infinite else "")
