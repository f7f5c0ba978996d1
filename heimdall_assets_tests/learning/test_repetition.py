"""A repeated step is one ``Loop`` in an exported graph, computes what a plain loop computes, and says what it needs."""

import io
import math
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.export.loops import write_loops
from heimdall_assets.learning.export.onnx_file import _trace_script
from heimdall_assets.learning.repetition import note_repetitions, repeat


def halve_towards(values, context):
    """Heron's square root of ``of``, and a count of the steps; ``more`` may be missing, ``unread`` is never read."""
    root, count = values
    of, _, more = context
    root = 0.5 * (root + of / root)
    return (root if more is None else root + 0.0 * more, count + 1.0)


class Roots(nn.Module):
    """Two repetitions of one step, the second with another number of times."""

    def __init__(self, num_times: int, with_more: bool) -> None:
        super().__init__()
        self.num_times, self.with_more = num_times, with_more

    def forward(self, of: Tensor) -> tuple[Tensor, Tensor]:
        more = of * 2.0 if self.with_more else None
        start = (torch.ones_like(of), torch.zeros_like(of))
        found = repeat(halve_towards, self.num_times, start, (of, of - 1.0, more), "B3 B3 B3 B3 B3")
        root, count = repeat(halve_towards, 1, found, (of, of - 1.0, more), "B3 B3 B3 B3 B3")
        return root * 1.0, count


def export(module: nn.Module, outputs: tuple[str, ...] = ("root", "count")) -> onnx.ModelProto:
    def trace(*what: Any) -> onnx.ModelProto:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", category=DeprecationWarning)
            warnings.simplefilter("ignore", category=FutureWarning)
            return _trace_script(*what, 20)

    with note_repetitions() as repetitions:
        proto = trace(module, {"of": torch.ones(4, 3)}, list(outputs), {"of": {0: "batch"}})
    write_loops(proto, repetitions, trace)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("with_more", [False, True])
def test_a_loop_computes_what_the_plain_loop_does_for_any_batch(with_more):
    proto = export(Roots(6, with_more))
    assert [node.op_type for node in proto.graph.node].count("Loop") == 2
    assert [item.domain for item in proto.opset_import] == [""]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        of = np.linspace(0.5, 9.0, 3 * batch, dtype=np.float32).reshape(batch, 3)
        root, count = session.run(None, {"of": of})
        with torch.no_grad():
            expected = Roots(6, with_more)(torch.from_numpy(of))
        assert np.array_equal(root, expected[0].numpy())
        assert np.allclose(root, np.sqrt(of), rtol=1e-6)
        assert np.array_equal(count, np.full_like(of, 7.0))


def test_the_graph_does_not_grow_with_the_number_of_times():
    few, many = export(Roots(2, False)), export(Roots(50, False))
    assert few.ByteSize() == pytest.approx(many.ByteSize(), abs=16)


def test_gradients_flow_through_a_repetition():
    of = torch.tensor([[4.0, 9.0, 16.0]], requires_grad=True)
    root, _ = Roots(30, False)(of)
    (slope,) = torch.autograd.grad(root.sum(), of)
    assert slope[0].tolist() == pytest.approx([0.5 / math.sqrt(value) for value in (4.0, 9.0, 16.0)], rel=1e-5)


def test_axes_must_fit_the_tensors():
    start, of = (torch.ones(2, 3), torch.ones(2, 3)), torch.ones(2, 3)
    with pytest.raises(ValueError, match="axes of 4 tensors given; expected 5"):
        repeat(halve_towards, 1, start, (of, of, None), "B3 B3 B3 B3")
    with pytest.raises(ValueError, match=r"axes B given for a tensor of shape \(2, 3\)"):
        repeat(halve_towards, 1, start, (of, of, None), "B3 B3 B B3 B3")


def decide(values, context):
    (root,) = values
    return (root * 2.0 if bool(root.sum() > 0) else root,)


class Deciding(nn.Module):
    def forward(self, of: Tensor) -> Tensor:
        return repeat(decide, 3, (of,), (), "B3")[0] * 1.0


def test_a_step_that_decides_on_its_data_is_refused():
    with pytest.raises(InvalidInput, match="one decision would be baked in"):
        export(Deciding(), ("root",))


def test_nothing_is_noted_outside_an_export():
    with note_repetitions() as outer:
        Roots(2, False)(torch.ones(1, 3))
    Roots(2, False)(torch.ones(1, 3))
    assert [item.num_times for item in outer] == [2, 1]
    with note_repetitions() as later:
        pass
    assert later == []


def test_a_loop_survives_being_written_and_read():
    proto = export(Roots(3, True))
    again = onnx.load(io.BytesIO(proto.SerializeToString()))
    assert again == proto
