"""The model as one ONNX file: export, prediction from it, and how far it departs from PyTorch.

Belongs here: tracing, scrubbing, checking, comparing. Does not belong here: what a model's graph computes (its task
says), opening and running a file (``export.runtime``), where a release lies (stores).
"""

import contextlib
import io
import logging
import math
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # public, but in no __all__; so are the next two
from torch.onnx import register_custom_op_symbolic, unregister_custom_op_symbolic  # type: ignore[attr-defined]

from heimdall_assets.errors import CorruptObject, InvalidInput
from heimdall_assets.learning.export.loops import write_loops
from heimdall_assets.learning.export.runtime import ONNX_BATCH, open_graph, run_batches
from heimdall_assets.learning.fitting.fitted import FittedModel
from heimdall_assets.learning.receiver_model.degrees import compute_metres_per_degree, wrap_longitude
from heimdall_assets.learning.repetition import note_repetitions
from heimdall_assets.learning.task import ExportGraph
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.specs import ExportSpec

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PRODUCER = "heimdall-assets"


def export_onnx(fitted: FittedModel, spec: ExportSpec, metadata: dict[str, str]) -> bytes:
    """Return the model as one ONNX file without external data and without a trace of the machine that made it.

    Equal models, specs and metadata give equal bytes. Batch (and for sessions receivers) are dynamic; statistics and
    calibration are inside. ``metadata_props`` holds ``metadata`` and the graph's own facts (units, normalisation).

    Raises:
        InvalidInput: ``metadata`` has a key of the graph's facts, or a value that is no string.
    """
    return write_graph(build_graph(fitted), fitted.model.kind, spec, metadata)


def write_graph(graph: ExportGraph, kind: str, spec: ExportSpec, metadata: dict[str, str]) -> bytes:
    """Return a graph as one ONNX file; see ``export_onnx``.

    Raises:
        InvalidInput: ``metadata`` has a key of the graph's facts, or a value that is no string.
    """
    facts = {**graph.facts, "kind": kind, "opset": str(spec.opset)}
    _check_metadata(facts, metadata)
    proto = _trace(graph, spec.opset)
    return seal_onnx(proto, {**facts, **metadata})


def seal_onnx(proto: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """Return the bytes of a model that says ``metadata`` and nothing of the machine that made it, checked."""
    _scrub(proto)
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=value)
    data: bytes = proto.SerializeToString(deterministic=True)
    check_onnx(data)
    return data


def _check_metadata(facts: dict[str, str], metadata: dict[str, str]) -> None:
    if both := sorted(set(facts) & set(metadata)):
        raise InvalidInput(f"metadata {', '.join(both)}: the graph says that itself; expected other keys")
    for key, value in {**facts, **metadata}.items():
        if not isinstance(value, str):
            raise InvalidInput(f"metadata {key}: {value!r:.60}: expected a string")


def check_onnx(data: bytes) -> onnx.ModelProto:
    """Return the parsed model if it is one whole, valid file.

    Raises:
        CorruptObject: it is empty, not ONNX, fails ``onnx.checker``, or keeps tensors in other files.
    """
    try:
        proto = onnx.load_model_from_string(data)
        if not len(proto.graph.node):
            raise ValueError("it holds no graph")
        if name := _find_external(proto):
            raise ValueError(f"tensor {name} lies in another file; only one whole file is read")
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf and the checker raise unrelated types for hostile bytes
        line = " ".join(str(error).split())
        raise CorruptObject(f"ONNX model of {len(data)} bytes: {line:.200}") from error
    return proto


def read_onnx_metadata(data: bytes) -> dict[str, str]:
    """Return the model's ``metadata_props``.

    Raises:
        CorruptObject: not a whole, valid ONNX file.
    """
    return {item.key: item.value for item in check_onnx(data).metadata_props}


def open_onnx_session(data: bytes, num_threads: int = 1) -> "InferenceSession":
    """Return an ONNX Runtime session on the CPU over checked bytes.

    Raises:
        CorruptObject: not a whole, valid ONNX file, or ONNX Runtime cannot run it.
    """
    check_onnx(data)
    return open_graph(data, num_threads)


