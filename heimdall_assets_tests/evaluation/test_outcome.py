"""Whether a training made anything better is told from its facts, in one place."""

import pytest

from heimdall_assets.evaluation.outcome import describe_outcome


@pytest.mark.parametrize(
    ("best_epoch", "num_epochs", "trained", "said"),
    [
        (None, 11, False, "stopped early after 11 of 40 epochs, none better on validation than the start"),
        (None, 40, False, "40 epochs, none better on validation than the start"),
        (0, 11, True, "stopped early after 11 of 40 epochs, the best on validation was epoch 1"),
        (39, 40, True, "40 epochs, the best on validation was epoch 40"),
    ],
)
def test_an_outcome_says_what_came_of_the_epochs(best_epoch, num_epochs, trained, said):
    outcome = describe_outcome({"best_epoch": best_epoch, "num_epochs": num_epochs}, max_epochs=40)
    assert (outcome.trained, outcome.said) == (trained, said)
    assert str(outcome) == f"trained: {'yes' if trained else 'no'} ({said})"


def test_a_network_frozen_by_design_is_not_called_untrained():
    outcome = describe_outcome({"best_epoch": None, "num_epochs": 0}, max_epochs=40)
    assert outcome.trained
    assert outcome.said == "its level prior was fitted, which left nothing for gradient descent"
