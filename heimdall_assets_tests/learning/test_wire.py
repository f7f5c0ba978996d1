"""An ONNX file read off its bytes: what onnx's own package says of the same bytes, and nothing hidden."""

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from heimdall_assets.errors import CorruptObject
from heimdall_assets.learning.export.runtime import open_graph
from heimdall_assets.learning.export.wire import MAX_DEPTH, read_contents


def make_model(hide: str | None = None, depth: int = 1) -> onnx.ModelProto:
    """A model of three operators, one with a graph inside; ``hide`` says where a tensor lies in another file."""
    weight = numpy_helper.from_array(np.ones(3, np.float32), "weight")
    inner = numpy_helper.from_array(np.ones(1, np.float32), "inner")
    for name, tensor in (("initializer", weight), ("attribute", inner)):
        if hide == name:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="secret")
    graph = helper.make_graph([helper.make_node("Constant", [], ["c"], value=inner)], "body", [], [])
    for level in range(depth):
        node = helper.make_node("Outer", ["c"], ["d"], name=str(level), body=graph)
        graph = helper.make_graph([node], "body", [], [])
    nodes = [helper.make_node("Relu", ["x"], ["y"]), *graph.node, helper.make_node("Add", ["y", "weight"], ["z"])]
    return helper.make_model(helper.make_graph(nodes, "main", [], [], [weight]))


def test_operators_of_the_main_graph_are_listed_in_order():
    model = make_model()
    found = read_contents(model.SerializeToString())
    assert found.operators == [node.op_type for node in model.graph.node] == ["Relu", "Outer", "Add"]
    assert not found.has_external


@pytest.mark.parametrize("hide", ["initializer", "attribute"])
def test_a_tensor_in_another_file_is_found_wherever_it_hides(hide):
    data = make_model(hide).SerializeToString()
    assert read_contents(data).has_external
    with pytest.raises(CorruptObject, match="a tensor lies in another file"):
        open_graph(data)


def test_endless_nesting_ends():
    with pytest.raises(CorruptObject, match=f"nested more than {MAX_DEPTH} deep"):
        read_contents(make_model(depth=MAX_DEPTH).SerializeToString())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_but_never_hang_or_break(data):
    whole = bytearray(make_model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(CorruptObject):
        read_contents(cut)


def test_what_is_no_model_is_one_line():
    for data in (b"", b"no model", bytes(1000), b"\xff" * 64):
        with pytest.raises(CorruptObject) as caught:
            open_graph(data)
        assert "\n" not in str(caught.value)
