"""Arrival times against exact delays and the Cramer-Rao bound, on every clock, rate and offset."""

from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.domain import Position
from heimdall_assets.errors import CannotLocate, InvalidInput
from heimdall_assets.physical import Recording
from heimdall_assets.signals.alignment import find_overlap
from heimdall_assets.signals.delays import compute_delays
from heimdall_assets.signals.likelihood import SignalModel, compute_delay_information, split_information
from heimdall_assets.simulation.network import simulate_session
from heimdall_assets.specs import DelaySpec, SimulationSpec
from heimdall_assets_tests.variation import assert_below, make_rng, shift_seed

SPEC = DelaySpec()
QUIET = SimulationSpec(
    seed=shift_seed(42), clock_bias_s=0.0, clock_jitter_s=0.0, impairments=False, voice_fraction=1.0, tone_fraction=0.0
)
PLACES = [Position(latitude=45.0 + 0.3 * place, longitude=8.0 + 0.2 * place) for place in range(8)]


def simulate(index=0, **changes):
    spec = QUIET.model_copy(update=changes)
    session = simulate_session(spec, index)
    return session, [station.position for station in session.stations], session.session.attributes["truth"]


def compute_errors(delays, truth):
    """Errors of all pairs in s, and the receivers of each."""
    delay_s = np.array([receiver["delay_s"] for receiver in truth["receivers"]])
    first, second = np.triu_indices(len(delay_s), 1)
    error_s = (delays.arrival_s - delay_s)[first] - (delays.arrival_s - delay_s)[second]
    return error_s, first, second


def compute_bound_s(truth, duration_s=1.0):
    """Source: var >= 1 / (8 pi^2 beta^2 SNR B T), written here on its own."""
    snr = 10.0 ** (np.array([receiver["snr_db"] for receiver in truth["receivers"]]) / 10.0)
    return 1.0 / np.sqrt(8.0 * np.pi**2 * truth["rms_bandwidth_hz"] ** 2 * snr * 12_500.0 * duration_s)


def compute_luck(recordings, clean):
    """How far off, in sigmas, he is at each receiver who knows the clean signal: exactly standard normal.

    His error is the noise along the signal's derivative, without what an unknown phase and carrier offset take of it.
    """
    found = []
    for recording, signal in zip(recordings, clean, strict=True):
        samples = signal.samples.astype(np.complex128)
        noise = recording.samples / (np.vdot(samples, recording.samples) / np.vdot(samples, samples)) - samples
        time = np.arange(len(samples)) - 0.5 * (len(samples) - 1)
        frequency = np.gradient(np.unwrap(np.angle(samples)))
        frequency -= frequency.mean()
        frequency -= time * (time @ frequency) / (time @ time)
        sigma = np.sqrt(0.5 * np.mean(np.abs(noise) ** 2) * np.sum((frequency * np.abs(samples)) ** 2))
        found.append(frequency @ (samples.conj() * noise).imag / sigma)
    return np.array(found)


@pytest.mark.parametrize(("snr_db", "num_sessions"), [(10.0, 36), (25.0, 24)])
def test_reaches_the_bound_and_knows_its_error(snr_db, num_sessions):
    """Of as many sessions the root mean square alone would scatter by 6 to 7 % of itself, nearly all of it luck.

    How lucky the noise was is known, and that the mean of its square is 1: what it was off is taken away, which moves
    no expectation and leaves 2 %.
    """
    ratios, scores = [], []
    for index in range(num_sessions):
        session, places, truth = simulate(index, snr_min_db=snr_db, snr_max_db=snr_db)
        clean, _, _ = simulate(index, snr_min_db=90.0, snr_max_db=90.0)  # of one seed: only the noise differs
        delays = compute_delays(session.recordings, places, SPEC)
        error_s, first, second = compute_errors(delays, truth)
        bound_s, luck = compute_bound_s(truth), compute_luck(session.recordings, clean.recordings)
        excess = 0.5 * (luck[first] - luck[second]) ** 2 - 1.0
        ratios.append((error_s / np.hypot(bound_s[first], bound_s[second])) ** 2 - excess)
        scores.append((error_s / np.hypot(*delays.arrival_sigma_s[[first, second]])) ** 2 - excess)
        np.testing.assert_allclose(delays.snr_db, [one["snr_db"] for one in truth["receivers"]], atol=2.5)
    assert_below(np.sqrt(np.mean(ratios)), 1.15, "error over bound")
    assert_below(abs(np.sqrt(np.mean(scores)) - 1.0), 0.2, "error over sigma, off 1")


