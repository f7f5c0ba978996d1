"""Where a source may be before anything is measured: an area from known sources or from the receivers.

Levels read it as a Gaussian. To delays it is a hypothesis that they may overrule: as wide in its middle, with the tails
of ``compute_tail_cost`` out to ``farthest_m``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.arrays import SAME_POINT_M, PaddedSessions, compute_extent_m
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame, compute_centre, compute_distance_m

RADIO_HORIZON_M = 50e3
"""Area's sigma when receivers stand at one point: VHF horizon of two antennas at 36 m, 4.12 (sqrt h1 + sqrt h2) km
(ITU-R P.310, 4/3 earth radius)."""

NETWORK_MARGIN = 2.0
"""A network hears sources out to its horizon, but one of campus size, low and among houses, hardly beyond this many
times its own root mean square size."""

E_LAYER_HOP_M = 2_350e3
"""Farthest that anything is heard above ``GROUND_WAVE_MAX_HZ``: one hop of sporadic E at 110 km, 2 R acos(R / (R + h))
(ITU-R P.534); what is in sight and tropospheric ducts end well before."""

HALF_EARTH_M = 20_000e3
"""Farthest that anything is from a receiver: ground and sky waves below ``GROUND_WAVE_MAX_HZ`` get there."""

TAIL = 3.0
"""Squared sigmas where the area's tails begin; with it the middle is as sharp as that of the Gaussian."""

MAX_AREA_SIGMAS = 4.0
"""Receivers farther than this from known sources belong to another network, about which those sources say nothing."""

OWN_SITES = 2
"""What a session's own surroundings weigh against known sites."""


@dataclass(frozen=True)
class Area:
    """An area over positions, one for each session.

    Attributes:
        latitude, longitude: float64 (S,), degrees, the mean.
        covariance_m2: float64 (S, 3), variance east, variance north, covariance, in m^2, around the mean.
        farthest_m: float64 (S,), from the receivers, beyond which a wave of that frequency is not heard.
    """

    latitude: FloatArray
    longitude: FloatArray
    covariance_m2: FloatArray
    farthest_m: FloatArray

    def take(self, sessions: NDArray[np.int64]) -> "Area":
        """Return the areas of the given sessions, in that order."""
        return Area(*(values[sessions] for values in vars(self).values()))

    def information(self) -> FloatArray:
        """Return the inverse covariance, float64 (S, 2, 2), 1/m^2.

        Examples:
            >>> area = Area(np.array([45.0]), np.array([7.0]), np.array([[4.0, 16.0, 0.0]]), np.array([1e6]))
            >>> np.diag(area.information()[0]).tolist()
            [0.25, 0.0625]
        """
        see, snn, sen = self.covariance_m2.T
        matrix = np.stack([np.stack([snn, -sen], -1), np.stack([-sen, see], -1)], -2)
        inverse: FloatArray = matrix / (see * snn - sen * sen)[:, None, None]
        return inverse


def compute_area(padded: PaddedSessions, reference: SessionSet | None) -> Area:
    """Return where sources may be, for each session.

    With a reference: the mean and covariance of its sources, the latter mixed with the session's own area as if that
    were ``OWN_SITES`` more sites, for few sites say little about the next. Without one, and for sessions of another
    network: ``compute_own_area``.
    """
    own = compute_own_area(padded)
    if reference is None:
        return own
    latitude, longitude, num_sites = _list_sources(reference)
    if num_sites == 0:
        return own
    centre = compute_centre(latitude, longitude, np.zeros(len(latitude), dtype=np.int64), 1)
    frame = LocalFrame(centre[0][0], centre[1][0])
    east, north, _ = frame.to_local(latitude, longitude)
    mean_latitude, mean_longitude, _ = frame.to_geodetic(east.mean(), north.mean())
    spread = np.array([east.var(), north.var(), np.mean((east - east.mean()) * (north - north.mean()))])
    mixed = (num_sites * spread + OWN_SITES * own.covariance_m2) / (num_sites + OWN_SITES)
    elsewhere = find_elsewhere(padded, reference)
    return Area(
        latitude=np.where(elsewhere, own.latitude, mean_latitude),
        longitude=np.where(elsewhere, own.longitude, mean_longitude),
        covariance_m2=np.where(elsewhere[:, None], own.covariance_m2, mixed),
        farthest_m=own.farthest_m,
    )


