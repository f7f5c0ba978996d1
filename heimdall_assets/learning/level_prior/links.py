"""Who heard which transmission how loud, in one local frame, and the sites that receivers stand at.

Belongs here: ``Links`` and what sorts them. Does not belong here: any fit (``level_prior.field``).
Legend of shapes: S sessions, R receiver slots, K receiver sites. East, north in km.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from heimdall_assets.counts import say_count
from heimdall_assets.errors import CannotLocate
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame, compute_centre

MIN_DISTANCE_KM = 0.01
"""Distances blend into this below it: no path-loss law holds within the antennas' surroundings."""

SITE_RADIUS_KM, SITE_RADIUS_SHARE = 0.02, 0.01
"""Receivers closer than this, or than this share of the sources' spread, stand at one site: GNSS errs by metres, and
the planes of sessions far apart are turned against each other."""

MIN_SITE_LEVELS = 30
"""Levels that make a place a site; a moving receiver's places have fewer and share one law."""

MIN_SPREAD_KM = 0.2
"""Ground that even a single known source makes known."""

MAX_SITES = 128


@dataclass(frozen=True)
class Links:
    """Levels of S transmissions at up to R receivers, in one local frame.

    Attributes:
        source_km: float64 (S, 2); NaN: unknown.
        receiver_km: float64 (S, R, 2); 0 where not heard.
        level_db: float64 (S, R); 0 where not heard.
        heard: bool (S, R).
    """

    source_km: FloatArray
    receiver_km: FloatArray
    level_db: FloatArray
    heard: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.heard)

    def take(self, sessions: NDArray[np.int64]) -> "Links":
        """Return the given sessions, in that order."""
        return Links(*(value[sessions] for value in vars(self).values()))


def find_centre(sessions: SessionSet) -> tuple[float, float]:
    """Return latitude and longitude in degrees of the middle of the known sources.

    Raises:
        CannotLocate: no source is known.
    """
    latitude, longitude = compute_centre(
        sessions.source_latitude, sessions.source_longitude, np.zeros(len(sessions), dtype=np.int64), 1
    )
    if not np.isfinite(latitude[0]):
        found = say_count(len(sessions), "session")
        raise CannotLocate(f"{found}: none has a known source: expected at least one to learn from")
    return float(latitude[0]), float(longitude[0])


def collect_links(sessions: SessionSet, centre_deg: tuple[float, float]) -> Links:
    """Return the finite levels of ``sessions`` in the local frame about ``centre_deg``, each session's in a row."""
    frame = LocalFrame(*centre_deg)
    east, north, _ = frame.to_local(sessions.receiver_latitude, sessions.receiver_longitude)
    source_east, source_north, _ = frame.to_local(sessions.source_latitude, sessions.source_longitude)
    counts = sessions.num_receivers
    row = np.repeat(np.arange(len(sessions)), counts)
    column = np.arange(len(row)) - np.repeat(sessions.offsets[:-1], counts)
    width = max(int(counts.max(initial=0)), 1)
    place = np.stack([east, north], axis=1) / 1000.0
    usable = np.isfinite(sessions.level_db) & np.isfinite(place).all(axis=1)
    links = Links(
        source_km=np.stack([source_east, source_north], axis=1) / 1000.0,
        receiver_km=np.zeros((len(sessions), width, 2)),
        level_db=np.zeros((len(sessions), width)),
        heard=np.zeros((len(sessions), width), dtype=bool),
    )
    links.receiver_km[row[usable], column[usable]] = place[usable]
    links.level_db[row[usable], column[usable]] = sessions.level_db[usable]
    links.heard[row, column] = usable
    return links


def compute_decades(distance_square_km2: FloatArray) -> FloatArray:
    """Return 10 log10 of the distance in km, in dB per unit of exponent, from its square in km^2."""
    return np.asarray(5.0 * np.log10(distance_square_km2 + MIN_DISTANCE_KM**2), dtype=np.float64)


def compute_spread(source_km: FloatArray) -> float:
    """Return the root-mean-square distance of sources (S, 2) from their centre in km, at least ``MIN_SPREAD_KM``."""
    spread = np.sqrt(np.square(source_km - source_km.mean(axis=0)).sum(axis=1).mean())
    return max(float(spread), MIN_SPREAD_KM)


def compute_site_radius(spread_km: float) -> float:
    """Return how close in km receivers stand at one site, where sources are spread so far."""
    return max(SITE_RADIUS_KM, SITE_RADIUS_SHARE * spread_km)


def find_sites(links: Links, radius_km: float = SITE_RADIUS_KM) -> FloatArray:
    """Return places that many levels come from, float64 (K, 2), the busiest first."""
    places = np.round(links.receiver_km[links.heard], 3)
    unique, counts = np.unique(places, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    sites: list[FloatArray] = []
    for place, count in zip(unique[order], counts[order], strict=True):
        if count < MIN_SITE_LEVELS or len(sites) == MAX_SITES:
            break
        if all(np.hypot(*(place - site)) > 2.0 * radius_km for site in sites):
            sites.append(place)
    return np.array(sites).reshape(-1, 2)


def match_sites(links: Links, sites: FloatArray, radius_km: float = SITE_RADIUS_KM) -> NDArray[np.int64]:
    """Return the site of every link, int64 (S, R); -1: none, or not heard."""
    if not len(sites):
        return np.full(links.heard.shape, -1, dtype=np.int64)
    distance, nearest = cKDTree(sites).query(links.receiver_km)
    return np.where(links.heard & (distance <= radius_km), nearest, -1).astype(np.int64)


def sort_by_site(
    links: Links, decades: FloatArray, site: NDArray[np.int64], num_sites: int
) -> tuple[FloatArray, FloatArray]:
    """Return levels and log-distances by site, float64 (S, K); NaN: not heard; receivers of one site are averaged."""
    row, column = np.nonzero(site >= 0)
    target = row * num_sites + site[row, column]
    size = len(links) * num_sites
    count = np.bincount(target, minlength=size)
    with np.errstate(invalid="ignore"):
        level = np.bincount(target, links.level_db[row, column], size) / count
        decade = np.bincount(target, decades[row, column], size) / count
    return level.reshape(len(links), num_sites), decade.reshape(len(links), num_sites)
