"""Classical detection: every DTMF key at 10 dB, tones, voice that is mistaken for neither, the better receiver."""

import numpy as np
import pytest

from heimdall_assets.physical import SignalType
from heimdall_assets.signals.detectors import choose_receiver, detect_type, estimate_snr_db
from heimdall_assets.signals.signal_track import ON, PAIR
from heimdall_assets.simulation.waveforms import (
    DTMF_KEYS,
    DTMF_ON_S,
    TONES_HZ,
    get_dtmf_pair_hz,
    synthesize_waveform,
)
from heimdall_assets_tests.signal_cases import DEVIATION_HZ, RATE_HZ, add_noise, compute_track, hear, make_time_s
from heimdall_assets_tests.variation import make_rng


def press(pair_hz, at_s=0.41, twist_db=0.0, duration_s=DTMF_ON_S):
    """The deviation of one key pressed once for ``duration_s``, on a carrier that says nothing else."""
    time_s = make_time_s()
    on = (time_s >= at_s) & (time_s < at_s + duration_s)
    low = np.sin(2.0 * np.pi * pair_hz[0] * time_s)
    high = 10.0 ** (twist_db / 20.0) * np.sin(2.0 * np.pi * pair_hz[1] * time_s)
    return 0.5 * DEVIATION_HZ * on * (low + high)


@pytest.mark.parametrize("key", list(DTMF_KEYS))
def test_every_key_is_recognised_at_10_db_though_pressed_for_40_ms_alone(key):
    for seed in range(3):
        track = hear(press(get_dtmf_pair_hz(key), 0.1 + 0.23 * seed), 10.0, seed=seed)
        assert detect_type(track) == SignalType.DTMF
        assert (track[PAIR] >= 0.5).sum() <= 4  # where it was pressed, and nowhere else


@pytest.mark.parametrize("tone_hz", [*TONES_HZ, 697.0, 1234.0])
@pytest.mark.parametrize("snr_db", [10.0, 30.0])
def test_a_single_tone_is_one_and_no_key(tone_hz, snr_db):
    track = hear(DEVIATION_HZ * np.sin(2.0 * np.pi * tone_hz * make_time_s()), snr_db)
    assert detect_type(track) == SignalType.TONE


@pytest.mark.parametrize("snr_db", [5.0, 10.0, 30.0])
def test_voice_is_mistaken_for_neither(snr_db):
    said = []
    for seed in range(25):
        wave = synthesize_waveform(make_rng(seed), SignalType.VOICE, 1.0, RATE_HZ, 0.0)
        said.append(detect_type(compute_track(add_noise(wave.samples, snr_db, seed=seed), RATE_HZ)))
    assert said == [SignalType.VOICE] * 25


def test_what_is_no_key_by_the_standard_is_none():
    """Q.24: levels too unlike, tones beside their places, a pair that does not last; 697 Hz with 770 Hz is no pair."""
    for deviation_hz in (
        press((697.0, 1209.0), twist_db=14.0),
        press((733.0, 1270.0)),
        press((697.0, 1209.0), duration_s=0.012),
        press((697.0, 770.0)),
    ):
        assert detect_type(hear(deviation_hz, 20.0)) != SignalType.DTMF


def test_an_unmodulated_carrier_and_noise_alone_are_no_tone():
    assert detect_type(hear(np.zeros(24_000), 15.0)) == SignalType.VOICE
    assert detect_type(hear(np.zeros(24_000), 15.0, key=0.0)) == SignalType.VOICE


def test_the_receiver_that_hears_best_is_believed():
    tone_hz = DEVIATION_HZ * np.sin(2.0 * np.pi * 1000.0 * make_time_s())
    tracks = np.stack([hear(tone_hz, snr_db) for snr_db in (3.0, 25.0, 9.0)])
    assert choose_receiver(tracks) == 1
    tracks[1, ON] = 0.0  # no carrier was found there: nothing to believe
    assert choose_receiver(tracks) == 2


def test_snr_counts_the_whole_recording():
    """Half of it keyed at 20 dB is 17 dB over all."""
    time_s = make_time_s()
    track = hear(np.zeros(24_000), 20.0, key=(time_s < 0.5).astype(float))
    assert estimate_snr_db(track) == pytest.approx(17.0, abs=0.5)
