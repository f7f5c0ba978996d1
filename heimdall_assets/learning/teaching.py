"""Teaching: a small model fitted to what a large one answers, beside the labels.

Belongs here: the wrapper that has any kind of model learn from a teacher, and how far two answers lie apart. Does not
belong here: networks, losses of labels (tasks), where a teacher comes from (``pipeline.stages``).

Source: G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015, section 2; answers are
Gaussians here, so that their distance is that of Kullback and Leibler in closed form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

TEACHER_LOSS = "teacher_loss"
"""What a task adds to its losses where a batch holds the answers of a teacher: the mean distance to them."""


@dataclass(frozen=True)
class Teacher:
    """A fitted model that another learns from.

    Attributes:
        source: whose it is, in words.
        kind: of model.
        network: on the CPU, in ``eval`` mode, frozen.
        statistics: that its inputs were scaled with.
    """

    source: str
    kind: str
    network: "nn.Module"
    statistics: Mapping[str, Any]


class TaughtTask:
    """A task whose loss is part distance to the labels, part distance to a teacher's answers to the same batch.

    Only while the network is training: validation judges by labels alone, so that students and others compare.

    Args:
        task: of the student.
        teacher: of the same kind.
        share: of the loss that is distance to the teacher's answers.

    Raises:
        InvalidInput: the teacher is of another kind, or this kind learns from none.
    """

    def __init__(self, task: Task, teacher: Teacher, share: float) -> None:
        if teacher.kind != task.kind:
            raise InvalidInput(f"{teacher.source}: a {teacher.kind} model: expected a teacher of kind {task.kind}")
        self._task, self._teacher, self._share = task, teacher, share
        self._ask: Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]] = task.ask_teacher

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for when it is unpickled, before there is a task
            raise AttributeError(name)
        return getattr(self._task, name)

    def check_inputs(self, statistics: Mapping[str, Any]) -> None:
        """Check that the teacher sees a batch as the student does.

        Raises:
            InvalidInput: its inputs are scaled otherwise, or are others.
        """
        for name in self._task.input_statistics:
            mine, its = statistics.get(name), self._teacher.statistics.get(name)
            if mine != its:
                raise InvalidInput(
                    f"{self._teacher.source}: {name} is {its!r:.60}, the student's {mine!r:.60}: expected the same: "
                    "both are to be fitted on the same split, with the same inputs"
                )

    def compute_loss(self, network: "nn.Module", batch: "dict[str, Tensor]", epoch: int) -> "dict[str, Tensor]":
        """Return the task's losses; in training ``loss`` is the mixture of ``label_loss`` and ``teacher_loss``."""
        if not network.training:
            return self._task.compute_loss(network, batch, epoch)
        device = next(iter(batch.values())).device
        teacher = self._teacher.network.to(device)
        losses = self._task.compute_loss(network, {**batch, **self._ask(teacher, batch)}, epoch)
        mixture = (1.0 - self._share) * losses["loss"] + self._share * losses[TEACHER_LOSS]
        return {**losses, "label_loss": losses["loss"], "loss": mixture}


def compute_axis_divergence(
    position: "Tensor", sigma: "Tensor", teacher_position: "Tensor", teacher_sigma: "Tensor"
) -> "Tensor":
    """Return the divergence (B,) of Gaussians (B, 2) with independent axes from the teacher's, summed over both.

    >>> import torch
    >>> one, two = torch.ones(1, 2), torch.full((1, 2), 2.0)
    >>> compute_axis_divergence(one, one, one, one).item(), compute_axis_divergence(two, one, one, one).item()
    (0.0, 1.0)
    """
    ratio = teacher_sigma / sigma
    moved = (teacher_position - position) / sigma
    return (0.5 * (ratio.square() + moved.square() - 1.0) - ratio.log()).sum(dim=1)
