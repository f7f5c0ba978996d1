"""Clocks from a reference: against the clocks that were drawn, and refused where the reference cannot tell them."""

from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.domain import Position
from heimdall_assets.errors import CannotLocate
from heimdall_assets.physical import SIGNAL_SPEED_M_S, Recording
from heimdall_assets.signals.acquisition import Search, Stretch, find_occupied
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.signals.reference_clock import ClockFit, Reference, compute_shared_s, fit_clocks
from heimdall_assets_tests.pipeline.reference_world import RECEIVERS, REFERENCE, Made, World, make_world
from heimdall_assets_tests.variation import assert_above, assert_below, shift_seed

SMALL = World(rate_hz=64_000.0, bandwidth_hz=48_000.0, reference_hz=20e6)
NAMES = list(RECEIVERS)


def make_reference(world: World, **changes) -> Reference:
    search = Search(2.0 * world.skew_s + 1e-3, 100e-6, world.reference_hz)
    return replace(Reference("DAB", REFERENCE, search, receiver_margin_m=0.0), **changes)


def fit(world: World, made: Made, reference: Reference | None = None, num_parts: int = 2) -> ClockFit:
    heard, wanted = list_stretches(world, made, num_parts)
    return fit_clocks(NAMES, heard, wanted, list(RECEIVERS.values()), reference or make_reference(world))


def list_stretches(world: World, made: Made, num_parts: int) -> tuple[list[list[Stretch]], list[Stretch]]:
    files = [Stretch(Recording(made.samples[name], world.rate_hz), 0.0) for name in NAMES]
    parts = [world.parts[0], world.parts[2]][:num_parts]
    return [[one.cut(*part) for part in parts] for one in files], [one.cut(*world.parts[1]) for one in files]


def measure_errors_s(world: World, made: Made, found: ClockFit) -> np.ndarray:
    """Return by how much each clock is still off at the middle of its wanted part, beside a common time, in s (R,).

    All are set by the anchor's: it advances by its own oscillator's error more, which no comparison shows.
    """
    _, wanted = list_stretches(world, made, 2)
    anchor_error = made.listeners[NAMES[0]].clock_error
    errors = []
    for clock, aim, name in zip(found.clocks, wanted, NAMES, strict=True):
        one, middle_s = made.listeners[name], 0.5 * (aim.start_s + aim.end_s)
        true_s = one.start_s + middle_s / (1.0 + one.clock_error)
        corrected = clock.correct(aim)
        errors.append(0.5 * (corrected.start_s + corrected.end_s) - true_s * (1.0 + anchor_error))
    return np.array(errors) - np.mean(errors)


def test_clocks_that_have_nothing_in_common_are_found_to_nanoseconds():
    world = World(seed=shift_seed(1))
    made = make_world(world)
    found = fit(world, made)
    # What is left is the anchor's own rate error, up to 5e-5 of ways of up to 93 km: 15 ns; noise leaves one.
    assert np.abs(measure_errors_s(world, made, found)).max() < 30e-9
    assert all(5e-9 < clock.sigma_s < 60e-9 for clock in found.clocks)
    anchor = made.listeners[NAMES[0]]
    for name, clock in zip(NAMES, found.clocks, strict=True):
        one = made.listeners[name]
        slope = clock.shift.rate_error / (1.0 + clock.shift.rate_error) - clock.rate_error
        assert slope == pytest.approx(one.clock_error - anchor.clock_error, abs=5e-8)
        assert clock.offset_hz == pytest.approx((anchor.clock_error - one.clock_error) * world.reference_hz, abs=20.0)
        assert clock.coherence > 0.9


def test_the_covariance_says_how_large_the_errors_are():
    squares = []
    for seed in range(16):
        # a narrow reference, so that noise outweighs what the common rate leaves open
        world = replace(SMALL, seed=shift_seed(seed), bandwidth_hz=6000.0, snr_db=5.0)
        made = make_world(world)
        found = fit(world, made)
        centre = np.eye(len(NAMES)) - 1.0 / len(NAMES)
        information = np.linalg.pinv(centre @ found.covariance_s2 @ centre, rcond=1e-9, hermitian=True)
        error = measure_errors_s(world, made, found)
        squares.append(error @ information @ error)
    # chi-square with 3 degrees of freedom: mean 3, and 16 of them tell it to 0.6; 70 gave 3.1 +- 0.3
    assert_below(float(np.mean(squares)), 4.5, "mean squared error in sigmas, of 3")
    assert_above(float(np.mean(squares)), 1.5, "mean squared error in sigmas, of 3")


