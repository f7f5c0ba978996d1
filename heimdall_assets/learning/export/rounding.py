"""Rounding: weights of a product with fewer bits, and the operators that multiply by them.

Belongs here: 16, 8 and 4 bits. Does not belong here: which products (``export.products``), ranges of activations
(``export.activations``). ONNX Runtime's own quantiser writes its files to the temporary folder and leaves a trace of
itself in them; these are the same operators, in memory, as its kernels expect them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from heimdall_assets.learning.export.products import PRODUCTS, Product, Replacement, is_kept_whole

LARGEST_INT8 = 63
"""Of a weight of 8 bits. Processors without VNNI add two products of 8 bits in 16: 2 x 255 x 64 just fits, so that each
processor gives the same sum; with 127 some would cut it off in silence."""

BLOCK = 32
"""Weights that share a scale in 4 bits."""

INT8_ACCURACY = 4
"""``accuracy_level`` of ``MatMulNBits``: activations in 8 bits; what it does without is several times slower."""

CONTRIB_DOMAIN = "com.microsoft"
"""Of the operator for 4 bits, which ONNX itself has not."""

MAX_FLOAT16 = 65_504.0

MIN_HALVED = 4_096
"""Weights of a tensor below which 16 bits save nothing that counts."""


def round_dynamically(product: Product) -> Replacement:
    """Return the product in 8 bits, the range of the activations found anew in each call, over all its examples."""
    prefix = product.prefix
    levels, scale = prefix + "levels", prefix + "scale"
    point = prefix + "point"
    measure = helper.make_node("DynamicQuantizeLinear", [product.source], [levels, scale, point], prefix + "measure")
    weights, weight_scale = round_to_int8(product.weight)
    both = helper.make_node("Mul", [scale, prefix + "weight_scale"], [prefix + "both"], prefix + "join")
    put = _multiply_levels(product, weights, prefix + "both")
    return Replacement(
        [measure, both, *put.nodes],
        [*put.tensors, numpy_helper.from_array(weight_scale, prefix + "weight_scale")],
    )


def round_statically(product: Product, low: float, high: float) -> Replacement:
    """Return the product in 8 bits, activations cut off at a range that was measured before."""
    prefix = product.prefix
    scale, point = fit_levels(low, high)
    weights, weight_scale = round_to_int8(product.weight)
    given = [product.source, prefix + "scale", prefix + "point"]
    measure = helper.make_node("QuantizeLinear", given, [prefix + "levels"], prefix + "measure")
    put = _multiply_levels(product, weights, prefix + "both")
    tensors = [
        numpy_helper.from_array(scale, prefix + "scale"),
        numpy_helper.from_array(point, prefix + "point"),
        numpy_helper.from_array((scale * weight_scale).astype(np.float32), prefix + "both"),
    ]
    return Replacement([measure, *put.nodes], [*put.tensors, *tensors])


def _multiply_levels(product: Product, weights: NDArray[np.int8], scale: str) -> Replacement:
    """Return levels times weights as float32: integers inside, scaled and shifted at the end."""
    prefix = product.prefix
    points = np.zeros(weights.shape[1], np.int8)
    scaled = product.target if product.bias is None else prefix + "scaled"
    given = [prefix + "levels", prefix + "weights", prefix + "point", prefix + "weight_points"]
    nodes = [
        helper.make_node("MatMulInteger", given, [prefix + "sums"], prefix + "multiply"),
        helper.make_node("Cast", [prefix + "sums"], [prefix + "float"], prefix + "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [prefix + "float", scale], [scaled], prefix + "scale_sums"),
    ]
    if product.bias is not None:
        nodes.append(helper.make_node("Add", [scaled, product.bias], [product.target], prefix + "add"))
    tensors = [(weights, "weights"), (points, "weight_points")]
    return Replacement(nodes, [numpy_helper.from_array(value, prefix + name) for value, name in tensors])


def round_to_int8(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight (K, N) in whole steps of a scale (N,), one a column.

    Examples:
        >>> steps, scale = round_to_int8(np.array([[63.0, -2.0], [31.4, 1.0]], np.float32))
        >>> steps.tolist(), scale.round(3).tolist()
        ([[63, -63], [31, 32]], [1.0, 0.03200000151991844])
    """
    largest = np.abs(weight).max(axis=0)
    scale = np.where(largest > 0, largest / LARGEST_INT8, 1.0).astype(np.float32)
    steps = np.rint(weight / scale).clip(-LARGEST_INT8, LARGEST_INT8).astype(np.int8)
    return steps, scale


def fit_levels(low: float, high: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return scale and zero point of 256 levels over a range; zero is one of them.

    Examples:
        >>> scale, point = fit_levels(-1.0, 1.55)
        >>> round(float(scale), 4), int(point)
        (0.01, 100)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255.0 or 1.0)
    return np.asarray(scale), np.asarray(np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8))


