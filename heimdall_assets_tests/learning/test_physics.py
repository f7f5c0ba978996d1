"""The physics layer against scipy, closed forms, and inputs that no position explains."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.stats import exponnorm, multivariate_normal

from heimdall_assets.learning.session_model.gauss_newton import GaussNewton
from heimdall_assets.learning.session_model.physics import (
    EARTH_RADIUS_KM,
    LATE_FRACTION,
    LATE_MEAN_KM,
    LEVEL_EXPONENT,
    Delays,
    LevelLaw,
    apply_factor,
    compute_covariance,
    compute_level_cost,
    compute_ranges,
    score_late_arrivals,
    solve_rows,
)
from heimdall_assets.learning.session_model.table import assemble_table
from heimdall_assets.learning.session_model.tokens import state_delays, take_apart
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.variation import assert_below, make_rng, shift_seed


def make_delays(receivers, arrival, sigma, prior_sigma=1000.0):
    """One session; receivers (R, 2) km, arrival and sigma (R,) km."""
    num = len(receivers)
    place = np.concatenate([receivers, np.zeros((num, 1))], axis=1)
    tensors = (
        place,
        np.zeros(num),
        arrival,
        1.0 / np.square(sigma),
        np.zeros(2),
        [1 / prior_sigma, 0, 1 / prior_sigma],
    )
    tensors = [torch.tensor(np.asarray(item), dtype=torch.float32).unsqueeze(0) for item in tensors]
    return Delays(*tensors, level=torch.zeros(1, num), heard=torch.zeros(1, num))


def measure_ranges(point, receivers):
    """Ranges in float64 with the sphere's sagitta, as the layer sees them."""
    up = np.square(point).sum() / (2.0 * EARTH_RADIUS_KM)
    return np.sqrt(np.square(receivers - point).sum(1) + up**2)


def locate(delays, spread=30.0):
    solver = GaussNewton()
    position, factor = solver(delays, solver.search(delays, torch.tensor([spread])))
    return position[0].detach().double().numpy(), factor[0].detach().double()


@pytest.mark.parametrize("num", [4, 8])
def test_it_equals_multi_started_scipy(num):
    rng = make_rng(num)
    gaps = []
    for _ in range(8):
        receivers, source = rng.uniform(-50, 50, (num, 2)), rng.uniform(-50, 50, 2)
        sigma = rng.uniform(0.02, 0.2, num)
        arrival = measure_ranges(source, receivers) + sigma * rng.normal(size=num) + 7.0

        def residuals(x, receivers=receivers, arrival=arrival, sigma=sigma):
            delay = arrival - measure_ranges(x[:2], receivers) - x[2]
            return np.concatenate([delay / sigma, x[:2] / 1000.0])

        starts = [np.append(start, 0.0) for start in [source, *rng.uniform(-80, 80, (5, 2))]]
        best = min((least_squares(residuals, start, x_scale=10.0) for start in starts), key=lambda found: found.cost)
        found, _ = locate(make_delays(receivers, arrival, sigma))
        gaps.append(np.linalg.norm(found - best.x[:2]))
    assert np.median(gaps) < 0.001
    assert np.quantile(gaps, 0.95) < 0.01


