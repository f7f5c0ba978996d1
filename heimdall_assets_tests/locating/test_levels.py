from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.locating.levels import locate_by_levels
from heimdall_assets.locating.path_loss import MIN_POWER_SIGMA_DB, LevelModel, fit_level_model
from heimdall_assets.locating.simple import locate_prior_centre, locate_strongest_receiver, locate_weighted_centroid
from heimdall_assets_tests.locating.fields import HEXAGON, compute_coverage, compute_errors_m, make_sessions
from heimdall_assets_tests.variation import assert_above, assert_below, make_rng

RECEIVERS = np.concatenate([HEXAGON, 0.45 * HEXAGON[::2], [[0.0, 0.0]]])


def scatter(num, seed=1, half_m=30e3):
    return make_rng(seed).uniform(-half_m, half_m, (num, 2))


def make_heard(num, seed=1, gains_db=None, **fields):
    sessions = make_sessions(RECEIVERS, scatter(num, seed), seed=seed, **fields)
    if gains_db is not None:
        sessions = replace(sessions, level_db=sessions.level_db + np.tile(gains_db, num))
    return sessions


def test_exponent_shadowing_power_and_gains_are_recovered():
    gains = make_rng(5).normal(0, 8, len(RECEIVERS))
    model = fit_level_model(make_heard(400, gains_db=gains, exponent=2.6, shadowing_db=5.0))
    assert_below(abs(model.path_loss.exponent - 2.6), 0.1, "exponent, off 2.6")
    assert_below(abs(model.path_loss.shadowing_db - 5.0), 0.3, "shadowing, off 5 dB")
    assert model.power_sigma_db == MIN_POWER_SIGMA_DB
    fitted = np.array([model.offset_db[f"station-{i}"] for i in range(len(RECEIVERS))])
    assert_below(np.abs(fitted - gains + gains.mean()).max(), 1.2, "worst gain, in dB")
    # The model adds up: what the fit calls power holds the mean gain.
    power_db = -30.0 + gains.mean() - 10 * (2.6 - model.path_loss.exponent) * 4.3
    assert_below(abs(model.power_db - power_db), 2.0, "power, in dB")


def test_sources_of_different_power_are_seen_as_such():
    sessions = make_heard(400, shadowing_db=3.0)
    power = np.repeat(make_rng(0).normal(0, 15, 400), len(RECEIVERS))
    model = fit_level_model(replace(sessions, level_db=sessions.level_db + power))
    assert_below(abs(model.power_sigma_db / 15.0 - 1.0), 0.15, "spread of power, off 15 dB")


def test_too_few_levels_teach_nothing():
    assert fit_level_model(make_heard(1)) == LevelModel()
    unknown = make_heard(30)
    assert fit_level_model(replace(unknown, source_latitude=np.full(30, np.nan))) == LevelModel()


def test_rarely_heard_stations_have_no_offset():
    sessions = make_heard(30)
    level = sessions.level_db.reshape(30, -1).copy()
    level[5:, 3] = np.nan
    model = fit_level_model(replace(sessions, level_db=level.ravel()))
    assert "station-3" not in model.offset_db
    assert len(model.offset_db) == len(RECEIVERS) - 1


def test_without_shadowing_the_source_is_found():
    sessions = make_heard(100, shadowing_db=0.1)
    found = locate_by_levels(sessions, make_heard(100, seed=2, shadowing_db=0.1))
    assert_below(np.median(compute_errors_m(sessions, found)), 300.0, "median error, in m")
    assert found.method == "log_distance"


def test_a_reference_makes_estimates_better_and_ellipses_honest():
    gains = make_rng(5).normal(0, 8, len(RECEIVERS))
    sessions, reference = (make_heard(1500, s, gains, shadowing_db=6.0) for s in (1, 2))
    alone, taught = locate_by_levels(sessions), locate_by_levels(sessions, reference)
    medians = [np.median(compute_errors_m(sessions, found)) for found in (alone, taught)]
    assert_below(medians[1] / medians[0], 0.8, "median taught over alone")
    assert_above(compute_coverage(sessions, alone), 0.85, "coverage alone")
    assert_above(compute_coverage(sessions, taught), 0.86, "coverage taught, from below")
    assert_below(compute_coverage(sessions, taught), 0.96, "coverage taught")