def test_impairments_cost_little_and_are_known():
    """A gain control that settles counts as noise, so no SNR is compared. Tails are heavy: it takes many sessions."""
    ratios, scores = [], []
    for index in range(60):
        session, places, truth = simulate(index, snr_min_db=15.0, snr_max_db=15.0, impairments=True)
        delays = compute_delays(session.recordings, places, SPEC)
        error_s, first, second = compute_errors(delays, truth)
        bound_s = compute_bound_s(truth)
        ratios.append(error_s / np.hypot(bound_s[first], bound_s[second]))
        scores.append(error_s / np.hypot(*delays.arrival_sigma_s[[first, second]]))
    assert_below(np.sqrt(np.mean(np.square(ratios))), 1.15, "error over bound")
    assert_below(abs(np.sqrt(np.mean(np.square(scores))) - 1.0), 0.2, "error over sigma, off 1")


def test_is_unbiased():
    """Every pair's error averages to nothing, whatever its true delay."""
    scores = []
    for index in range(20):
        session, places, truth = simulate(index, snr_min_db=20.0, snr_max_db=20.0, min_receivers=3, max_receivers=3)
        error_s, _, _ = compute_errors(compute_delays(session.recordings, places, SPEC), truth)
        scores.append(error_s / (np.sqrt(2.0) * compute_bound_s(truth)[0]))
    assert_below(abs(np.mean(scores)), 3.0 / np.sqrt(len(scores) * 2), "mean error, in sigmas")


def test_two_receivers_are_enough():
    session, places, truth = simulate(3, snr_min_db=15.0, snr_max_db=15.0, min_receivers=2, max_receivers=2)
    delays = compute_delays(session.recordings, places, SPEC)
    error_s, _, _ = compute_errors(delays, truth)
    assert abs(error_s[0]) < 4.0 * delays.pair_sigma_s[0]
    assert delays.pair_sigma_s[0] == pytest.approx(np.hypot(*delays.arrival_sigma_s), rel=1e-3)
    assert delays.pair_delay_s[0] == pytest.approx(delays.arrival_s[0] - delays.arrival_s[1])


def test_different_rates_and_starts_share_one_clock():
    """48 kHz, 24 kHz and 12.6 kHz recordings of one transmission, started up to 80 ms apart."""
    rates_hz, starts_s = (48_000.0, 24_000.5, 12_600.0), (0.0, 0.031, 0.08)
    delay_s = np.array([0.0, 213.4e-6, -87.9e-6])
    generator = make_rng(3)
    tones_hz, phases = generator.uniform(-2500.0, 2500.0, 200), generator.uniform(0.0, 2 * np.pi, 200)
    recordings = []
    for rate_hz, start_s, delay in zip(rates_hz, starts_s, delay_s, strict=True):
        time_s = start_s + np.arange(int(0.7 * rate_hz)) / rate_hz
        clean = np.exp(2j * np.pi * np.outer(time_s - delay, tones_hz) + 1j * phases).sum(axis=1)
        noise = generator.standard_normal((len(clean), 2)) @ [1.0, 1.0j]
        samples = (1e-2 * (clean + 2.0 * np.sqrt(rate_hz / 12_500.0) * noise)).astype(np.complex64)
        start_unix_ns = 1_700_000_000_000_000_000 + round(start_s * 1e9)
        recordings.append(Recording(samples, rate_hz, start_unix_ns))
    delays = compute_delays(recordings, PLACES[:3], SPEC)
    error_s = delays.arrival_s - delay_s
    assert np.abs(error_s - error_s.mean()).max() < 4.0 * delays.arrival_sigma_s.max() < 1e-6


