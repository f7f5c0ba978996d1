"""Bearings in the session model: the same angles as on the ellipsoid, in any order, turned or not, in ONNX alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from heimdall_assets.learning.export.onnx_file import compute_parity, export_onnx, open_onnx_session
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.learning.session_model.physics import compute_bearing_cost, compute_bearing_residuals, compute_step
from heimdall_assets.learning.session_model.table import assemble_table, disturb_table, join_sessions
from heimdall_assets.learning.session_model.task import NetworkTask
from heimdall_assets.learning.session_model.tokens import state_delays, take_apart
from heimdall_assets.locating.bounds import compute_bearing_information
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.session_set import SessionSet
from heimdall_assets.simulation.bearings import add_bearings
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import AugmentationSpec, ExportSpec, ModelSpec, SimulationSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.locating.fields import compute_coverage, compute_errors_m
from heimdall_assets_tests.permuted import shuffle_receivers
from heimdall_assets_tests.variation import assert_above, assert_below, make_rng, shift_seed

MODEL = ModelSpec(use_spectrograms=False, width=16, num_layers=1, num_heads=2)
KINDS = ("alone", "joined")


def simulate(num: int, seed: int, kind: str = "joined", **said: float) -> SessionSet:
    spec = SimulationSpec(seed=shift_seed(seed), min_receivers=4, snr_min_db=5.0, snr_max_db=30.0)
    sessions = add_bearings(simulate_observations(spec, np.arange(num), "random"), shift_seed(seed), **said)
    nothing = np.full_like(sessions.arrival_s, np.nan)
    return sessions if kind == "joined" else replace(sessions, arrival_s=nothing, level_db=nothing)


def state(sessions: SessionSet):
    table = assemble_table(sessions)
    session = take_apart(torch.from_numpy(table.receivers), torch.from_numpy(table.bearings))
    flat = torch.tensor([[1e-4, 0.0, 1e-4]]).expand(len(sessions), -1)
    return table, state_delays(session, torch.zeros(len(sessions), 2), flat)


def test_an_exact_bearing_points_at_the_source_in_the_plane():
    sessions = simulate(200, 51, sigma_min_deg=1e-4, sigma_max_deg=1e-4)
    table, delays = state(sessions)
    residual, _ = compute_bearing_residuals(torch.from_numpy(table.truth_km).unsqueeze(1), delays)
    known = np.isfinite(table.bearings[..., 0])
    assert_below(np.degrees(np.abs(residual[:, 0].numpy()[known])).max(), 0.12, "angle in the plane, degrees")


def test_the_angle_and_its_slope_are_those_of_arc_tangents_all_around():
    sessions = simulate(1, 52)
    _, delays = state(sessions)
    angle = torch.linspace(-3.1, 3.1, 80)
    receiver = delays.receivers[0, 0, :2]
    points = receiver + 20.0 * torch.stack([angle.sin(), angle.cos()], -1)
    place = points.unsqueeze(0).requires_grad_()
    residual, slope = compute_bearing_residuals(place, delays)
    pointing = torch.atan2(delays.bearing[0, 0, 0], delays.bearing[0, 0, 1])
    expected = torch.remainder(pointing - angle + torch.pi, 2 * torch.pi) - torch.pi
    np.testing.assert_allclose(residual[0, :, 0].detach().numpy(), expected.numpy(), atol=2e-3)
    gradient = torch.autograd.grad(residual[0, :, 0].sum(), place)[0]
    inner = expected.abs() < 3.0
    np.testing.assert_allclose(
        -gradient[0][inner].numpy(), slope[0, :, 0][inner].detach().numpy(), rtol=2e-3, atol=1e-6
    )


def test_the_information_of_one_step_is_that_of_the_bound():
    sessions = simulate(50, 53, kind="alone", sigma_min_deg=3.0, sigma_max_deg=3.0)
    table, delays = state(sessions)
    truth = torch.from_numpy(table.truth_km)
    exact = delays._replace(  # a bearing without error has its whole weight
        bearing=torch.nn.functional.normalize(truth.unsqueeze(1) - delays.receivers[..., :2], dim=-1)
    )
    _, factor = compute_step(truth.unsqueeze(1), exact, None)
    u11, u12, u22 = factor[:, 0].double().unbind(-1)
    found = torch.stack([u11**2, u11 * u12, u12**2 + u22**2], -1).numpy()
    sigma = np.where(np.isfinite(table.bearings[..., 1]), table.bearings[..., 1], np.inf)
    bound = (
        compute_bearing_information(np.nan_to_num(table.receivers[..., :2] * 1e3), sigma, table.truth_km * 1e3) * 1e6
    )
    expected = np.stack([bound[:, 0, 0], bound[:, 0, 1], bound[:, 1, 1]], -1)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4 * expected.max())


def test_turning_the_plane_turns_bearings_with_it():
    sessions = simulate(30, 54)
    table = assemble_table(sessions)
    turned = disturb_table(table, AugmentationSpec(dropout=0.0, max_gain_db=0.0), make_rng(1))
    costs = []
    for each in (table, turned):
        session = take_apart(torch.from_numpy(each.receivers), torch.from_numpy(each.bearings))
        delays = state_delays(session, torch.zeros(30, 2), torch.ones(30, 3))
        costs.append(compute_bearing_cost(torch.from_numpy(each.truth_km).unsqueeze(1), delays).numpy())
    np.testing.assert_allclose(costs[0], costs[1], rtol=1e-2, atol=1e-2)
    lost = disturb_table(table, AugmentationSpec(dropout=0.5), make_rng(2))
    gone = np.isnan(lost.receivers[..., 0])
    assert gone.any()
    assert np.isnan(lost.bearings[gone]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_it_is_the_classical_solution_in_any_order(kind):
    sessions = simulate(120, 55, kind, reversed_fraction=0.03)
    task = NetworkTask()
    statistics = task.fit_statistics(MODEL, sessions)
    assert statistics["bearings"] is True
    torch.manual_seed(0)
    network = task.build_network(MODEL, statistics)
    found = task.predict(network, sessions, statistics, {})
    classical = locate_by_delays(sessions, robust=True, bearings=kind)
    error, expected = (np.median(compute_errors_m(sessions, each)) for each in (found, classical))
    assert_below(error, 1.15 * expected, f"error of the model, bearings {kind}")
    other = task.predict(network, shuffle_receivers(sessions, make_rng(6)), statistics, {})
    np.testing.assert_allclose(other.latitude, found.latitude, atol=1e-9)
    np.testing.assert_allclose(other.covariance_m2, found.covariance_m2, rtol=1e-6)


def test_a_model_without_bearings_has_no_input_for_them_and_answers_as_before():
    sessions = simulate(40, 56)
    without = replace(sessions, bearing_deg=None, bearing_sigma_deg=None)
    task = NetworkTask()
    statistics = task.fit_statistics(MODEL, without)
    assert "bearings" not in statistics
    torch.manual_seed(0)
    network = task.build_network(MODEL, statistics)
    one, other = (task.predict(network, each, statistics, {}) for each in (sessions, without))
    np.testing.assert_array_equal(one.latitude, other.latitude)


def test_simulated_training_sessions_have_bearings_where_the_measured_ones_have():
    train = simulate(30, 57, sigma_min_deg=3.0, sigma_max_deg=6.0, heard_fraction=0.5)
    more = NetworkTask().extend_training(train, TrainingSpec(num_simulated_sessions=200)).take(np.arange(30, 230))
    known = np.isfinite(more.bearing_deg)
    assert 0.4 < known.mean() < 0.6
    assert 2.9 < more.bearing_sigma_deg[known].min() < more.bearing_sigma_deg[known].max() < 6.1
    joined = join_sessions([train, replace(train, bearing_deg=None, bearing_sigma_deg=None)])
    assert np.isnan(joined.bearing_deg[len(train.bearing_deg) :]).all()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_model_is_honest_on_sessions_it_has_not_seen_and_the_same_in_onnx(kind, tmp_path: Path):
    training = TrainingSpec(max_epochs=3, batch_size=64, num_threads=1, learning_rate=5e-4, warmup_epochs=0)
    fitted = fit_model(
        MODEL,
        training,
        AugmentationSpec(),
        simulate(400, 58, kind),
        simulate(250, 59, kind),
        CheckpointFolder(tmp_path),
    )
    test = simulate(400, 60, kind)
    found = fitted.predict(test)
    coverage = compute_coverage(test, found)
    assert_above(coverage, 0.85, f"coverage of the fitted model, bearings {kind}")
    assert_below(coverage, 0.95, f"coverage of the fitted model, bearings {kind}")
    data = export_onnx(fitted, ExportSpec(), {"version": "1"})
    assert [item.name for item in open_onnx_session(data).get_inputs()][-1] == "bearings"
    parity = compute_parity(fitted, data, test.take(np.arange(100)))
    assert_below(parity["max_position_error_sigma"], 0.05, f"parity of position, bearings {kind}")
    assert_below(parity["max_uncertainty_error"], 0.05, f"parity of sigma, bearings {kind}")
