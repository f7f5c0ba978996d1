"""Pruning: a ConvNeXt backbone with fewer hidden units in its blocks, the others fitted to answer for them.

Belongs here: which units go, and what the rest then weigh. Does not belong here: export (``export.onnx_file``), fitting
by gradient descent (``fitting``).
Weights set to zero one by one would change neither size nor speed; whole hidden units leave both layers of a block's
MLP. The second layer is then solved anew by least squares, so that its outputs on training data stay as near as they
can to what they were (Y. He, X. Zhang, J. Sun, Channel Pruning, ICCV 2017, section 3.1), and a unit's importance is how
much of that output it carries: the mean square of its activation times the squared norm of its outgoing weights.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from heimdall_assets.errors import InvalidInput

RIDGE = 1e-4
"""Of the mean square of a hidden activation, added to the diagonal: units that never differ leave it singular."""

MAX_ROWS = 4096
"""Positions of a block's picture that one batch contributes: they are many, and much alike."""


def prune_backbone(module: nn.Module, batches: Iterable[tuple[Tensor, ...]], share: float) -> tuple[nn.Module, int]:
    """Return a copy of ``module`` whose ConvNeXt blocks have ``share`` fewer hidden units, and how many weights went.

    Args:
        module: in ``eval`` mode.
        batches: tensors that ``module`` is called with, of training examples.
        share: of the hidden units of each block; at least one stays.

    Raises:
        InvalidInput: there is no such block, or no batch.
    """
    pruned = copy.deepcopy(module)
    blocks = find_blocks(pruned)
    if not blocks:
        raise InvalidInput("pruned: found no ConvNeXt block in the model, expected at least 1")
    moments = _measure_moments(pruned, blocks, list(batches))
    before = sum(weight.numel() for weight in pruned.parameters())
    for block, moment in zip(blocks, moments, strict=True):
        _prune_block(block, moment, share)
    return pruned, before - sum(weight.numel() for weight in pruned.parameters())


def find_blocks(module: nn.Module) -> list[Any]:
    """Return the MLPs of the ConvNeXt blocks within ``module``."""
    parts: list[Any] = [part for part in module.modules() if type(part).__name__ == "ConvNeXtBlock"]
    return [part.mlp for part in parts if isinstance(getattr(part.mlp, "fc1", None), nn.Linear)]


def _measure_moments(module: nn.Module, blocks: list[Any], batches: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Return each block's second moments (H + 1, H + 1) of hidden activations and a constant 1, float64."""
    if not batches:
        raise InvalidInput("pruned: found no training example to measure activations on, expected at least 1")
    sums: list[Tensor] = [
        torch.zeros(block.fc2.in_features + 1, block.fc2.in_features + 1).double() for block in blocks
    ]
    counts = [0] * len(blocks)

    def watch(number: int) -> Any:
        def add(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            rows = given[0].detach().reshape(-1, given[0].shape[-1])
            rows = rows[:: -(-len(rows) // MAX_ROWS)].double()
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
            sums[number] += rows.T @ rows
            counts[number] += len(rows)

        return blocks[number].fc2.register_forward_pre_hook(add)

    hooks = [watch(number) for number in range(len(blocks))]
    try:
        with torch.no_grad():
            for batch in batches:
                module(*batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not all(counts):
        raise InvalidInput("pruned: found a block of the backbone that training examples never reach")
    return [total / count for total, count in zip(sums, counts, strict=True)]


def _prune_block(block: Any, moment: Tensor, share: float) -> None:
    first, second = block.fc1, block.fc2
    num_hidden = second.in_features
    num_kept = max(1, num_hidden - round(share * num_hidden))
    weight = second.weight.detach().double()
    importance = moment.diagonal()[:num_hidden] * weight.square().sum(0)
    kept = importance.sort(descending=True, stable=True).indices[:num_kept].sort().values
    inner = torch.cat([kept, torch.tensor([num_hidden])])  # the constant stays: its weight is the bias
    whole = torch.cat([weight, second.bias.detach().double()[:, None]], 1)
    gram = moment[inner][:, inner].clone()
    gram.diagonal()[:-1] += RIDGE * moment.diagonal()[:num_hidden].mean()
    ridge = torch.zeros_like(moment)
    ridge.diagonal()[:num_hidden] += RIDGE * moment.diagonal()[:num_hidden].mean()
    solved = torch.linalg.solve(gram, (moment + ridge)[inner] @ whole.T).T  # pulled to what it was, not to zero
    block.fc1 = _build_linear(first.weight[kept], first.bias[kept])
    block.fc2 = _build_linear(solved[:, :-1].float(), solved[:, -1].float())


def _build_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float32)
    layer.weight = nn.Parameter(weight.detach().clone().contiguous(), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().clone().contiguous(), requires_grad=False)
    return layer