def test_carrier_offsets_and_phases_do_not_matter():
    session, places, truth = simulate(1, snr_min_db=20.0, snr_max_db=20.0)
    turned = []
    for place, recording in enumerate(session.recordings):
        cycles = (400.0 * place - 1100.0 + 0.37 * place) * np.arange(24_000) / 24_000.0 + 0.13 * place
        turned.append(replace(recording, samples=recording.samples * np.exp(2j * np.pi * cycles).astype(np.complex64)))
    straight = compute_delays(session.recordings, places, SPEC)
    delays = compute_delays(turned, places, SPEC)
    # the channel moves a little against the noise, so the errors are not the same, but as small
    error_s, first, _ = compute_errors(delays, truth)
    assert np.abs(error_s).max() < 4.5 * np.sqrt(2.0) * delays.arrival_sigma_s.max()
    offsets_hz = delays.carrier_offset_hz - straight.carrier_offset_hz
    np.testing.assert_allclose(np.diff(offsets_hz), 400.37, atol=0.05)
    assert len(first) == 21


def test_rate_errors_of_a_crystal_do_not_matter():
    session, places, truth = simulate(2, snr_min_db=25.0, snr_max_db=25.0, duration_s=4.0, impairments=True)
    assert max(abs(one["rate_error"]) for one in truth["receivers"]) > 2e-6
    error_s, _, _ = compute_errors(compute_delays(session.recordings, places, SPEC), truth)
    assert np.abs(error_s).max() < 4.5 * np.sqrt(2.0) * compute_bound_s(truth, 4.0).max()


def test_tone_that_repeats_within_the_lags_has_no_delay():
    """A tone at f modulates with period 1 / f: receivers far enough apart cannot tell its periods apart."""
    worst_s, num_none = 0.0, 0
    for index in range(6):
        session, places, truth = simulate(
            index, voice_fraction=0.0, tone_fraction=1.0, snr_min_db=20.0, snr_max_db=20.0
        )
        try:
            delays = compute_delays(session.recordings, places, SPEC)
        except CannotLocate:
            num_none += len(places)
            continue
        assert np.all(np.isnan(delays.arrival_s) == (delays.reasons != ""))
        assert np.all(delays.reasons[delays.ambiguous] == "another delay is as likely")
        num_none += int(delays.ambiguous.sum())
        error_s, _, _ = compute_errors(delays, truth)
        worst_s = max(worst_s, np.nanmax(np.abs(error_s)))
    assert worst_s < 1e-6  # a wrong period would be 476 us and more
    assert num_none > 5


def test_bare_carrier_has_no_delay():
    generator = make_rng(0)
    recordings = []
    for _ in range(3):
        noise = generator.standard_normal((24_000, 2)) @ [1.0, 1.0j]
        carrier = np.exp(2j * np.pi * 700.3 / 24_000.0 * np.arange(24_000))
        recordings.append(Recording((0.1 * carrier + 0.01 * noise).astype(np.complex64), 24_000.0, 10**18))
    with pytest.raises(CannotLocate, match="delay"):
        compute_delays(recordings, PLACES[:3], SPEC)


def make_noise_recording(seed, start_unix_ns=10**18, num=24_000):
    generator = make_rng(seed)
    samples = (0.1 * (generator.standard_normal((num, 2)) @ [1.0, 1.0j])).astype(np.complex64)
    return Recording(samples, 24_000.0, start_unix_ns)


@pytest.mark.parametrize("seed", range(4))
def test_noise_alone_has_no_delay(seed):
    recordings = [make_noise_recording(10 * seed + place) for place in range(4)]
    with pytest.raises(CannotLocate, match=r"no signal|0\.05 s"):
        compute_delays(recordings, PLACES[:4], SPEC)


