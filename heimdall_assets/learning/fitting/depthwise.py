"""Weight gradients of depthwise convolutions over few positions, by matrix products on the CPU.

Belongs here: the same sums in another order, for as long as a fit lasts. Does not belong here: what changes a result
by more than rounding.

A 7 x 7 kernel over a map of 4 x 1 or 8 x 2 positions, which is what the later stages of a backbone see of a
spectrogram, is where oneDNN takes 10 to 60 times as long for the weights' gradient as for the map's. All products of a
position in and a position out, summed over the batch, are one small matrix a channel; each tap is a sum along one of
its diagonals.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

MAX_POSITIONS = 64
"""Of a map: beyond it the matrices cost as much as what they replace (measured; ``benchmarks/training.md``)."""


@contextmanager
def multiply_depthwise(network: nn.Module) -> Iterator[None]:
    """Let depthwise convolutions of ``network`` take their weights' gradients by matrix products where that pays."""
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d) and _is_eligible(module)]
    for module in found:
        module.forward = _convolve(module, module.forward)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        for module in found:
            del module.forward


def _is_eligible(module: nn.Conv2d) -> bool:
    """Return whether each channel is convolved with its own odd, square kernel, and the map stays as large as it is."""
    size, padding = module.kernel_size, module.padding
    return (
        module.groups == module.in_channels == module.out_channels
        and size[0] == size[1]
        and size[0] % 2 == 1
        and padding == (size[0] // 2, size[0] // 2)
        and module.padding_mode == "zeros"
        and module.stride == module.dilation == (1, 1)
    )


def _convolve(module: nn.Conv2d, plain: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def compute(given: Tensor) -> Tensor:
        few = given.shape[-2] * given.shape[-1] <= MAX_POSITIONS
        if not (few and given.device.type == "cpu" and module.weight.requires_grad and torch.is_grad_enabled()):
            return plain(given)
        if torch.is_autocast_enabled("cpu"):  # once, here: what is kept for the gradient is what was convolved
            given = given.to(torch.get_autocast_dtype("cpu"))
        # with a bias among its arguments oneDNN would go through the weights' gradient for that alone
        out = nn.functional.conv2d(given, module.weight.detach(), None, padding=module.padding, groups=module.groups)
        weighed: Tensor = _WeightGradient.apply(out, given, module.weight)
        return weighed if module.bias is None else weighed + module.bias.to(weighed.dtype)[:, None, None]

    return compute


class _WeightGradient(torch.autograd.Function):
    """Hands on a convolution's output, and gives its weights their gradient."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, given: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(given)
        ctx.size, ctx.dtype = weight.shape[-1], weight.dtype
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor]:
        (given,) = ctx.saved_tensors
        return gradients[0], None, compute_weight_gradient(given, gradients[0], ctx.size).to(ctx.dtype)


def compute_weight_gradient(given: Tensor, gradient: Tensor, size: int) -> Tensor:
    """Return the gradient of a depthwise kernel, (C, 1, size, size).

    Args:
        given: what was convolved, with zeros around it (B, C, H, W).
        gradient: of what came out (B, C, H, W).
        size: of the kernel, odd.
    """
    batch, channels, height, width = given.shape
    into = given.permute(1, 2, 3, 0).reshape(channels, height * width, batch)
    out = gradient.permute(1, 0, 2, 3).reshape(channels, batch, height * width)
    products = torch.bmm(into, out.to(into.dtype)).float().view(channels, height, width, height, width)
    reach = size // 2

    def add_along(values: Tensor, offset: int, length: int, dims: tuple[int, int], nothing: Tensor) -> Tensor:
        return values.diagonal(offset, *dims).sum(-1) if abs(offset) < length else nothing

    none = products.new_zeros(channels, width, width)
    rows = [add_along(products, reach - tap, height, (1, 3), none) for tap in range(size)]
    lines = torch.stack(rows, dim=1)  # (C, size, W, W)
    none = products.new_zeros(channels, size)
    columns = [add_along(lines, reach - tap, width, (2, 3), none) for tap in range(size)]
    return torch.stack(columns, dim=2)[:, None]