def predict_onnx(
    fitted: FittedModel, data: bytes, sessions: SessionSet, num_threads: int = 1, batch_size: int = ONNX_BATCH
) -> Predictions:
    """Return what the ONNX file predicts, one row per session, joined as ``FittedModel.predict`` joins.

    Args:
        fitted: the model the file was exported from; says how sessions are fed, its weights are not used.
        data: the file.
        sessions: to locate.
        num_threads: of ONNX Runtime.
        batch_size: examples at once.

    Raises:
        CorruptObject: not a whole, valid ONNX file.
    """
    graph = build_graph(fitted)
    examples, outputs, _ = run_onnx(graph, open_onnx_session(data, num_threads), sessions, batch_size)
    return graph.collect(sessions, examples, outputs)


def predict_onnx_signals(
    fitted: FittedModel, data: bytes, sessions: SessionSet, num_threads: int = 1, batch_size: int = ONNX_BATCH
) -> dict[str, NDArray[Any]] | None:
    """Return what the ONNX file says of signals, one row per session, as ``FittedModel.predict_signals`` does.

    Raises:
        CorruptObject: not a whole, valid ONNX file.
    """
    graph = build_graph(fitted)
    if graph.collect_signals is None:
        return None
    examples, outputs, _ = run_onnx(graph, open_onnx_session(data, num_threads), sessions, batch_size)
    return graph.collect_signals(sessions, examples, outputs)


def compute_parity(
    fitted: FittedModel, data: bytes, sessions: SessionSet, session: "InferenceSession | None" = None
) -> dict[str, float]:
    """Return how far the ONNX file departs from PyTorch over all elements of all examples of ``sessions``.

    Args:
        fitted: the model.
        data: the file.
        sessions: to compare on.
        session: of ``data``, where it is open already.

    Returns:
        ``num_examples``; ``max_position_error_deg``; ``max_position_error_m`` (per axis); ``max_position_error_sigma``
        (in units of the predicted sigma of the axis); ``max_uncertainty_error`` (relative);
        ``max_uncertainty_error_m``;
        ``max_signal_error`` (of probabilities, shares, frames and dB; 0 without signal heads);
        ``max_session_error_sigma`` (fused sessions, ONNX against ``FittedModel.predict``); ``position_spread_deg`` and
        ``uncertainty_spread_m``, standard deviations of PyTorch's outputs: near 0 a parity would prove nothing.

    Raises:
        CannotLocate: no session holds anything to compare.
        CorruptObject: not a whole, valid ONNX file.
    """
    graph = build_graph(fitted)
    session = session or open_onnx_session(data)
    examples, outputs, reference = run_onnx(graph, session, sessions, ONNX_BATCH, compare=True)
    position, sigma = (outputs[name].astype(np.float64) for name in graph.outputs[:2])
    expected, expected_sigma = (reference[name].astype(np.float64) for name in graph.outputs[:2])
    offset_deg = np.abs(position - expected)
    offset_deg[:, 1] = np.minimum(offset_deg[:, 1], 360.0 - offset_deg[:, 1])
    offset_m = offset_deg * np.stack(compute_metres_per_degree(expected[:, 0]), axis=1)
    sessions_onnx, sessions_torch = graph.collect(sessions, examples, outputs), fitted.predict(sessions)
    return {
        "num_examples": float(len(examples)),
        "max_position_error_deg": _find_largest(offset_deg, position, expected),
        "max_position_error_m": _find_largest(offset_m, position, expected),
        "max_position_error_sigma": _find_largest(offset_m / expected_sigma, position, expected),
        "max_uncertainty_error": _find_largest(np.abs(sigma / expected_sigma - 1.0), sigma, expected_sigma),
        "max_uncertainty_error_m": _find_largest(np.abs(sigma - expected_sigma), sigma, expected_sigma),
        "max_signal_error": max(
            (
                _find_largest(np.abs(outputs[k] - reference[k]), outputs[k], reference[k])
                for k in graph.outputs[2:]
                if k.startswith("signal_")
            ),
            default=0.0,
        ),
        "max_session_error_sigma": _compare_sessions(sessions_onnx, sessions_torch),
        "position_spread_deg": float(np.nanstd(expected, axis=0).max()),
        "uncertainty_spread_m": float(np.nanstd(expected_sigma, axis=0).max()),
    }