def test_receiver_without_the_signal_is_left_out():
    session, places, _ = simulate(4, snr_min_db=15.0, snr_max_db=15.0)
    recordings = list(session.recordings)
    recordings[2] = make_noise_recording(1, recordings[2].start_unix_ns)
    delays = compute_delays(recordings, places, SPEC)
    assert np.flatnonzero(np.isnan(delays.arrival_s)).tolist() == [2]
    assert np.isnan([delays.arrival_sigma_s[2], delays.coherence[2], delays.snr_db[2]]).all()
    assert delays.reasons[2] == "no signal in common with the others"
    assert len(delays.pairs) == 15
    assert not (delays.pairs == 2).any()


def test_loud_interference_at_one_receiver_does_not_mislead_the_rest():
    session, places, truth = simulate(5, snr_min_db=15.0, snr_max_db=15.0)
    recordings = list(session.recordings)
    loud = 3.0 * np.abs(recordings[0].samples).max() * np.exp(2j * np.pi * 0.17 * np.arange(24_000) ** 1.01)
    recordings[0] = replace(recordings[0], samples=(recordings[0].samples + loud).astype(np.complex64))
    delays = compute_delays(recordings, places, SPEC)
    error_s, first, _ = compute_errors(delays, truth)
    assert np.abs(error_s[first > 0]).max() < 5.0 * np.sqrt(2.0) * compute_bound_s(truth).max()


def test_untimed_and_late_recordings_are_left_out():
    session, places, _ = simulate(6, snr_min_db=15.0, snr_max_db=15.0)
    recordings = list(session.recordings)
    recordings[0] = replace(recordings[0], start_unix_ns=None)
    recordings[1] = replace(recordings[1], start_unix_ns=recordings[1].start_unix_ns + 5 * 10**9)
    delays = compute_delays(recordings, places, SPEC)
    assert delays.reasons[:3].tolist() == ["no start time", "too little time in common with the others", ""]
    assert np.isfinite(delays.arrival_s[2:]).all()
    with pytest.raises(CannotLocate, match="1 timed recordings"):
        compute_delays([replace(one, start_unix_ns=None) for one in recordings[:-1]] + recordings[-1:], places, SPEC)
    apart = [replace(one, start_unix_ns=place * 10**10) for place, one in enumerate(recordings)]
    with pytest.raises(CannotLocate, match="share"):
        compute_delays(apart, places, SPEC)
    with pytest.raises(InvalidInput, match="7 recordings"):
        compute_delays(recordings, places[:6], SPEC)


def test_transmission_within_the_recording_is_found():
    for index in range(40):
        session, places, _ = simulate(index, snr_min_db=15.0, snr_max_db=15.0)
        start_s, end_s = session.session.attributes["span"]
        if start_s > 0.1 or end_s < 0.9:
            break
    delays = compute_delays(session.recordings, places, SPEC)
    assert delays.span_s[0] == pytest.approx(start_s, abs=0.03)
    assert delays.span_s[1] == pytest.approx(end_s, abs=0.03)


def test_pair_correlation_peaks_where_it_should():
    session, places, truth = simulate(7, snr_min_db=20.0, snr_max_db=20.0)
    delays = compute_delays(session.recordings, places, DelaySpec(num_lags=65))
    assert delays.pair_correlation.shape == (21, 65)
    assert delays.pair_correlation.dtype == np.complex64
    size = np.abs(delays.pair_correlation)
    assert np.all(size.argmax(axis=1) == 32)
    np.testing.assert_allclose(size[:, 32], delays.pair_coherence, rtol=1e-4)
    # Closed form: a parabola through the peak; 80 us are short against the correlation, so it hardly bends off it.
    bend = (2.0 * size[:, 32] - size[:, 31] - size[:, 33]) / size[:, 32] / delays.lag_step_s**2
    np.testing.assert_allclose(delays.pair_curvature, bend, rtol=0.2)
    # Strong parts of the spectrum weigh more than in its own bandwidth, so it is never wider.
    assert (np.sqrt(delays.pair_curvature) / (2 * np.pi) < 1.05 * truth["rms_bandwidth_hz"]).all()
    assert np.all(delays.pair_coherence > 0.9)


