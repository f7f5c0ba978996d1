import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from heimdall_assets.errors import CannotLocate, CorruptObject, InvalidInput
from heimdall_assets.learning.export.onnx_file import (
    _trace,
    check_onnx,
    compute_parity,
    export_onnx,
    open_onnx_session,
    predict_onnx,
    read_onnx_metadata,
)
from heimdall_assets.learning.task import ExportGraph
from heimdall_assets.specs import ExportSpec
from heimdall_assets_tests.learning.learning_cases import get_lively, make_sessions
from heimdall_assets_tests.variation import make_rng

SPEC = ExportSpec()


@pytest.fixture(scope="module")
def data() -> bytes:
    return export_onnx(get_lively(), SPEC, {"version": "1.2.3", "spec_digest": "ab"})


def test_parity_on_all_elements(data: bytes) -> None:
    parity = compute_parity(get_lively(), data, make_sessions(40, seed=11, first=900, mels=128))
    assert parity["num_examples"] == 80
    assert parity["max_position_error_sigma"] < 1e-3
    assert parity["max_uncertainty_error"] < 1e-3
    assert parity["max_session_error_sigma"] < 1e-3
    # else a constant answer would pass too
    assert parity["position_spread_deg"] > 1e-3
    assert parity["uncertainty_spread_m"] > 1.0


def test_parity_sees_another_model(data: bytes) -> None:
    from dataclasses import replace

    fitted = get_lively()
    name = "position_head.9.bias"
    other = replace(fitted, weights={**fitted.weights, name: fitted.weights[name] + np.float32(0.1)})
    parity = compute_parity(other, data, make_sessions(4, seed=11, first=900, mels=128))
    assert parity["max_position_error_sigma"] > SPEC.max_position_error_sigma


def test_predictions_are_those_of_pytorch(data: bytes) -> None:
    from dataclasses import replace

    sessions = make_sessions(6, seed=12, first=900, mels=128)
    rows = sessions.feature_row.copy()
    rows[:2] = -1
    sessions = replace(sessions, feature_row=rows)
    expected, found = get_lively().predict(sessions), predict_onnx(get_lively(), data, sessions)
    assert found.refused.tolist() == expected.refused.tolist()
    assert found.latitude == pytest.approx(expected.latitude, abs=1e-5, nan_ok=True)
    assert found.longitude == pytest.approx(expected.longitude, abs=1e-5, nan_ok=True)
    assert found.covariance_m2[1:, :2] == pytest.approx(expected.covariance_m2[1:, :2], rel=1e-3)


def test_any_batch_and_the_stated_names(data: bytes) -> None:
    session = open_onnx_session(data)
    assert [item.name for item in session.get_inputs()] == ["features"]
    assert [item.name for item in session.get_outputs()] == ["positions", "uncertainties"]
    features = make_sessions(20, seed=13, mels=128).features
    whole = session.run(None, {"features": features})
    assert whole[0].shape == (40, 2)
    assert whole[0].dtype == np.float64
    assert (whole[1] > 0).all()
    for size in (1, 7):
        part = session.run(None, {"features": features[:size]})
        assert part[0] == pytest.approx(whole[0][:size], abs=1e-5)


def test_file_holds_its_facts_and_no_path(data: bytes) -> None:
    metadata = read_onnx_metadata(data)
    assert metadata["version"] == "1.2.3"
    assert metadata["opset"] == "20"
    assert "degrees" in metadata["output.positions"]
    assert "metres" in metadata["output.uncertainties"]
    proto = onnx.load_model_from_string(data)
    assert {item.domain: item.version for item in proto.opset_import}[""] == 20
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    for item in proto.graph.initializer:  # numbers: among megabytes of them any three bytes turn up
        item.ClearField("raw_data")
    words = proto.SerializeToString()
    for trace in (b".py", b"/home", b"/usr", b"/work", b"site-packages", b"stack_trace"):
        assert trace not in words


