"""A model trained on starts that are written to a millisecond, ten microseconds, one, or ten nanoseconds, mixed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heimdall_assets.locating.ellipses import compute_mahalanobis_square
from heimdall_assets.session_set import SessionSet
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import ModelSpec, SimulationSpec, TrainingSpec
from heimdall_assets_tests.learning.learning_cases import PLAIN, fit_quick
from heimdall_assets_tests.locating.test_written_starts import CHI_SQUARE_90, MAX_STEP_S, STEPS_S, write_starts
from heimdall_assets_tests.variation import assert_above, assert_below

# Something to learn: who has no line of sight, from levels.
WORLD = SimulationSpec(
    min_receivers=5, max_receivers=7, blocked_fraction=0.3, blocked_excess_s=2e-6, blocked_loss_db=15.0
)
TRAINING = TrainingSpec(max_epochs=8, batch_size=128, learning_rate=5e-4, warmup_epochs=0, num_threads=1)
NUM_TRAIN, NUM_VAL, NUM_TEST = 3000, 400, 800  # of the test, 200 of each step


def simulate(seed: int, num_sessions: int) -> SessionSet:
    sessions = simulate_observations(WORLD.model_copy(update={"seed": seed}), np.arange(num_sessions))
    step_s = np.resize(STEPS_S, num_sessions)
    return write_starts(sessions, np.repeat(step_s, sessions.num_receivers), seed)


@pytest.mark.long
def test_a_trained_models_ellipses_cover_what_they_claim(tmp_path: Path):
    fitted = fit_quick(
        tmp_path,
        model=ModelSpec(dropout=0.0, use_spectrograms=False),
        training=TRAINING,
        augmentation=PLAIN,
        train=simulate(11, NUM_TRAIN),
        val=simulate(12, NUM_VAL),
    )
    assert fitted.settings["facts"]["best_epoch"] is not None, "nothing was learned: this would judge the start alone"
    test = simulate(13, NUM_TEST)
    step_s = np.resize(STEPS_S, NUM_TEST)
    held = compute_mahalanobis_square(test, fitted.predict(test)) <= CHI_SQUARE_90
    for step in STEPS_S:
        coverage = held[step_s == step].mean()
        assert_above(coverage, 0.85, f"coverage where starts are written in {step:g} s")
        if step < MAX_STEP_S:  # 87 km a receiver leave the answer to the area, whose tails are wide
            assert_below(coverage, 0.96, f"coverage where starts are written in {step:g} s")
    unread = replace(test, timing_sigma_s=np.full(len(test.arrival_s), 76e-9))
    blind = compute_mahalanobis_square(unread, fitted.predict(unread)) <= CHI_SQUARE_90
    assert_below(blind[step_s == MAX_STEP_S].mean(), 0.8, "coverage of milliseconds if the writing is not read")
