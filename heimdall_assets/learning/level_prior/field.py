"""What known transmissions say about levels over an area: path loss, and a map of departures per receiver site.

Belongs here: ``LevelField`` and its closed-form fit. Does not belong here: locating (``level_prior.prior``), choosing
the likelihood's numbers (``level_prior.fit``), torch.
Legend of shapes: S sessions, R receiver slots, K receiver sites, G points of the map. East, north in km.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from heimdall_assets.errors import CannotLocate
from heimdall_assets.learning.level_prior.kriging import krige
from heimdall_assets.learning.level_prior.links import (
    MIN_SITE_LEVELS,
    Links,
    compute_decades,
    compute_site_radius,
    compute_spread,
    find_sites,
    match_sites,
    sort_by_site,
)
from heimdall_assets.signals.geodesy import FloatArray

NO_FLOOR_DB = -1e3
PILE_DB = 2.5
"""Largest distance between a site's 3rd and 10th percentile that is a pile; a slope of 8 dB spread has 5 dB there."""

MAX_POINTS = 2500
"""Points of the map; inference costs as many likelihoods a receiver."""

EXPONENT_RANGE = (1.5, 6.0)
"""Path-loss exponents between a waveguide and dense indoor (ITU-R P.1238-11, table 2)."""

DEFAULT_EXPONENT = 3.0
"""Path loss where nothing could be fitted: between free space (2) and dense city (4)."""


@dataclass(frozen=True)
class LevelField:
    """Path loss and maps fitted on some links.

    Attributes:
        num_sources: transmissions it was fitted on.
        exponent: of the path loss.
        offset_db: level at 1 km of a receiver that stands at no known site.
        spread_db: standard deviation of such a receiver's level about the path loss.
        spread_km: root-mean-square distance of the transmitters from their centre.
        reach_km: typical distance between transmitter and receiver.
        points_km: float64 (G, 2), where a transmitter may be.
        density: float64 (G,), sums to 1: how much the neighbourhood of each point was transmitted from.
        cell_km: distance between neighbouring points.
        site_km: float64 (K, 2).
        site_radius_km: how close to a site a receiver stands at it.
        site_offset_db: float64 (K,), a site's mean departure from the path loss.
        site_floor_db: float64 (K,), level below which a site hears only itself.
        site_variance: float64 (K,), variance of the departures from path loss and offset, dB^2.
        residual_db: float64 (K, G), expected departure from the path loss, offset included.
        doubt: float64 (K, G), its kriging variance as a share of ``site_variance``.
    """

    num_sources: int
    exponent: float
    offset_db: float
    spread_db: float
    spread_km: float
    reach_km: float
    points_km: FloatArray
    density: FloatArray
    cell_km: float
    site_km: FloatArray
    site_radius_km: float
    site_offset_db: FloatArray
    site_floor_db: FloatArray
    site_variance: FloatArray
    residual_db: FloatArray
    doubt: FloatArray


def fit_field(links: Links, sites: FloatArray | None = None, points: FloatArray | None = None) -> LevelField:
    """Return path loss and maps fitted on links with known sources.

    Args:
        links: S sessions; those without a known source are left out.
        sites: receiver sites; None: found in the links.
        points: points of the map; None: laid around the sources.
    """
    links = links.take(np.flatnonzero(np.isfinite(links.source_km).all(axis=1) & links.heard.any(axis=1)))
    if not len(links):
        raise CannotLocate("levels of known sources: found none: expected at least one to learn from")
    source, spread = links.source_km, compute_spread(links.source_km)
    radius = compute_site_radius(spread)
    sites = find_sites(links, radius) if sites is None else sites
    site = match_sites(links, sites, radius)
    lattice, cell = _lay_points(source, spread)
    points = lattice if points is None else points
    square = np.square(source[:, None] - links.receiver_km).sum(-1)
    levels, decades = sort_by_site(links, compute_decades(square), site, len(sites))
    exponent = _fit_exponent(levels, decades)
    departure = levels + exponent * decades
    offset = np.array([np.mean(column[np.isfinite(column)]) if np.isfinite(column).any() else np.nan
                       for column in departure.T])  # fmt: skip
    roaming = links.heard & (site < 0)
    loose = links.level_db[roaming] + exponent * compute_decades(square)[roaming]
    fixed = offset[np.isfinite(offset)]
    offset_db, spread_db = _describe_unknown(loose, fixed)
    offset = np.where(np.isfinite(offset), offset, offset_db)
    residual = departure - offset
    variance = np.array([np.mean(np.square(column[np.isfinite(column)])) if np.isfinite(column).any() else 36.0
                         for column in residual.T]).clip(1.0)  # fmt: skip
    mean, doubt = krige(source, residual, variance, points, spread)
    return LevelField(
        num_sources=len(source),
        exponent=exponent,
        offset_db=offset_db,
        spread_db=spread_db,
        spread_km=spread,
        reach_km=float(np.sqrt(np.median(square[links.heard])).clip(0.05)),
        points_km=points,
        density=_compute_density(points, source, spread),
        cell_km=cell,
        site_km=sites,
        site_radius_km=radius,
        site_offset_db=offset - offset_db,
        site_floor_db=np.array([_find_floor(column[np.isfinite(column)]) for column in levels.T]),
        site_variance=variance,
        residual_db=mean + (offset - offset_db)[:, None],
        doubt=doubt,
    )


