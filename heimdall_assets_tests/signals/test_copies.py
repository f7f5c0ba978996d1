"""Copies: one recording is told from two receivers by the noise that each receiver has of its own."""

import numpy as np
import pytest

from heimdall_assets.signals import copies
from heimdall_assets.signals.copies import PROBE_SAMPLES, Copy, find_copies
from heimdall_assets_tests.variation import make_rng

NUM = 24_000


def make_signal(kind: str, rng: np.random.Generator) -> np.ndarray:
    """What is on the air, of mean power 1 while it lasts: complex128 (NUM,)."""
    if kind == "white":
        return rng.normal(size=(NUM, 2)) @ np.array([1.0, 1.0j]) / np.sqrt(2.0)
    modulation = np.convolve(rng.normal(size=NUM), np.ones(24) / 24, "same")
    step = 0.2 + (0.0 if kind == "carrier" else 0.4 * modulation / modulation.std())
    signal = np.exp(1j * np.cumsum(np.broadcast_to(step, NUM)))
    if kind == "keyed":
        signal[: NUM // 4] = 0.0
    return signal


def receive(signal: np.ndarray, snr_db: float, rng: np.random.Generator, level: float = 0.1) -> np.ndarray:
    noise = rng.normal(size=(len(signal), 2)) @ np.array([1.0, 1.0j]) / np.sqrt(2.0)
    return (level * (signal + 10.0 ** (-snr_db / 20.0) * noise)).astype(np.complex64)


def write_16_bit(samples: np.ndarray, rounding=np.rint) -> np.ndarray:
    parts = samples.astype(np.complex64).view(np.float32).astype(np.float64)
    return (rounding(parts * 32768) / 32768).astype(np.float32).view(np.complex64)


CONVERSIONS = {
    "as it is": lambda cut: cut,
    "weaker": lambda cut: (0.3 * cut).astype(np.complex64),
    "turned": lambda cut: ((0.3 + 0.4j) * cut).astype(np.complex64),
    "16 bit": write_16_bit,
    "weaker, 16 bit": lambda cut: write_16_bit(0.6 * cut),
    "cut off towards zero": lambda cut: write_16_bit(0.6 * cut, np.trunc),
    "cut off downwards": lambda cut: write_16_bit(0.6 * cut, np.floor),
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("kind", ["white", "fm", "keyed", "carrier"])
def test_a_later_cut_of_a_recording_is_told_at_any_lag(kind, conversion):
    rng = make_rng(1)
    whole = receive(make_signal(kind, rng), 30.0, rng)
    for original in (whole, write_16_bit(whole)):
        for lag in (0, 1, 37, NUM // 2, NUM - 2 * PROBE_SAMPLES):
            cut = CONVERSIONS[conversion](original[lag:])
            assert find_copies([original, cut]) == [Copy(0, 1, lag)]
            assert find_copies([cut, original]) == [Copy(0, 1, -lag)]
        ends = CONVERSIONS[conversion](original[5000:]), original[:-3000]  # each begins or ends without the other
        assert find_copies([original[:-3000], ends[0]]) == [Copy(0, 1, 5000)]


@pytest.mark.parametrize("snr_db", [20.0, 40.0, 50.0, 60.0])
@pytest.mark.parametrize("kind", ["white", "fm", "keyed", "carrier"])
def test_two_receivers_of_one_strong_signal_are_two(kind, snr_db):
    """No carrier offset, a lag of whole samples, one gain: what two receivers never have, and still each has noise."""
    rng = make_rng(2)
    signal = make_signal(kind, rng)
    for level in (0.3, 0.1, 0.03):
        pair = [receive(part, snr_db, rng, level) for part in (signal, signal[37:])]
        assert find_copies(pair) == []
        if not (kind == "keyed" and level < 0.1):  # else its noise lies below the step while nothing is sent
            assert find_copies([write_16_bit(one) for one in pair]) == []


def test_receivers_that_hear_nothing_in_common_or_share_a_converters_offset_are_two():
    rng = make_rng(3)
    pair = [receive(np.zeros(NUM), 0.0, rng) + np.complex64(0.2) for _ in range(2)]
    assert find_copies(pair) == []
    assert find_copies([write_16_bit(one) for one in pair]) == []
    faint = [np.round(2e4 * one) / 32768 for one in pair]
    assert find_copies([one.astype(np.complex64) * 1e-3 for one in faint]) == []


def test_a_quiet_recording_rounded_again_may_be_another_receivers_and_a_plain_cut_of_it_may_not():
    rng = make_rng(4)
    quiet = write_16_bit(receive(make_signal("white", rng), 30.0, rng, level=3e-4))  # ten steps
    assert find_copies([quiet, quiet[500:]]) == [Copy(0, 1, 500)]
    assert find_copies([quiet, write_16_bit(0.6 * quiet[500:])]) == []


def test_a_silent_beginning_is_skipped_and_too_short_a_common_part_tells_nothing():
    rng = make_rng(5)
    whole = receive(make_signal("fm", rng), 30.0, rng)
    whole[:3000] = 0.0  # a buffer that nothing was written to
    assert find_copies([whole, whole[100:]]) == [Copy(0, 1, 100)]
    assert find_copies([whole[:12_000], whole[11_000:]]) == []
    assert find_copies([whole[:50], whole]) == []


def test_what_one_owner_has_is_not_compared_and_each_pair_of_others_is():
    rng = make_rng(6)
    whole, other = (receive(make_signal("white", rng), 30.0, rng) for _ in range(2))
    parts = [whole, whole[10:], other, whole[5:]]
    assert find_copies(parts, [0, 0, 1, 2]) == [Copy(0, 3, 5), Copy(1, 3, -5)]
    assert len(find_copies(parts)) == 3


def test_only_the_beginning_of_a_long_recording_is_looked_at(monkeypatch):
    rng = make_rng(7)
    whole = receive(make_signal("white", rng), 30.0, rng)
    monkeypatch.setattr(copies, "MOST_SAMPLES", NUM // 2)
    assert find_copies([whole, whole[NUM // 4 :]]) == [Copy(0, 1, NUM // 4)]
    assert find_copies([whole, whole[NUM // 2 :]]) == []