def test_covariance_is_the_inverse_of_the_information():
    receivers = np.array([[0.0, 20.0], [20.0, 0.0], [-20.0, 0.0], [0.0, -20.0]])
    arrival, sigma = measure_ranges(np.zeros(2), receivers), np.full(4, 0.1)
    _, factor = locate(make_delays(receivers, arrival, sigma))
    # Source in the middle of a cross: information 2 / sigma^2 about each axis, and the prior's.
    expected = 1.0 / (2.0 / 0.1**2 + 1e-6)
    np.testing.assert_allclose(compute_covariance(factor), [expected, expected, 0.0], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    first=st.floats(0.01, 100.0), slope=st.floats(-3.0, 3.0), last=st.floats(0.01, 100.0),
    error=st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
)  # fmt: skip
def test_factor_covariance_and_whitening_agree(first, slope, last, error):
    factor = torch.tensor([first, slope * first, last], dtype=torch.float64)
    upper = np.array([[first, slope * first], [0.0, last]])
    inverse = np.linalg.inv(upper.T @ upper)
    east, north, both = compute_covariance(factor).numpy()
    np.testing.assert_allclose([[east, both], [both, north]], inverse, rtol=1e-6, atol=1e-9 * np.abs(inverse).max())
    whitened = apply_factor(factor, torch.tensor(error, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(whitened @ whitened, np.array(error) @ upper.T @ upper @ np.array(error), rtol=1e-6)


def test_ranges_are_chords_over_the_sphere_and_arcs_on_the_ground():
    for arc_km in (10.0, 100.0, 500.0):
        angle = arc_km / EARTH_RADIUS_KM
        point = torch.tensor([[[EARTH_RADIUS_KM * math.sin(angle), 0.0]]])
        receiver = torch.zeros(1, 1, 3)
        chord, unit = compute_ranges(point, receiver, torch.zeros(1, 1))
        ground, _ = compute_ranges(point, receiver, torch.ones(1, 1))
        assert float(chord) == pytest.approx(2.0 * EARTH_RADIUS_KM * math.sin(angle / 2.0), rel=4e-6)
        assert float(ground) == pytest.approx(arc_km, rel=4e-6)
        assert unit[0, 0, 0, 0] == pytest.approx(1.0, abs=2e-3)


def test_late_arrival_cost_follows_the_exponentially_modified_normal():
    residual = np.linspace(-0.3, 3.0, 200)
    sigma = 0.05
    cost, slope, curvature, probability = (
        item.numpy() for item in score_late_arrivals(torch.tensor(residual), torch.full((200,), sigma).double())
    )
    mean = LATE_MEAN_KM
    late = exponnorm.pdf(residual, mean / sigma, scale=sigma)
    direct = np.exp(-0.5 * (residual / sigma) ** 2) / (sigma * np.sqrt(2.0 * np.pi))
    expected = -2.0 * np.log((1 - LATE_FRACTION) * direct + LATE_FRACTION * late)
    assert np.abs(cost - expected)[residual > -0.1].max() < 0.25  # the logistic stands in for the normal tail
    np.testing.assert_allclose(np.gradient(cost, residual)[1:-1], 2.0 * slope[1:-1], atol=0.06 * np.abs(slope).max())
    assert (curvature > 0).all()
    assert probability[residual > 0.3].min() > 0.99
    assert probability[np.abs(residual) < 0.02].max() < 0.2


@pytest.mark.parametrize(("num_receivers", "num_late", "largest_km"), [(6, 1, 2.0), (7, 2, 6.0)])
def test_late_arrivals_are_found(num_receivers, num_late, largest_km):
    """Each of two hides the other from a search that leaves out one at a time."""
    rng = make_rng(num_late)
    plain, robust = [], []
    for _ in range(30):
        receivers, source = rng.uniform(-40, 40, (num_receivers, 2)), rng.uniform(-20, 20, 2)
        sigma = np.full(num_receivers, 0.05)
        arrival = measure_ranges(source, receivers) + sigma * rng.normal(size=num_receivers)
        arrival[rng.choice(num_receivers, num_late, replace=False)] += rng.uniform(2.0, largest_km, num_late)
        delays, solver = make_delays(receivers, arrival, sigma), GaussNewton()
        modes = solver.search(delays, torch.tensor([30.0]))
        states, _, costs = solver.search_late(delays, torch.tensor(sigma, dtype=torch.float32)[None], modes)
        robust.append(np.linalg.norm(states[0, costs[0].argmin()].numpy() - source))
        plain.append(np.linalg.norm(modes[0, 0].numpy() - source))
    assert_below(np.median(robust) / np.median(plain), 0.15, "median error over that of least squares")
    assert_below(np.quantile(robust, 0.8) / np.quantile(plain, 0.8), 0.5, "the same of the worst fifth")


def test_the_search_for_late_arrivals_ends_where_twenty_times_the_steps_end():
    sessions = simulate_observations(
        SimulationSpec(seed=shift_seed(9), min_receivers=6, blocked_fraction=0.5, blocked_excess_s=1e-5),
        np.arange(400),
        "italian",
    )
    session = take_apart(torch.from_numpy(assemble_table(sessions).receivers))
    wide = torch.stack([0.5 / session.spread, torch.zeros_like(session.spread), 0.5 / session.spread], -1)
    delays = state_delays(session, torch.zeros(len(sessions), 2), wide)
    modes = GaussNewton().search(delays, session.spread)
    few, many = (
        GaussNewton(num_late_iterations=steps).search_late(delays, session.sigma, modes)[2].amin(1)
        for steps in ((4, 8), (40, 200))
    )
    assert_below(float((few > many + 1.0).float().mean()), 0.05, "share of sessions with a worse end")


def test_levels_choose_between_two_solutions_that_explain_the_delays_alike():
    receivers = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]])
    right = 0
    rng = make_rng(5)
    for _ in range(20):
        source = rng.uniform(-30, 60, 2)
        arrival = measure_ranges(source, receivers)
        level = torch.tensor(-30.0 * np.log10(arrival), dtype=torch.float32)[None]
        delays = make_delays(receivers, arrival, np.full(3, 0.01))._replace(level=level, heard=torch.ones(1, 3))
        right += np.linalg.norm(locate(delays)[0] - source) < 1.0
    assert right >= 18


