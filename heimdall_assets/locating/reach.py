"""Whether a transmitter can be where it is said to be, given who heard it: no clock and no level is asked.

Belongs here: how far radio reaches by band, and what contradicts it. Does not belong here: who states a position, and
what becomes of one that is contradicted (``pipeline.truth``). Nothing is learned.

Legend of shapes: M receivers that heard something, of all sessions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heimdall_assets.counts import say_count
from heimdall_assets.physical import Estimate
from heimdall_assets.signals.geodesy import (
    GROUND_WAVE_MAX_HZ,
    MEAN_EARTH_RADIUS_M,
    FloatArray,
    compute_distance_m,
    compute_longest_m,
)

EARTH_FACTOR = 4.0 / 3.0
"""Effective over true earth radius in the mean atmosphere. Source: ITU-R P.310."""

UNSTATED_HEIGHT_M = 3000.0
"""What either antenna may stand higher than stated: heights seldom are, and mountains carry the best receivers."""

BEYOND_HORIZON_M = 500e3
"""What tropospheric scatter (ITU-R P.617) and ducts (ITU-R P.452) carry beyond the horizon."""

SPORADIC_E_MAX_HZ = 110e6
SPORADIC_E_M = 2300e3
"""One hop at a layer 100 km high, sqrt(8 R h), on summer days common up to broadcasting's band (ITU-R P.534)."""

SKY_WAVE_M = 20_100e3
"""Half the globe, and more than any distance on it: below 30 MHz distance alone excludes nothing."""

SKY_WAVE_USUAL_M = 2000e3
"""Below 30 MHz a source farther than this from every receiver is looked at for coordinates that were mistaken."""

MISTAKEN_RATIO = 5.0
"""Coordinates are mistaken where, turned, they lie this many times nearer to every receiver than they are to any."""


def compute_horizon_m(height_m: ArrayLike, other_height_m: ArrayLike) -> FloatArray:
    """Return the distance in m at which two antennas lose sight of each other over a smooth earth of 4/3 the radius.

    Args:
        height_m, other_height_m: above the ground; below it counts as on it.

    Source: sqrt(2 k R h1) + sqrt(2 k R h2), the tangents to a sphere of radius k R; k by ITU-R P.310.

    Examples:
        The usual 4.12 km times the root of the height in metres, for either antenna:

        >>> np.round(compute_horizon_m([1.0, 100.0], [0.0, 100.0]) / 1000.0, 2).tolist()
        [4.12, 82.44]
    """
    root = np.sqrt(np.maximum(height_m, 0.0)) + np.sqrt(np.maximum(other_height_m, 0.0))
    return np.asarray(np.sqrt(2.0 * EARTH_FACTOR * MEAN_EARTH_RADIUS_M) * root, dtype=np.float64)


def compute_reach_m(frequency_hz: ArrayLike, altitude_m: ArrayLike, other_altitude_m: ArrayLike) -> FloatArray:
    """Return the distance in m beyond which nobody hears a transmitter; generous: what lies within may still be wrong.

    Examples:
        Long wave, a summer day's 50 MHz, and 462.7 MHz between antennas at unknown heights, in km:

        >>> (compute_reach_m([77.5e3, 50e6, 462.7e6], 0.0, 0.0) // 1000.0).tolist()
        [20100.0, 2300.0, 951.0]
    """
    frequency = np.asarray(frequency_hz, dtype=np.float64)
    low, high = (np.maximum(altitude, 0.0) + UNSTATED_HEIGHT_M for altitude in (altitude_m, other_altitude_m))
    sight = compute_horizon_m(low, high) + BEYOND_HORIZON_M
    reach = np.where(frequency < SPORADIC_E_MAX_HZ, np.maximum(sight, SPORADIC_E_M), sight)
    return np.where(frequency < GROUND_WAVE_MAX_HZ, SKY_WAVE_M, reach)


@dataclass(frozen=True)
class Heard:
    """Who heard which session, and where its source is said to be: one element a receiver of a session.

    Attributes:
        session: (M,), session ids.
        station: (M,), receivers' names.
        frequency_hz: float64 (M,).
        receiver, source: float64 (M, 3), latitude and longitude in degrees, altitude in m; NaN where not known.
    """

    session: NDArray[np.object_]
    station: NDArray[np.object_]
    frequency_hz: FloatArray
    receiver: FloatArray
    source: FloatArray


def find_contradictions(heard: Heard) -> dict[str, str]:
    """Return session id -> why its source cannot be where it is said to be; sessions that may be so are not named.

    A source is contradicted by a receiver beyond its reach, and, whatever the band, by being far from every receiver
    but near all of them once its coordinates are turned.
    """
    sessions = sorted(set(heard.session))
    place_of = {session: place for place, session in enumerate(sessions)}
    of_session = np.fromiter(map(place_of.__getitem__, heard.session), dtype=np.int64, count=len(heard.session))
    reach_m, usual_m = _compute_limits_m(heard)
    longest_m = compute_longest_m(*_list_ends(heard))
    doubtful = np.flatnonzero(np.logical_or(*_judge(longest_m, reach_m, usual_m, of_session))[of_session])
    distance_m = np.full(len(of_session), np.nan)
    distance_m[doubtful] = compute_distance_m(*(degrees[doubtful] for degrees in _list_ends(heard)))
    all_far, beyond = _judge(distance_m, reach_m, usual_m, of_session)
    known = doubtful[np.isfinite(distance_m[doubtful])]
    known = known[np.argsort(of_session[known], kind="stable")]
    found = {}
    for rows in np.split(known, np.flatnonzero(np.diff(of_session[known])) + 1) if len(known) else []:
        session = of_session[rows[0]]
        if all_far[session] or beyond[session]:
            why = _explain(heard, rows, distance_m[rows], reach_m[rows], bool(all_far[session]))
            if why is not None:
                found[sessions[session]] = why
    return found


