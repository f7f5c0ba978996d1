"""The session model: equal to the classical solution before it learns, blind to order, honest about broken sessions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import CannotLocate, InvalidInput
from heimdall_assets.learning.session_model.graph import NetworkGraph, choose_scale, to_degrees
from heimdall_assets.learning.session_model.loss import compute_gaussian_loss, compute_heavy_loss, compute_squared_z
from heimdall_assets.learning.session_model.model import Located, NetworkLocalizationNet
from heimdall_assets.learning.session_model.physics import LevelLaw, compute_covariance
from heimdall_assets.learning.session_model.receiver_order import order_receivers, reorder
from heimdall_assets.learning.session_model.statistics import choose_trust, count_timed, measure_level_law
from heimdall_assets.learning.session_model.table import RECEIVER_COLUMNS, assemble_table, disturb_table, join_sessions
from heimdall_assets.learning.session_model.task import NetworkTask, simulate_training_sessions
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import AugmentationSpec, ModelSpec, SimulationSpec, TrainingSpec
from heimdall_assets_tests.permuted import shuffle_receivers
from heimdall_assets_tests.variation import assert_below, make_rng, shift_seed

PLAIN = {
    "feature_shape": None,
    "feature_mean_db": None,
    "feature_std_db": None,
    "level_prior": None,
    "trust": 0.0,
    "level_law": LevelLaw()._asdict(),
    "pairs": None,
}


def simulate(num, first=0, network="italian", **changes):
    fields = {"seed": shift_seed(5), "min_receivers": 3, "max_receivers": 7, "snr_min_db": 5.0, "snr_max_db": 30.0}
    return simulate_observations(SimulationSpec(**(fields | changes)), np.arange(first, first + num), network)


def build(seed=0, scramble=False, trust=0.0):
    torch.manual_seed(shift_seed(seed))
    network = NetworkTask().build_network(ModelSpec(), PLAIN | {"trust": trust}).eval()
    if scramble:  # heads as after training: every path carries numbers
        with torch.no_grad():
            for head in (network.prior_head, network.receiver_head, network.width_head):
                head.weight.normal_(0.0, 0.05)
    return network


def predict(sessions, network=None, calibration=None):
    return NetworkTask().predict(network or build(), sessions, PLAIN, calibration or {})


def compute_errors_m(sessions, found):
    return compute_distance_m(sessions.source_latitude, sessions.source_longitude, found.latitude, found.longitude)


def make_session(latitude, longitude, **columns):
    """One session of receivers at the given places, all columns missing but those given."""
    num = len(latitude)
    missing = np.full(num, np.nan)
    fields = {
        "session_id": np.array(["s"]),
        "offsets": np.array([0, num]),
        "receiver_latitude": np.array(latitude, dtype=float),
        "receiver_longitude": np.array(longitude, dtype=float),
        "receiver_altitude_m": np.zeros(num),
        "station_id": np.array([f"r{i}" for i in range(num)]),
        "frequency_hz": np.full(num, 145e6),
        "timing_sigma_s": np.full(num, np.inf),
        "feature_row": np.full(num, -1, dtype=np.int64),
        "source_latitude": np.array([np.nan]),
        "source_longitude": np.array([np.nan]),
        "error_margin_m": np.zeros(1),
    } | {
        name: missing
        for name in ("level_db", "snr_db", "carrier_offset_hz", "arrival_s", "arrival_sigma_s", "coherence")
    }
    return SessionSet(**(fields | {name: np.asarray(value, dtype=float) for name, value in columns.items()}))


def test_untrained_it_is_weighted_least_squares():
    sessions = simulate(150, min_receivers=5)
    ours, classical = predict(sessions), locate_by_delays(sessions, None, robust=False)
    gap_m = compute_distance_m(ours.latitude, ours.longitude, classical.latitude, classical.longitude)
    assert np.median(gap_m) < 1.0
    assert np.quantile(gap_m / np.sqrt(ours.covariance_m2[:, :2].sum(1)), 0.9) < 0.1
    np.testing.assert_allclose(np.median(ours.covariance_m2[:, 0] / classical.covariance_m2[:, 0]), 1.0, atol=0.3)


def test_with_late_arrivals_trusting_their_likelihood_is_closer_than_robust_least_squares():
    sessions = simulate(400, blocked_fraction=0.3, blocked_excess_s=2e-6, min_receivers=5)
    late = np.median(compute_errors_m(sessions, predict(sessions, build(trust=1.0))))
    robust = np.median(compute_errors_m(sessions, locate_by_delays(sessions, None, robust=True)))
    assert late < 0.85 * robust


def test_the_order_of_receivers_changes_no_bit_of_the_answer():
    sessions, network = simulate(40, blocked_fraction=0.3), build(scramble=True, trust=1.0)
    found, shuffled = (predict(one, network) for one in (sessions, shuffle_receivers(sessions, make_rng(0))))
    for name in ("latitude", "longitude", "covariance_m2"):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(found, name))


def test_the_order_of_slots_changes_no_bit_of_what_the_network_says_and_tells_receivers_at_one_place_apart():
    sessions, network = simulate(40, blocked_fraction=0.3), build(scramble=True, trust=1.0)
    table = torch.from_numpy(assemble_table(sessions, 9).receivers)
    table[:, 1, :4] = table[:, 0, :4]  # two channels of one receiver
    table[::2, 2] = table[::2, 0]  # the same row twice
    order = torch.stack([torch.randperm(9, generator=torch.Generator().manual_seed(shift_seed(i))) for i in range(40)])
    shuffled = table.gather(1, order.unsqueeze(-1).expand(-1, -1, table.shape[2]))
    with torch.no_grad():
        one, two = (network(rows, torch.zeros(40, 2)) for rows in (table, shuffled))
    torch.testing.assert_close(two.position, one.position, rtol=0.0, atol=0.0)
    torch.testing.assert_close(two.factor, one.factor, rtol=0.0, atol=0.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), num=st.integers(1, 12), values=st.integers(1, 4))
def test_rows_are_ordered_column_by_column_with_empty_slots_last(seed, num, values):
    rng = make_rng(seed)
    table = rng.integers(0, values, (3, num, 2)).astype(np.float32)
    table[rng.random((3, num)) < 0.2] = np.nan
    found = reorder(torch.from_numpy(table), order_receivers(torch.from_numpy(table))).numpy()
    for before, after in zip(table, found, strict=True):
        expected = sorted(np.where(np.isnan(before), np.inf, before).tolist())
        np.testing.assert_array_equal(np.where(np.isnan(after), np.inf, after), expected)


def test_wider_batches_answer_alike():
    sessions, network = simulate(200, blocked_fraction=0.3), build(scramble=True, trust=1.0)
    narrow, wide = (torch.from_numpy(assemble_table(sessions, num).receivers) for num in (7, 64))
    with torch.no_grad():
        one, two = (network(rows, torch.zeros(200, 2)) for rows in (narrow, wide))
    sigma = compute_covariance(one.factor)[:, :2].sum(1).sqrt()
    moved = (one.position - two.position).norm(dim=1) / sigma
    diagonal = (two.factor / one.factor - 1.0).abs()[:, [0, 2]].amax(1)
    # Searches end a hundredth of a sigma from the minimum; where three delays hardly say it, the ellipse feels that.
    assert_below(moved.quantile(0.98), 0.05, "move, 98 %, sigma")
    assert_below(moved.median(), 1e-3, "median move, sigma")
    assert_below(diagonal.quantile(0.98), 0.01, "ellipse, 98 %")
    assert_below(diagonal.median(), 1e-4, "ellipse, median")


@pytest.mark.parametrize("num", [1, 2, 8, 64])
def test_any_number_of_receivers(num):
    sessions = simulate(3, network="random", min_receivers=num, max_receivers=num)
    found = predict(sessions, build(scramble=True))
    assert np.isfinite(found.latitude).all()
    assert (found.covariance_m2[:, :2] > 0).all()
    if num < 3:  # too few delays: the ellipse is as wide as the network's surroundings
        assert np.sqrt(found.covariance_m2[:, :2].max(1)).min() > 2e3


def test_more_receivers_than_a_model_takes_are_refused_by_name():
    sessions = simulate(1, network="random", min_receivers=64, max_receivers=64)
    doubled = replace(join_sessions([sessions, sessions]), session_id=np.array(["wide"]), offsets=np.array([0, 128]))
    with pytest.raises(CannotLocate, match="session wide: 128 receivers"):
        predict(
            replace(
                doubled,
                **{n: getattr(doubled, n)[:1] for n in ("source_latitude", "source_longitude", "error_margin_m")},
            )
        )


def test_one_rounding_of_what_comes_in_moves_answers_by_little_more():
    """Half of the receivers blocked by kilometres: a search that lands elsewhere by luck is caught here.

    What reaches the model is already rounded by as much, and so is each sum of another processor.
    """
    sessions = simulate(300, blocked_fraction=0.5, blocked_excess_s=1e-5, min_receivers=6)
    network, table = build(trust=1.0), assemble_table(sessions)
    receivers, offset = torch.from_numpy(table.receivers), torch.zeros(300, 2)
    generator = torch.Generator().manual_seed(shift_seed(0))
    moved = torch.zeros(300)
    with torch.no_grad():
        plain = network(receivers, offset)
        sigma = compute_covariance(plain.factor)[:, :2].sqrt()
        for _ in range(3):
            step = torch.randint(-1, 2, receivers.shape, generator=generator) * torch.finfo(torch.float32).eps / 2
            found = network(receivers * (1.0 + step), offset)
            moved = torch.maximum(moved, ((found.position - plain.position).abs() / sigma).amax(1))
    assert_below(float((moved > 0.02).float().mean()), 0.01, "share of sessions that move by 0.02 sigma")
    assert_below(float((moved > 0.5).float().mean()), 0.01, "share of sessions that move by half a sigma")


@pytest.mark.parametrize("missing", ["arrival_s", "level_db", "snr_db", "carrier_offset_hz", "coherence"])
def test_missing_columns_are_missing_not_zero(missing):
    sessions = simulate(20)
    hidden = replace(sessions, **{missing: np.full(len(sessions.arrival_s), np.nan)})
    found = predict(hidden, build(scramble=True))
    assert np.isfinite(found.latitude).all()
    if missing == "arrival_s":
        assert np.sqrt(found.covariance_m2[:, 0]).min() > 5e3


HOSTILE = {
    "nothing measured": make_session([45.0, 45.1], [8.0, 8.1]),
    "one receiver": make_session([45.0], [8.0], level_db=[-60.0]),
    "level of no power": make_session([45.0, 45.1, 45.2], [8.0, 8.2, 8.1], level_db=[-np.inf, -60.0, -70.0]),
    "one point": make_session(
        [45.0] * 5, [8.0] * 5, arrival_s=np.arange(5) * 1e-6, arrival_sigma_s=[1e-9] * 5, timing_sigma_s=[1e-8] * 5
    ),
    "one line": make_session(
        [45.0, 45.1, 45.2, 45.3], [8.0] * 4, arrival_s=[0.0, 1e-5, 2e-5, 3e-5], arrival_sigma_s=[1e-8] * 4,
        timing_sigma_s=[1e-8] * 4,
    ),
    "impossible delays": make_session(
        [45.0, 45.1, 45.2, 45.0], [8.0, 8.3, 8.1, 7.6], arrival_s=[0.0, 0.5, 1e9, -0.02], arrival_sigma_s=[1e-8] * 4,
        timing_sigma_s=[1e-8] * 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("scramble", [False, True])
def test_degenerate_sessions_get_a_wide_answer_never_a_confident_one(name, scramble):
    found = predict(HOSTILE[name], build(scramble=scramble, trust=1.0))
    assert np.isfinite([found.latitude[0], found.longitude[0], *found.covariance_m2[0]]).all()
    assert np.sqrt(found.covariance_m2[0, :2].max()) > 1000.0
    assert not found.refused[0]


def test_sessions_without_a_receiver_at_a_known_place_are_refused():
    nowhere = make_session([np.nan, np.nan], [8.0, 8.1], level_db=[-60.0, -61.0])
    empty = make_session([], [])
    for sessions in (nowhere, empty):
        found = predict(sessions)
        assert found.refused.tolist() == [True]
        assert np.isnan(found.latitude).all()


@settings(max_examples=15, deadline=None)
@given(
    latitude=st.floats(-89.0, 89.0),
    longitude=st.floats(-180.0, 180.0),
    east=st.floats(-150, 150),
    north=st.floats(-90, 90),
)
def test_the_way_back_to_degrees_is_the_inverse_of_the_plane(latitude, longitude, east, north):
    origin = torch.tensor([[latitude, longitude]], dtype=torch.float64)
    there = to_degrees(torch.tensor([[east, north]], dtype=torch.float64), origin)
    sessions = replace(
        make_session([latitude], [longitude]), source_latitude=there[0].numpy(), source_longitude=there[1].numpy()
    )
    np.testing.assert_allclose(assemble_table(sessions).truth_km[0], [east, north], atol=2e-3)


def test_tables_keep_ranges_exact():
    sessions = simulate(30, network="random")
    table = assemble_table(sessions)
    for row in range(30):
        place = table.receivers[row, :, :2].astype(float)
        place = place[np.isfinite(place[:, 0])]
        mine = sessions.receivers(row)
        true_m = compute_distance_m(
            sessions.receiver_latitude[mine][0], sessions.receiver_longitude[mine][0],
            sessions.receiver_latitude[mine], sessions.receiver_longitude[mine],
        )  # fmt: skip
        np.testing.assert_allclose(np.linalg.norm(place - place[0], axis=1), true_m / 1000.0, rtol=2e-3, atol=0.02)


def test_turning_and_losing_receivers_keeps_the_truth_where_it_belongs():
    table = assemble_table(simulate(60, min_receivers=5))
    turned = disturb_table(table, AugmentationSpec(dropout=0.5), make_rng(0))
    present = np.isfinite(turned.receivers[..., 0])
    assert (present.sum(1) >= 3).all()
    assert present.sum() < np.isfinite(table.receivers[..., 0]).sum()
    before, after = (
        np.linalg.norm(item.receivers[..., :2] - item.truth_km[:, None], axis=2) for item in (table, turned)
    )
    np.testing.assert_allclose(after[present], before[present], rtol=1e-4)
    column = RECEIVER_COLUMNS.index("level_db")
    assert np.nanmax(np.abs(turned.receivers - table.receivers)[..., column]) <= 6.0 + 1e-4


def test_loss_is_the_likelihood_of_the_widened_gaussian():
    rng = make_rng(0)
    root = rng.normal(size=(50, 2, 2))
    covariance = root @ root.transpose(0, 2, 1) + 0.01 * np.eye(2)
    upper = np.linalg.cholesky(np.linalg.inv(covariance)).transpose(0, 2, 1)
    position, truth, margin = rng.normal(size=(50, 2)), rng.normal(size=(50, 2)), rng.uniform(0.0, 1.0, 50)
    factor = np.stack([upper[:, 0, 0], upper[:, 0, 1], upper[:, 1, 1]], 1)
    squared, log_determinant = compute_squared_z(*(torch.tensor(item) for item in (position, factor, truth, margin)))
    wide = covariance + np.square(margin)[:, None, None] * np.eye(2)
    error = truth - position
    np.testing.assert_allclose(squared, np.einsum("ni,nij,nj->n", error, np.linalg.inv(wide), error), rtol=1e-9)
    np.testing.assert_allclose(log_determinant, -0.5 * np.log(np.linalg.det(wide)), rtol=1e-9)
    gaussian = compute_gaussian_loss(squared, log_determinant)
    np.testing.assert_allclose(gaussian, 0.5 * squared - log_determinant)
    assert (compute_heavy_loss(squared, log_determinant)[squared > 20] < gaussian[squared > 20]).all()
    with pytest.raises(InvalidInput, match="loss: shapes"):
        compute_squared_z(torch.zeros(3, 2), torch.zeros(3, 3), torch.zeros(2, 2), torch.zeros(3))


def test_variance_factors_go_by_the_number_of_delays():
    scale = torch.tensor([9.0, 3.0, 4.0, 5.0, 6.0])
    assert choose_scale(torch.tensor([0, 2, 3, 4, 5, 6, 40]), scale).tolist() == [9, 9, 3, 4, 5, 6, 6]


def test_calibration_makes_ellipses_hold_and_too_few_sessions_give_none():
    task, network = NetworkTask(), build(trust=1.0)
    val, test = (simulate(400, first, blocked_fraction=0.3, blocked_excess_s=2e-6) for first in (0, 1000))
    calibration = task.calibrate(network, val, PLAIN)
    found = predict(test, network, calibration)
    distance_m = compute_errors_m(test, found)
    sigma_m = np.sqrt(found.covariance_m2[:, :2].max(1))
    assert 0.75 < np.mean(distance_m < 2.146 * sigma_m) < 0.99
    assert task.calibrate(network, val.take(np.arange(10)), PLAIN) == {}


def test_corrections_that_do_not_hold_on_validation_are_not_used():
    task, val = NetworkTask(), simulate(120)
    harmful = build(scramble=True)
    with torch.no_grad():
        harmful.receiver_head.weight.mul_(20.0)
    task.calibrate(harmful, val, PLAIN)
    assert float(harmful.share) == 0.0
    np.testing.assert_allclose(predict(val, harmful).latitude, predict(val).latitude, atol=1e-6)


class FixedPrior(torch.nn.Module):
    """A level prior that needs no fitting."""

    def forward(self, receivers, level, heard):
        return receivers.mean(1) + 1.0, torch.tensor([[2.0, 0.3, 1.5]]).expand(len(receivers), 3)


def test_sessions_with_levels_only_are_left_to_the_level_prior():
    torch.manual_seed(shift_seed(0))
    network = NetworkLocalizationNet(16, 1, 2, level_prior=FixedPrior())
    torch.nn.init.normal_(network.prior_head.bias)
    torch.nn.init.normal_(network.width_head.bias)
    table = torch.full((2, 4, len(RECEIVER_COLUMNS)), float("nan"))
    table[..., :3], table[..., RECEIVER_COLUMNS.index("level_db")] = torch.randn(2, 4, 3), -70.0
    located = network(table, torch.zeros(2, 2))
    torch.testing.assert_close(located.position, table[..., :2].mean(1) + 1.0)
    torch.testing.assert_close(located.factor, torch.tensor([[2.0, 0.3, 1.5]] * 2))


def test_sessions_with_levels_only_are_answered_alike_alone_and_beside_timed_ones():
    torch.manual_seed(shift_seed(0))
    network = NetworkLocalizationNet(16, 1, 2, level_prior=FixedPrior()).eval()
    torch.nn.init.normal_(network.prior_head.bias)
    torch.nn.init.normal_(network.width_head.bias)
    table = torch.from_numpy(assemble_table(simulate(6, min_receivers=4, max_receivers=4)).receivers)
    table[::2, :, RECEIVER_COLUMNS.index("arrival_km")] = float("nan")
    together = network(table, torch.zeros(6, 2))
    alone = network(table[::2], torch.zeros(3, 2))  # no search is run
    torch.testing.assert_close(alone.position, together.position[::2], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(alone.factor, together.factor[::2], rtol=1e-4, atol=1e-6)


def test_gradients_are_finite_for_hostile_and_for_late_sessions():
    network = build(scramble=True, trust=1.0).train()
    sessions = join_sessions([*HOSTILE.values(), simulate(20, blocked_fraction=0.5)])
    located = network(torch.from_numpy(assemble_table(sessions).receivers), torch.zeros(len(sessions), 2))
    truth = torch.zeros(len(sessions), 2)
    squared, log_determinant = compute_squared_z(
        located.position, located.factor, truth, torch.full((len(sessions),), 0.01)
    )
    compute_heavy_loss(squared, log_determinant).mean().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters() if weight.grad is not None)
    assert network.trust.grad.abs().sum() > 0


def test_training_data_can_be_joined_with_simulated_sessions_of_other_networks():
    train = simulate(20)
    task = NetworkTask()
    assert task.extend_training(train, TrainingSpec()) is train
    extended = task.extend_training(train, TrainingSpec(num_simulated_sessions=40))
    assert len(extended) == 60
    assert not set(extended.station_id[train.offsets[-1] :]) & set(train.station_id)
    assert (count_timed(extended) >= 3).all()
    assert sum(len(part) for part in simulate_training_sessions(100, 1)) == 100
    with pytest.raises(InvalidInput, match="only the first"):
        join_sessions([train, replace(train, features=np.zeros((1, 3, 32, 32), np.float32))])


def test_the_law_of_levels_is_measured_and_tells_who_is_blocked():
    fields = {"blocked_fraction": 0.3, "blocked_excess_s": 2e-6}
    weaker = simulate(1000, blocked_loss_db=15.0, **fields)
    found = measure_level_law(weaker)
    assert found.late_loss_db == pytest.approx(15.0, abs=1.0)
    assert found.sigma_db == pytest.approx(6.6, abs=0.5)
    # 37 dBm through free space to 1 km at 145.5 MHz: Friis
    assert found.power_db == pytest.approx(37.0 - 20.0 * np.log10(4e3 * np.pi * 145.5e6 / 299_792_458.0), abs=0.7)
    assert found.power_sigma_db == 3.0  # all of one power: believed no better than this
    deaf, told = (
        NetworkTask().build_network(ModelSpec(), PLAIN | {"trust": 1.0, "level_law": item._asdict()})
        for item in (LevelLaw(), found)
    )
    errors = [np.median(compute_errors_m(weaker, predict(weaker, network))) for network in (deaf, told)]
    assert errors[1] < 0.95 * errors[0]
    assert measure_level_law(simulate(600, **fields)).late_loss_db == 0.0
    unknown = measure_level_law(replace(weaker, blocked=None))
    assert unknown.late_loss_db == 0.0
    assert unknown.sigma_db > found.sigma_db + 1.0


def test_a_law_of_levels_measures_how_much_power_differs_and_needs_levels():
    sessions = simulate(400, min_receivers=6)
    step = np.repeat(np.where(np.arange(400) % 2, 10.0, -10.0), sessions.num_receivers)
    assert measure_level_law(replace(sessions, level_db=sessions.level_db + step)).power_sigma_db == pytest.approx(
        10.0, abs=0.5
    )
    silent = replace(sessions, level_db=np.full_like(sessions.level_db, np.nan))
    assert measure_level_law(silent) == LevelLaw()
    assert measure_level_law(sessions.take(np.arange(5))) == LevelLaw()


def test_statistics_choose_the_classical_solution_that_fits_the_data():
    task = NetworkTask()
    late = simulate(300, blocked_fraction=0.3, blocked_excess_s=2e-6, min_receivers=6)
    assert task.fit_statistics(ModelSpec(), late)["trust"] == 1.0
    assert task.fit_statistics(ModelSpec(), simulate(300))["trust"] == 0.0
    mixed = join_sessions(
        [simulate(1000), simulate(2400, blocked_fraction=0.3, blocked_excess_s=2e-6, min_receivers=6)]
    )
    assert choose_trust(mixed) == 1.0  # whatever stands first
    unknown = replace(late, source_latitude=np.full(300, np.nan))
    with pytest.raises(InvalidInput, match="0 of 300 sessions"):
        task.fit_statistics(ModelSpec(), unknown)


class Sharp(torch.nn.Module):
    """Says of every session that its position is known a million times better along one direction than across."""

    def forward(self, table, offset):
        angle = torch.linspace(0.05, 1.5, len(table))
        information = 1e6 * torch.stack([angle.cos(), angle.sin()], -1)
        factor = torch.stack([information[:, 0], information[:, 1], torch.full_like(angle, 1e-2)], -1)
        return Located(torch.zeros(len(table), 2), factor, None)


def test_the_narrowest_ellipse_is_still_one_in_float32():
    graph = NetworkGraph(Sharp(), PLAIN, {})
    table = assemble_table(simulate(500))
    _, _, covariance = graph(torch.from_numpy(table.origin_deg), torch.from_numpy(table.receivers))
    east, north, both = covariance.double().numpy().T
    assert (east * north > both**2).all()
