import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import CannotLocate, InvalidInput
from heimdall_assets.learning.receiver_model.frame import (
    Fused,
    compute_channel_statistics,
    compute_sigma_scale,
    find_sessions,
    fit_variance_scale,
    fuse_receivers,
    read_features,
    standardise,
    to_normalised,
    to_predictions,
)
from heimdall_assets_tests.learning.learning_cases import make_sessions
from heimdall_assets_tests.variation import make_rng

STATISTICS = {
    "feature_shape": [3, 32, 32],
    "feature_mean_db": [-60.0, -61.0, -62.0],
    "feature_std_db": [3.0, 4.0, 5.0],
    "centre_deg": [45.0, 8.0],
    "scale_m": [30_000.0, 20_000.0],
}


def test_one_receiver_is_its_own_fusion() -> None:
    fused = fuse_receivers(np.array([[1.0, 2.0]]), np.array([[0.5, 0.25]]), np.array([0]), 1)
    assert fused.position.tolist() == [[1.0, 2.0]]
    assert fused.variance.tolist() == [[0.5, 0.25]]
    assert fused.covariance.tolist() == [0.0]


def test_equal_receivers_bring_no_false_precision() -> None:
    fused = fuse_receivers(np.full((7, 2), 1.0), np.full((7, 2), 0.5), np.zeros(7, dtype=int), 1)
    assert fused.variance == pytest.approx(np.full((1, 2), 0.5))


def test_precise_receiver_leads_and_disagreement_widens() -> None:
    fused = fuse_receivers(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 1.0], [0.25, 1.0]]), np.array([0, 0]), 1)
    # weights 0.2 and 0.8; harmonic mean 0.4; spread 0.2 x 0.8^2 + 0.8 x 0.2^2
    assert fused.position == pytest.approx(np.array([[0.8, 0.0]]))
    assert fused.variance == pytest.approx(np.array([[0.4 + 0.16, 1.0]]))


def test_session_without_receivers_is_unknown() -> None:
    fused = fuse_receivers(np.zeros((1, 2)), np.ones((1, 2)), np.array([1]), 3)
    assert np.isnan(fused.position).all(axis=1).tolist() == [True, False, True]
    assert to_predictions(fused, STATISTICS, "x").refused.tolist() == [True, False, True]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
def test_fused_covariance_is_positive(seed: int, count: int) -> None:
    rng = make_rng(seed)
    fused = fuse_receivers(
        rng.normal(size=(count, 2)), rng.uniform(0.01, 2.0, (count, 2)), np.zeros(count, dtype=int), 1
    )
    assert fused.variance[0].prod() > fused.covariance[0] ** 2


def test_normalised_and_back() -> None:
    rng = make_rng(0)
    latitude, longitude = rng.uniform(40, 50, 20), rng.uniform(0, 16, 20)
    position = to_normalised(latitude, longitude, STATISTICS)
    back = to_predictions(Fused(position, np.ones((20, 2)), np.zeros(20)), STATISTICS, "x")
    assert back.latitude == pytest.approx(latitude, abs=1e-10)
    assert back.longitude == pytest.approx(longitude, abs=1e-10)


def test_sigma_in_metres_is_the_distance_it_spans() -> None:
    from pyproj import Geod

    one = to_predictions(Fused(np.array([[2.0, 1.0]]), np.array([[0.01, 0.04]]), np.zeros(1)), STATISTICS, "x")
    more = to_predictions(Fused(np.array([[2.0, 1.2]]), np.ones((1, 2)), np.zeros(1)), STATISTICS, "x")
    distance = Geod(ellps="WGS84").inv(one.longitude[0], one.latitude[0], more.longitude[0], more.latitude[0])[2]
    assert np.sqrt(one.covariance_m2[0, 0]) == pytest.approx(distance, rel=1e-5)
    assert np.sqrt(one.covariance_m2[0, 1]) == pytest.approx(0.1 * 30_000.0, rel=2e-3)


def test_beyond_the_pole_is_refused() -> None:
    fused = Fused(np.array([[400.0, 0.0], [0.0, 0.0]]), np.ones((2, 2)), np.zeros(2))
    predictions = to_predictions(fused, STATISTICS, "x")
    assert predictions.refused.tolist() == [True, False]
    assert np.isnan(predictions.latitude[0])
    assert np.isnan(predictions.covariance_m2[0]).all()


def test_variance_scale_is_found() -> None:
    rng = make_rng(1)
    variance = rng.uniform(0.1, 1.0, (20_000, 2))
    error = rng.normal(size=(20_000, 2)) * np.sqrt(3.0 * variance + 0.2)
    assert fit_variance_scale(error**2, variance, np.full((20_000, 2), 0.2)) == pytest.approx(3.0, rel=0.05)


def test_channel_statistics_are_those_of_the_rows() -> None:
    sessions = make_sessions(10, seed=4)
    rows = np.array([7, 3, 11])
    mean, std, shape = compute_channel_statistics(sessions, rows)
    values = sessions.features[rows].astype(np.float64)
    assert mean == pytest.approx(values.mean(axis=(0, 2, 3)))
    assert std == pytest.approx(values.std(axis=(0, 2, 3)))
    assert shape == (3, 32, 32)


def test_standardised_training_features_have_mean_0_and_std_1() -> None:
    sessions = make_sessions(10, seed=4)
    mean, std, _ = compute_channel_statistics(sessions, np.arange(20))
    values = standardise(sessions.features, {"feature_mean_db": mean, "feature_std_db": std})
    assert values.mean(axis=(0, 2, 3)) == pytest.approx(np.zeros(3), abs=1e-4)
    assert values.std(axis=(0, 2, 3)) == pytest.approx(np.ones(3), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda features: features * 0.0, "std"),
        (lambda features: np.where(features > -50, np.nan, features), "not finite"),
        (lambda features: features[:, :, :16], "at least 32"),
    ],
)
def test_features_nothing_can_be_learned_from_are_refused(change, message: str) -> None:
    from dataclasses import replace

    sessions = make_sessions(4, seed=4)
    with pytest.raises(InvalidInput, match=message):
        compute_channel_statistics(replace(sessions, features=change(sessions.features)), np.arange(4))


def test_features_of_another_shape_or_none_are_refused() -> None:
    from dataclasses import replace

    sessions = make_sessions(4, seed=4, mels=64)
    with pytest.raises(InvalidInput, match=r"expected \[3, 32, 32\]"):
        read_features(sessions, np.arange(2), STATISTICS)
    with pytest.raises(CannotLocate, match="carry none"):
        read_features(replace(sessions, features=None), np.arange(2), STATISTICS)


def test_rows_find_their_session() -> None:
    from dataclasses import replace

    sessions = replace(make_sessions(3, seed=0), offsets=np.array([0, 2, 2, 6]))
    assert find_sessions(sessions, np.arange(6)).tolist() == [0, 0, 2, 2, 2, 2]


def test_scale_shrinks_towards_the_pole() -> None:
    south, north = compute_sigma_scale(np.array([40.0, 60.0]), STATISTICS)[:, 1]
    assert north / south == pytest.approx(np.cos(np.radians(60)) / np.cos(np.radians(40)), rel=2e-3)