def round_to_int4(product: Product) -> Replacement:
    """Return the product with weights in 4 bits, ``BLOCK`` of a column sharing a scale."""
    prefix = product.prefix
    rows, columns = product.weight.shape
    packed, scale = pack_int4(product.weight)
    product_out = product.target if product.bias is None else prefix + "product"
    nodes = [
        helper.make_node(
            "MatMulNBits",
            [product.source, prefix + "weights", prefix + "scale"],
            [product_out],
            prefix + "multiply",
            domain=CONTRIB_DOMAIN,
            K=rows,
            N=columns,
            bits=4,
            block_size=BLOCK,
            accuracy_level=INT8_ACCURACY,
        )
    ]
    if product.bias is not None:
        nodes.append(helper.make_node("Add", [product_out, product.bias], [product.target], prefix + "add"))
    tensors = [numpy_helper.from_array(packed, prefix + "weights"), numpy_helper.from_array(scale, prefix + "scale")]
    return Replacement(nodes, tensors)


def pack_int4(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a weight (K, N) as uint8 (N, blocks, ``BLOCK`` / 2), two steps a byte, and float32 scales (N, blocks).

    Steps are -8 to 7, stored 8 higher, the first of a byte in its lower half. The value that lies farthest from zero
    becomes -8 in its block, so that all sixteen steps are used.
    """
    rows, columns = weight.shape
    num_blocks = -(-rows // BLOCK)
    whole = np.zeros((num_blocks * BLOCK, columns), np.float32)
    whole[:rows] = weight
    blocks = whole.T.reshape(columns, num_blocks, BLOCK)
    place = np.abs(blocks).argmax(axis=2)
    farthest = np.take_along_axis(blocks, place[..., None], axis=2)[..., 0]
    scale = np.where(farthest != 0, farthest / -8.0, 1.0).astype(np.float32)
    steps: NDArray[np.uint8] = (np.rint(blocks / scale[..., None]).clip(-8, 7) + 8.0).astype(np.uint8)
    packed: NDArray[np.uint8] = steps[..., 0::2] | (steps[..., 1::2] << np.uint8(4))
    return packed, scale


def unpack_int4(packed: NDArray[np.uint8], scale: NDArray[np.float32], num_rows: int) -> NDArray[np.float32]:
    """Return the weight (K, N) that ``pack_int4`` packed, as it was rounded."""
    columns, num_blocks, _ = packed.shape
    steps = np.empty((columns, num_blocks, BLOCK), np.float32)
    steps[..., 0::2], steps[..., 1::2] = packed & 0x0F, packed >> 4
    values = (steps - 8.0) * scale[..., None]
    return np.ascontiguousarray(values.reshape(columns, num_blocks * BLOCK)[:, :num_rows].T)


def halve_weights(proto: onnx.ModelProto, kept_whole: Sequence[str]) -> tuple[int, int]:
    """Store what products and convolutions multiply by in 16 bits; return how many tensors, and weights, these are.

    What they compute stays float32: each tensor is widened again before it is used, which ONNX Runtime does once, when
    it loads. Half the bytes and none of float16's narrow range, in which sums of squares overflow.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    wanted = [tensor for tensor in proto.graph.initializer if _can_halve(tensor, readers, kept_whole)]
    num_weights, widened = 0, []
    for tensor in wanted:
        values = numpy_helper.to_array(tensor)
        name, half = tensor.name, f"{tensor.name}/half"
        num_weights += values.size
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        widened.append(helper.make_node("Cast", [half], [name], f"{name}/widen", to=TensorProto.FLOAT))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*widened, *nodes])
    return len(wanted), num_weights


def _can_halve(
    tensor: onnx.TensorProto, readers: Mapping[str, list[onnx.NodeProto]], kept_whole: Sequence[str]
) -> bool:
    """Return whether only learned layers read a tensor, as what they multiply by, and 16 bits hold its numbers."""
    found = readers.get(tensor.name, [])
    if tensor.data_type != TensorProto.FLOAT or not found or int(np.prod(tensor.dims)) < MIN_HALVED:
        return False
    learned = all(
        node.op_type in (*PRODUCTS, "Conv")
        and node.input[1] == tensor.name
        and not is_kept_whole(node.name, kept_whole)
        for node in found
    )
    return learned and bool(np.abs(numpy_helper.to_array(tensor)).max() <= MAX_FLOAT16)


def import_contrib(proto: onnx.ModelProto) -> None:
    """Say that the model uses ONNX Runtime's own operators."""
    if all(item.domain != CONTRIB_DOMAIN for item in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(CONTRIB_DOMAIN, 1))
