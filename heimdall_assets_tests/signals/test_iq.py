import math

import numpy as np
import pytest

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.physical import Recording
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.specs import RecordingSpec

RATE_HZ = 48_000.0
SPEC = RecordingSpec()


def make_tone(amplitude: float = 0.5, num_samples: int = 9600) -> np.ndarray:
    """A whole number of turns, so that its mean is zero."""
    return (amplitude * np.exp(2j * np.pi * np.arange(num_samples) / 96)).astype(np.complex64)


def check(samples: np.ndarray, **changes):
    return check_recording(Recording(samples, changes.pop("rate_hz", RATE_HZ)), SPEC, name="a.npy", **changes)


def test_a_tone_of_half_scale_has_the_levels_of_its_closed_form():
    facts = check(make_tone(0.5))
    assert facts["num_samples"] == 9600
    assert facts["duration_s"] == pytest.approx(0.2)
    assert facts["rms_dbfs"] == pytest.approx(20 * math.log10(0.5), abs=1e-4)
    assert facts["peak_dbfs"] == pytest.approx(20 * math.log10(0.5), abs=1e-4)
    assert facts["dc_dbfs"] < -100
    assert facts["clipped_fraction"] == 0.0
    assert facts["zero_fraction"] == 0.0


def test_the_quietest_converter_is_heard():
    rounding = np.random.default_rng(0).integers(-1, 2, (9600, 2)) * 2.0**-23  # the last bit of 24 at work
    assert check((rounding @ [1, 1j]).astype(np.complex64))["rms_dbfs"] > -145.0


def test_an_offset_is_reported_as_dc():
    facts = check(make_tone(0.1) + np.complex64(0.3 + 0.4j))
    assert facts["dc_dbfs"] == pytest.approx(20 * math.log10(0.5), abs=1e-3)


def test_dropped_blocks_are_counted():
    samples = make_tone()
    samples[:2400] = 0
    assert check(samples)["zero_fraction"] == pytest.approx(0.25)


def test_levels_do_not_depend_on_the_block_that_is_looked_at_at_once():
    long = make_tone(0.25, 96 * 12_000)  # more than one block
    assert check(long)["rms_dbfs"] == pytest.approx(20 * math.log10(0.25), abs=1e-4)


def test_clipping_counts_either_component():
    samples = make_tone()
    samples[:96].real = 1.0
    samples[96:192].imag = -32767 / 32768
    with pytest.raises(InvalidRecording, match=r"a\.npy: 2\.00% of the samples at full scale, expected at most 1\.00%"):
        check(samples)
    assert check_recording(Recording(samples, RATE_HZ), RecordingSpec(max_clipped_fraction=0.05), name="a")[
        "clipped_fraction"
    ] == pytest.approx(0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1j * np.inf, complex(0.1, np.nan)])
def test_a_sample_that_is_no_number_is_named(value):
    samples = make_tone()
    samples[1234] = value
    with pytest.raises(InvalidRecording, match=r"a\.npy: sample 1234 is not finite"):
        check(samples)


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        (np.zeros(9600, np.complex64), "all samples are zero"),
        (np.full(9600, 0.25 + 0.5j, np.complex64), "every sample is the same value"),
        (make_tone(20_000.0), "full scale 1.0"),
        (make_tone(1e-8), r"level -160 dB of full scale, expected at least -150 dB.*in another coding or scale"),
        (np.tile(np.array([1e-40, 0], np.complex64), 4800), "level -300 dB of full scale"),  # subnormal
        (np.zeros(0, np.complex64), "no samples"),
        (make_tone()[:100], "0.002083 s long, expected at least 0.1 s"),
        (make_tone().astype(np.complex128), "complex128"),
        (make_tone().reshape(2, -1), r"\(2, 4800\)"),
    ],
)
def test_what_is_no_signal_is_refused(samples, found):
    with pytest.raises(InvalidRecording, match=rf"a\.npy: .*{found}"):
        check(samples)


def test_rate_and_length_are_held_against_the_row():
    assert check(make_tone(), expected_rate_hz=RATE_HZ * 1.0009, expected_num_samples=9600)
    with pytest.raises(InvalidRecording, match=r"sample rate 48000 Hz in the file, expected 48100 Hz"):
        check(make_tone(), expected_rate_hz=48_100.0)
    with pytest.raises(InvalidRecording, match=r"9600 samples, expected 9601, as its row says"):
        check(make_tone(), expected_num_samples=9601)
    with pytest.raises(InvalidRecording, match=r"9600 samples, expected at most 9599"):
        check_recording(Recording(make_tone(), RATE_HZ), RecordingSpec(max_samples=9599), name="a")


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate_hz):
    with pytest.raises(InvalidRecording, match="expected a positive number"):
        check(make_tone(), rate_hz=rate_hz)
    with pytest.raises(InvalidRecording, match="as its row says"):
        check(make_tone(), expected_rate_hz=math.nan)
