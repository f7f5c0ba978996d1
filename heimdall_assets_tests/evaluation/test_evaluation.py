"""Evaluation against closed forms: known errors give known figures, honest Gaussians give honest calibration."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.comparison import compare_paired
from heimdall_assets.evaluation.evaluate import evaluate_model
from heimdall_assets.evaluation.lengths import format_metres
from heimdall_assets.evaluation.metrics import evaluate_predictions
from heimdall_assets.evaluation.model_card import render_metrics_table, render_model_card
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.evaluation.strata import assign_strata
from heimdall_assets.locating.classical import ESTIMATORS
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import EvaluationSpec, SimulationSpec
from heimdall_assets_tests.evaluation.evaluated import (
    draw_predictions,
    make_sessions,
    place_answers,
    spread_covariances,
)
from heimdall_assets_tests.variation import assert_above, assert_below, make_rng, shift_seed

SPEC = EvaluationSpec(num_bootstrap=300)


def circular(num_sessions, sigma_m):
    return np.tile([sigma_m**2, sigma_m**2, 0.0], (num_sessions, 1))


def offset_east(sessions, east_m, sigma_m=100.0, method="model", refused=None):
    east = np.broadcast_to(np.asarray(east_m, dtype=float), (len(sessions),))
    return place_answers(sessions, east, np.zeros(len(sessions)), circular(len(sessions), sigma_m), method, refused)


def test_errors_are_geodesic_metres_with_their_direction():
    sessions = make_sessions(50)
    residuals = compute_residuals(sessions, offset_east(sessions, 5000.0))
    assert residuals.error_m == pytest.approx(5000.0, abs=1e-6)
    assert residuals.east_m == pytest.approx(5000.0, abs=0.5)
    assert np.abs(residuals.north_m).max() < 10.0  # meridians meet: 5 km turn north by less than 3 m


def test_percentiles_and_accuracy_of_a_known_ladder_of_errors():
    sessions = make_sessions(101)
    metrics = evaluate_predictions(sessions, offset_east(sessions, np.arange(101.0)), {}, None, SPEC)
    assert metrics["median_m"] == pytest.approx(50.0, abs=1e-6)
    assert metrics["p90_m"] == pytest.approx(90.0, abs=1e-6)
    assert metrics["p95_m"] == pytest.approx(95.0, abs=1e-6)
    assert metrics["accuracy"]["30"] == pytest.approx(31 / 101, abs=0.011)
    assert metrics["accuracy"]["1000"] == 1.0
    assert metrics["mean_m"] == pytest.approx(50.0, abs=1e-6)


def test_an_honest_gaussian_is_found_honest():
    sessions = make_sessions(60_000, num_receivers=1)
    covariance = spread_covariances(60_000)
    metrics = evaluate_predictions(sessions, draw_predictions(sessions, covariance), {}, None, SPEC)
    for level in SPEC.coverage_levels:
        assert_below(abs(metrics[f"coverage_{100 * level:g}"] - level), 0.015, f"coverage, off {level}")
    assert_below(abs(metrics["mean_squared_z"] - 1.0), 0.03, "mean squared z, off 1")
    assert_below(metrics["ence"], 0.03, "ENCE")
    assert_below(metrics["calibration_error_east_m"], 5.0, "calibration error, in m")
    # Entropy of a Gaussian: 1 + ln(2 pi) + ln det / 2.
    entropy = 1.0 + np.log(2 * np.pi) + 0.5 * np.log(covariance[:, 0] * covariance[:, 1] - covariance[:, 2] ** 2).mean()
    assert_below(abs(metrics["nll"] - entropy), 0.03, "NLL, off the entropy")


def test_overconfidence_is_seen_and_a_mistaken_axis_too():
    sessions = make_sessions(20_000, num_receivers=1)
    covariance = np.tile([200.0**2, 50.0**2, 0.0], (20_000, 1))
    metrics = evaluate_predictions(sessions, draw_predictions(sessions, covariance, stated_scale=0.25), {}, None, SPEC)
    assert_below(abs(metrics["mean_squared_z"] / 4.0 - 1.0), 0.06, "mean squared z, off 4")
    # Stated half the sigma: the 90 % ellipse holds 1 - 0.1 ** (1/4).
    assert_below(abs(metrics["coverage_90"] - (1 - 0.1**0.25)), 0.02, "coverage, off 1 - 0.1 ** (1/4)")
    assert_below(abs(metrics["ence"] - 1.0), 0.1, "ENCE, off 1")
    assert_below(abs(metrics["calibration_error_east_m"] / 100.0 - 1.0), 0.06, "error to the east, off 100 m")
    assert_below(abs(metrics["calibration_error_north_m"] / 25.0 - 1.0), 0.06, "error to the north, off 25 m")


def test_the_label_error_is_added_to_the_variance():
    sessions = make_sessions(5000, num_receivers=1, error_margin_m=100.0)
    predictions = draw_predictions(sessions, circular(5000, 30.0), label_m=100.0)
    metrics = evaluate_predictions(sessions, predictions, {}, None, SPEC)
    assert_below(abs(metrics["coverage_90"] - 0.9), 0.02, "coverage, off 0.9")
    assert metrics["sharpness_m"] == pytest.approx(30.0)
    assert metrics["label_error_m"] == 100.0


def test_a_method_that_reaches_the_bound_has_ratio_one():
    sessions = make_sessions(4000, num_receivers=1)
    covariance = spread_covariances(4000)
    predictions = draw_predictions(sessions, covariance)
    metrics = evaluate_predictions(sessions, predictions, {}, covariance, SPEC)
    assert_below(abs(metrics["median_error_over_bound"] - 1.0), 0.05, "ratio, off 1")
    assert_below(abs(metrics["bound"]["rmse_m"] / metrics["rmse_m"] - 1.0), 0.05, "RMS ratio, off 1")
    round_ones = circular(4000, 80.0)
    metrics = evaluate_predictions(
        sessions, draw_predictions(sessions, round_ones), {}, np.full(4000, 80.0 * np.sqrt(2)), SPEC
    )
    assert_below(abs(metrics["median_error_over_bound"] - 1.0), 0.05, "ratio of round ones, off 1")
    assert_below(
        abs(metrics["bound"]["session_ratio"] - np.sqrt(np.log(2))), 0.03, "session ratio, off its closed form"
    )


def test_a_method_below_the_bound_by_more_than_chance_is_told_from_one_that_reaches_it():
    """One that reaches it falls below the limit in one of forty sets: of 200 in 5, and in 13 once in 500 times."""
    covariance, below = spread_covariances(50), 0
    sessions = make_sessions(50, num_receivers=1)
    for seed in range(200):
        predictions = draw_predictions(sessions, covariance, seed=seed)
        bound = evaluate_predictions(sessions, predictions, {}, covariance, SPEC)["bound"]
        assert bound["ratio"] == bound["method_median_m"] / bound["median_m"]
        below += bound["method_median_m"] < bound["median_low_m"]
    assert_below(below, 13, "sets of 200 in which an efficient method seems to beat the bound")
    tenfold = evaluate_predictions(sessions, draw_predictions(sessions, 0.01 * covariance), {}, covariance, SPEC)[
        "bound"
    ]
    assert tenfold["method_median_m"] < 0.2 * tenfold["median_low_m"]


def test_sessions_of_one_site_are_one_draw_for_the_bound():
    sessions = make_sessions(100, num_receivers=1, strata={"site": np.repeat(np.arange(4), 25).astype(str)})
    alone = replace(sessions, strata={})
    lows = [
        evaluate_predictions(each, offset_east(each, 10.0), {}, circular(100, 50.0), SPEC)["bound"]["median_low_m"]
        for each in (sessions, alone)
    ]
    # quantiles of a round Gaussian's distance: sigma sqrt(-2 ln(1 - p)) at p = 1/2 - 1.96 / (2 sqrt n)
    expected = [50.0 * np.sqrt(-2.0 * np.log(0.5 + 1.96 / (2.0 * np.sqrt(count)))) for count in (4, 100)]
    np.testing.assert_allclose(lows, expected, rtol=0.1)


def test_sessions_without_a_finite_bound_are_left_out_of_the_ratio():
    sessions = make_sessions(4)
    bound = np.array([100.0, np.nan, np.inf, 100.0])
    metrics = evaluate_predictions(sessions, offset_east(sessions, 50.0), {}, bound, SPEC)
    assert metrics["bound"]["num_sessions"] == 2
    none = evaluate_predictions(sessions, offset_east(sessions, 50.0), {}, np.full(4, np.nan), SPEC)
    assert none["bound"]["num_sessions"] == 0
    assert none["median_error_over_bound"] is None
    with pytest.raises(InvalidInput, match=r"bound: found shape \(3,\)"):
        evaluate_predictions(sessions, offset_east(sessions, 50.0), {}, bound[:3], SPEC)


def test_it_says_so_when_the_model_is_worse_than_a_baseline():
    sessions = make_sessions(200)
    generator = make_rng(3)
    model = offset_east(sessions, generator.uniform(90, 110, 200))
    near = offset_east(sessions, generator.uniform(40, 60, 200), method="near")
    far = offset_east(sessions, generator.uniform(180, 220, 200), method="far")
    metrics = evaluate_predictions(sessions, model, {"near": near, "far": far}, None, SPEC)
    assert metrics["worse_than"] == ["near"]
    assert metrics["best_baseline"] == "near"
    assert_below(abs(metrics["baselines"]["far"]["skill"] - 0.5), 0.02, "skill, off 0.5")
    assert_above(metrics["baselines"]["far"]["skill_low"], 0.4, "lower end of the skill")
    assert metrics["baselines"]["near"]["skill_high"] < 0
    assert "worse than near" in render_metrics_table(metrics)


def test_refusals_and_missing_truth_are_counted_never_guessed():
    sessions = make_sessions(10)
    sessions.source_latitude[9] = np.nan
    refused = np.zeros(10, bool)
    refused[:3] = True
    predictions = offset_east(make_sessions(10), 10.0, refused=refused)
    predictions.latitude[:3] = np.nan
    metrics = evaluate_predictions(sessions, predictions, {}, None, SPEC)
    assert (metrics["num_sessions"], metrics["num_refused"], metrics["num_without_truth"]) == (9, 3, 1)
    assert metrics["accuracy"]["30"] == pytest.approx(6 / 9)
    assert metrics["median_m"] == pytest.approx(10.0, abs=1e-6)


def test_everybody_refused_gives_empty_figures_not_a_crash():
    sessions = make_sessions(5)
    predictions = offset_east(sessions, 10.0, refused=np.ones(5, bool))
    metrics = evaluate_predictions(sessions, predictions, {"same": predictions}, np.full(5, 10.0), SPEC)
    assert metrics["median_m"] is None
    assert metrics["coverage_90"] is None
    assert metrics["accuracy"]["100"] == 0.0
    assert metrics["worse_than"] == []
    json.dumps(metrics, allow_nan=False)
    assert "| 5 | 5 | - | - |" in render_metrics_table(metrics)


def test_a_baseline_without_uncertainty_has_errors_and_no_coverage():
    sessions = make_sessions(20)
    plain = place_answers(sessions, np.full(20, 30.0), np.zeros(20), np.full((20, 3), np.nan), "plain")
    metrics = evaluate_predictions(sessions, offset_east(sessions, 10.0), {"plain": plain}, None, SPEC)
    row = metrics["baselines"]["plain"]
    assert row["num_without_uncertainty"] == 20
    assert row["median_m"] == pytest.approx(30.0, abs=1e-6)
    assert row["coverage_90"] is None
    assert row["nll"] is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.latitude.__setitem__(3, np.nan), "session s00003 .* a position that is not finite"),
        (lambda p: p.covariance_m2.__setitem__((2, 0), -1.0), "session s00002 .* not positive definite"),
        (lambda p: p.covariance_m2.__setitem__((2, 2), 1e9), "session s00002 .* not positive definite"),
        (lambda p: p.covariance_m2.__setitem__((1, 1), np.nan), "session s00001 .* not positive definite"),
        (lambda p: p.covariance_m2.__setitem__((1, 1), np.inf), "session s00001 .* not positive definite"),
    ],
)
def test_predictions_that_are_no_predictions_are_refused(spoil, message):
    sessions = make_sessions(5)
    predictions = offset_east(sessions, 10.0)
    spoil(predictions)
    with pytest.raises(InvalidInput, match=message):
        evaluate_predictions(sessions, predictions, {}, None, SPEC)


def test_predictions_of_other_sessions_are_refused():
    with pytest.raises(InvalidInput, match=r"expected \(5,\)"):
        evaluate_predictions(make_sessions(5), offset_east(make_sessions(6), 1.0), {}, None, SPEC)


def test_no_truth_at_all_is_refused():
    sessions = make_sessions(3)
    predictions = offset_east(sessions, 10.0)
    sessions.source_longitude[:] = np.nan
    with pytest.raises(InvalidInput, match="found no truth in 3 sessions"):
        evaluate_predictions(sessions, predictions, {}, None, SPEC)


def test_metrics_are_json_and_the_same_each_time():
    sessions = make_sessions(60, strata={"origin": np.array(["simulated"] * 60)})
    covariance = spread_covariances(60)
    model, other = (
        draw_predictions(sessions, covariance),
        draw_predictions(sessions, covariance, seed=9, method="other"),
    )
    first = evaluate_predictions(sessions, model, {"other": other}, covariance, SPEC, {"a"})
    second = evaluate_predictions(sessions, model, {"other": other}, covariance, SPEC, {"a"})
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)


def test_strata_part_the_sessions_and_show_where_it_fails():
    origin = np.array(["measured"] * 30 + ["simulated"] * 30)
    site = np.array([f"site{index % 10}" for index in range(60)])
    sessions = make_sessions(60, strata={"origin": origin, "site": site}, blocked=np.arange(360) >= 180)
    sessions.snr_db[:180] = 25.0
    sessions.snr_db[180:] = -3.0
    predictions = offset_east(sessions, np.repeat([10.0, 1000.0], 30))
    metrics = evaluate_predictions(sessions, predictions, {}, None, SPEC, {f"site{index}" for index in range(5)})
    strata = metrics["strata"]
    for name, table in strata.items():
        assert sum(row["num_sessions"] for row in table.values()) == 60, name
    assert strata["origin"]["measured"]["median_m"] == pytest.approx(10.0, abs=1e-6)
    assert strata["origin"]["simulated"]["median_m"] == pytest.approx(1000.0, abs=1e-6)
    assert {name: row["num_sessions"] for name, row in strata["snr"].items()} == {"20 to 30 dB": 30, "below 0 dB": 30}
    assert strata["site"]["unseen"]["num_sessions"] == 30
    assert strata["line_of_sight"]["all receivers in sight"]["num_sessions"] == 30
    assert list(strata["num_receivers"]) == ["6"]
    assert set(strata["region"]) <= {"north-east", "north-west", "south-east", "south-west"}


def test_region_and_geometry_follow_the_map():
    sessions = make_sessions(2, source_latitude=np.array([44.6, 48.9]), source_longitude=np.array([8.0, 12.0]))
    strata = assign_strata(sessions)
    assert list(strata["region"]) == ["south-west", "north-east"]
    # Far outside the network all directions are nearly one, which dilutes precision.
    assert strata["gdop"][0] in {"below 2", "2 to 5"}
    assert strata["gdop"][1] == "20 and above"
    assert list(assign_strata(make_sessions(1, num_receivers=2))["gdop"]) == ["undefined"]


def test_what_measures_or_names_each_session_is_no_stratum():
    sessions = make_sessions(
        40,
        strata={
            "note": np.array([f"n{index}" for index in range(40)]),
            "level": np.tile([1.5, 2.5], 20),
            "source_id": np.repeat(["a", "b"], 20),
            "season": np.repeat([1.0, 2.0], 20),
        },
    )
    assert set(assign_strata(sessions)) == {"num_receivers", "snr", "gdop", "region", "season"}


def test_tables_read_in_order_even_from_a_file_with_sorted_keys():
    sessions = make_sessions(40)
    sessions.snr_db[:] = np.repeat(np.tile([-5.0, 5.0, 15.0, 40.0], 10), 6)
    metrics = evaluate_predictions(
        sessions, offset_east(sessions, 9e4), {"near": offset_east(sessions, 60.0)}, None, SPEC
    )
    card = render_model_card(
        version="v1.0.0", metrics=json.loads(json.dumps(metrics, sort_keys=True)), data={}, specs={}
    )
    order = [
        "| 30 m |",
        "| 50 m |",
        "| 100 m |",
        "| 1,000 m |",
        "| below 0 dB",
        "| 0 to 10",
        "| 10 to 20",
        "| 30 dB and",
    ]
    places = [card.index(text) for text in order]
    assert places == sorted(places)
    assert "1.5e+03 times its median" in card


@settings(max_examples=25, deadline=None)
@given(
    errors=st.lists(st.floats(0.0, 1e6), min_size=1, max_size=40),
    factor=st.floats(0.1, 10.0),
    seed=st.integers(0, 1000),
)
def test_paired_bootstrap_properties(errors, factor, seed):
    spec = EvaluationSpec(num_bootstrap=100, seed=seed)
    first = np.array(errors)
    same = compare_paired(first, first, spec)
    assert same["difference_low_m"] == same["difference_m"] == same["difference_high_m"] == 0.0
    assert not same["is_worse"]
    assert not same["is_better"]
    forth, back = compare_paired(first, first * factor, spec), compare_paired(first * factor, first, spec)
    assert forth["difference_m"] == pytest.approx(-back["difference_m"])
    assert forth["difference_low_m"] <= forth["difference_high_m"]
    assert forth["is_worse"] == back["is_better"] or len(errors) == 1


def test_bootstrap_medians_match_those_of_the_repeated_errors():
    from heimdall_assets.evaluation.comparison import _compute_medians

    generator = make_rng(5)
    errors = generator.exponential(100.0, 17)
    counts = generator.multinomial(17, np.full(17, 1 / 17), size=50)
    expected = [np.median(np.repeat(errors, row)) for row in counts]
    assert _compute_medians(errors, counts) == pytest.approx(expected)


def test_bootstrap_interval_holds_the_true_difference_about_as_often_as_it_says():
    spec = EvaluationSpec(num_bootstrap=200, confidence=0.9)
    generator = make_rng(7)
    held = 0
    for _ in range(1000):
        shared = generator.exponential(100.0, 150)
        found = compare_paired(
            shared + generator.exponential(20.0, 150), shared + generator.exponential(20.0, 150), spec
        )
        held += found["difference_low_m"] <= 0.0 <= found["difference_high_m"]
    assert_above(held / 1000, 0.84, "held, from below")
    assert_below(held / 1000, 0.99, "held")


def test_sessions_of_one_site_widen_the_interval():
    generator = make_rng(11)
    groups = np.repeat(np.arange(10), 40)
    hard = np.repeat(generator.exponential(100.0, 10), 40)
    first, second = hard + generator.uniform(0, 5, 400), np.full(400, 80.0)
    by_session, by_site = compare_paired(first, second, SPEC), compare_paired(first, second, SPEC, groups)
    width = [found["difference_high_m"] - found["difference_low_m"] for found in (by_session, by_site)]
    assert_above(width[1] / width[0], 1.5, "width by site over by session")
    assert by_site["num_groups"] == 10


def test_a_refusal_ranks_behind_every_answer():
    first = np.array([10.0, 20.0, np.inf])
    found = compare_paired(first, np.array([10.0, 20.0, 30.0]), SPEC)
    assert found["difference_m"] == 0.0
    worse = compare_paired(np.full(30, np.inf), np.full(30, 10.0), SPEC)
    assert worse["is_worse"]
    assert worse["median_a_m"] is None
    json.dumps(worse, allow_nan=False)


@pytest.mark.parametrize("bad", [np.array([1.0, np.nan]), np.array([-1.0, 2.0]), np.array([1.0]), np.zeros((2, 1))])
def test_errors_that_are_no_metres_are_refused(bad):
    with pytest.raises(InvalidInput, match="paired errors"):
        compare_paired(bad, np.array([1.0, 2.0]), SPEC)
    with pytest.raises(InvalidInput, match="paired errors"):
        compare_paired(np.array([]), np.array([]), SPEC)


@pytest.mark.parametrize(
    ("metres", "text"),
    [
        (None, "-"),
        (0.0, "0 m"),
        (9.87654, "9.88 m"),
        (123.4, "123 m"),
        (5678.9, "5,679 m"),
        (12_345.0, "12.3 km"),
        (1.5e6, "1,500 km"),
    ],
)
def test_lengths_read_well(metres, text):
    assert format_metres(metres) == text


_ROW = {"median_m": 12.0, "p90_m": 30.0, "coverage_90": 0.9, "moved_median_m": 0.5, "moved_max_m": 2.0}
EXPORT = {
    "parity": {"max_position_error_m": 0.01},
    "variant": "int4",
    "because": "the smallest of 2 that passes ExportSpec",
    "rejected": [],
    "variants": {
        "fp32": {"size_bytes": 15_466_012, "changed": "nothing", "test": _ROW},
        "int4": {"size_bytes": 3_912_336, "changed": "3428352 weights in 4 bits", "test": _ROW},
    },
    "not_made": {"pruned": "found no ConvNeXt block"},
    "model": {"test": {"median_m": 11.0, "p90_m": 29.0, "coverage_90": 0.9}},
}


def test_the_card_says_what_forbids_trust():
    sessions = make_sessions(50, strata={"origin": np.array(["simulated"] * 50)})
    covariance = circular(50, 100.0)
    model = draw_predictions(sessions, covariance, stated_scale=0.05, method="network")
    near = offset_east(sessions, 1.0, method="near")
    metrics = evaluate_predictions(sessions, model, {"near": near}, covariance, SPEC)
    card = render_model_card(
        version="v1.0.0",
        metrics=metrics,
        data={"num_sessions": {"train": 400, "val": 50, "test": 50}, "sessions_by_origin": {"simulated": 500}},
        specs={"ModelSpec": {"kind": "network", "width": 64}, "TrainingSpec": {"seed": 42}},
        export=EXPORT,
        latency={"unit": "ms of processor time", "fp32": {"1": {"p50": 1.25, "p95": 2.5, "num_rounds": 30}}},
        environment={"python": "3.11", "num_threads": 2},
        provenance_digest="ab" * 32,
        limits=["Only VHF."],
    )
    for text in (
        "# Heimdall v1.0.0", "worse than near", "Use near instead", "ellipses are too small", "simulated sessions only",
        "Judged on 50 sessions", "train: 400 sessions", "ab" * 32, "seed 42", "Only VHF.", "never saw", "num_threads 2",
        "| fp32 | 15.5 | 12 m | 30 m | 90.0 % | 0.5 m, 2 m | 1.25 / 2.5 | - |", "| **int4** (released) | 3.9 |",
        "`model.onnx` is int4: the smallest of 2", "pruned was not made: found no ConvNeXt block",
        "max_position_error_m 0.01", "int4 changes: 3428352 weights in 4 bits",
    ):  # fmt: skip
        assert text in card, text
    assert "\n\n\n\n" not in card
    bare = render_model_card(version="v1.0.0", metrics=metrics, data={}, specs={})
    assert "not recorded" in bare


def test_levels_are_judged_beside_the_bound_of_the_law_that_training_sessions_follow():
    """Log-distance likelihood on a world of independent shadowing: near the bound, and never far below it."""
    reference, sessions = (
        replace(drawn, arrival_s=np.full(len(drawn.arrival_s), np.nan))
        for drawn in (
            simulate_observations(SimulationSpec(seed=shift_seed(seed), shadowing_db=3.0), np.arange(600))
            for seed in (1, 2)
        )
    )
    judgement = evaluate_model(lambda judged: ESTIMATORS["log_distance"](judged, reference), sessions, reference, SPEC)
    law = judgement.metrics["bound_path_loss"]
    assert_below(abs(law["exponent"] - 3.0), 0.15, "exponent, off 3")
    assert_below(abs(law["shadowing_db"] - 3.0), 0.3, "shadowing, off 3 dB")
    assert_above(judgement.metrics["median_error_over_bound"], 0.8, "error over bound, from below")
    assert_below(judgement.metrics["median_error_over_bound"], 1.5, "error over bound")
    alone = evaluate_model(lambda judged: ESTIMATORS["log_distance"](judged, None), sessions, None, SPEC)
    assert alone.metrics["bound_path_loss"] is None
    assert alone.metrics["bound"]["num_sessions"] == 0
