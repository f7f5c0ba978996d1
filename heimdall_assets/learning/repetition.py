"""A step that is applied many times: a plain loop in torch, one ``Loop`` with the step as its body in an ONNX graph.

Belongs here: repeating, and noting for the exporter what is repeated. Does not belong here: steps (a model's own),
writing ONNX (``export``).
Unrolled, a solver of some thirty steps makes a graph of 14 000 operators that takes 12 s to export and 1 s to load.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Values = tuple[Tensor, ...]
Context = tuple[Tensor | None, ...]
Step = Callable[[Values, Context], Values]

PLACEHOLDER_DOMAIN, PLACEHOLDER = "heimdall", "Repetition"
"""Operator that stands for a repetition until its loop is written; its inputs are the values, then the context."""


@dataclass(frozen=True)
class Repetition:
    """One repetition of a traced graph.

    Attributes:
        step: what is repeated.
        num_times: how often.
        values: examples of what the step changes.
        context: examples of what it only reads; None: there is none of these.
        axes: of values, then of context: one letter an axis, capital where its length differs from call to call.
    """

    step: Step
    num_times: int
    values: Values
    context: Context
    axes: tuple[str, ...]


_noted: ContextVar[list[Repetition] | None] = ContextVar("noted", default=None)


@contextlib.contextmanager
def note_repetitions() -> Iterator[list[Repetition]]:
    """While a graph is traced inside, hold each repetition as one ``PLACEHOLDER``, and list it here by its number."""
    noted: list[Repetition] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def repeat(step: Step, num_times: int, values: Values, context: Context, axes: str) -> Values:
    """Return ``values`` after ``step(values, context)`` was applied ``num_times``.

    Args:
        step: function of a module, so that it depends on nothing but its arguments; keeps shapes and dtypes.
        num_times: how often.
        values: what it changes.
        context: what it only reads; None: there is none of these.
        axes: axes of each tensor of values, then of context, parted by blanks: a letter an axis, a capital one where
            its length differs from call to call ("BR2": sessions, receivers, two of something).

    Raises:
        ValueError: ``axes`` does not fit the tensors.
    """
    letters = tuple(axes.split())
    _check_axes(letters, (*values, *context))
    noted = _noted.get()
    if noted is None:
        for _ in range(num_times):
            values = step(values, context)
        return values
    noted.append(Repetition(step, num_times, values, context, letters))
    given = [item for item in context if item is not None]
    found: Values = _Placeholder.apply(len(noted) - 1, len(values), *values, *given)
    return found


def _check_axes(axes: tuple[str, ...], tensors: Context) -> None:
    if len(axes) != len(tensors):
        raise ValueError(f"axes of {len(axes)} tensors given; expected {len(tensors)}")
    for letters, tensor in zip(axes, tensors, strict=True):
        if tensor is not None and tensor.ndim != len(letters):
            raise ValueError(f"axes {letters} given for a tensor of shape {tuple(tensor.shape)}")


class _Placeholder(torch.autograd.Function):
    """The values as they came, for shapes are all that a trace needs of them; in ONNX one ``PLACEHOLDER``."""

    @staticmethod
    def forward(_: Any, number: int, num_values: int, *tensors: Tensor) -> Values:
        return tuple(tensor.clone() for tensor in tensors[:num_values])

    @staticmethod
    def symbolic(graph: Any, number: int, num_values: int, *tensors: Any) -> Any:
        outputs = graph.op(f"{PLACEHOLDER_DOMAIN}::{PLACEHOLDER}", *tensors, number_i=number, outputs=num_values)
        for output, value in zip([outputs] if num_values == 1 else outputs, tensors, strict=False):
            output.setType(value.type())
        return outputs
