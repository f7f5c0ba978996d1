"""Activations: which range each product of a graph meets on given sessions.

Belongs here: running a graph to look inside. Does not belong here: what is done with a range (``export.rounding``).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.export.onnx_file import open_onnx_session
from heimdall_assets.learning.export.products import Product

BATCH = 16
"""Examples at once: all their activations are held."""

INNER_SHARE = 0.9999
"""Of the values of a batch that a range holds: one wild value would cost all the others their levels."""

Feed = Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]


def measure_ranges(
    data: bytes, products: Sequence[Product], feed: Feed, max_examples: int
) -> dict[str, tuple[float, float]]:
    """Return name of a product's x -> range that holds it over the examples: the widest of its batches' inner ranges.

    Raises:
        InvalidInput: there is no example to measure.
    """
    names = list(dict.fromkeys(product.source for product in products))
    session = open_onnx_session(_look_inside(data, names))
    found: dict[str, tuple[float, float]] = {}
    left = max_examples
    for examples, arrays in feed:
        if left <= 0:
            break
        given = {name: values[:left] for name, values in arrays.items()}
        left -= len(examples)
        for name, values in zip(names, session.run([f"{name}/seen" for name in names], given), strict=True):
            low, high = np.quantile(values, [1.0 - INNER_SHARE, INNER_SHARE])
            before = found.get(name, (0.0, 0.0))
            found[name] = (min(before[0], float(low)), max(before[1], float(high)))
    if not found:
        raise InvalidInput("int8_static: found no training example to measure activations on, expected at least 1")
    return found


def _look_inside(data: bytes, names: Sequence[str]) -> bytes:
    """Return the model with these tensors of the main graph as further outputs ``NAME/seen``, flat."""
    proto = onnx.load_model_from_string(data)
    flat = "seen/flat"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), flat))
    for name in names:
        proto.graph.node.append(helper.make_node("Reshape", [name, flat], [f"{name}/seen"], f"{name}/see"))
        proto.graph.output.append(helper.make_tensor_value_info(f"{name}/seen", TensorProto.FLOAT, [None]))
    looked: bytes = proto.SerializeToString()
    return looked
