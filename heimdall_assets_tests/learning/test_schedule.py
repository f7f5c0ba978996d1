"""The step size follows its closed form, whatever the schedule."""

import math

import pytest
import torch

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.fitting.range_test import LOWEST_RATE, choose_rate
from heimdall_assets.learning.fitting.schedule import Schedule
from heimdall_assets.specs import TrainingSpec


def list_factors(spec: TrainingSpec, num_steps: int, losses: tuple[float, ...] = ()) -> list[float]:
    return [Schedule(spec, steps_per_epoch=10).compute_factor(step, losses) for step in range(num_steps)]


def test_cosine_rises_in_a_line_and_falls_as_half_a_cosine():
    found = list_factors(TrainingSpec(max_epochs=40, warmup_epochs=5), 400)
    for step in range(400):
        expected = (step + 1) / 51 if step < 50 else 0.5 * (1 + math.cos(math.pi * (step - 50) / 350))
        assert found[step] == pytest.approx(expected, abs=1e-12)


def test_constant_stays_after_the_warm_up():
    found = list_factors(TrainingSpec(max_epochs=3, warmup_epochs=1, schedule="constant"), 30)
    assert found[:10] == [(step + 1) / 11 for step in range(10)]
    assert set(found[10:]) == {1.0}


@pytest.mark.parametrize("max_epochs", [1, 4, 40])
def test_one_cycle_is_that_of_torch(max_epochs: int):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    steps = 10 * max_epochs
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, cycle_momentum=False)
    for factor in list_factors(TrainingSpec(max_epochs=max_epochs, schedule="one_cycle", warmup_epochs=9), steps):
        assert factor == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if theirs.last_epoch + 1 < steps:
            theirs.step()


def test_plateau_halves_after_half_the_patience_of_early_stopping():
    spec = TrainingSpec(
        schedule="plateau", warmup_epochs=1, early_stopping_patience=6, early_stopping_min_delta=0.0, max_epochs=99
    )
    schedule = Schedule(spec, steps_per_epoch=10)
    assert schedule.compute_factor(4, ()) == 5 / 11
    falling = [9.0, *(5.0 - 0.1 * epoch for epoch in range(10))]
    assert schedule.compute_factor(200, falling) == 1.0
    assert schedule.compute_factor(200, [*falling, *[5.0] * 2]) == 1.0
    assert schedule.compute_factor(200, [*falling, *[5.0] * 3]) == 0.5
    assert schedule.compute_factor(200, [*falling, *[5.0] * 6]) == 0.25
    assert schedule.compute_factor(200, [*falling, *[5.0] * 5, 1.0, *[5.0] * 2]) == 0.5


def test_the_finder_takes_the_rate_at_which_the_loss_falls_steepest():
    rates = [LOWEST_RATE * 10 ** (number / 12) for number in range(70)]
    losses = [3.0 - 2.0 / (1.0 + math.exp(-3.0 * (math.log10(rate) + 3.0))) for rate in rates]
    found = choose_rate(rates, losses)
    assert 1e-3 < found.chosen < 2e-3  # a running mean is a step late
    assert found.describe()["learning_rates"] == rates


@pytest.mark.parametrize("losses", [[1.0 + number for number in range(40)], [1.0] * 40, [2.0, 1.0, 0.5]])
def test_a_loss_that_falls_at_no_rate_is_an_error(losses):
    with pytest.raises(InvalidInput, match=rf"falls at none of {len(losses)} rates .* find_learning_rate=false"):
        choose_rate([1e-6 * 1.2**number for number in range(len(losses))], losses)
