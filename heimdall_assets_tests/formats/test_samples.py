"""Floats of one width declared as the other: refused by their bits, whatever true ones hold."""

import numpy as np
import pytest

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.samples import convert_samples, parse_coding
from heimdall_assets_tests.formats.recordings import make_noise

NOISE = make_noise(4800)
TONE = np.exp(0.1j * np.arange(4800))


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("scale", [1e-4, 0.03, 0.9])
@pytest.mark.parametrize("signal", [NOISE, TONE], ids=["noise", "tone"])
def test_floats_of_32_bit_are_not_read_as_floats_of_64(signal, scale, order):
    written = (signal * scale).astype("<c8" if order == "le" else ">c8").tobytes()
    raw = np.frombuffer(written, "<f8" if order == "le" else ">f8").reshape(-1, 2)
    with pytest.raises(InvalidRecording, match=rf"a: found floats of 32 bit, expected .* cf64_{order} says"):
        convert_samples(raw, parse_coding(f"cf64_{order}"), "a")


@pytest.mark.parametrize("scale", [1e-4, 0.03, 0.9])
@pytest.mark.parametrize(
    "signal",
    [TONE, TONE.astype(np.complex64), NOISE, np.rint(TONE * 128) / 128, np.where(np.arange(4800) % 10, 0.0, TONE)],
    ids=["tone", "of 32 bit once", "of 16 bit once", "of 8 bit once", "with pauses"],
)
def test_true_floats_of_64_bit_are_read(signal, scale):
    signal = signal.astype(np.complex128) * scale
    read = convert_samples(signal.view(np.float64).reshape(-1, 2), parse_coding("cf64_le"), "a")
    assert np.allclose(read, signal, rtol=1e-6)
    exact = signal / scale  # whose lower halves are zeros where it was integers once
    assert len(convert_samples(exact.view(np.float64).reshape(-1, 2), parse_coding("cf64_le"), "a")) == 4800
