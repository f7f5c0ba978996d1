"""Students and teachers: the distance between two answers in closed form, and that it draws a student near."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.fitting.hooks import Start
from heimdall_assets.learning.session_model.loss import compute_divergence
from heimdall_assets.learning.task import find_task
from heimdall_assets.learning.teaching import TaughtTask, Teacher, compute_axis_divergence
from heimdall_assets_tests.learning.learning_cases import QUICK, fit_quick, get_fitted, make_sessions


def make_teacher() -> Teacher:
    fitted = get_fitted()
    return Teacher("the teacher", fitted.model.kind, fitted.network, fitted.statistics)


def draw_factors(seed: int, count: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    position = torch.randn(count, 2, generator=generator)
    factor = torch.randn(count, 3, generator=generator)
    factor[:, [0, 2]] = factor[:, [0, 2]].abs() + 0.3
    return position, factor


def make_gaussian(position: torch.Tensor, factor: torch.Tensor) -> MultivariateNormal:
    upper = torch.zeros(len(factor), 2, 2)
    upper[:, 0, 0], upper[:, 0, 1], upper[:, 1, 1] = factor.unbind(-1)
    return MultivariateNormal(position, precision_matrix=upper.transpose(1, 2) @ upper)


def test_distances_are_those_of_kullback_and_leibler() -> None:
    student, teacher = draw_factors(1), draw_factors(2)
    exact = kl_divergence(make_gaussian(*teacher), make_gaussian(*student))
    assert torch.allclose(compute_divergence(*student, *teacher), exact.log1p(), atol=1e-4)
    assert torch.allclose(compute_divergence(*teacher, *teacher), torch.zeros(20), atol=1e-5)
    means, sigmas = torch.randn(2, 20, 2), torch.rand(2, 20, 2) + 0.2
    axes = [torch.distributions.Normal(mean, sigma) for mean, sigma in zip(means, sigmas, strict=True)]
    found = compute_axis_divergence(means[0], sigmas[0], means[1], sigmas[1])
    assert torch.allclose(found, kl_divergence(axes[1], axes[0]).sum(1), atol=1e-4)


def test_a_student_comes_nearer_the_more_it_is_taught(tmp_path: Path) -> None:
    sessions = make_sessions(10, seed=3, first=500)
    its = get_fitted().predict(sessions)
    apart = []
    for share in (0.0, 1.0):
        training = QUICK.model_copy(update={"teacher_share": share, "seed": 7, "max_epochs": 6})
        student = fit_quick(tmp_path / str(share), start=Start(teacher=make_teacher()), training=training)
        apart.append(np.abs(student.predict(sessions).latitude - its.latitude).mean())
    assert apart[1] < 0.7 * apart[0]


def test_a_share_of_nothing_is_a_fit_without_a_teacher(tmp_path: Path) -> None:
    training = QUICK.model_copy(update={"teacher_share": 0.0})
    taught = fit_quick(tmp_path / "taught", start=Start(teacher=make_teacher()), training=training)
    alone = fit_quick(tmp_path / "alone", training=training)
    for name, value in alone.weights.items():
        assert np.array_equal(taught.weights[name], value), name


def test_the_loss_is_the_stated_mixture_and_validation_knows_no_teacher() -> None:
    fitted, sessions = get_fitted(), make_sessions(4, seed=6)
    task = find_task("single_receiver")
    taught = TaughtTask(task, make_teacher(), 0.25)
    batch = task.make_batch(sessions, task.list_examples(sessions), fitted.statistics)
    network = task.build_network(fitted.model, fitted.statistics)
    for part in network.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    losses = taught.compute_loss(network.train(), batch, 0)
    mixed = 0.75 * losses["label_loss"] + 0.25 * losses["teacher_loss"]
    assert losses["loss"].item() == pytest.approx(mixed.item())
    assert losses["teacher_loss"].item() > 0
    assert set(taught.compute_loss(network.eval(), batch, 0)) == {"loss", "squared_error"}
    assert taught.kind == "single_receiver"


def test_a_teacher_of_another_kind_or_with_other_inputs_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the teacher: a single_receiver model: expected a teacher of kind network"):
        TaughtTask(find_task("network"), make_teacher(), 0.5)
    taught = TaughtTask(find_task("single_receiver"), make_teacher(), 0.5)
    taught.check_inputs(get_fitted().statistics)
    with pytest.raises(InvalidInput, match="feature_mean_db is"):
        taught.check_inputs({**get_fitted().statistics, "feature_mean_db": [0.0, 0.0, 0.0]})