def test_gradient_reaches_arrivals_weights_and_prior_and_is_the_solution_s_own():
    rng = make_rng(2)
    receivers, source = rng.uniform(-40, 40, (5, 2)), np.array([5.0, -3.0])
    arrival = measure_ranges(source, receivers) + 0.05 * rng.normal(size=5)
    delays = make_delays(receivers, arrival, np.full(5, 0.05), prior_sigma=20.0)
    fields = {name: getattr(delays, name).clone().requires_grad_() for name in ("arrival", "weight", "mean", "factor")}
    delays = delays._replace(**fields)
    solver = GaussNewton()
    position, factor = solver(delays, solver.search(delays, torch.tensor([30.0])))
    (position.sum() + factor.sum()).backward()
    assert all(torch.isfinite(item.grad).all() and item.grad.abs().sum() > 0 for item in fields.values())
    (slope,) = torch.autograd.grad(
        solver(delays, solver.search(delays, torch.tensor([30.0])))[0][0, 0], fields["arrival"]
    )
    moved = arrival.copy()
    moved[1] += 0.5
    shifted = make_delays(receivers, moved, np.full(5, 0.05), prior_sigma=20.0)
    assert float(slope[0, 1]) == pytest.approx((locate(shifted)[0] - position[0].detach().numpy())[0] / 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("receivers", "arrival"),
    [
        (np.zeros((5, 2)), np.zeros(5)),  # all at one point
        (np.stack([np.arange(5.0), np.zeros(5)], 1), np.arange(5.0)),  # on one line
        (make_rng(0).uniform(-50, 50, (5, 2)), np.array([0.0, 9e3, -9e3, 4e4, 1.0])),  # impossible
        (np.array([[0.0, 0.0]]), np.array([0.0])),  # alone
        (make_rng(0).uniform(-1e3, 1e3, (5, 2)), np.zeros(5)),
    ],
)
def test_nothing_but_finite_numbers_whatever_comes_in(receivers, arrival):
    sigma = np.full(len(receivers), 3e-4)
    delays = make_delays(receivers, arrival, sigma)
    delays = delays._replace(arrival=delays.arrival.requires_grad_())
    solver = GaussNewton()
    modes = solver.search(delays, torch.tensor([30.0]))
    found = solver.search_late(delays, torch.tensor(sigma, dtype=torch.float32)[None], modes)
    position, factor = solver(delays, modes)
    assert all(torch.isfinite(item).all() for item in (*found, position, factor))
    (position.sum() + factor.sum()).backward()
    assert torch.isfinite(delays.arrival.grad).all()


def test_rows_that_inform_one_direction_only_stay_solvable_in_float32():
    a = torch.tensor([[3e3, 3e3, 1e-3, 0.0]])
    b = torch.tensor([[1e-4, 1e-4, 0.0, 1e-3]])
    east, north, factor = solve_rows(a, b, torch.tensor([[3e3, 3e3, 0.0, 0.0]]))
    assert float(east) == pytest.approx(1.0, rel=1e-5)
    assert abs(float(north)) < 0.1
    assert (factor[..., (0, 2)] > 0).all()


def test_the_level_cost_is_the_likelihood_of_a_power_drawn_with_the_law():
    rng = make_rng(4)
    receivers = rng.uniform(-50, 50, (5, 2))
    law = LevelLaw(sigma_db=6.0, power_db=-40.0, power_sigma_db=5.0)
    level = rng.normal(-90.0, 15.0, 5)
    delays = make_delays(receivers, np.zeros(5), np.ones(5))
    heard = torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0]])
    delays = delays._replace(level=torch.tensor(level[None], dtype=torch.float32), heard=heard)
    states = rng.uniform(-50, 50, (6, 2))
    found = compute_level_cost(torch.tensor(states[None], dtype=torch.float32), delays, law)[0].numpy()
    kept = heard[0].numpy() > 0
    covariance = 36.0 * np.eye(4) + 25.0
    expected = [
        -2.0
        * multivariate_normal.logpdf(
            level[kept], -40.0 - 10.0 * LEVEL_EXPONENT * np.log10(measure_ranges(point, receivers)[kept]), covariance
        )
        for point in states
    ]
    np.testing.assert_allclose(found - found[0], np.array(expected) - expected[0], rtol=1e-3, atol=2e-3)
