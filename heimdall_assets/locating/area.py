"""Where a source may be before anything is measured: a Gaussian area, from known sources or from the receivers."""

from dataclasses import dataclass

import numpy as np

from heimdall_assets.domain import SessionSet
from heimdall_assets.locating.arrays import SAME_POINT_M, PaddedSessions, compute_extent_m
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame, compute_centre

RADIO_HORIZON_M = 50e3
"""Area's sigma when receivers stand at one point: VHF horizon of two antennas at 36 m, 4.12 (sqrt h1 + sqrt h2) km
(ITU-R P.310, 4/3 earth radius)."""

NETWORK_MARGIN = 2.0
"""A network hears sources out to its horizon, but one of campus size, low and among houses, hardly beyond this many
times its own root mean square size."""

MIN_AREA_SIGMA_M = 100.0
"""Known sources closer together than this do not promise that the next one is as close."""


@dataclass(frozen=True)
class Area:
    """A Gaussian over positions, one for each session.

    Attributes:
        latitude, longitude: float64 (S,), degrees, the mean.
        covariance_m2: float64 (S, 3), variance east, variance north, covariance, in m^2, around the mean.
    """

    latitude: FloatArray
    longitude: FloatArray
    covariance_m2: FloatArray

    def information(self) -> FloatArray:
        """Return the inverse covariance, float64 (S, 2, 2), 1/m^2."""
        see, snn, sen = self.covariance_m2.T
        matrix = np.stack([np.stack([snn, -sen], -1), np.stack([-sen, see], -1)], -2)
        return matrix / (see * snn - sen * sen)[:, None, None]


def compute_area(padded: PaddedSessions, reference: SessionSet | None) -> Area:
    """Return where sources may be, for each session.

    With a reference that knows at least two sources: their mean and covariance. Without: the centre of the session's
    receivers and a round area as wide as their spread, at least the horizon or ``NETWORK_MARGIN`` times the spread,
    whichever is smaller; the horizon where they stand at one point.
    """
    if reference is not None:
        known = np.isfinite(reference.source_latitude) & np.isfinite(reference.source_longitude)
        if known.sum() >= 2:
            return _compute_source_area(
                reference.source_latitude[known], reference.source_longitude[known], len(padded)
            )
    extent = np.hypot(*compute_extent_m(padded.east_m, padded.north_m, padded.present).T)
    sigma = np.where(
        extent > SAME_POINT_M, np.maximum(extent, np.minimum(NETWORK_MARGIN * extent, RADIO_HORIZON_M)), RADIO_HORIZON_M
    )
    return Area(
        latitude=padded.frame.latitude[:, 0],
        longitude=padded.frame.longitude[:, 0],
        covariance_m2=np.stack([sigma**2, sigma**2, np.zeros_like(sigma)], axis=1),
    )


def _compute_source_area(latitude: FloatArray, longitude: FloatArray, num_sessions: int) -> Area:
    """Return the mean and covariance of known sources, the same for every session."""
    centre = compute_centre(latitude, longitude, np.zeros(len(latitude), dtype=np.int64), 1)
    east, north, _ = LocalFrame(centre[0][0], centre[1][0]).to_local(latitude, longitude)
    mean_latitude, mean_longitude, _ = LocalFrame(centre[0][0], centre[1][0]).to_geodetic(east.mean(), north.mean())
    floor = MIN_AREA_SIGMA_M**2
    covariance = np.array(
        [east.var() + floor, north.var() + floor, np.mean((east - east.mean()) * (north - north.mean()))]
    )
    return Area(
        latitude=np.full(num_sessions, float(mean_latitude)),
        longitude=np.full(num_sessions, float(mean_longitude)),
        covariance_m2=np.tile(covariance, (num_sessions, 1)),
    )