def _list_ends(heard: Heard) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return latitude and longitude of sources and of receivers, in degrees, each float64 (M,)."""
    return heard.source[:, 0], heard.source[:, 1], heard.receiver[:, 0], heard.receiver[:, 1]


def _compute_limits_m(heard: Heard) -> tuple[FloatArray, FloatArray]:
    """Return how far a source may be, and how far one usually is, in m, each float64 (M,)."""
    reach_m = compute_reach_m(heard.frequency_hz, heard.receiver[:, 2], heard.source[:, 2])
    beyond_usual_m = np.maximum(reach_m - BEYOND_HORIZON_M, 0.0)
    return reach_m, np.where(heard.frequency_hz < GROUND_WAVE_MAX_HZ, SKY_WAVE_USUAL_M, beyond_usual_m)


def _judge(
    distance_m: FloatArray, reach_m: FloatArray, usual_m: FloatArray, of_session: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return, bool for each session, whether no receiver is within the usual distance, and whether one is out of reach.

    Those with a receiver within the usual distance, or of no known distance, cannot be contradicted as a whole.
    """
    num_sessions = of_session.max(initial=-1) + 1
    near = np.bincount(of_session, distance_m <= usual_m, num_sessions) > 0
    return ~near, np.bincount(of_session, distance_m > reach_m, num_sessions) > 0


def _explain(
    heard: Heard, rows: NDArray[np.int64], distance_m: FloatArray, reach_m: FloatArray, all_far: bool
) -> str | None:
    mistaken = next(_list_mistakes(heard, rows, distance_m), None) if all_far else None
    excess = distance_m - reach_m
    is_beyond = bool(excess.max() > 0.0)
    if mistaken is None and not is_beyond:
        return None
    chosen = int(np.argmax(excess) if is_beyond else np.argmin(distance_m))
    row = rows[chosen]
    limit = (
        f"expected at most {reach_m[chosen] / 1000.0:.0f} km (radio horizon)"
        if is_beyond
        else f"the nearest of {say_count(len(rows), 'receiver')}"
    )
    latitude, longitude, _ = heard.source[row]
    said = (
        f"its source at {latitude:.5f}, {longitude:.5f} is {distance_m[chosen] / 1000.0:.0f} km from "
        f"{heard.station[row]}, which heard it at {heard.frequency_hz[row] / 1e6:.6g} MHz, {limit}"
    )
    return said if mistaken is None else f"{said}; {mistaken}"


def _list_mistakes(heard: Heard, rows: NDArray[np.int64], distance_m: FloatArray) -> Iterator[str]:
    """Yield which way of turning the source's coordinates puts it near every receiver, most usual first."""
    latitude, longitude, _ = heard.source[rows].T
    turned = [("latitude and longitude swapped", longitude, latitude)]
    if (heard.frequency_hz[rows] >= GROUND_WAVE_MAX_HZ).all():  # a sky wave may well come from the mirrored place
        turned.append(("the sign of its longitude turned", latitude, -longitude))
        turned.append(("the sign of its latitude turned", -latitude, longitude))
    for what, turned_latitude, turned_longitude in turned:
        if np.abs(turned_latitude).max() <= 90.0:
            receiver = heard.receiver[rows]
            farthest_m = float(
                compute_distance_m(turned_latitude, turned_longitude, receiver[:, 0], receiver[:, 1]).max()
            )
            if farthest_m * MISTAKEN_RATIO < distance_m.min():
                yield f"with {what} it would be at most {farthest_m / 1000.0:.0f} km from each"


def remark_reach(estimate: Estimate, places: FloatArray, frequency_hz: FloatArray, names: Sequence[str]) -> list[str]:
    """Return what to say where a receiver that heard it is beyond the radio horizon of an estimate; none: nothing.

    Args:
        estimate: of one session's source.
        places: float64 (M, 3), latitude, longitude in degrees and height in m of its receivers.
        frequency_hz: float64 (M,).
        names: of the receivers.
    """
    away_m = compute_distance_m(estimate.latitude, estimate.longitude, places[:, 0], places[:, 1])
    excess_m = np.nan_to_num(away_m - compute_reach_m(frequency_hz, places[:, 2], 0.0), nan=-np.inf)
    worst = int(excess_m.argmax())
    if excess_m[worst] <= 0.0:
        return []
    return [
        f"{away_m[worst] / 1000.0:,.0f} km from {names[worst]}, which heard it at "
        f"{frequency_hz[worst] / 1e6:.6g} MHz, expected at most {(away_m - excess_m)[worst] / 1000.0:,.0f} km (radio "
        "horizon): a receiver's place, a clock or an arrival is wrong"
    ]