def test_a_pair_is_about_as_wide_as_the_signal_that_it_hears():
    session, places, truth = simulate(7, seed=42, snr_min_db=20.0, snr_max_db=20.0)  # others of these lie further off
    delays = compute_delays(session.recordings, places, DelaySpec(num_lags=65))
    np.testing.assert_allclose(np.sqrt(delays.pair_curvature) / (2 * np.pi), truth["rms_bandwidth_hz"], rtol=0.35)


def test_a_pairs_curvature_knows_no_carrier_phase():
    session, places, _ = simulate(7, snr_min_db=10.0, snr_max_db=10.0)
    straight = compute_delays(session.recordings, places, SPEC)
    for turn in (1j, np.exp(0.49j * np.pi), -1.0):
        recordings = [
            replace(one, samples=(one.samples * turn**place).astype(np.complex64))
            for place, one in enumerate(session.recordings)
        ]
        turned = compute_delays(recordings, places, SPEC)
        np.testing.assert_allclose(turned.pair_curvature, straight.pair_curvature, rtol=0.02)
        assert (turned.pair_curvature > 0).all()


def test_split_information_gives_back_independent_arrivals():
    weights = np.array([1.0, 4.0, 0.5, 9.0])
    information = np.diag(weights) - np.outer(weights, weights) / weights.sum()
    np.testing.assert_allclose(split_information(information, np.ones(4)), weights, rtol=1e-2)


def test_information_of_two_receivers_is_that_of_hannan_and_thomson():
    """2 C^2 / (1 - C^2) per frequency and squared phase slope, C the coherence."""
    frequency_hz = np.linspace(-6000.0, 6000.0, 2001)
    spectrum = np.exp(-np.square(frequency_hz / 1500.0))
    noise = np.array([[0.2], [0.7]]) * np.ones((2, 2001))
    model = SignalModel(np.array([1.0, 0.5 + 0.5j]), noise, spectrum, energy=spectrum)
    rho = model.strength * spectrum
    coherence = rho.prod(axis=0) / (1.0 + rho).prod(axis=0)
    expected = (2.0 * coherence / (1.0 - coherence) * np.square(2 * np.pi * frequency_hz)).sum()
    np.testing.assert_allclose(
        compute_delay_information(model, frequency_hz), expected * np.array([[1.0, -1.0], [-1.0, 1.0]]), rtol=1e-6
    )


def test_overlap_leaves_out_only_what_spoils_it():
    used, first, last = find_overlap(np.array([0.0, 0.1, 9.0, np.nan]), np.array([1.0, 1.1, 10.0, np.nan]))
    assert used.tolist() == [True, True, False, False]
    assert (first, last) == (0.1, 1.0)


def test_dcf77_arrives_as_the_map_says(shared_data):
    """Three real receivers 320 to 800 km from Mainflingen; filters and sky wave are good for 12 to 73 us."""
    from heimdall_assets.formats.kiwisdr import decode_kiwisdr
    from heimdall_assets.signals.geodesy import compute_distance_m

    places = {
        "DF0KL": Position(latitude=53.665337, longitude=7.282766),
        "F1JEK": Position(latitude=45.779290, longitude=0.614638),
        "HB9RYZ": Position(latitude=47.1721, longitude=8.42683),
    }
    recordings = [
        decode_kiwisdr(file.read_bytes(), file.name)
        for file in sorted((shared_data / "kiwisdr_dcf77_2017").glob("*.wav"))
    ]
    delays = compute_delays(recordings, list(places.values()), SPEC)
    way_m = [compute_distance_m(place.latitude, place.longitude, 50.0155, 9.0108) for place in places.values()]
    error_s = delays.arrival_s - np.array(way_m) / 299_792_458.0
    assert np.abs(error_s - error_s.mean()).max() < 40e-6
    assert 0.1e-6 < delays.arrival_sigma_s.min() < delays.arrival_sigma_s.max() < 4e-6
    assert not delays.ambiguous.any()
