"""Headerless IQ: bytes as rtl_sdr, hackrf_transfer, GNU Radio and gqrx write them, made here by NumPy."""

import numpy as np
import pytest

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats import FORMATS, Stated
from heimdall_assets.formats.raw import read_gqrx_name
from heimdall_assets_tests.formats.recordings import make_noise, to_pairs

NOISE = make_noise(300)
PAIRS = NOISE.view(np.float32).reshape(-1, 2)
STATED = Stated(sample_rate_hz=2.4e6, start_unix_ns=17, frequency_hz=145.5e6)
FILES = {
    "raw-cu8": (np.rint(PAIRS * 127.5 + 127.5).astype(np.uint8), 1 / 127.5),
    "raw-ci8": (np.rint(PAIRS * 128).astype(np.int8), 1 / 128),
    "raw-ci16": (to_pairs(NOISE), 0),
    "raw-cf32": (PAIRS, 0),
}


@pytest.mark.parametrize("name", FILES)
def test_every_coding_gives_the_same_samples_and_what_is_stated(name):
    pairs, step = FILES[name]
    recording = FORMATS[name].decode(pairs.tobytes(), "a", STATED, 10**6)
    np.testing.assert_allclose(recording.samples.view(np.float32).reshape(-1, 2), PAIRS, atol=step)
    assert (recording.sample_rate_hz, recording.start_unix_ns, recording.centre_frequency_hz) == (2.4e6, 17, 145.5e6)


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_such_file_is_refused(name):
    data, decode = FILES[name][0].tobytes(), FORMATS[name].decode
    for wrong, found in ((b"", "0 bytes of samples"), (data[:-1], "expected whole samples of")):
        with pytest.raises(InvalidRecording, match=f"^a: .*{found}"):
            decode(wrong, "a", STATED, 10**6)
    with pytest.raises(InvalidRecording, match="300 samples, expected at most 299"):
        decode(data, "a", STATED, 299)
    with pytest.raises(InvalidRecording, match="no sample rate"):
        decode(data, "a", Stated(), 10**6)


def test_floats_that_are_no_numbers_are_refused():
    wrong = PAIRS.copy()
    wrong[7, 1] = np.nan
    with pytest.raises(InvalidRecording, match="1 samples are not finite, the first is number 7"):
        FORMATS["raw-cf32"].decode(wrong.tobytes(), "a", STATED, 10**6)


def test_gqrx_names_say_all_that_is_missing():
    said = read_gqrx_name("north_gqrx_20261120_100000_145500000_1800000_fc.raw")
    assert said.station == "north"
    assert (said.stated.sample_rate_hz, said.stated.frequency_hz) == (1.8e6, 145.5e6)
    # a whole second is written: its middle, and what it leaves open
    assert said.stated.start_unix_ns == 1_795_168_800 * 10**9 + 500_000_000
    assert said.stated.start_sigma_s == pytest.approx(12**-0.5)
    for name in ("a.cf32", "gqrx_20269920_100000_145500000_1800000_fc.raw"):
        assert not read_gqrx_name(name).stated.list_said()
