"""Other ways to the same numbers within rounding, for less memory or less time: each for as long as a fit lasts.

Belongs here: activation checkpointing, channels last, compiling, as context managers that leave the network as it was.
Does not belong here: precision and the optimiser, which Lightning and torch offer as they are; how a gradient is taken
(``depthwise``).
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from heimdall_assets.errors import MissingDependency
from heimdall_assets.learning.fitting.depthwise import multiply_depthwise
from heimdall_assets.specs import TrainingSpec


@contextmanager
def apply_savings(
    network: nn.Module, blocks: Sequence[nn.Module], training: TrainingSpec
) -> Iterator[Callable[..., Any]]:
    """Yield what to call in place of ``network``: itself, or what it was compiled to."""
    with ExitStack() as stack:
        stack.enter_context(multiply_depthwise(network))
        if training.channels_last:
            stack.enter_context(lay_channels_last(network))
        if training.activation_checkpointing:
            stack.enter_context(recompute_activations(blocks))
        yield torch.compile(network, dynamic=True) if training.compile else network


@contextmanager
def recompute_activations(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Keep of each block its inputs alone while its gradients are awaited, and compute the rest again."""
    for block in blocks:
        block.forward = _forget(block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _forget(forward: Callable[..., Any]) -> Callable[..., Any]:
    def compute(*given: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*given)
        return checkpoint(forward, *given, use_reentrant=False)

    return compute


@contextmanager
def lay_channels_last(network: nn.Module) -> Iterator[None]:
    """Lay spectrograms and the weights of their convolutions in memory with channels last."""
    backbone = getattr(network, "backbone", None)
    if backbone is None:  # nothing to lay out
        yield
        return
    backbone.to(memory_format=torch.channels_last)
    handle = backbone.register_forward_pre_hook(_lay_input)
    try:
        yield
    finally:
        handle.remove()
        for weight in backbone.parameters():
            weight.data = weight.data.contiguous()


def _lay_input(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (given[0].contiguous(memory_format=torch.channels_last), *given[1:])


def check_compiler(device: str) -> None:
    """Return nothing if ``torch.compile`` works here: it needs a C++ compiler, on a GPU Triton too.

    Raises:
        MissingDependency: it does not.
    """
    torch.compiler.reset()
    try:
        cold = torch.compiler.config.patch(force_disable_caches=True)  # type: ignore[attr-defined]
        with warnings.catch_warnings(), cold:
            warnings.simplefilter("ignore")  # of what is switched off: what was compiled once needs no compiler
            torch.compile(_double)(torch.ones(2, device=device))
    except Exception as error:  # whatever is missing, torch says it in types of its own
        line = " ".join(str(error).split())
        raise MissingDependency(
            f"TrainingSpec.compile: torch.compile does not work here ({line:.160}): expected a C++ compiler (g++, or "
            "what CXX names); compile=false trains without"
        ) from error


def _double(values: Tensor) -> Tensor:
    return values * 2.0