def test_a_narrow_reference_gives_a_large_sigma_and_a_wide_one_a_small_one():
    sigmas_s = []
    for bandwidth_hz in (6000.0, 48_000.0):
        world = replace(SMALL, bandwidth_hz=bandwidth_hz, snr_db=5.0)
        reference = make_reference(world)
        reference = replace(reference, search=replace(reference.search, max_rate_error=60e-6))
        sigmas_s.append(np.mean([clock.rate_sigma for clock in fit(world, make_world(world), reference).clocks[1:]]))
    # delays know as the inverse of bandwidth^1.5: power spreads over it, and the curvature goes with its square; the
    # narrow band holds eight times the power density at the same SNR of the whole band
    assert sigmas_s[0] > 4.0 * sigmas_s[1]


def test_with_the_reference_before_alone_the_rate_is_known_less_and_the_start_with_it():
    world = replace(SMALL, bandwidth_hz=12_000.0)
    made = make_world(world)
    both, before = fit(world, made), fit(world, made, num_parts=1)
    assert before.clocks[1].rate_sigma > 3.0 * both.clocks[1].rate_sigma
    assert before.clocks[1].sigma_s > 1.5 * both.clocks[1].sigma_s
    error_s = np.abs(measure_errors_s(world, made, before))
    assert (error_s < 4.0 * np.hypot(*[clock.sigma_s for clock in before.clocks[:2]])).all()
    # its carrier's offset tells the rate where one oscillator makes both
    told = fit(world, made, make_reference(world, is_one_oscillator=True), num_parts=1)
    assert told.clocks[1].rate_sigma < before.clocks[1].rate_sigma


def test_each_receiver_is_given_half_the_power_of_a_misplaced_references_pattern():
    east, west = Position(latitude=46.0, longitude=8.5), Position(latitude=46.0, longitude=7.5)
    reference = Reference(
        "R", Position(latitude=46.0, longitude=8.0), Search(0.1, 1e-12, 100e6), margin_m=100.0, receiver_margin_m=0.0
    )

    def sigma_m(*receivers: Position) -> float:
        return SIGNAL_SPEED_M_S * compute_shared_s(receivers, reference)

    # On opposite sides: 100 m nearer to the one is 100 m farther from the other, and twice that between the two.
    assert sigma_m(east, west) == pytest.approx(100.0, rel=1e-3)
    assert sigma_m(east, Position(latitude=46.0, longitude=8.7)) < 1.0  # both ways change alike: nothing between them
    assert sigma_m(east, Position(latitude=46.5, longitude=8.0)) == pytest.approx(100.0 * np.sqrt(0.5), rel=1e-2)
    # The rate of all clocks alike: 1e-4 / sqrt(3) of 39 km to either side, for reference and wanted transmitter each.
    drifting = replace(reference, margin_m=0.0, search=Search(0.1, 1e-4, 100e6))
    across_m = 0.5 * float(compute_distance_m(46.0, 7.5, 46.0, 8.5))
    rate_m = SIGNAL_SPEED_M_S * compute_shared_s([east, west], drifting)
    assert rate_m == pytest.approx(1e-4 / np.sqrt(3.0) * across_m * np.sqrt(2.0), rel=1e-3)


def test_doubt_about_receivers_and_reference_is_in_every_sigma():
    made = make_world(SMALL)
    sharp = fit(SMALL, made)
    rough = fit(SMALL, made, make_reference(SMALL, receiver_margin_m=30.0))
    apart = [r.sigma_s**2 - s.sigma_s**2 for r, s in zip(rough.clocks, sharp.clocks, strict=True)]
    assert SIGNAL_SPEED_M_S * np.sqrt(apart) == pytest.approx([30.0] * 4, rel=1e-6)


