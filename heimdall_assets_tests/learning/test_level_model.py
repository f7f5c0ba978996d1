"""The level prior on worlds whose truth is known: path loss with correlated shadowing, drawn from a seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from heimdall_assets.errors import CannotLocate
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.learning.level_prior.field import fit_field
from heimdall_assets.learning.level_prior.fit import (
    BLOCK_SIZES,
    assign_blocks,
    compute_posterior,
    fit_level_prior,
    make_folds,
    make_occasions,
    widen,
)
from heimdall_assets.learning.level_prior.kriging import fit_correlation, krige
from heimdall_assets.learning.level_prior.likelihood import (
    LOG_MAD,
    LOG_NEVER,
    TUNING,
    Expected,
    Reading,
    compute_log_likelihood,
    compute_negative_log_likelihood,
)
from heimdall_assets.learning.level_prior.links import Links, collect_links, find_centre, find_sites, match_sites
from heimdall_assets.learning.level_prior.prior import LevelPrior
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import LocalFrame
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.variation import assert_above, assert_below, make_rng

CENTRE = (40.765, -111.84)
CHI_90 = -2.0 * np.log(0.1)
EXPONENT, SHADOWING_DB, FADING_DB, CORRELATION_KM = 2.6, 6.0, 2.0, 0.25


class World:
    """Receivers with offsets, and shadowing as a sum of plane waves: any two places see the same field."""

    def __init__(
        self, seed: int, num_receivers: int = 12, size_km: float = 2.5, centre_km: tuple[float, float] = (0, 0)
    ) -> None:
        rng = make_rng(seed)
        self.size_km, self.centre_km = size_km, np.array(centre_km)
        # One in each cell of a grid: receivers that chance puts beside each other would be one site.
        cells = np.stack(np.divmod(np.arange(num_receivers), 4), axis=1) + rng.uniform(0.15, 0.85, (num_receivers, 2))
        self.receiver_km = self.centre_km + (cells / [-(-num_receivers // 4), 4] - 0.5) * size_km
        self.offset_db = -85.0 + rng.normal(0, 4, num_receivers)
        self.wave = rng.standard_cauchy((num_receivers, 200, 2)).clip(-20, 20) / CORRELATION_KM / size_km * 2.5
        self.phase = rng.uniform(0, 2 * np.pi, (num_receivers, 200))

    def hear(self, num_sessions: int, seed: int, gain_db: float = 2.0, receivers: slice = slice(None)) -> SessionSet:
        rng = make_rng(seed)
        source = self.centre_km + rng.uniform(-0.5, 0.5, (num_sessions, 2)) * self.size_km
        receiver, offset = self.receiver_km[receivers], self.offset_db[receivers]
        distance = np.linalg.norm(source[:, None] - receiver, axis=-1)
        angle = np.einsum("rwi,si->srw", self.wave[receivers], source) + self.phase[receivers]
        level = offset - 10 * EXPONENT * np.log10(np.maximum(distance, 0.01))
        level += SHADOWING_DB * np.sqrt(2 / 200) * np.cos(angle).sum(-1)
        level += rng.normal(0, FADING_DB, level.shape) + rng.normal(0, gain_db, (num_sessions, 1))
        return make_sessions(source, np.broadcast_to(receiver, (num_sessions, *receiver.shape)), level)


def make_sessions(source_km: np.ndarray, receiver_km: np.ndarray, level_db: np.ndarray) -> SessionSet:
    num_sessions, num_receivers = level_db.shape
    frame = LocalFrame(*CENTRE)
    latitude, longitude, _ = frame.to_geodetic(*(1000.0 * receiver_km.reshape(-1, 2).T))
    source_latitude, source_longitude, _ = frame.to_geodetic(*(1000.0 * source_km.T))
    size = num_sessions * num_receivers
    nan = np.full(size, np.nan)
    return SessionSet(
        session_id=np.array([f"s{i:05d}" for i in range(num_sessions)]),
        offsets=np.arange(num_sessions + 1) * num_receivers,
        receiver_latitude=latitude,
        receiver_longitude=longitude,
        receiver_altitude_m=np.zeros(size),
        station_id=np.array([f"r{i % num_receivers}" for i in range(size)]),
        frequency_hz=np.full(size, 462.7e6),
        level_db=level_db.reshape(-1),
        snr_db=nan,
        carrier_offset_hz=nan,
        timing_sigma_s=np.full(size, np.inf),
        arrival_s=nan,
        arrival_sigma_s=nan,
        coherence=nan,
        feature_row=np.full(size, -1),
        source_latitude=source_latitude,
        source_longitude=source_longitude,
        error_margin_m=np.zeros(num_sessions),
    )


def evaluate_sessions(prior: LevelPrior, sessions: SessionSet) -> tuple[np.ndarray, np.ndarray]:
    """Return errors in km and squared distances in sigmas."""
    links = collect_links(sessions, prior.centre_deg)
    mean, factor = compute_posterior(prior, links)
    truth = torch.as_tensor(links.source_km, dtype=torch.float32)
    square = compute_negative_log_likelihood(mean, factor, truth)[1]
    return (mean - truth).norm(dim=1).numpy(), square.numpy()


@pytest.fixture(scope="module")
def world() -> World:
    return World(1)


@pytest.fixture(scope="module")
def train(world: World) -> SessionSet:
    return world.hear(360, seed=2)


@pytest.fixture(scope="module")
def prior(train: SessionSet) -> LevelPrior:
    return fit_level_prior(train, num_steps=10)


def random_links(
    num_sessions: int, num_receivers: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    place = torch.randn(num_sessions, num_receivers, 2, generator=generator)
    level = -80 + 10 * torch.randn(num_sessions, num_receivers, generator=generator)
    return place, level, torch.rand(num_sessions, num_receivers, generator=generator) < 0.8


def test_locates_within_the_known_world_better_than_path_loss_and_covers(world, train, prior):
    error, square = evaluate_sessions(prior, world.hear(300, seed=3))
    plain = LevelPrior.from_field(fit_field(collect_links(train, CENTRE), sites=np.zeros((0, 2))), CENTRE, 2.0)
    without_maps, _ = evaluate_sessions(plain, world.hear(300, seed=3))
    assert np.median(error) < 0.75 * np.median(without_maps)
    assert np.mean(square < 4.605) >= 0.86  # widened for new ground, so more than 0.90 on known ground
    assert np.median(square) > 0.3


def test_receivers_never_seen_are_judged_by_path_loss_alone_and_covered(prior):
    error, square = evaluate_sessions(prior, World(7).hear(300, seed=8))
    assert np.mean(square < 4.605) >= 0.80
    assert np.median(error) < 0.75  # the middle of the area is 0.95 km away


def test_another_place_is_answered_about_its_own_receivers(prior):
    far = World(9, size_km=20.0, centre_km=(300.0, -200.0))
    sessions = far.hear(200, seed=4)
    error, square = evaluate_sessions(prior, sessions)
    links = collect_links(sessions, prior.centre_deg)
    strongest = links.receiver_km[np.arange(200), links.level_db.argmax(1)]
    assert np.median(error) < np.median(np.linalg.norm(strongest - links.source_km, axis=1))
    assert np.mean(square < 4.605) >= 0.80


def test_a_louder_or_quieter_transmitter_moves_the_answer_little(world, prior):
    links = collect_links(world.hear(200, seed=5), prior.centre_deg)
    quiet = Links(links.source_km, links.receiver_km, links.level_db - 12.0, links.heard)
    truth = torch.as_tensor(links.source_km, dtype=torch.float32)
    usual, weak = ((compute_posterior(prior, item)[0] - truth).norm(dim=1).median() for item in (links, quiet))
    assert_below(weak / usual, 2.5, "error at 12 dB less")


def test_order_of_receivers_and_masked_slots_do_not_matter(prior):
    place, level, mask = random_links(5, 9)
    mean, factor = prior(place, level, mask)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    for other in (
        prior(place[:, order], level[:, order], mask[:, order]),
        prior(torch.where(mask.unsqueeze(-1), place, torch.nan), torch.where(mask, level, -torch.inf), mask),
        prior(
            torch.cat([place, torch.full((5, 3, 2), 7.0)], 1),
            torch.cat([level, torch.full((5, 3), torch.nan)], 1),
            torch.cat([mask, torch.zeros(5, 3, dtype=torch.bool)], 1),
        ),
    ):
        torch.testing.assert_close(other[0], mean, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(other[1], factor, rtol=1e-3, atol=1e-3)


def test_without_levels_the_answer_is_the_wide_prior(prior):
    place, level, mask = random_links(2, 3)
    mean, factor = prior(place, level, torch.zeros_like(mask))
    torch.testing.assert_close(mean[0], mean[1])
    assert (mean.norm(dim=1) < 0.3).all()
    assert (1.0 / (factor[:, 0] * factor[:, 2]).sqrt() > 0.5).all()


@pytest.mark.parametrize("num_receivers", [1, 2, 64])
@pytest.mark.parametrize("level", [-torch.inf, torch.nan, -300.0, 0.0, 300.0, 1e9])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e4])
def test_any_input_gives_a_finite_answer_and_finite_gradients(prior, num_receivers, level, spread):
    place = spread * torch.randn(2, num_receivers, 2, generator=torch.Generator().manual_seed(3))
    place.requires_grad_(True)
    levels = torch.full((2, num_receivers), level, requires_grad=True)
    mean, factor = prior(place, levels, torch.ones(2, num_receivers, dtype=torch.bool))
    (mean.sum() + factor[:, [0, 2]].log().sum() + factor[:, 1].sum()).backward()
    assert torch.isfinite(mean).all()
    assert torch.isfinite(factor).all()
    assert (factor[:, [0, 2]] > 0).all()
    assert torch.isfinite(place.grad).all()
    assert torch.isfinite(levels.grad).all()


@pytest.mark.parametrize("wrong_db", [30.0, -30.0])
def test_one_mad_receiver_whichever_it_is_costs_at_most_four_times_the_error(world, prior, wrong_db):
    links = collect_links(world.hear(200, seed=6), prior.centre_deg)
    truth = torch.as_tensor(links.source_km, dtype=torch.float32)
    usual = (compute_posterior(prior, links)[0] - truth).norm(dim=1).median()
    ratios, coverages = [], []
    for receiver in range(12):
        level = links.level_db.copy()
        level[:, receiver] += wrong_db
        mean, factor = compute_posterior(prior, Links(links.source_km, links.receiver_km, level, links.heard))
        square = compute_negative_log_likelihood(mean, factor, truth)[1]
        ratios.append((mean - truth).norm(dim=1).median() / usual)
        coverages.append((square < 4.605).float().mean())
    assert_below(max(ratios), 4.0, "error over that without a mad receiver, the worst of twelve")
    assert_above(min(coverages), 0.65, "coverage beside a mad receiver, the worst of twelve")


def test_a_departure_beyond_all_odds_weighs_no_more_than_a_larger_one_and_moves_no_gain():
    expected = Expected(torch.full((1, 12, 1), -80.0), torch.full((1, 12, 1), 40.0), torch.ones(1, 12, 1))
    heard, strange = torch.ones(1, 12, dtype=torch.bool), torch.zeros(1, 1)
    tuning = torch.tensor(list(TUNING.values()))

    def judge(wrong_db: float, log_mad: float) -> float:
        level = torch.full((1, 12), -80.0)
        level[0, 0] += wrong_db
        return float(compute_log_likelihood(expected, Reading(level, heard, strange), tuning, torch.tensor(log_mad)))

    assert judge(200.0, LOG_MAD) == pytest.approx(judge(400.0, LOG_MAD), abs=0.02)
    # Its odds to be sane, a Gaussian's density at its peak under the blunt exponent over that of a mad level.
    odds = -0.5 * np.exp(TUNING["blunt"]) * np.log(2.0 * np.pi * 40.0) - LOG_MAD
    assert judge(0.0, LOG_MAD) - judge(400.0, LOG_MAD) == pytest.approx(np.logaddexp(0.0, odds), abs=0.1)
    assert judge(200.0, LOG_NEVER) - judge(400.0, LOG_NEVER) > 5.0  # the guard that makes the difference


def test_one_mad_receiver_among_a_dozen_misleads_only_some(world, prior):
    links = collect_links(world.hear(600, seed=6), prior.centre_deg)
    level = links.level_db.copy()
    level[np.arange(600), np.arange(600) % 12] += 30.0  # each in turn: some stand where they mislead more
    truth = torch.as_tensor(links.source_km, dtype=torch.float32)
    mean, factor = compute_posterior(prior, Links(links.source_km, links.receiver_km, level, links.heard))
    square = compute_negative_log_likelihood(mean, factor, truth)[1]
    knowing_nothing = (truth - truth.mean(0)).norm(dim=1).median()
    assert_below((mean - truth).norm(dim=1).median() / knowing_nothing, 0.6, "error over that of knowing nothing")
    assert_above((square < 4.605).float().mean(), 0.55, "coverage beside a mad receiver")


def test_weights_and_settings_carry_everything(prior):
    copy = LevelPrior.create(prior.settings)
    copy.load_state_dict(prior.state_dict())
    links = random_links(4, 6)
    for one, other in zip(prior(*links), copy(*links), strict=True):
        assert torch.equal(one, other)
    assert not any(weight.requires_grad for weight in prior.parameters())


def test_same_sessions_give_the_same_bytes(train, prior):
    again = fit_level_prior(train, num_steps=10)
    for name, value in prior.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_exponent_and_offsets_are_found(world, train):
    field = fit_field(collect_links(train, CENTRE))
    assert field.exponent == pytest.approx(EXPONENT, abs=0.35)
    assert len(field.site_km) == 12
    nearest = np.abs(field.site_km[:, None] - world.receiver_km).sum(-1).argmin(1)
    found = field.site_offset_db + field.offset_db
    assert np.corrcoef(found, world.offset_db[nearest])[0, 1] > 0.8
    assert field.density.sum() == pytest.approx(1.0)


def test_kriging_returns_what_was_measured_where_it_was_measured_and_doubts_elsewhere():
    rng = make_rng(0)
    source = rng.uniform(-1, 1, (400, 2))
    residual = 6.0 * np.sin(4.0 * source[:, :1]) + rng.normal(0, 0.5, (400, 1))
    variance = residual.var(axis=0)
    points = np.concatenate([rng.uniform(-0.7, 0.7, (20, 2)), [[40.0, 0.0]]])
    mean, doubt = krige(source, residual, variance, points, spread=0.8)
    np.testing.assert_allclose(mean[0], 6.0 * np.sin(4.0 * points[:, 0]) * (np.arange(21) < 20), atol=1.5)
    assert_above(doubt[0, 20] / doubt[0, :20].mean(), 3.0, "doubt far away")


def test_white_noise_shows_no_correlation():
    rng = make_rng(0)
    source, residual = rng.uniform(-1, 1, (800, 2)), rng.normal(0, 5, (800, 4))
    assert fit_correlation(source, residual, residual.var(axis=0), 0.8).sum() < 0.15


def test_a_place_with_few_levels_is_no_site_and_neighbours_share_one():
    rng = make_rng(0)
    place = np.zeros((100, 3, 2))
    place[:, 1] = [0.5, 0.5]
    place[:, 2] = rng.uniform(-1, 1, (100, 2))  # a bus
    place[::2, 0, 0] = 0.004
    links = Links(np.zeros((100, 2)), place, np.zeros((100, 3)), np.ones((100, 3), dtype=bool))
    sites = find_sites(links)
    assert len(sites) == 2
    site = match_sites(links, sites)
    assert (site[:, :2] >= 0).all()
    assert (site[:, 2] < 0).mean() > 0.95


def test_blocks_stay_whole_and_folds_never_judge_their_own_ground(train):
    links = collect_links(train, CENTRE)
    fold = assign_blocks(links.source_km, 0.5, seed=1)
    assert set(fold) == {0, 1, 2}
    near = np.linalg.norm(links.source_km[:, None] - links.source_km, axis=-1) < 0.02
    assert (fold[:, None] == fold)[near].mean() > 0.9
    folds = make_folds(links, CENTRE, seed=1)
    assert len(folds) == 3 * len(BLOCK_SIZES)
    assert sum(len(item.held_out) for item in folds) == len(BLOCK_SIZES) * len(links)


def test_spells_left_out_hold_whole_days_and_one_day_or_a_few_sessions_are_no_spell(train):
    links = collect_links(train, CENTRE)
    date = np.array([f"2026-05-{1 + 4 * row // len(links):02d}" for row in range(len(links))])
    folds = make_occasions(links, date, CENTRE)
    assert [len(fold.held_out) for fold in folds] == [len(links) // 4, len(links) // 2, len(links) // 4]
    assert make_occasions(links, np.full(len(links), "2026-05-01"), CENTRE) == []
    rare = np.array(["2026-05-01"] * 10 + ["2026-05-02"] * (len(links) - 10))
    assert [len(fold.held_out) for fold in make_occasions(links, rare, CENTRE)] == [len(links) - 10]


def test_the_kind_of_fold_that_costs_more_decides_how_wide_ellipses_are(train):
    links = collect_links(train, CENTRE)
    date = np.where(np.arange(len(links)) % 2 == 0, "2026-05-01", "2026-05-02")
    tuning, width = torch.tensor(list(TUNING.values())), list(TUNING).index("width")
    ground, days = make_folds(links, CENTRE, seed=1)[:2], make_occasions(links, date, CENTRE)
    # The second day's receivers all read wrong, every other one the other way: no gain of the transmitter explains it.
    wrong = 30.0 * (-1.0) ** np.arange(days[1].held_out.level_db.shape[1])
    days[1] = replace(days[1], held_out=replace(days[1].held_out, level_db=days[1].held_out.level_db + wrong))
    alone = [widen([kind], tuning)[width] for kind in (ground, days)]
    assert_above(alone[1] - alone[0], 0.5, "width of days over width of ground")
    both = widen([ground, days], tuning)
    assert both[width] == alone[1]
    rest = [index for index in range(len(tuning)) if index != width]
    assert torch.equal(both[rest], tuning[rest])


def test_few_sessions_and_few_levels_still_make_a_prior(world):
    for count in (1, 5):
        prior = fit_level_prior(world.hear(count, seed=1))
        mean, factor = prior(*random_links(3, 4))
        assert torch.isfinite(mean).all()
        assert torch.isfinite(factor).all()


def test_without_known_sources_nothing_is_learned(train):
    unknown = train.take(np.arange(3))
    unknown.source_latitude[:] = np.nan
    with pytest.raises(CannotLocate, match="none has a known source"):
        find_centre(unknown)
    silent = train.take(np.arange(3))
    silent.level_db[:] = np.nan
    with pytest.raises(CannotLocate, match="levels of known sources"):
        fit_level_prior(silent)


def test_levels_alone_spend_no_epoch_and_are_answered_as_the_prior_answers(world, tmp_path):
    train, val = world.hear(60, seed=40), world.hear(30, seed=41)
    val = replace(val, session_id=np.char.add("val-", val.session_id))
    training = TrainingSpec(max_epochs=5, num_threads=1)
    fitted = fit_model(ModelSpec(width=16), training, AugmentationSpec(), train, val, CheckpointFolder(tmp_path))
    assert fitted.history == []
    assert fitted.settings["facts"]["best_epoch"] is None
    error_km, _ = evaluate_sessions(fitted.network.level_prior, val)
    answered_m = compute_residuals(val, fitted.predict(val)).error_m
    np.testing.assert_allclose(answered_m, 1000.0 * error_km, rtol=0.02, atol=1.0)
