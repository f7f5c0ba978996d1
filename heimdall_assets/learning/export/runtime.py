"""An ONNX file run by ONNX Runtime, on the CPU: the one place that imports it, with neither torch nor onnx beside it.

Belongs here: opening a file, running batches through it. Does not belong here: exporting, checking and comparing files
(``export.onnx_file``), which arrays a kind of model is fed (``session_model.feed``, ``receiver_model.feed``).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.counts import say_count
from heimdall_assets.errors import CannotLocate, CorruptObject
from heimdall_assets.learning.export.wire import read_contents
from heimdall_assets.libraries import silence_libraries

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ONNX_BATCH = 64

MAX_OPTIMISED_NODES = 2000
"""Beyond it ONNX Runtime's optimiser is left out where nothing is convolved: on a solver it doubles the loading and
speeds up nought. Convolutions it lays out anew, and they are three times as fast."""

Arrays = dict[str, NDArray[Any]]
Batches = Iterable[tuple[NDArray[np.int64], Arrays]]
"""Examples (B,), and input name -> array of them."""


def open_graph(data: bytes, num_threads: int = 1) -> "InferenceSession":
    """Return an ONNX Runtime session on the CPU.

    Raises:
        CorruptObject: not one whole ONNX file, or ONNX Runtime cannot run it.
    """
    silence_libraries()
    import onnxruntime

    contents = read_contents(data)
    if contents.has_external:
        raise CorruptObject(
            f"ONNX model of {len(data)} bytes: a tensor lies in another file; only one whole file is read"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if len(contents.operators) > MAX_OPTIMISED_NODES:
        if "Conv" not in contents.operators:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Planning who may reuse whose memory takes time with the square of the nodes (12 s for 8000); values are freed
        # after their last use either way, and neither run time nor memory differ.
        options.enable_mem_reuse = False
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own types share no public base
        line = " ".join(str(error).split())
        raise CorruptObject(f"ONNX model of {len(data)} bytes: ONNX Runtime refuses it: {line:.200}") from error


def run_batches(
    session: "InferenceSession",
    outputs: Sequence[str],
    batches: Batches,
    num_sessions: int,
    reference: Callable[[Arrays], Sequence[NDArray[Any]]] | None = None,
) -> tuple[NDArray[np.int64], Arrays, Arrays]:
    """Return the examples of all batches, the outputs over them and, where asked for, what ``reference`` says of them.

    Args:
        session: of ``open_graph``.
        outputs: which of its outputs.
        batches: what goes in.
        num_sessions: that they were made from.
        reference: what else answers the same batches; None: nothing does.

    Raises:
        CannotLocate: there is no batch: nothing holds what the model locates from.
    """
    examples: list[NDArray[np.int64]] = []
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in outputs}
    beside: dict[str, list[NDArray[Any]]] = {name: [] for name in outputs if reference is not None}
    for part, arrays in batches:
        examples.append(part)
        for name, value in zip(outputs, session.run(list(outputs), arrays), strict=True):
            found[name].append(value)
        if reference is not None:
            for name, value in zip(outputs, reference(arrays), strict=True):
                beside[name].append(value)
    if not examples:
        raise CannotLocate(f"{say_count(num_sessions, 'session')}: none holds what this model locates from")
    return np.concatenate(examples), _join(found), _join(beside)


def _join(parts: dict[str, list[NDArray[Any]]]) -> Arrays:
    return {name: np.concatenate(values) for name, values in parts.items()}