def test_a_reference_that_one_receiver_lacks_is_refused_by_its_name():
    made = make_world(SMALL)
    noise = np.random.default_rng(1).normal(size=(len(made.samples["RC"]), 2)) @ [0.7, 0.7j]
    made.samples["RC"] = noise.astype(np.complex64)
    with pytest.raises(CannotLocate, match=r"^RC: reference DAB not found: .* expected 100 % within 0.041 s"):
        fit(SMALL, made)


def test_noise_alone_is_never_taken_for_a_reference():
    rng = np.random.default_rng(shift_seed(3))
    made = make_world(SMALL)
    for name, samples in made.samples.items():
        made.samples[name] = (rng.normal(size=(len(samples), 2)) @ [0.7, 0.7j]).astype(np.complex64)
    with pytest.raises(CannotLocate, match="and RA: reference DAB not found"):
        fit(SMALL, made)


def test_a_lag_at_the_end_of_the_search_is_refused():
    made = make_world(SMALL)
    lags_s = np.abs([clock.shift.lag_s for clock in fit(SMALL, made).clocks])
    # within the search by half the width of the correlation, and outside of it: its guard interval still correlates
    for beyond_s in (0.5 / SMALL.bandwidth_hz, -2e-4):
        search = Search(lags_s.max() + beyond_s, 100e-6, SMALL.reference_hz)
        with pytest.raises(
            CannotLocate, match=r"^R.: reference DAB .* s from RA, at the end of the search or beyond it"
        ):
            fit(SMALL, made, make_reference(SMALL, search=search))


def test_a_search_that_no_memory_holds_is_refused_before_it_begins():
    search = Search(1000.0, 100e-6, SMALL.reference_hz)
    with pytest.raises(CannotLocate, match=r"looked for over .* lags, expected at most 33554432: a narrower"):
        fit(SMALL, make_world(SMALL), make_reference(SMALL, search=search))


@pytest.mark.parametrize("period_s", [0.004, 0.0123])
def test_a_reference_that_repeats_itself_is_refused(period_s):
    rng = np.random.default_rng(4)
    num, rate_hz = round(0.25 * SMALL.rate_hz), SMALL.rate_hz
    once = (rng.normal(size=(round(period_s * rate_hz), 2)) @ [0.5, 0.5j]).astype(np.complex64)
    sent = np.tile(once, num // len(once) + 2)

    def listen(late: int) -> Stretch:
        noise = rng.normal(size=(num, 2)) @ [0.05, 0.05j]
        return Stretch(Recording((sent[late : late + num] + noise).astype(np.complex64), rate_hz), 0.0)

    heard = [[listen(late)] for late in (0, 20)]
    places = list(RECEIVERS.values())[:2]
    with pytest.raises(CannotLocate, match=r"RB: another lag of reference DAB has \d+% of the best one's power"):
        fit_clocks(NAMES[:2], heard, [one[0] for one in heard], places, make_reference(SMALL))


def test_one_recording_has_nothing_to_be_compared_with():
    heard, wanted = list_stretches(SMALL, make_world(SMALL), 2)
    with pytest.raises(CannotLocate, match="1 recording, expected at least 2"):
        fit_clocks(NAMES[:1], heard[:1], wanted[:1], [RECEIVERS["RA"]], make_reference(SMALL))


def test_the_occupied_band_is_found_beside_the_noise():
    rng = np.random.default_rng(2)
    frequency_hz = np.fft.fftfreq(64_000, 1.0 / 64_000.0)
    spectrum = rng.normal(size=(64_000, 2)) @ [1.0, 1.0j]
    spectrum[np.abs(frequency_hz - 8000.0) > 3000.0] *= 0.05
    found = find_occupied(Stretch(Recording(np.fft.ifft(spectrum).astype(np.complex64), 64_000.0), 0.0), 64_000.0)
    assert found.centre_hz == pytest.approx(8000.0, abs=300.0)
    assert found.extent_hz == pytest.approx(6000.0, abs=600.0)
    assert found.width_hz == pytest.approx(6000.0, abs=600.0)
