"""IQ recordings as WAVE files: written here from the chunks' definitions, and by SciPy."""

import io
import struct
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.io import wavfile

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats import Stated
from heimdall_assets.formats.iq_wav import decode_iq_wav, read_wav_name
from heimdall_assets_tests.formats.recordings import damage, make_iq_wav, make_kiwisdr, make_noise, to_pairs

NOISE = make_noise(301)
PAIRS = NOISE.view(np.float32).reshape(-1, 2)
START = datetime(2026, 11, 20, 10, 0, 0, 250_000, tzinfo=UTC)
START_NS = 1_795_168_800 * 10**9
GOOD = make_iq_wav(to_pairs(NOISE), 16, start=START)


def decode(data: bytes, **stated):
    return decode_iq_wav(data, "a.wav", Stated(**stated))


@pytest.mark.parametrize(
    ("bits", "kind", "pairs", "step"),
    [
        (8, 1, np.rint(PAIRS * 127.5 + 127.5).astype(np.uint8), 1 / 127.5),
        (16, 1, to_pairs(NOISE), 0),
        (24, 1, np.rint(PAIRS * 2**23).astype("<i4"), 0),
        (32, 1, np.rint(PAIRS.astype(np.float64) * 2**31).astype("<i4"), 1e-7),
        (32, 3, PAIRS, 0),
        (64, 3, PAIRS.astype("<f8"), 0),
    ],
)
def test_every_width_gives_the_same_samples(bits, kind, pairs, step):
    recording = decode(make_iq_wav(pairs, bits, kind=kind))
    np.testing.assert_allclose(recording.samples.view(np.float32).reshape(-1, 2), PAIRS, atol=step)
    assert (recording.sample_rate_hz, recording.start_unix_ns, recording.centre_frequency_hz) == (48_000.0, None, None)


@pytest.mark.parametrize("pairs", [to_pairs(NOISE), PAIRS, PAIRS.astype(np.float64)], ids=["i2", "f4", "f8"])
def test_a_file_that_scipy_writes_is_read(pairs):
    stream = io.BytesIO()
    wavfile.write(stream, 250_000, pairs)
    recording = decode(stream.getvalue())
    np.testing.assert_array_equal(recording.samples, NOISE)
    assert recording.sample_rate_hz == 250_000.0


def test_the_auxi_chunk_says_time_and_frequency():
    recording = decode(GOOD)
    assert recording.start_unix_ns == START_NS + 250_500_000  # the middle of its millisecond
    assert recording.timing_sigma_s == pytest.approx(1e-3 / 12**0.5)
    assert recording.centre_frequency_hz == 145.5e6
    whole_second = decode(make_iq_wav(to_pairs(NOISE), 16, start=START.replace(microsecond=0)))
    assert whole_second.timing_sigma_s == pytest.approx(1.0 / 12**0.5)


def test_what_an_auxi_chunk_does_not_say_is_stated():
    recording = decode(make_iq_wav(to_pairs(NOISE), 16), start_unix_ns=17, frequency_hz=7e6)
    assert (recording.start_unix_ns, recording.centre_frequency_hz) == (17, 7e6)
    with pytest.raises(InvalidRecording, match="frequency 145500000 Hz in the file, expected the stated 7000000 Hz"):
        decode(GOOD, frequency_hz=7e6)


@pytest.mark.parametrize(
    ("name", "station", "frequency_hz", "start_s"),
    [
        ("SDRSharp_20261120_100000Z_145500000Hz_IQ.wav", None, 145.5e6, START_NS // 10**9),
        ("HDSDR_20261120_100000Z_7050kHz_RF.wav", None, 7.05e6, START_NS // 10**9),
        ("north_HDSDR_20261120_100000Z_7050kHz_RF.wav", "north", 7.05e6, START_NS // 10**9),
        ("SDRuno_20261120_100000_7050kHz.wav", None, 7.05e6, None),  # of a zone that it does not name
        ("baseband_145500000Hz_10-00-00_20-11-2026.wav", None, 145.5e6, None),
        ("holiday.wav", None, None, None),
        ("HDSDR_20261320_100000Z_7050kHz_RF.wav", None, None, None),  # no such month: nothing is believed
    ],
)
def test_names_say_what_these_programs_write_into_them(name, station, frequency_hz, start_s):
    said = read_wav_name(name)
    assert (said.station, said.stated.frequency_hz) == (station, frequency_hz)
    assert said.stated.start_unix_ns == (None if start_s is None else start_s * 10**9 + 500_000_000)


def patch(data: bytes, offset: int, piece: bytes) -> bytes:
    return data[:offset] + piece + data[offset + len(piece) :]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "0 bytes that are no RIFF/WAVE file"),
        (GOOD[:-1], "as its RIFF header claims"),
        (GOOD + bytes(8), "as its RIFF header claims"),
        (make_iq_wav(PAIRS[:, :1], 32, kind=3)[:-4], "as its RIFF header claims"),
        (patch(GOOD, 22, struct.pack("<H", 1)), "1 channels"),
        (patch(GOOD, 20, struct.pack("<H", 7)), "coding 7"),
        (patch(GOOD, 24, bytes(4)), "at 0 Hz"),
        (patch(GOOD, 36, b"data"), "a further chunk b'data'"),
        (patch(GOOD, 12, b"what"), "no chunk 'fmt '"),
        (patch(GOOD, 16, struct.pack("<I", 2**31)), "chunk b'fmt ' of 2147483648 bytes, expected at most"),
        (patch(GOOD, 44 + 2, struct.pack("<H", 13)), "chunk 'auxi' starts at 2026-13-20"),
        (make_iq_wav(PAIRS[:0], 32, kind=3), "no samples"),
        (make_kiwisdr(make_noise(512 * 400)), "expected to be read as kiwisdr"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(data, found):
    with pytest.raises(InvalidRecording, match=rf"^a\.wav: .*{found}") as refusal:
        decode(data)
    assert "\n" not in str(refusal.value)


def test_a_file_cut_anywhere_is_refused():
    for end in range(len(GOOD)):
        with pytest.raises(InvalidRecording):
            decode(GOOD[:end])


@settings(max_examples=200, deadline=None)
@given(damage(GOOD))
def test_damage_is_refused_or_harmless(data):
    try:
        recording = decode(data)
    except InvalidRecording:
        return
    assert np.isfinite(recording.samples).all()
    assert 0 < len(recording.samples) * 2 <= len(data)
