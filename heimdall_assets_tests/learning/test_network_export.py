"""The session model as ONNX: any batch, any number of receivers, the same answer in units of its own sigma."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from heimdall_assets.learning.export.onnx_file import compute_parity, export_onnx, open_onnx_session
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.learning.session_model.table import assemble_table
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import AugmentationSpec, ExportSpec, ModelSpec, SimulationSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.variation import assert_below, shift_seed

BLOCKED = {"blocked_fraction": 0.3, "blocked_excess_s": 2e-6, "blocked_loss_db": 15.0}


def simulate(seed, num, network="italian", **changes):
    fields = {"min_receivers": 3, "max_receivers": 7, "snr_min_db": 5.0, "snr_max_db": 30.0}
    return simulate_observations(
        SimulationSpec(seed=shift_seed(seed), **(fields | BLOCKED | changes)), np.arange(num), network
    )


@pytest.mark.long
def test_a_fitted_session_model_is_the_same_in_onnx(tmp_path: Path):
    training = TrainingSpec(max_epochs=2, batch_size=64, num_threads=1, learning_rate=5e-4, warmup_epochs=0)
    fitted = fit_model(
        ModelSpec(width=32, num_layers=1),
        training,
        AugmentationSpec(),
        simulate(1, 300),
        simulate(2, 150),
        CheckpointFolder(tmp_path),
    )
    data = export_onnx(fitted, ExportSpec(), {"version": "1"})
    test = simulate(3, 100)
    parity = compute_parity(fitted, data, test)
    assert_below(parity["max_position_error_sigma"], 0.05, "parity of position, sigma")
    assert_below(parity["max_uncertainty_error"], 0.05, "parity of sigma, relative")
    assert parity["uncertainty_spread_m"] > 1.0
    assert_below(parity["max_session_error_sigma"], 0.05, "parity of sessions, sigma")
    graph = onnx.load_model_from_string(data)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    session = open_onnx_session(data)
    for num_sessions, num_receivers in ((1, 1), (2, 3), (5, 64)):
        table = assemble_table(
            simulate(4, num_sessions, "random", min_receivers=num_receivers, max_receivers=num_receivers)
        )
        positions, uncertainties, covariance = session.run(
            None, {"origin": table.origin_deg, "receivers": table.receivers}
        )
        assert positions.shape == uncertainties.shape == (num_sessions, 2)
        assert np.isfinite(positions).all()
        assert np.isfinite(covariance).all()
