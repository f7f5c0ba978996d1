"""Propagation against closed forms and published values."""

import numpy as np
import pytest

from heimdall_assets.simulation.propagation import (
    Echoes,
    ShadowingField,
    compute_free_space_loss_db,
    compute_log_distance_loss_db,
    compute_loss_db,
    compute_noise_dbm,
    compute_two_ray_loss_db,
    draw_echoes,
    draw_excess_s,
)
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.variation import make_rng


def test_free_space_at_one_kilometre_and_one_gigahertz():
    assert compute_free_space_loss_db(1000.0, 1e9) == pytest.approx(92.45, abs=0.01)  # ITU-R P.525: 92.4 dB


@pytest.mark.parametrize("exponent", [2.5, 3.0, 4.0])
def test_log_distance_slope_and_start(exponent):
    distance_m = np.array([1e3, 1e4, 1e5])
    loss_db = compute_log_distance_loss_db(distance_m, 145.5e6, exponent)
    np.testing.assert_allclose(np.diff(loss_db), 10.0 * exponent)
    assert loss_db[0] == pytest.approx(compute_free_space_loss_db(1e3, 145.5e6))
    near_m = np.array([50.0, 500.0])
    np.testing.assert_allclose(
        compute_log_distance_loss_db(near_m, 145.5e6, exponent), compute_free_space_loss_db(near_m, 145.5e6)
    )


def test_two_ray_falls_by_40_db_a_decade_far_away():
    distance_m = np.array([2e4, 2e5])
    loss_db = compute_two_ray_loss_db(distance_m, 145.5e6, 5.0, 30.0)
    assert np.diff(loss_db)[0] == pytest.approx(40.0, abs=0.1)
    expected = 40.0 * np.log10(2e5) - 20.0 * np.log10(5.0 * 30.0)
    assert loss_db[1] == pytest.approx(expected, abs=0.1)
    near_m = np.linspace(50.0, 300.0, 500)
    ripple_db = compute_two_ray_loss_db(near_m, 1.0e9, 5.0, 30.0) - compute_free_space_loss_db(near_m, 1.0e9)
    assert ripple_db.min() == pytest.approx(-6.0, abs=0.5)  # both rays in phase
    assert ripple_db.max() > 6.0


def test_spec_chooses_the_law():
    spec = SimulationSpec()
    laws = {
        name: compute_loss_db(5e4, spec.model_copy(update={"path_loss": name}))
        for name in ("log_distance", "free_space", "two_ray")
    }
    assert laws["free_space"] < laws["log_distance"]
    assert laws["free_space"] == pytest.approx(compute_free_space_loss_db(5e4, spec.carrier_hz))
    assert laws["two_ray"] == pytest.approx(compute_two_ray_loss_db(5e4, spec.carrier_hz, 5.0, 30.0))


def test_noise_of_a_channel():
    assert compute_noise_dbm(0.0) == pytest.approx(-133.03, abs=0.01)  # k T B, 290 K, 12.5 kHz
    assert compute_noise_dbm(5.0, -128.03) == pytest.approx(-125.02, abs=0.01)  # two equal powers: 3 dB more
    assert compute_noise_dbm(5.0, -113.0) == pytest.approx(-112.86, abs=0.01)


def test_shadowing_has_its_sigma_and_forgets_exponentially():
    generator = make_rng(0)
    origin = np.zeros(2)
    here = np.array([[0.0, 0.0], [2000.0, 0.0], [0.0, 6000.0]])
    values = np.array([ShadowingField.draw(generator, 6.6).evaluate_db(origin, here) for _ in range(3000)])
    np.testing.assert_allclose(values.std(axis=0), 6.6, rtol=0.04)
    assert abs(values.mean()) < 0.3
    correlation = np.corrcoef(values.T)
    assert correlation[0, 1] == pytest.approx(np.exp(-1.0), abs=0.05)
    assert correlation[0, 2] == pytest.approx(np.exp(-3.0), abs=0.05)


def test_shadowing_is_a_landscape():
    """The same place has the same shadow; a step of ten metres changes it little."""
    field = ShadowingField.draw(make_rng(1), 6.6)
    here = np.array([[1000.0, 2000.0]])
    first = field.evaluate_db(np.array([5e4, 1e4]), here)
    np.testing.assert_array_equal(first, field.evaluate_db(np.array([5e4, 1e4]), here))
    assert abs(field.evaluate_db(np.array([5e4, 1.001e4]), here) - first)[0] < 3.0


@pytest.mark.parametrize("k_db", [0.0, 10.0])
def test_echoes_share_the_power_by_the_rician_factor(k_db):
    echoes = draw_echoes(make_rng(2), k_db, 1e-6)
    scattered = np.square(np.abs(echoes.amplitude)).sum()
    assert echoes.direct**2 / scattered == pytest.approx(10.0 ** (k_db / 10.0))
    assert echoes.direct**2 + scattered == pytest.approx(1.0)
    delays = np.concatenate([draw_echoes(make_rng(seed), k_db, 1e-6).delay_s for seed in range(300)])
    assert delays.mean() == pytest.approx(1e-6, rel=0.1)
    assert delays.std() == pytest.approx(1e-6, rel=0.15)


def test_one_echo_is_a_comb():
    echoes = Echoes(0.8, np.array([1e-3]), np.array([0.6 + 0j]))
    response = echoes.compute_response(np.array([0.0, 500.0, 250.0]))
    np.testing.assert_allclose(response, [1.4, 0.2, 0.8 - 0.6j], atol=1e-12)


def test_blocked_receivers_are_late_and_as_many_as_asked():
    spec = SimulationSpec(blocked_fraction=0.3, blocked_excess_s=1e-6)
    blocked, excess_s = draw_excess_s(make_rng(3), spec, 20_000)
    assert blocked.mean() == pytest.approx(0.3, abs=0.015)
    assert np.all(excess_s[~blocked] == 0.0)
    assert excess_s[blocked].mean() == pytest.approx(1e-6, rel=0.05)
    assert np.median(excess_s[blocked]) == pytest.approx(np.log(2.0) * 1e-6, rel=0.06)
