"""The repetitions of a traced model as ONNX ``Loop`` operators, each with the repeated step once as its body.

Belongs here: placing bodies in graphs. Does not belong here: what is repeated (``learning.repetition``), tracing
(``export.onnx_file``).
"""

from collections.abc import Callable, Iterator

import onnx
from onnx import compose, helper
from torch import Tensor, nn

from heimdall_assets.learning.repetition import PLACEHOLDER, PLACEHOLDER_DOMAIN, Repetition

TraceStep = Callable[[nn.Module, dict[str, Tensor], list[str], dict[str, dict[int, str]]], onnx.ModelProto]
"""Module, input name -> example, output names, input name -> {axis: name} -> its traced model."""


class _Step(nn.Module):
    """One repetition's step with tensors alone: its values, and what there is of its context."""

    def __init__(self, repetition: Repetition) -> None:
        super().__init__()
        self.repetition = repetition

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        step, num = self.repetition.step, len(self.repetition.values)
        given = iter(tensors[num:])
        return step(tensors[:num], tuple(None if item is None else next(given) for item in self.repetition.context))


def write_loops(proto: onnx.ModelProto, repetitions: list[Repetition], trace: TraceStep) -> None:
    """Replace each ``PLACEHOLDER`` of ``proto`` by the ``Loop`` that it stands for.

    Args:
        proto: a traced model, its placeholders numbered as ``repetitions``; changed in place.
        repetitions: of ``note_repetitions``.
        trace: traces one step; equal steps over equal shapes are traced once.
    """
    traced: dict[object, onnx.ModelProto] = {}
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        if (node.domain, node.op_type) != (PLACEHOLDER_DOMAIN, PLACEHOLDER):
            proto.graph.node.append(node)
            continue
        number = node.attribute[0].i
        repetition = repetitions[number]
        kind = (repetition.step, repetition.axes, tuple(_say_shapes(repetition)))
        if kind not in traced:
            traced[kind] = _trace_step(repetition, trace)
        proto.graph.node.extend(_make_loop(node, number, repetition, traced[kind]))
    kept = [item for item in proto.opset_import if item.domain != PLACEHOLDER_DOMAIN]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)


def _say_shapes(repetition: Repetition) -> Iterator[tuple[int, ...] | None]:
    for tensor in (*repetition.values, *repetition.context):
        yield None if tensor is None else tuple(tensor.shape)


def _trace_step(repetition: Repetition, trace: TraceStep) -> onnx.ModelProto:
    tensors = (*repetition.values, *repetition.context)
    inputs = {f"input_{i}": tensor for i, tensor in enumerate(tensors) if tensor is not None}
    axes = {
        f"input_{i}": {axis: letter for axis, letter in enumerate(letters) if letter.isupper()}
        for i, letters in enumerate(repetition.axes)
        if f"input_{i}" in inputs
    }
    return trace(_Step(repetition), inputs, [f"output_{i}" for i in range(len(repetition.values))], axes)


def _make_loop(
    node: onnx.NodeProto, number: int, repetition: Repetition, step: onnx.ModelProto
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Return the number of times as a constant, and the loop; what a body only reads it reads from the graph around."""
    num_values, prefix = len(repetition.values), f"repetition_{number}/"
    names = [f"input_{i}" for i, tensor in enumerate((*repetition.values, *repetition.context)) if tensor is not None]
    around = {prefix + name: outer for name, outer in zip(names, node.input, strict=True)}
    body = compose.add_prefix(step, prefix).graph
    read = {prefix + name: around[prefix + name] for name in names[num_values:]}
    for inner in body.node:
        inner.input[:] = [read.get(name, name) for name in inner.input]
    del body.input[:]
    count, go_on, going = f"{prefix}count", f"{prefix}go_on", f"{prefix}going"
    body.input.append(helper.make_tensor_value_info(count, onnx.TensorProto.INT64, []))
    body.input.append(helper.make_tensor_value_info(go_on, onnx.TensorProto.BOOL, []))
    for name, value in zip(names, repetition.values, strict=False):
        dtype = helper.np_dtype_to_tensor_dtype(value.numpy().dtype)
        body.input.append(helper.make_tensor_value_info(prefix + name, dtype, None))
    body.node.insert(0, helper.make_node("Identity", [go_on], [going], name=f"{prefix}Identity_going"))
    body.output.insert(0, helper.make_tensor_value_info(going, onnx.TensorProto.BOOL, []))
    times = f"{prefix}times"
    value = helper.make_tensor(times, onnx.TensorProto.INT64, [], [repetition.num_times])
    constant = helper.make_node("Constant", [], [times], name=f"{prefix}Constant_times", value=value)
    inputs = [times, "", *node.input[:num_values]]
    return constant, helper.make_node("Loop", inputs, list(node.output), name=f"{prefix}Loop", body=body)
