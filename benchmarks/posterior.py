"""The exact posterior of a simulated session, by importance sampling: what no estimator can beat on average.

It knows all about how sessions are drawn (area, power, shadowing, share and mean excess of blocked receivers), but not
who is blocked. It serves the reference table only: a real network knows none of this.

Shapes: N draws of a position, R receivers, T emission times. Lengths are km.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_ndtr

from heimdall_assets.learning.session_model.gauss_newton import GaussNewton
from heimdall_assets.learning.session_model.graph import to_degrees
from heimdall_assets.learning.session_model.physics import (
    LEVEL_EXPONENT,
    Delays,
    compute_delay_residuals,
    compute_ranges,
    compute_step,
    score_late_arrivals,
)
from heimdall_assets.learning.session_model.table import assemble_table, to_plane_km
from heimdall_assets.learning.session_model.tokens import Session, state_delays, take_apart
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.simulation.observations import ITALIAN_NETWORK
from heimdall_assets.specs import SimulationSpec

Floats = NDArray[np.float64]

NUM_DRAWS, NUM_EVEN, NUM_TIMES = 1600, 200, 150
FREEDOM = 4.0  # of the t distributions drawn from: their tails are heavier than the posterior's
WIDTHS = (1.3, 4.0)  # of those, in sigmas of each minimum
WORST_COST = 30.0  # minima this much worse than the best hold e^-15 of it
EARLIEST_KM = 3.0  # of the emission before the first arrival: all receivers blocked by several mean excesses
SCALE_KM = 0.1  # errors above it count by their logarithm, as in a median


def state_with_wide_prior(sessions: SessionSet) -> tuple[Session, Delays]:
    """Return the sessions' tables taken apart, and as the solver takes them, with a wide round prior."""
    session = take_apart(torch.from_numpy(assemble_table(sessions).receivers))
    wide = torch.stack([0.5 / session.spread, torch.zeros_like(session.spread), 0.5 / session.spread], -1)
    return session, state_delays(session, torch.zeros(len(sessions), 2), wide)


def locate_by_posterior(sessions: SessionSet, spec: SimulationSpec, seed: int = 0) -> Predictions:
    """Return of each session the point of least expected log(1 + error / 100 m), and the posterior's covariance.

    Args:
        sessions: drawn from the Italian network with ``spec``.
        spec: what they were drawn with.
        seed: of the draws.
    """
    table = assemble_table(sessions)
    session, delays = state_with_wide_prior(sessions)
    solver = GaussNewton(num_starts=8, num_iterations=10, num_late_iterations=(4, 16))
    direct = solver.search(delays, session.spread)
    states, emission, cost = solver.search_late(delays, session.sigma, direct)
    residual = compute_delay_residuals(states, delays)[0] - emission.unsqueeze(-1)
    _, _, curvature, _ = score_late_arrivals(residual, session.sigma.unsqueeze(1))
    _, factor = compute_step(states, delays, None, curvature * session.timed.unsqueeze(1))
    rng = np.random.default_rng(seed)
    found = np.zeros((len(sessions), 2))
    covariance = np.zeros((len(sessions), 3))
    for number in range(len(sessions)):
        near = (cost[number] < cost[number].min() + WORST_COST) & factor[number].isfinite().all(-1)
        minima = (states[number][near].double().numpy(), factor[number][near].double().numpy())
        draws, log_density = _draw(*minima, _find_box(table.origin_deg[number], spec), rng)
        rows = slice(0, int(sessions.num_receivers[number]))
        log_posterior = _score(
            draws,
            session.receivers[number, rows].double(),
            session.arrival[number, rows].double().numpy(),
            session.sigma[number, rows].double().numpy(),
            sessions.level_db[sessions.receivers(number)],
            spec,
        )
        log_posterior[~_find_inside(draws, table.origin_deg[number], spec)] = -np.inf
        ratio = log_posterior - log_density
        share = np.exp(ratio - ratio.max())
        share /= share.sum()
        found[number] = _choose_point(draws, share, draws[log_posterior.argmax()])
        away = draws - found[number]
        covariance[number] = share @ np.stack([away[:, 0] ** 2, away[:, 1] ** 2, away[:, 0] * away[:, 1]], 1)
    latitude, longitude = to_degrees(torch.from_numpy(found), torch.from_numpy(table.origin_deg))
    return Predictions(latitude.numpy(), longitude.numpy(), covariance * 1e6, "posterior")


