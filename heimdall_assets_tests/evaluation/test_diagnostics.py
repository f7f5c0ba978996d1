"""Plots: small, the same bytes twice, well-formed, and silent about the machine that drew them."""

import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest

from heimdall_assets.evaluation.figures.diagnostics import plot_diagnostics
from heimdall_assets.evaluation.figures.error_map import plot_error_map
from heimdall_assets.evaluation.figures.error_vectors import plot_error_vectors
from heimdall_assets.evaluation.figures.loss_curve import plot_losses
from heimdall_assets_tests.evaluation.evaluated import (
    draw_predictions,
    make_sessions,
    place_answers,
    spread_covariances,
)


def judge(num_sessions, num_baselines=6):
    sessions = make_sessions(num_sessions)
    covariance = spread_covariances(num_sessions)
    baselines = {
        f"baseline_{index}": draw_predictions(
            sessions, covariance * (index + 2), seed=index, method=f"baseline_{index}"
        )
        for index in range(num_baselines)
    }
    model = draw_predictions(sessions, covariance, method="network")
    return sessions, SimpleNamespace(
        predictions=model, baselines=baselines, bound_m=np.sqrt(covariance[:, 0] + covariance[:, 1])
    )


@pytest.mark.parametrize("num_sessions", [1, 40, 3000])
def test_plots_are_small_repeatable_svg(num_sessions):
    sessions, judgement = judge(num_sessions)
    plots, again = plot_diagnostics(sessions, judgement), plot_diagnostics(sessions, judgement)
    assert set(plots) == {"error_cdf", "reliability", "error_map", "error_vectors"}
    for name, svg in plots.items():
        assert svg == again[name]
        assert len(svg) < 100_000, (name, len(svg))
        assert ET.fromstring(svg).tag.endswith("svg")
        for trace in (b"<dc:date>", b"/home", b"/work", b"/tmp"):
            assert trace not in svg


def test_the_curves_are_named():
    svg = plot_diagnostics(*judge(50))["error_cdf"].decode()
    for name in ("network", "baseline_5", "physical bound", "error (m)"):
        assert name in svg


def test_the_maps_say_how_many_they_draw():
    sessions, judgement = judge(3000, 0)
    assert "100 of 3000 sessions" in plot_error_map(sessions, judgement.predictions).decode()
    vectors = plot_error_vectors(sessions, judgement.predictions).decode()
    assert "100 of 3000 sessions, 8 with their 90 % ellipse" in vectors


def test_the_frame_fits_the_errors_and_counts_what_lies_beyond():
    """Nineteen answers are 100 m off and one 50 km: the scale is that of the many, and the one is not forgotten."""
    sessions = make_sessions(20)
    east = np.where(np.arange(20) == 7, 50_000.0, 100.0)
    answers = place_answers(sessions, east, np.zeros(20), np.tile([1e4, 1e4, 0.0], (20, 1)))
    svg = plot_error_vectors(sessions, answers).decode()
    for said in ("beyond the frame (1)", ">50 m<", "estimate minus truth, east (m)", "truth", "90 % ellipse"):
        assert said in svg
    places = plot_error_map(sessions, answers).decode()
    for said in (">50 km<", "east (km)", "error (m)", "receiver", "source"):
        assert said in places


def test_losses_show_the_epoch_that_was_kept_and_the_start():
    history = [{"epoch": epoch, "train_loss": 1.0 - epoch, "val_loss": (epoch - 2) ** 2 - 1.5} for epoch in range(5)]
    svg = plot_losses(history, {"initial_val_loss": 0.25, "best_epoch": 2, "best_val_loss": -1.5}).decode()
    for said in ("epoch", "kept: epoch 3, -1.500", "validation before training 0.250", "training", "validation"):
        assert said in svg
    assert svg == plot_losses(history, {"initial_val_loss": 0.25, "best_epoch": 2, "best_val_loss": -1.5}).decode()


def test_losses_say_so_where_no_epoch_was_better_than_the_start():
    history = [{"epoch": 0, "train_loss": 1.0, "val_loss": 2.0}]
    svg = plot_losses(history, {"initial_val_loss": 0.5, "best_epoch": None, "best_val_loss": 0.5}).decode()
    assert "none of 1 epoch beat the start" in svg
    assert "kept:" not in svg
    assert "none of 0 epochs" in plot_losses([], {}).decode()  # a network without anything to train


def test_a_wild_first_epoch_leaves_the_frame():
    calm = [{"epoch": epoch, "train_loss": 0.1 * epoch, "val_loss": 0.1 * epoch} for epoch in range(8)]
    wild = [{"epoch": 0, "train_loss": 1e6, "val_loss": 1e6}, *calm[1:]]
    assert "1e6" not in plot_losses(wild, {"initial_val_loss": 0.0}).decode()


def test_nothing_answered_draws_empty_frames():
    sessions = make_sessions(3)
    predictions = place_answers(sessions, *np.zeros((2, 3)), np.full((3, 3), np.nan), "none", np.ones(3, bool))
    plots = plot_diagnostics(
        sessions, SimpleNamespace(predictions=predictions, baselines={}, bound_m=np.full(3, np.nan))
    )
    assert all("0 of 0 sessions" in plots[name].decode() for name in ("error_map", "error_vectors"))


def test_exact_answers_and_one_place_draw():
    sessions = make_sessions(5, source_latitude=np.full(5, 45.0), source_longitude=np.full(5, 8.0))
    predictions = place_answers(sessions, *np.zeros((2, 5)), np.tile([1.0, 1.0, 0.0], (5, 1)))
    judgement = SimpleNamespace(predictions=predictions, baselines={}, bound_m=None)
    assert all(len(svg) > 1000 for svg in plot_diagnostics(sessions, judgement).values())