def test_metadata_cannot_contradict_the_graph() -> None:
    with pytest.raises(InvalidInput, match="metadata opset"):
        export_onnx(get_lively(), SPEC, {"opset": "17"})
    with pytest.raises(InvalidInput, match="metadata size: 3: expected a string"):
        export_onnx(get_lively(), SPEC, {"size": 3})  # type: ignore[dict-item]


def test_nothing_to_locate_from_is_an_error(data: bytes) -> None:
    from dataclasses import replace

    sessions = make_sessions(2, seed=1, mels=128)
    with pytest.raises(CannotLocate, match="2 sessions"):
        predict_onnx(get_lively(), data, replace(sessions, feature_row=np.full(4, -1)))


def make_hostile(kind: str) -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    if kind == "external":
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", "../secret"
    nodes = [helper.make_node("Add" if kind != "operator" else "Nonsense", ["x", "w"], ["y"])]
    if kind == "huge":
        shape = helper.make_tensor("s", TensorProto.INT64, [1], [2**31])
        nodes = [helper.make_node("ConstantOfShape", ["s"], ["y"])]
        return helper.make_model(helper.make_graph(nodes, "g", [], [out], [shape])).SerializeToString()
    if kind == "hidden":
        hidden = helper.make_tensor("h", TensorProto.FLOAT, [1], [1.0])
        hidden.ClearField("float_data")
        hidden.data_location = TensorProto.EXTERNAL
        entry = hidden.external_data.add()
        entry.key, entry.value = "location", "/etc/passwd"
        nodes.insert(0, helper.make_node("Constant", [], ["c"], value=hidden))
    return helper.make_model(helper.make_graph(nodes, "g", [value], [out], [weight])).SerializeToString()


@pytest.mark.parametrize("kind", ["external", "hidden", "operator"])
def test_hostile_model_is_refused(kind: str) -> None:
    with pytest.raises(CorruptObject, match="ONNX model of"):
        check_onnx(make_hostile(kind))


@pytest.mark.parametrize("garbage", [b"", b"\x00" * 100, b"PK\x03\x04", b"\x80\x04pickle"])
def test_bytes_that_are_no_model_are_refused(garbage: bytes) -> None:
    with pytest.raises(CorruptObject):
        open_onnx_session(garbage)


def test_truncated_model_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptObject):
        open_onnx_session(data[: len(data) // 2])


class Turning(torch.nn.Module):
    """Stands for a solver: angles, a loop, two dynamic axes."""

    def forward(self, angle: torch.Tensor) -> torch.Tensor:
        value = torch.deg2rad(angle)
        for _ in range(3):
            value = value + 0.5 * (1.0 - value.sum(1, keepdim=True))
        return torch.rad2deg(value).double()


class Deciding(torch.nn.Module):
    def forward(self, angle: torch.Tensor) -> torch.Tensor:
        return angle if bool(angle.sum() > 0) else -angle


def make_graph(module: torch.nn.Module) -> ExportGraph:
    return ExportGraph(
        module=module.eval(),
        inputs={"angle": torch.ones(3, 5)},
        dynamic_axes={"angle": {0: "batch", 1: "receivers"}},
        outputs=["turned"],
        feed=lambda sessions, size: iter(()),
        collect=lambda sessions, examples, outputs: None,  # type: ignore[arg-type,return-value]
        facts={},
    )


def test_graph_takes_any_length_of_its_axes() -> None:
    proto = _trace(make_graph(Turning()), 20)
    session = open_onnx_session(proto.SerializeToString())
    for shape in ((1, 1), (3, 5), (7, 2)):
        angle = make_rng(0).uniform(-90, 90, shape).astype(np.float32)
        expected = Turning()(torch.from_numpy(angle)).numpy()
        assert session.run(None, {"angle": angle})[0] == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_decision_on_data_is_not_baked_into_a_graph() -> None:
    with pytest.raises(InvalidInput, match="decides on its data"):
        _trace(make_graph(Deciding()), 20)
