"""Plots: small, the same bytes twice, well-formed, and silent about the machine that drew them."""

import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest

from heimdall_assets.evaluation.diagnostics import plot_diagnostics, plot_error_map
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
    assert set(plots) == {"error_cdf", "reliability", "error_map"}
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


def test_the_map_says_how_many_it_draws():
    sessions, judgement = judge(3000, 0)
    assert "100 of 3000 sessions" in plot_error_map(sessions, judgement.predictions).decode()


def test_nothing_answered_draws_empty_frames():
    sessions = make_sessions(3)
    predictions = place_answers(sessions, *np.zeros((2, 3)), np.full((3, 3), np.nan), "none", np.ones(3, bool))
    plots = plot_diagnostics(
        sessions, SimpleNamespace(predictions=predictions, baselines={}, bound_m=np.full(3, np.nan))
    )
    assert "0 of 0 sessions" in plots["error_map"].decode()


def test_exact_answers_and_one_place_draw():
    sessions = make_sessions(5, source_latitude=np.full(5, 45.0), source_longitude=np.full(5, 8.0))
    predictions = place_answers(sessions, *np.zeros((2, 5)), np.tile([1.0, 1.0, 0.0], (5, 1)))
    judgement = SimpleNamespace(predictions=predictions, baselines={}, bound_m=None)
    assert all(len(svg) > 1000 for svg in plot_diagnostics(sessions, judgement).values())
