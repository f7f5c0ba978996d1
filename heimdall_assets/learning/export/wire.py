"""What an ONNX file holds, read off its bytes without the onnx package: whoever only runs a file does not have it.

Belongs here: walking a serialised model for operators and for tensors that lie elsewhere. Does not belong here: whether
a model is valid (``export.onnx_file`` asks onnx's own checker before a file is released), running it
(``export.runtime``).

Source: Protocol Buffers, Encoding (protobuf.dev/programming-guides/encoding); field numbers of onnx.proto3.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from heimdall_assets.errors import CorruptObject

Fields = Iterator[tuple[int, int | memoryview]]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
EXTERNAL = 1
"""``TensorProto.DataLocation`` of a tensor that lies in another file."""

MODEL_GRAPH, MODEL_FUNCTION, MODEL_TRAINING = 7, 25, 20
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_OPERATOR, NODE_ATTRIBUTE, FUNCTION_NODE, FUNCTION_ATTRIBUTE = 4, 5, 7, 11
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14
INSIDE = {
    "model": {MODEL_GRAPH: "graph", MODEL_FUNCTION: "function", MODEL_TRAINING: "training"},
    "training": {1: "graph", 2: "graph"},
    "function": {FUNCTION_NODE: "node", FUNCTION_ATTRIBUTE: "attribute"},
    "graph": {GRAPH_NODE: "node", GRAPH_INITIALIZER: "tensor", GRAPH_SPARSE: "sparse"},
    "node": {NODE_ATTRIBUTE: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Message -> field that holds another one -> what that is: every way to a tensor."""

MAX_DEPTH = 32
"""Graphs within graphs: loops within loops are two or three."""


@dataclass(frozen=True)
class Contents:
    """What was found in a model.

    Attributes:
        operators: of the main graph, one an operator, in its order; those in the bodies of loops are not among them.
        has_external: a tensor, wherever it hides, lies in another file.
    """

    operators: list[str]
    has_external: bool


def read_contents(data: bytes) -> Contents:
    """Return what a serialised model holds.

    Raises:
        CorruptObject: the bytes are no such message, or are nested too deep.
    """
    operators: list[str] = []
    try:
        has_external = _walk(memoryview(data), "model", operators, 0)
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise CorruptObject(f"ONNX model of {len(data)} bytes: {error}: expected a whole ONNX file") from error
    return Contents(operators, has_external)


def _walk(message: memoryview, kind: str, operators: list[str], depth: int) -> bool:
    """Note the operators of the main graph; return whether a tensor of the message lies in another file."""
    if depth > MAX_DEPTH:
        raise ValueError(f"messages nested more than {MAX_DEPTH} deep")
    inside, found = INSIDE[kind], False
    for number, value in _list_fields(message):
        if kind == "tensor":
            found |= (number == TENSOR_LOCATION and value == EXTERNAL) or number == TENSOR_EXTERNAL
        elif kind == "node" and depth == 2 and number == NODE_OPERATOR and isinstance(value, memoryview):
            operators.append(bytes(value).decode())
        elif number in inside and isinstance(value, memoryview):
            found |= _walk(value, inside[number], operators, depth + 1)
    return found


def _list_fields(message: memoryview) -> Fields:
    """Yield number and value of each field: integers as such, messages, texts and arrays as their bytes."""
    place, end = 0, len(message)
    while place < end:
        tag, place = _read_varint(message, place)
        wire = tag & 7
        if wire == VARINT:
            value, place = _read_varint(message, place)
            yield tag >> 3, value
            continue
        if wire == BYTES:
            size, place = _read_varint(message, place)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"found wire type {wire}")
        if place + size > end:
            raise ValueError(f"found {size} bytes announced where {end - place} are left")
        yield tag >> 3, message[place : place + size]
        place += size


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    byte = message[place]
    if byte < 128:
        return byte, place + 1
    value, shift = byte & 127, 7
    while True:
        place += 1
        byte = message[place]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place + 1
        shift += 7
        if shift > 63:
            raise ValueError("found a number of more than 64 bits")