def _draw(centre: Floats, factor: Floats, box: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return draws (N, 2) and their log densities: from wide t distributions about minima, some from the whole box.

    Args:
        centre: float64 (K, 2), minima.
        factor: float64 (K, 3), upper factors of their information.
        box: float64 (2, 2), lowest and highest east and north: no minimum may lie where sources do.
        rng: drawn from.
    """
    centre = np.concatenate([centre] * len(WIDTHS))
    factor = np.concatenate([factor / width for width in WIDTHS])
    count = NUM_DRAWS // len(centre) + 1
    unit = rng.standard_normal((len(centre), count, 2)) / np.sqrt(
        rng.chisquare(FREEDOM, (len(centre), count, 1)) / FREEDOM
    )
    u11, u12, u22 = factor.T[..., None]
    north = unit[..., 1] / u22
    east = (unit[..., 0] - u12 * north) / u11
    about = (centre[:, None] + np.stack([east, north], -1)).reshape(-1, 2)
    draws = np.concatenate([about, rng.uniform(*box, (NUM_EVEN, 2))])
    away = draws[:, None] - centre
    squared = (factor[:, 0] * away[..., 0] + factor[:, 1] * away[..., 1]) ** 2 + (factor[:, 2] * away[..., 1]) ** 2
    density = factor[:, 0] * factor[:, 2] / (2.0 * np.pi) * (1.0 + squared / FREEDOM) ** (-0.5 * (FREEDOM + 2.0))
    even = ((draws >= box[0]) & (draws <= box[1])).all(1) / np.prod(box[1] - box[0])
    return draws, np.log((count * density.sum(1) + NUM_EVEN * even) / len(draws))


def _find_box(origin_deg: Floats, spec: SimulationSpec) -> Floats:
    """Return a box in the tangent plane, lowest and highest east and north (2, 2), around all that sources stand in."""
    _, north, east, _ = (np.array(column) for column in zip(*ITALIAN_NETWORK, strict=True))
    margin = spec.area_margin_deg
    corners = np.array(
        [
            (latitude, longitude)
            for latitude in (north.min() - margin, north.max() + margin)
            for longitude in (east.min() - margin, east.max() + margin)
        ]
    )
    plane = to_plane_km(np.tile(origin_deg, (4, 1)), corners[:, 0], corners[:, 1], np.zeros(4))[:, :2]
    return np.stack([plane.min(0) - 1.0, plane.max(0) + 1.0])


def _score(
    draws: Floats, receivers: torch.Tensor, arrival: Floats, sigma: Floats, level_db: Floats, spec: SimulationSpec
) -> Floats:
    """Return the log likelihood (N,) of arrivals and levels at positions (N, 2), all emission times being alike.

    Source: exponentially modified Gaussian (Grushka 1972, eq. 9); log-distance law, Rappaport 2002, eq. 4.69.
    """
    ranges = compute_ranges(torch.from_numpy(draws)[None], receivers[None], torch.zeros(1, len(receivers)).double())
    range_km = ranges[0][0].numpy()
    residual = arrival - range_km
    last = (residual + 5.0 * sigma).min(1)
    first = residual.min(1) - EARLIEST_KM - 5.0 * sigma.max()
    step = (last - first) / NUM_TIMES
    time = first[:, None] + step[:, None] * (np.arange(NUM_TIMES) + 0.5)
    one_km_db = 20.0 * math.log10(4.0 * math.pi * 1000.0 * spec.carrier_hz / SIGNAL_SPEED_M_S)
    expected_db = spec.source_power_dbm - one_km_db - 10.0 * LEVEL_EXPONENT * np.log10(np.maximum(range_km, 0.01))
    rate = 1.0 / (spec.blocked_excess_s * SIGNAL_SPEED_M_S / 1000.0)
    total = np.zeros_like(time)
    for place in range(len(arrival)):
        one = sigma[place]
        excess = residual[:, place, None] - time
        heard = (level_db[place] - expected_db[:, place, None]) / spec.shadowing_db
        weaker = heard + spec.blocked_loss_db / spec.shadowing_db
        clear = -0.5 * (excess / one) ** 2 - math.log(one * math.sqrt(2.0 * math.pi)) - 0.5 * heard**2
        late = math.log(rate) - rate * excess + 0.5 * (rate * one) ** 2 + log_ndtr(excess / one - rate * one)
        total += np.logaddexp(
            math.log(1.0 - spec.blocked_fraction) + clear, math.log(spec.blocked_fraction) + late - 0.5 * weaker**2
        )
    return np.logaddexp.reduce(total, axis=1) + np.log(step)


def _find_inside(draws: Floats, origin_deg: Floats, spec: SimulationSpec) -> NDArray[np.bool_]:
    """Return which positions (N, 2) lie in the box that sources are drawn from, (N,)."""
    origin = torch.from_numpy(origin_deg)[None].expand(len(draws), 2)
    latitude, longitude = (item.numpy() for item in to_degrees(torch.from_numpy(draws), origin))
    _, north, east, _ = (np.array(column) for column in zip(*ITALIAN_NETWORK, strict=True))
    margin = spec.area_margin_deg
    return (
        (latitude > north.min() - margin)
        & (latitude < north.max() + margin)
        & (longitude > east.min() - margin)
        & (longitude < east.max() + margin)
    )


def _choose_point(draws: Floats, share: Floats, most_probable: Floats) -> Floats:
    """Return the point (2,) of least expected log(1 + error / SCALE_KM), descended to from three starts.

    Source: iterative reweighting, Weiszfeld 1937, for a concave loss.
    """
    best, least = most_probable, np.inf
    for start in (most_probable, share @ draws, draws[share.argmax()]):
        point = start
        for _ in range(40):
            distance = np.hypot(*(draws - point).T)
            pull = share / ((distance + SCALE_KM) * np.maximum(distance, 1e-3))
            point = pull @ draws / pull.sum()
        expected = share @ np.log1p(np.hypot(*(draws - point).T) / SCALE_KM)
        if expected < least:
            best, least = point, expected
    return best