def _lay_points(source: FloatArray, spread: float) -> tuple[FloatArray, float]:
    """Return at most ``MAX_POINTS`` points of a square lattice within reach of the sources, and its step."""
    reach = 0.25 * spread
    tree = cKDTree(source)
    step = max(0.02 * spread, 0.025)
    while True:
        low, high = source.min(axis=0) - reach, source.max(axis=0) + reach
        axes = [np.arange(low[axis], high[axis] + step, step) for axis in (0, 1)]
        lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        points = lattice[tree.query(lattice)[0] < reach]
        if len(points) <= MAX_POINTS:
            return points, step
        step *= 1.02 * max(np.sqrt(len(points) / MAX_POINTS), 1.0)


def _fit_exponent(levels: FloatArray, decades: FloatArray) -> float:
    """Return the slope of level over log-distance within sites, by least squares over all of them."""
    known = np.isfinite(levels)
    count = np.maximum(known.sum(axis=0), 1)
    x = np.where(known, decades - np.where(known, decades, 0.0).sum(axis=0) / count, 0.0)
    y = np.where(known, levels - np.where(known, levels, 0.0).sum(axis=0) / count, 0.0)
    power = float(np.square(x).sum())
    if known.sum() < MIN_SITE_LEVELS or power <= 0.0:
        return DEFAULT_EXPONENT
    return float(np.clip(-(x * y).sum() / power, *EXPONENT_RANGE))


def _find_floor(level: FloatArray) -> float:
    """Return the level that a site's readings pile up at in dB: its own noise; far below all where they do not."""
    if len(level) < MIN_SITE_LEVELS:
        return NO_FLOOR_DB
    lowest, low = np.percentile(level, [3.0, 10.0])
    return float(lowest) - 1.0 if low - lowest < PILE_DB else NO_FLOOR_DB


def _describe_unknown(loose: FloatArray, fixed: FloatArray) -> tuple[float, float]:
    """Return offset and spread of a receiver of no known site, from roaming ones if enough, else from sites."""
    if len(loose) >= MIN_SITE_LEVELS:
        return float(np.mean(loose)), float(np.clip(np.std(loose), 4.0, 20.0))
    if len(fixed):
        return float(np.mean(fixed)), float(np.clip(np.hypot(np.std(fixed), 7.0), 4.0, 20.0))
    return (float(np.mean(loose)) if len(loose) else -90.0), 12.0


def _compute_density(points: FloatArray, source: FloatArray, spread: float) -> FloatArray:
    """Return how visited each point's neighbourhood is, summing to 1; often-visited places count no more than half."""
    width = 0.12 * spread
    tree, density = cKDTree(source), np.zeros(len(points))
    for index, near in enumerate(tree.query_ball_point(points, 4.0 * width)):
        density[index] = np.exp(-0.5 * np.square(source[near] - points[index]).sum(axis=1) / width**2).sum()
    density = np.minimum(density, max(float(np.median(density)), 1e-12)) + 1e-12
    share: FloatArray = density / density.sum()
    return share
