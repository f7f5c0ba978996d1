"""Starts that are written to a millisecond, ten microseconds, one, or ten nanoseconds: coverage is what is claimed.

A simulated arrival is late by what the writing cut off: anything within a step, its middle taken out.
"""

from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.locating.ellipses import compute_mahalanobis_square
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.session_set import SessionSet
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.locating.fields import HEXAGON
from heimdall_assets_tests.locating.test_outside import CALIBRATED_S, TRIANGLE, find_held, make_outside
from heimdall_assets_tests.variation import assert_above, assert_below

STEPS_S = (1e-3, 10e-6, 1e-6, 10e-9)
SPEC = SimulationSpec(clock_class="gnss_calibrated", min_receivers=5, max_receivers=7)
CHI_SQUARE_90 = -2.0 * np.log(0.10)
MAX_STEP_S = 1e-3
NUM_SESSIONS = 800  # 200 of each step


def write_starts(sessions: SessionSet, step_s: np.ndarray, seed: int) -> SessionSet:
    """Return the sessions with every receiver's start written in steps of ``step_s``, (M,)."""
    lost = np.random.default_rng(seed).uniform(-0.5, 0.5, len(step_s)) * step_s
    return replace(
        sessions,
        arrival_s=sessions.arrival_s + lost,
        timing_sigma_s=np.hypot(sessions.timing_sigma_s, step_s / 12**0.5),
    )


@pytest.fixture(scope="module")
def sessions() -> SessionSet:
    return simulate_observations(SPEC, np.arange(NUM_SESSIONS))


def compute_coverage(sessions: SessionSet) -> np.ndarray:
    found = locate_by_delays(sessions, robust=True)
    return compute_mahalanobis_square(sessions, found) <= CHI_SQUARE_90


def test_ellipses_cover_what_they_claim_however_starts_are_written(sessions):
    place = np.arange(NUM_SESSIONS) % len(STEPS_S)
    step_s = np.array(STEPS_S)[place]
    written = write_starts(sessions, np.repeat(step_s, sessions.num_receivers), 1)
    held = compute_coverage(written)
    unread = compute_coverage(replace(written, timing_sigma_s=sessions.timing_sigma_s))
    for number, step in enumerate(STEPS_S):
        coverage = held[place == number].mean()
        # 200 sessions tell a coverage of 0.90 to 0.02
        assert_above(coverage, 0.85, f"coverage where starts are written in {step:g} s")
        if step < MAX_STEP_S:  # 87 km a receiver leave the answer to the area, whose tails are wide
            assert_below(coverage, 0.95, f"coverage where starts are written in {step:g} s")
    # what was once believed: every stamp as good as the clock behind it
    assert_below(unread[place == 0].mean(), 0.75, "coverage of starts in milliseconds if the writing is not read")


def test_one_coarse_clock_among_fine_ones_is_told_apart(sessions):
    step_s = np.full(len(sessions.arrival_s), 10e-9)
    step_s[sessions.offsets[:-1]] = 1e-3
    coverage = compute_coverage(write_starts(sessions, step_s, 2)).mean()
    assert_above(coverage, 0.85, "coverage with one receiver to the millisecond")
    assert_below(coverage, 0.96, "coverage with one receiver to the millisecond")


@pytest.mark.parametrize("receivers", [TRIANGLE, HEXAGON], ids=["triangle", "hexagon"])
def test_where_arrivals_exclude_nothing_far_sources_are_held_too(receivers):
    # what an ellipse about the network alone would lose: docs/decisions/wide-where-nothing-is-told.md
    for radii in (4.0, 8.0):
        outside = make_outside(receivers, radii * np.hypot(*receivers.T).max(), 150, CALIBRATED_S)
        written = write_starts(outside, np.full(len(outside.arrival_s), MAX_STEP_S), 3)
        held = find_held(written, locate_by_delays(written, robust=True)).mean()
        assert_above(held, 0.85, f"coverage at {radii:g} radii, starts in milliseconds")