def compute_own_area(padded: PaddedSessions) -> Area:
    """Return the surroundings of each session's receivers: a round area around their centre.

    As wide as their spread, at least the horizon or ``NETWORK_MARGIN`` times the spread, whichever is smaller; the
    horizon where they stand at one point.
    """
    extent = np.hypot(*compute_extent_m(padded.east_m, padded.north_m, padded.present).T)
    wide = np.maximum(extent, np.minimum(NETWORK_MARGIN * extent, RADIO_HORIZON_M))
    sigma = np.where(extent > SAME_POINT_M, wide, RADIO_HORIZON_M)
    return Area(
        latitude=padded.frame.latitude[:, 0],
        longitude=padded.frame.longitude[:, 0],
        covariance_m2=np.stack([sigma**2, sigma**2, np.zeros_like(sigma)], axis=1),
        farthest_m=np.where(padded.follows_ground.any(axis=1), HALF_EARTH_M, E_LAYER_HOP_M),
    )


def compute_tail_cost(square: FloatArray) -> FloatArray:
    """Return twice the negative log density of the area, but for a constant, at squared sigmas from its middle.

    A bivariate Cauchy distribution: far out its density falls as distance^-3, which makes the reciprocal distance, the
    curvature of the wave front that arrivals measure, uniform. So the area pulls no source that delays put outside.

    Source: Student's bivariate density of one degree of freedom, (1 + z^2)^(-3/2).

    Examples:
        Ten sigmas away are 100 to a Gaussian:

        >>> np.round(compute_tail_cost(np.array([1.0, 100.0])), 1).tolist()
        [0.9, 10.6]
    """
    cost: FloatArray = TAIL * np.log1p(square / TAIL)
    return cost


def compute_tail_weight(square: FloatArray) -> FloatArray:
    """Return what the area's information counts at squared sigmas from its middle, 1 there and falling to 0.

    Source: iteratively reweighted least squares, derivative of the cost by the square (Holland and Welsch,
    Communications in Statistics 6 (1977) 813).
    """
    weight: FloatArray = 1.0 / (1.0 + square / TAIL)
    return weight


def find_elsewhere(padded: PaddedSessions, reference: SessionSet) -> NDArray[np.bool_]:
    """Return which sessions, (S,), are of another network than the reference: more than ``MAX_AREA_SIGMAS`` away.

    A session without receivers is not known to be elsewhere.
    """
    latitude, longitude, num_sites = _list_sources(reference)
    if num_sites == 0:
        return np.zeros(len(padded), dtype=bool)
    centre = compute_centre(latitude, longitude, np.zeros(len(latitude), dtype=np.int64), 1)
    apart = compute_distance_m(latitude, longitude, centre[0][0], centre[1][0])
    own = compute_own_area(padded)
    reach = np.sqrt(np.mean(apart**2) + own.covariance_m2[:, 0])
    distance = compute_distance_m(own.latitude, own.longitude, centre[0][0], centre[1][0])
    far: NDArray[np.bool_] = (padded.present.sum(axis=1) > 0) & (distance > MAX_AREA_SIGMAS * reach)
    return far


def _list_sources(reference: SessionSet) -> tuple[FloatArray, FloatArray, int]:
    """Return latitude and longitude of the known sources, and how many sites they are, about 100 m apart."""
    known = np.isfinite(reference.source_latitude) & np.isfinite(reference.source_longitude)
    latitude, longitude = reference.source_latitude[known], reference.source_longitude[known]
    num_sites = len(np.unique(np.round(np.stack([latitude, longitude], axis=1), 3), axis=0))
    return latitude, longitude, num_sites
