"""Ellipses of the session model where arrivals hardly tell how far a source is, and where two places explain it."""

import numpy as np
import pytest
import torch

from heimdall_assets.learning.session_model.graph import turn_covariance
from heimdall_assets.learning.session_model.physics import (
    AREA_TAIL,
    Delays,
    compute_cost,
    compute_covariance,
    compute_prior_cost,
    compute_step,
)
from heimdall_assets.learning.session_model.ridge import QUANTILE_90, reach_others, widen_ridge
from heimdall_assets.learning.session_model.task import NetworkTask
from heimdall_assets.locating.ellipses import compute_mahalanobis_square
from heimdall_assets.signals.geodesy import LocalFrame
from heimdall_assets.specs import ModelSpec
from heimdall_assets_tests.locating.fields import HEXAGON, make_sessions
from heimdall_assets_tests.variation import assert_above, assert_below, make_rng, shift_seed

STATISTICS = {
    "feature_shape": None,
    "level_prior": None,
    "pairs": None,
    "level_law": {"sigma_db": 8.0, "power_db": 0.0, "power_sigma_db": 100.0, "late_loss_db": 0.0},
    "trust": 0.0,
}
PENTAGON = 60e3 * np.stack([np.cos(np.arange(5) * 1.2566), np.sin(np.arange(5) * 1.2566)], axis=1)


def predict(sessions):
    task = NetworkTask()
    with torch.random.fork_rng(devices=[]):
        network = task.build_network(ModelSpec(use_spectrograms=False, width=8, num_layers=0, num_heads=1), STATISTICS)
    return task.predict(network.eval(), sessions, STATISTICS, {})


def make_outside(distance_m, num, sigma_s):
    angle = make_rng(7).uniform(0.0, 2.0 * np.pi, num)
    sources = distance_m * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    level = np.full(num * len(PENTAGON), np.nan)
    return make_sessions(PENTAGON, sources, sigma_s=sigma_s, level_db=level, seed=shift_seed(3))


@pytest.mark.parametrize("sigma_s", [30e-6, 76e-9], ids=["gnss", "calibrated"])
def test_an_untrained_model_holds_the_truth_at_any_distance(sigma_s):
    for radii in (0.5, 1.0, 2.0, 4.0, 8.0):
        sessions = make_outside(radii * 60e3, 150, sigma_s)
        held = compute_mahalanobis_square(sessions, predict(sessions)) < QUANTILE_90
        assert_above(np.mean(held), 0.80, f"coverage, {radii} radii")
        assert_below(np.mean(held), 0.995, f"coverage, {radii} radii, from above")


def make_delays(sigma_km, receivers=HEXAGON / 1e3, source=(0.0, 300.0)) -> Delays:
    """Return one session without noise, its prior round and 100 km wide."""
    place = torch.tensor(np.concatenate([receivers, np.zeros((len(receivers), 1))], axis=1)[None]).float()
    arrival = (torch.tensor(source) - place[..., :2]).square().sum(-1).sqrt()
    there = torch.ones_like(arrival)
    zero = torch.zeros_like(arrival)
    factor = torch.tensor([[0.01, 0.0, 0.01]])
    return Delays(place, zero, arrival, there / sigma_km**2, torch.zeros(1, 2), factor, zero, zero)


def test_what_arrivals_tell_sharply_stays_as_it_is():
    delays, place = make_delays(1e-3), torch.tensor([[0.0, 30.0]])
    factor = compute_step(place.unsqueeze(1), delays, None)[1][:, 0]
    assert torch.equal(widen_ridge(place, factor, delays), factor)


def test_a_ridge_is_longer_than_the_curvature_at_one_place_says():
    delays, place = make_delays(9.0), torch.tensor([[0.0, 150.0]])
    factor = compute_step(place.unsqueeze(1), delays, None)[1][:, 0]
    wide, narrow = (compute_covariance(item)[0] for item in (widen_ridge(place, factor, delays), factor))
    assert wide[1] > 4.0 * narrow[1]  # to the north, where the source is
    assert wide[0] < 0.2 * wide[1]


def test_receivers_at_one_point_have_no_ridge():
    delays, place = make_delays(1.0, receivers=np.zeros((4, 2))), torch.tensor([[0.0, 20.0]])
    factor = delays.factor
    assert torch.equal(widen_ridge(place, factor, delays), factor)


def test_the_ellipse_reaches_the_mirror_image_and_not_a_place_found_twice():
    line = np.stack([np.linspace(-60.0, 60.0, 4), np.zeros(4)], axis=1)
    delays, place = make_delays(0.02, receivers=line, source=(10.0, 50.0)), torch.tensor([[10.0, 50.0]])
    modes = torch.tensor([[[10.0, 50.0], [10.0, -50.0], [10.0001, 50.0]]])
    factor = compute_step(place.unsqueeze(1), delays, None)[1][:, 0]
    cost = compute_cost(modes, delays)
    both = compute_covariance(reach_others(place, factor, modes, delays, cost))[0]
    assert float(both[1]) == pytest.approx(0.5 * 100.0**2, rel=0.05)  # half of the probability, 100 km away
    alone = reach_others(place, factor, modes[:, ::2], delays, cost[:, ::2])
    torch.testing.assert_close(alone, factor, rtol=1e-3, atol=1e-5)


def test_the_prior_has_the_tails_of_a_cauchy_distribution():
    delays = make_delays(1.0)
    state = torch.tensor([[[0.0, 0.0], [0.0, 100.0], [600.0, 800.0]]])
    square = torch.tensor([[0.0, 1.0, 100.0]])
    torch.testing.assert_close(
        compute_prior_cost(state, delays), 3.0 * (square / AREA_TAIL).log1p(), rtol=1e-5, atol=1e-6
    )


def test_covariances_far_away_are_turned_with_the_meridians():
    origin, place = torch.tensor([[46.0, 8.0]], dtype=torch.float64), torch.tensor([[46.5, 15.0]], dtype=torch.float64)
    # A kilometre to the north of the place, seen from above the origin, and back.
    frame = LocalFrame(46.0, 8.0)
    here, there = (np.array(frame.to_local(lat, 15.0)[:2]) for lat in (46.5, 46.509))
    north = torch.tensor((there - here) / 1e3)
    turned = turn_covariance(
        torch.stack([north[0] ** 2, north[1] ** 2, north[0] * north[1]])[None] * 1e6, place, origin
    )
    assert float(turned[0, 0]) < 1e-3 * float(turned[0, 1])  # all of it is north again
    assert float(turned[0, 1]) == pytest.approx(1e6, rel=0.02)
    still = torch.tensor([[2.0, 1.0, 0.5]])
    torch.testing.assert_close(turn_covariance(still, origin, origin), still)
