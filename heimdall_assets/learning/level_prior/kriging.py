"""Departures of a site's levels from the path loss, spread from where transmitters were heard to where none was.

Belongs here: the correlation of shadowing over ground, fitted and used. Does not belong here: the path loss.
Legend of shapes: S sessions, K receiver sites, G points of the map. East, north in km.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from heimdall_assets.learning.level_prior.links import MIN_SITE_LEVELS
from heimdall_assets.signals.geodesy import FloatArray

MAX_MAP_SESSIONS = 3000
"""Kriging costs the cube of this; more transmissions than that add little to a map."""

LENGTHS = (0.036, 0.12, 0.36, 1.2)
"""Correlation lengths tried, in units of the transmitters' root-mean-square spread; the data choose their mix."""

CORRELATION_EDGES = (0.0, 0.012, 0.024, 0.036, 0.06, 0.1, 0.15, 0.25, 0.36, 0.6, 1.0, 1.5, 2.5)
"""Bins of separation, same unit."""

MIN_NUGGET = 0.15
"""Smallest share of a level's variance that no neighbour can tell: fading over wavelengths."""


def fit_correlation(source: FloatArray, residual: FloatArray, variance: FloatArray, spread: float) -> FloatArray:
    """Return the share of variance with each of ``LENGTHS``, float64 (4,), each at least 0, their sum at most 0.85.

    Non-negative least squares on the mean product of standardised residuals of one site, binned by the separation of
    the two transmitters.

    Source: exponential correlation, Gudmundson, Electronics Letters 27 (1991).
    """
    chosen = np.unique(np.linspace(0, len(source) - 1, 2000).astype(np.int64))
    known = np.isfinite(residual[chosen])
    unit = np.where(known, residual[chosen] / np.sqrt(variance), 0.0)
    upper = np.triu_indices(len(chosen), 1)
    separation = _compute_separation(source[chosen], source[chosen])[upper] / spread
    bins, count = np.digitize(separation, CORRELATION_EDGES) - 1, len(CORRELATION_EDGES)
    pairs = np.bincount(bins, (known.astype(float) @ known.T.astype(float))[upper], count)[:-1]
    product = np.bincount(bins, (unit @ unit.T)[upper], count)[:-1] / np.maximum(pairs, 1.0)
    middle = np.bincount(bins, separation, count)[:-1] / np.maximum(np.bincount(bins, minlength=count)[:-1], 1)
    if pairs.sum() < 100:
        return np.zeros(len(LENGTHS))
    weight = np.sqrt(np.minimum(pairs, np.median(pairs)))
    design = np.exp(-middle[:, None] / np.array(LENGTHS))
    share = nnls(design * weight[:, None], product * weight)[0]
    return np.asarray(share * min(1.0, (1.0 - MIN_NUGGET) / max(share.sum(), 1e-9)))


def _compute_separation(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.asarray(np.hypot(first[:, None, 0] - second[:, 0], first[:, None, 1] - second[:, 1]), dtype=np.float64)


def krige(
    source: FloatArray, residual: FloatArray, variance: FloatArray, points: FloatArray, spread: float
) -> tuple[FloatArray, FloatArray]:
    """Return each site's expected residual (K, G) in dB, and its variance as a share of the site's.

    All sites share one correlation, so sites heard in the same sessions share one factorisation. Residuals are cut at
    four standard deviations: one wrong label must not bend a map.
    """
    mean = np.zeros((residual.shape[1], len(points)))
    share = fit_correlation(source, residual, variance, spread) if len(source) and len(variance) else np.zeros(4)
    total = float(share.sum())
    doubt = np.full_like(mean, total)
    if total < 0.05:
        return mean, doubt
    chosen = np.unique(np.linspace(0, len(source) - 1, MAX_MAP_SESSIONS).astype(np.int64))
    source, residual = source[chosen], residual[chosen]

    def correlate(first: FloatArray, second: FloatArray) -> NDArray[np.float32]:
        separation = _compute_separation(first, second) / spread
        parts = (part * np.exp(-separation / length) for part, length in zip(share, LENGTHS, strict=True) if part > 0)
        return np.asarray(sum(parts), dtype=np.float32)

    among, across = correlate(source, source), correlate(points, source)
    weights: dict[bytes, tuple[NDArray[np.float32], FloatArray]] = {}
    for site in range(residual.shape[1]):
        known = np.isfinite(residual[:, site])
        if known.sum() < MIN_SITE_LEVELS:
            continue
        if known.tobytes() not in weights:
            weights[known.tobytes()] = _solve_kriging(among[np.ix_(known, known)], across[:, known], total)
        weight, left = weights[known.tobytes()]
        limit = 4.0 * np.sqrt(variance[site])
        mean[site] = weight @ np.clip(residual[known, site], -limit, limit).astype(np.float32)
        doubt[site] = left
    return mean, doubt


def _solve_kriging(
    among: NDArray[np.float32], across: NDArray[np.float32], total: float
) -> tuple[NDArray[np.float32], FloatArray]:
    """Return kriging weights (G, N) and the variance left (G,), both for unit variance with nugget 1 - total."""
    among[np.diag_indices(len(among))] += np.float32(1.0 - total)
    factor = cho_factor(among, lower=True, overwrite_a=True, check_finite=False)
    weight = cho_solve(factor, np.ascontiguousarray(across.T), check_finite=False).T
    return weight, np.maximum(total - (weight * across).sum(axis=1), 0.01).astype(np.float64)