def test_likelihood_beats_centroid_and_centroid_beats_centre():
    sessions, reference = make_heard(250, shadowing_db=6.0), make_heard(250, 2, shadowing_db=6.0)
    likelihood, strongest, centroid, centre = (
        np.median(compute_errors_m(sessions, estimate(sessions, reference)))
        for estimate in (locate_by_levels, locate_strongest_receiver, locate_weighted_centroid, locate_prior_centre)
    )
    assert_below(likelihood / strongest, 1.0, "likelihood over strongest")
    assert_below(likelihood / centroid, 1.0, "likelihood over centroid")
    assert_below(centroid / centre, 1.0, "centroid over centre")


def test_an_infinite_level_is_no_level():
    sessions = make_heard(20, shadowing_db=4.0)
    level = sessions.level_db.reshape(20, -1).copy()
    level[:, 4] = -np.inf
    infinite = locate_by_levels(replace(sessions, level_db=level.ravel()))
    level[:, 4] = np.nan
    missing = locate_by_levels(replace(sessions, level_db=level.ravel()))
    np.testing.assert_array_equal(infinite.latitude, missing.latitude)
    assert np.isfinite(infinite.latitude).all()


def test_two_levels_are_too_few_and_one_point_is_none():
    sessions = make_heard(2)
    level = sessions.level_db.reshape(2, -1).copy()
    level[0, 2:] = np.nan
    latitude, longitude = (x.reshape(2, -1).copy() for x in (sessions.receiver_latitude, sessions.receiver_longitude))
    latitude[1], longitude[1] = 45.0, 8.0
    found = locate_by_levels(
        replace(
            sessions,
            level_db=level.ravel(),
            receiver_latitude=latitude.ravel(),
            receiver_longitude=longitude.ravel(),
        )
    )
    assert found.refused.all()
    assert np.isnan(found.latitude).all()


def test_the_strongest_receiver_is_the_one_and_equals_share():
    sessions = make_sessions(HEXAGON, 0.9 * HEXAGON)
    found = locate_strongest_receiver(sessions)
    np.testing.assert_allclose(compute_errors_m(sessions, found), 4e3, rtol=1e-3)
    alike = replace(sessions, level_db=np.full(36, -50.0))
    apart = compute_errors_m(make_sessions(HEXAGON, np.zeros((6, 2))), locate_strongest_receiver(alike))
    assert apart.max() < 30.0


def test_levels_far_apart_make_the_centroid_the_strongest_receiver():
    sessions = make_sessions(HEXAGON, scatter(5))
    level = np.full((5, 6), -3000.0)
    level[:, 2] = 3000.0
    sessions = replace(sessions, level_db=level.ravel())
    centroid, strongest = locate_weighted_centroid(sessions), locate_strongest_receiver(sessions)
    np.testing.assert_allclose(centroid.latitude, strongest.latitude, atol=1e-6)


def test_simple_estimators_refuse_what_they_cannot_see():
    silent = make_sessions(HEXAGON, scatter(2), level_db=np.full(12, np.nan))
    assert locate_strongest_receiver(silent).refused.all()
    assert locate_weighted_centroid(silent).refused.all()
    assert not locate_prior_centre(silent).refused.any()
    empty = replace(
        silent.take(np.array([0])),
        offsets=np.array([0, 0]),
        **{
            name: value[:0]
            for name, value in vars(silent).items()
            if isinstance(value, np.ndarray) and len(value) == 12
        },
    )
    assert locate_prior_centre(empty).refused.all()
    assert not locate_prior_centre(empty, make_heard(30)).refused.any()


@pytest.mark.parametrize("estimate", [locate_prior_centre, locate_strongest_receiver, locate_weighted_centroid])
def test_simple_ellipses_learned_from_a_reference_hold_what_they_promise(estimate):
    sessions, reference = make_heard(1500, shadowing_db=6.0), make_heard(1500, 2, shadowing_db=6.0)
    coverage = compute_coverage(sessions, estimate(sessions, reference))
    assert_above(coverage, 0.82, "coverage")
    assert coverage < 1.0
