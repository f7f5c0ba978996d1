"""An exported file of any kind is fed from what it says itself, to the last bit as it was when it was exported."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from heimdall_assets.errors import CannotLocate, CorruptObject
from heimdall_assets.inference.released_graph import ReleasedGraph
from heimdall_assets.learning.export.onnx_file import open_onnx_session, predict_onnx, run_onnx, write_graph
from heimdall_assets.learning.session_model.task import NetworkTask
from heimdall_assets.learning.task import find_task
from heimdall_assets.simulation.bearings import add_bearings
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import ExportSpec, ModelSpec, SimulationSpec
from heimdall_assets_tests.learning import test_pair_tokens, test_signal_tasks
from heimdall_assets_tests.learning.learning_cases import get_lively, make_sessions

SMALL = {"width": 16, "num_layers": 1, "num_heads": 2, "use_spectrograms": False}


def simulate(num=12):
    return simulate_observations(SimulationSpec(), np.arange(num))


def simulate_seen():
    sessions = simulate(12)
    rng = np.random.default_rng(1)
    features = rng.normal(-60.0, 10.0, (len(sessions.station_id), 3, 32, 32)).astype(np.float32)
    return replace(sessions, features=features, feature_row=np.arange(len(features)))


CASES = {
    "arrivals": (simulate, {}),
    "bearings": (lambda: add_bearings(simulate(), 1), {}),
    "pairs": (lambda: test_pair_tokens.simulate(12), {}),
    "signals": (lambda: test_signal_tasks.give_tracks(test_signal_tasks.make_timed(8)), {"multi_target": True}),
    "spectrograms": (simulate_seen, {"use_spectrograms": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_network_model_is_fed_from_its_own_inputs(case):
    """The network need not be trained: what is fed, and what comes back, is the same for any weights."""
    make, changes = CASES[case]
    sessions, task, model = make(), NetworkTask(), ModelSpec(**(SMALL | changes))
    torch.manual_seed(3)
    statistics = task.fit_statistics(model, sessions)
    graph = task.make_export_graph(task.build_network(model, statistics).eval(), model, statistics, {})
    data = write_graph(graph, "network", ExportSpec(), {})
    released = ReleasedGraph(data)
    assert released.has_signals == (case == "signals")
    assert released.reads_spectrograms == (case == "spectrograms")
    examples, outputs, _ = run_onnx(graph, open_onnx_session(data), sessions, 64)
    expected, found = graph.collect(sessions, examples, outputs), released.predict(sessions)
    for name in ("latitude", "longitude", "covariance_m2", "refused"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    if case != "signals":
        assert released.predict_signals(sessions) is None
        return
    said = graph.collect_signals(sessions, examples, outputs)
    for name, values in released.predict_signals(sessions).items():
        np.testing.assert_array_equal(values, said[name])


@pytest.fixture(scope="module")
def single() -> bytes:
    fitted = get_lively()
    task = find_task("single_receiver")
    graph = task.make_export_graph(fitted.network, fitted.model, fitted.statistics, fitted.calibration)
    return write_graph(graph, "single_receiver", ExportSpec(), {})


def test_a_model_of_one_receiver_joins_by_what_its_file_says(single):
    sessions = make_sessions(6, seed=12, first=900, mels=128)
    rows = sessions.feature_row.copy()
    rows[:2] = -1
    sessions = replace(sessions, feature_row=rows)
    expected, found = predict_onnx(get_lively(), single, sessions), ReleasedGraph(single).predict(sessions)
    assert found.refused.tolist() == [True, *[False] * 5]
    for name in ("latitude", "longitude", "covariance_m2"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def change_facts(data: bytes, **facts: str | None) -> bytes:
    proto = onnx.load_model_from_string(data)
    kept = [(item.key, item.value) for item in proto.metadata_props if item.key not in facts]
    del proto.metadata_props[:]
    for key, value in [*kept, *((key, value) for key, value in facts.items() if value is not None)]:
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"frame": None}, "its file does not say frame"),
        ({"frame": "[]"}, "found a frame that is none"),
        ({"frame": "{"}, "found a frame that is none"),
        ({"frame": '{"centre_deg": [1, 2]}'}, "does not say scale_m"),
        ({"kind": "oracle"}, "kind 'oracle', expected single_receiver or network"),
        ({"kind": None}, "kind '', expected"),
        ({"kind": "network"}, "inputs features: expected origin, receivers"),
    ],
)
def test_a_file_that_does_not_say_what_it_is_is_refused(single, facts, said):
    with pytest.raises(CorruptObject) as caught:
        ReleasedGraph(change_facts(single, **facts))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_file_of_an_earlier_export_does_not_say_can_be_told(single):
    proto = onnx.load_model_from_string(single)
    frame = next(item.value for item in proto.metadata_props if item.key == "frame")
    sessions = make_sessions(3, seed=12, first=900, mels=128)
    told = ReleasedGraph(change_facts(single, frame=None), {"frame": frame})
    np.testing.assert_array_equal(told.predict(sessions).latitude, ReleasedGraph(single).predict(sessions).latitude)


def test_a_model_of_one_receiver_refuses_another_area(single):
    graph = ReleasedGraph(single)
    at_home = make_sessions(1, seed=12, first=900, mels=128)
    graph.check_area(at_home)
    moved = replace(at_home, receiver_longitude=at_home.receiver_longitude + 60.0)
    with pytest.raises(CannotLocate, match="knows no places but those of its training: the nearest receiver is"):
        graph.check_area(moved)
