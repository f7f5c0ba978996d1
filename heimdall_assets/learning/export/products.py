"""The learned products of a graph: which matrix products a variant may round, and putting others in their place.

Belongs here: finding them, replacing them. Does not belong here: how numbers are rounded (``export.rounding``), which
variant does what (``export.variants``).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

MIN_WEIGHTS = 16_384
"""Weights of a product below which rounding saves nothing that counts: heads and the tokens that feed physics."""

PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class Product:
    """One product of the main graph whose right side is fixed: y = x W (+ b).

    Attributes:
        node: as it stands in the graph.
        weight: float32 (K, N).
        bias: name of the tensor (N,) that is added; None: none is.
    """

    node: onnx.NodeProto
    weight: NDArray[np.float32]
    bias: str | None

    @property
    def source(self) -> str:
        """Name of x."""
        return str(self.node.input[0])

    @property
    def target(self) -> str:
        """Name of y."""
        return str(self.node.output[0])

    @property
    def prefix(self) -> str:
        """What the names of tensors that stand in its place begin with; no other product has it."""
        return f"{self.target}/"


@dataclass(frozen=True)
class Replacement:
    """What stands in the place of a product: operators, and the tensors that they read."""

    nodes: list[onnx.NodeProto]
    tensors: list[onnx.TensorProto]


def find_products(proto: onnx.ModelProto, kept_whole: Sequence[str] = (), smallest: int = MIN_WEIGHTS) -> list[Product]:
    """Return the products of fixed weights in the main graph, in its order; bodies of loops are physics and left alone.

    Args:
        proto: a traced model.
        kept_whole: names of modules of which no number may be rounded.
        smallest: number of weights below which a product is not listed.
    """
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = []
    for node in proto.graph.node:
        if node.op_type not in PRODUCTS or node.domain or is_kept_whole(node.name, kept_whole):
            continue
        tensor = tensors.get(node.input[1])
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2:
            continue
        turned = _read_turn(node)
        if turned is None or int(np.prod(tensor.dims)) < smallest:
            continue
        weight = numpy_helper.to_array(tensor)
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        found.append(Product(node, np.ascontiguousarray(weight.T if turned else weight), bias))
    return found


def is_kept_whole(name: str, kept_whole: Iterable[str]) -> bool:
    """Return whether an operator of this name belongs to one of these modules."""
    return any(part in kept_whole for part in name.split("/"))


def _read_turn(node: onnx.NodeProto) -> bool | None:
    """Return whether the weight stands transposed; None: the operator does more than multiply and add."""
    if node.op_type == "MatMul":
        return False
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0 or given.get("transA", 0):
        return None
    return bool(given.get("transB", 0))


def replace_products(
    proto: onnx.ModelProto, products: Sequence[Product], replace: Callable[[Product], Replacement]
) -> None:
    """Put what ``replace`` gives in the place of each product, and drop tensors that nothing reads any more."""
    places = {product.target: product for product in products}
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        product = places.get(node.output[0]) if node.output else None
        if product is None:
            proto.graph.node.append(node)
            continue
        put = replace(product)
        proto.graph.node.extend(put.nodes)
        proto.graph.initializer.extend(put.tensors)
    drop_unread(proto)


def drop_unread(proto: onnx.ModelProto) -> None:
    """Drop the fixed tensors of the main graph that no operator reads, those in the bodies of loops included."""
    read = {item.name for item in proto.graph.output} | set(_list_read(proto.graph))
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


def _list_read(graph: onnx.GraphProto) -> Iterable[str]:
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _list_read(inner)
                yield from (item.name for item in inner.output)
