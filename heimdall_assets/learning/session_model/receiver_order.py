"""One order of a session's receivers, whatever order they come in.

Belongs here: ranks and reordering, in operations that ONNX Runtime has. Does not belong here: what is computed of
receivers (``network_model``). Sums of float32 in another order are other sums, and a search that accepts or rejects
makes large differences of small ones: only the same operations on the same numbers give the same answer.

Legend of shapes: B sessions, R receiver slots, K columns.
"""

import torch
from torch import Tensor


def order_receivers(table: Tensor) -> Tensor:
    """Return indices (B, R) that put the rows of a table (B, R, K) into ascending order, column by column.

    NaN counts as largest, so that empty slots come last. Rows that are equal in every column keep their order: nothing
    in the table tells them apart.
    """
    key = torch.where(table.isnan(), torch.inf, table)
    slot = torch.arange(table.shape[1], device=table.device)
    before = (slot.unsqueeze(0) < slot.unsqueeze(1)).unsqueeze(0)  # before[b, i, j]: row j stands before row i
    for column in reversed(range(table.shape[2])):
        mine, other = key[:, :, None, column], key[:, None, :, column]
        before = (other < mine) | ((other == mine) & before)
    rank = before.to(slot.dtype).sum(2)
    return torch.zeros_like(rank).scatter(1, rank, slot.expand_as(rank))


def reorder(values: Tensor, order: Tensor, axis: int = 1) -> Tensor:
    """Return values (B, ..., R, ...) with their receivers, which stand on ``axis``, in the given order (B, R)."""
    shape = [1] * values.ndim
    shape[0], shape[axis] = order.shape
    return values.gather(axis, order.view(shape).expand_as(values))


def reorder_pairs(values: Tensor, order: Tensor) -> Tensor:
    """Return values (B, R, R, ...) of pairs with their receivers in the given order (B, R)."""
    return reorder(reorder(values, order, 1), order, 2)