def _find_largest(error: NDArray[np.float64], found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Return the largest error where both gave a number; infinity where only one of the two did."""
    known = np.isfinite(expected)
    if not np.array_equal(known, np.isfinite(found)):
        return float("inf")
    return float(error[known].max(initial=0.0))


def _compare_sessions(found: Predictions, expected: Predictions) -> float:
    """Return the largest difference of two predictions in units of the expected sigma of its axis."""
    known = np.isfinite(expected.latitude)
    if not np.array_equal(known, np.isfinite(found.latitude)):  # one of them refused what the other answered
        return float("inf")
    north, east = compute_metres_per_degree(expected.latitude[known])
    offset = np.stack(
        [
            wrap_longitude(found.longitude - expected.longitude)[known] * east,
            (found.latitude - expected.latitude)[known] * north,
        ],
        axis=1,
    )
    return float((np.abs(offset) / np.sqrt(expected.covariance_m2[known, :2])).max(initial=0.0))


def build_graph(fitted: FittedModel) -> ExportGraph:
    """Return what is traced of a fitted model, and how it is fed."""
    return fitted.task.make_export_graph(fitted.network, fitted.model, fitted.statistics, fitted.calibration)


def run_onnx(
    graph: ExportGraph,
    session: "InferenceSession",
    sessions: SessionSet,
    batch_size: int,
    compare: bool = False,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return the examples, ONNX's outputs over all of them and, to compare, those of the traced PyTorch module."""

    def answer(arrays: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        with torch.no_grad():
            values = graph.module(*(torch.from_numpy(arrays[name]) for name in graph.inputs))
        return [value.numpy() for value in values]

    batches = graph.feed(sessions, batch_size)
    return run_batches(session, graph.outputs, batches, len(sessions), answer if compare else None)


def _trace(graph: ExportGraph, opset: int) -> onnx.ModelProto:
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*does not need to be set.*")
        try:
            exporter.setLevel(logging.ERROR)
            return _trace_graph(graph, opset)
        finally:
            exporter.setLevel(level)


def _trace_graph(graph: ExportGraph, opset: int) -> onnx.ModelProto:
    """Trace with the exporter of TorchScript: seconds where ``torch.export`` takes minutes, over a solver."""
    with note_repetitions() as repetitions:
        proto = _trace_script(graph.module, graph.inputs, graph.outputs, graph.dynamic_axes, opset)
    write_loops(proto, repetitions, partial(_trace_script, opset=opset))
    return proto


def _trace_script(
    module: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
    opset: int,
) -> onnx.ModelProto:
    factors = {"aten::deg2rad": math.pi / 180.0, "aten::rad2deg": 180.0 / math.pi}
    first_opset = 18  # ``ExportSpec`` goes no lower
    file = io.BytesIO()
    for name, factor in factors.items():
        register_custom_op_symbolic(name, _make_scaling(factor), first_opset)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", category=TracerWarning)
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                file,  # type: ignore[arg-type]  # a stream is taken, though not declared
                input_names=list(inputs),
                output_names=outputs,
                opset_version=opset,
                dynamic_axes=axes,
                dynamo=False,
                verbose=False,
            )
    finally:
        for name in factors:
            unregister_custom_op_symbolic(name, first_opset)
    for warning in seen:
        if issubclass(warning.category, TracerWarning):
            line = str(warning.message).split(".")[0]
            raise InvalidInput(
                f"ONNX export: the model decides on its data, and one decision would be baked in: {line}"
            )
    return onnx.load_model_from_string(file.getvalue())


def _make_scaling(factor: float) -> Any:
    """Return how an operator that multiplies by ``factor`` is written in ONNX, in the type of its input."""

    def write(graph: Any, value: Any) -> Any:
        constant = graph.op("Constant", value_t=torch.tensor(factor, dtype=torch.float64))
        return graph.op("Mul", value, graph.op("CastLike", constant, value))

    return write


def _scrub(proto: onnx.ModelProto) -> None:
    """Remove what the exporter says about the machine and itself: absolute paths, stack traces, its version."""
    proto.producer_name, proto.producer_version = PRODUCER, ""
    proto.doc_string = ""
    del proto.metadata_props[:]
    for graph in [proto.graph, *proto.functions]:
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            _scrub_node(node)
        if isinstance(graph, onnx.GraphProto):
            _scrub_values(graph)


def _scrub_values(graph: onnx.GraphProto) -> None:
    for item in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]


def _scrub_node(node: onnx.NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for attribute in node.attribute:
        attribute.doc_string = ""
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            graph.doc_string = ""
            del graph.metadata_props[:]
            _scrub_values(graph)
            for inner in graph.node:
                _scrub_node(inner)


def _find_external(proto: onnx.ModelProto) -> str | None:
    """Return the name of a tensor that lies outside the file, wherever in the model it hides; None for none."""
    for tensor in onnx.external_data_helper._get_all_tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            return tensor.name or "without a name"
    return None
