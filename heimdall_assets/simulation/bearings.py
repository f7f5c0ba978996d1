"""Bearings of simulated sessions: what a direction finder at each receiver would report of a source that is known.

Belongs here: errors of angles. Does not belong here: arrivals and levels (``observations``), samples.
Every number of a receiver is drawn from (seed, session id, station id), so a session never depends on the others.
"""

import hashlib
from dataclasses import replace

import numpy as np

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import compute_azimuth_deg


def add_bearings(
    sessions: SessionSet,
    seed: int,
    *,
    sigma_min_deg: float = 2.0,
    sigma_max_deg: float = 10.0,
    heard_fraction: float = 1.0,
    reversed_fraction: float = 0.0,
) -> SessionSet:
    """Return ``sessions`` with a bearing at each receiver: the true azimuth, a Gaussian error, at times half a turn.

    Args:
        sessions: S sessions whose sources are known.
        seed: of all that is drawn.
        sigma_min_deg, sigma_max_deg: each receiver's sigma is uniform between them, and stated as it is.
        heard_fraction: share of the receivers that have a bearing.
        reversed_fraction: share of the bearings that are wrong by half a turn, of which their sigma says nothing.

    Raises:
        InvalidSetting: sigmas that are not above 0 and rising, or a share that is none.

    Examples:
        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> found = add_bearings(simulate_observations(SimulationSpec(), np.arange(2)), seed=1)
        >>> found.bearing_deg.shape, bool((found.bearing_sigma_deg >= 2.0).all())
        ((14,), True)
    """
    if not 0.0 < sigma_min_deg <= sigma_max_deg <= 180.0:
        raise InvalidSetting(f"sigmas of bearings {sigma_min_deg:g} to {sigma_max_deg:g} deg: expected above 0 to 180")
    for name, share in (("heard_fraction", heard_fraction), ("reversed_fraction", reversed_fraction)):
        if not 0.0 <= share <= 1.0:
            raise InvalidSetting(f"{name} {share:g}: expected 0 to 1")
    session = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    total = slice(int(sessions.offsets[0]), int(sessions.offsets[-1]))
    true_deg = compute_azimuth_deg(
        sessions.receiver_latitude[total],
        sessions.receiver_longitude[total],
        sessions.source_latitude[session],
        sessions.source_longitude[session],
    )
    names = zip(sessions.session_id[session].tolist(), sessions.station_id[total].tolist(), strict=True)
    drawn = [np.random.default_rng(_make_seed(seed, *name)) for name in names]
    uniform = np.array([generator.random(3) for generator in drawn]).reshape(-1, 3)
    error = np.array([generator.normal() for generator in drawn])
    sigma_deg = sigma_min_deg + (sigma_max_deg - sigma_min_deg) * uniform[:, 0]
    heard = uniform[:, 1] < heard_fraction
    turned = np.where(uniform[:, 2] < reversed_fraction, 180.0, 0.0)
    bearing_deg = (true_deg + sigma_deg * error + turned) % 360.0
    bearing, sigma = (np.full(len(sessions.station_id), np.nan) for _ in range(2))
    bearing[total], sigma[total] = np.where(heard, bearing_deg, np.nan), np.where(heard, sigma_deg, np.nan)
    return replace(sessions, bearing_deg=bearing, bearing_sigma_deg=sigma)


def _make_seed(seed: int, session: str, station: str) -> list[int]:
    digest = hashlib.sha256(f"{session}\0{station}".encode()).digest()
    return [seed, *np.frombuffer(digest[:16], dtype="<u4").tolist()]
