"""Calibration: known factors come back, and conformal coverage holds for any distribution at any size."""

import numpy as np
import pytest

from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.calibration import (
    fit_calibration,
    fit_conformal_scale,
    fit_variance_scale,
    scale_covariance,
)
from heimdall_assets.evaluation.residuals import compute_chi_square_quantile, compute_residuals
from heimdall_assets_tests.evaluation.evaluated import (
    draw_predictions,
    make_sessions,
    place_answers,
    spread_covariances,
)
from heimdall_assets_tests.variation import assert_below, make_rng


def split(sessions, predictions, rows):
    from dataclasses import replace

    return sessions.take(rows), replace(
        predictions,
        latitude=predictions.latitude[rows],
        longitude=predictions.longitude[rows],
        covariance_m2=predictions.covariance_m2[rows],
    )


def covers(sessions, predictions, level):
    residuals = compute_residuals(sessions, predictions)
    return residuals.mahalanobis_squared <= compute_chi_square_quantile(level)


@pytest.mark.parametrize("stated_scale", [0.04, 1.0, 9.0])
def test_a_known_misstatement_comes_back_as_its_inverse(stated_scale):
    sessions = make_sessions(4000, num_receivers=1)
    predictions = draw_predictions(sessions, spread_covariances(4000), stated_scale=stated_scale)
    variance, conformal = fit_variance_scale(predictions, sessions), fit_conformal_scale(predictions, sessions, 0.9)
    assert_below(abs(variance * stated_scale - 1.0), 0.06, "variance factor, off its inverse")
    assert_below(abs(conformal * stated_scale - 1.0), 0.1, "conformal factor, off its inverse")


def test_without_label_errors_the_likeliest_factor_is_the_mean_squared_distance():
    sessions = make_sessions(300, num_receivers=1)
    predictions = draw_predictions(sessions, spread_covariances(300), stated_scale=0.3)
    expected = compute_residuals(sessions, predictions).mahalanobis_squared.mean() / 2
    assert fit_variance_scale(predictions, sessions) == pytest.approx(expected, rel=1e-6)


def test_the_label_error_is_not_charged_to_the_model():
    sessions = make_sessions(6000, num_receivers=1, error_margin_m=150.0)
    predictions = draw_predictions(sessions, spread_covariances(6000), stated_scale=0.25, label_m=150.0)
    assert_below(abs(fit_variance_scale(predictions, sessions) / 4.0 - 1.0), 0.1, "variance factor, off 4")
    scale = fit_conformal_scale(predictions, sessions, 0.9)
    assert covers(sessions, scale_covariance(predictions, scale), 0.9).mean() == pytest.approx(0.9, abs=0.001)


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("num_calibration", [9, 20, 57])
def test_conformal_coverage_holds_at_any_size_for_errors_that_are_not_gaussian(level, num_calibration):
    """Over many draws the mean coverage of new sessions lies in [level, level + 1 / (n + 1)]."""
    num_rounds, num_new = 400, 60
    size = num_calibration + num_new
    total = num_rounds * size
    sessions = make_sessions(total, num_receivers=1)
    generator = make_rng(31)
    # Student's t with 2 degrees of freedom, skewed: no Gaussian anywhere.
    east, north = generator.standard_t(2.0, (2, total)) * 100.0
    predictions = place_answers(sessions, np.clip(east**2 / 50.0, 0, 5e5), np.clip(north, -5e5, 5e5),
                                np.tile([100.0**2, 60.0**2, 1500.0], (total, 1)))  # fmt: skip
    covered = []
    for index in range(num_rounds):
        rows = np.arange(index * size, (index + 1) * size)
        fitted = fit_conformal_scale(*reversed(split(sessions, predictions, rows[:num_calibration])), level)
        new_sessions, new = split(sessions, predictions, rows[num_calibration:])
        covered.append(covers(new_sessions, scale_covariance(new, fitted), level).mean())
    slack = 4 * np.std(covered) / np.sqrt(num_rounds)
    assert level - slack <= np.mean(covered) <= level + 1 / (num_calibration + 1) + slack


def test_the_factor_is_the_smallest_that_covers_its_rank():
    sessions = make_sessions(19, num_receivers=1)
    predictions = draw_predictions(sessions, spread_covariances(19))
    scale = fit_conformal_scale(predictions, sessions, 0.9)  # rank 18 of 19
    assert covers(sessions, scale_covariance(predictions, scale * (1 + 1e-9)), 0.9).sum() == 18
    assert covers(sessions, scale_covariance(predictions, scale * (1 - 1e-9)), 0.9).sum() == 17


def test_too_few_sessions_promise_nothing():
    sessions = make_sessions(8, num_receivers=1)
    predictions = draw_predictions(sessions, spread_covariances(8))
    with pytest.raises(InvalidInput, match="found 8 sessions, expected at least 9 for a 90 % ellipse"):
        fit_conformal_scale(predictions, sessions, 0.9)
    assert fit_calibration(predictions, sessions)["method"] == "variance"
    nine = make_sessions(9, num_receivers=1)
    assert fit_calibration(draw_predictions(nine, spread_covariances(9)), nine)["method"] == "conformal"


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
def test_a_level_outside_is_refused(level):
    sessions = make_sessions(20, num_receivers=1)
    with pytest.raises(InvalidInput, match="conformal level"):
        fit_conformal_scale(draw_predictions(sessions, spread_covariances(20)), sessions, level)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_is_none_is_refused(scale):
    sessions = make_sessions(2, num_receivers=1)
    with pytest.raises(InvalidInput, match="covariance scale"):
        scale_covariance(draw_predictions(sessions, spread_covariances(2)), scale)


def test_nothing_to_fit_on_is_refused():
    sessions = make_sessions(20, num_receivers=1)
    unsure = place_answers(sessions, np.ones(20), np.ones(20), np.full((20, 3), np.nan))
    with pytest.raises(InvalidInput, match="found no session with truth and covariance"):
        fit_variance_scale(unsure, sessions)
    exact = place_answers(sessions, np.zeros(20), np.zeros(20), np.tile([1.0, 1.0, 0.0], (20, 1)))
    with pytest.raises(InvalidInput, match="found every error zero"):
        fit_variance_scale(exact, sessions)


def test_scaling_leaves_positions_alone():
    sessions = make_sessions(3, num_receivers=1)
    predictions = draw_predictions(sessions, spread_covariances(3))
    scaled = scale_covariance(predictions, 4.0)
    assert np.array_equal(scaled.latitude, predictions.latitude)
    assert scaled.covariance_m2 == pytest.approx(4 * predictions.covariance_m2)
