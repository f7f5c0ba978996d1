import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats import Stated, decode_recording
from heimdall_assets.formats.npy import decode_npy
from heimdall_assets_tests.formats.recordings import damage, make_noise, make_npy, make_npy_with_header, to_pairs

NOISE = make_noise(300)


def decode(data: bytes, **changes):
    limits = {"max_samples": changes.pop("max_samples")} if "max_samples" in changes else {}
    return decode_npy(data, "b.npy", Stated(**({"sample_rate_hz": 48_000.0} | changes)), **limits)


PAIRS = NOISE.view(np.float32).reshape(-1, 2)
ARRAYS = {
    "c8": NOISE,
    "c16": NOISE.astype(np.complex128),
    "i2": to_pairs(NOISE),
    "f4 pairs": PAIRS,
    "f8 pairs": PAIRS.astype(np.float64),
    "c8, big endian": NOISE.astype(">c8"),
    "c16, big endian": NOISE.astype(">c16"),
    "i2, big endian": to_pairs(NOISE).astype(">i2"),
    "f4 pairs, big endian": PAIRS.astype(">f4"),
    "i2, Fortran order": np.asfortranarray(to_pairs(NOISE)),
    "f4 pairs, Fortran order": np.asfortranarray(PAIRS),
    "c8 (1, N)": NOISE[None],
    "c8 (N, 1)": NOISE[:, None],
    "c8 (N, 1), Fortran order": np.asfortranarray(NOISE[:, None]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_every_supported_dtype_gives_the_same_samples(array):
    recording = decode(make_npy(array), start_unix_ns=17)
    assert recording.samples.dtype == np.complex64
    np.testing.assert_array_equal(recording.samples, NOISE)
    assert recording.samples.flags.writeable
    assert (recording.sample_rate_hz, recording.start_unix_ns) == (48_000.0, 17)
    assert recording.timing_sigma_s is not None


def test_without_a_start_the_recording_is_untimed():
    recording = decode(make_npy(NOISE))
    assert recording.start_unix_ns is None
    assert recording.timing_sigma_s is None


def test_int16_full_scale_is_one():
    samples = decode(make_npy(np.array([[-32768, 16384], [1, 0]], "<i2"))).samples
    np.testing.assert_array_equal(samples, np.array([-1 + 0.5j, 1 / 32768], np.complex64))


def test_eight_bits_reach_full_scale_on_both_sides():
    signed = decode(make_npy(np.array([[-128, 127], [64, 0]], np.int8))).samples
    np.testing.assert_array_equal(signed, np.array([-1 + 127j / 128, 0.5], np.complex64))
    # unsigned ones have no zero: the middle lies between 127 and 128
    unsigned = decode(make_npy(np.array([[0, 255], [127, 128]], np.uint8))).samples
    np.testing.assert_allclose(unsigned, np.array([-1 + 1j, (-1 + 1j) / 255]), rtol=1e-6)


def test_a_stated_full_scale_divides_floats_and_is_refused_of_integers():
    np.testing.assert_allclose(decode(make_npy(NOISE * 2048), full_scale=2048.0).samples, NOISE, rtol=1e-6)
    with pytest.raises(InvalidRecording, match="full scale 2048 stated of ci16_le, expected none"):
        decode(make_npy(to_pairs(NOISE)), full_scale=2048.0)


@pytest.mark.parametrize("rate_hz", [1e-300, 0.0, -1.0, 24.0, 499.0, np.nan, np.inf, 2e9])
def test_a_rate_that_no_receiver_has_is_refused(rate_hz):
    with pytest.raises(InvalidRecording, match=r"b\.npy: sample rate .* Hz, expected 500 to 1e\+09"):
        decode(make_npy(NOISE), sample_rate_hz=rate_hz)


def test_version_two_headers_are_read():
    header = "{'descr': '<c8', 'fortran_order': False, 'shape': (300,), }\n"
    np.testing.assert_array_equal(decode(make_npy_with_header(header, NOISE.tobytes(), b"\x02\x00")).samples, NOISE)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04 an npz", r"starts with b'PK"),
        (make_npy(NOISE)[:-1], "2399 bytes of samples, expected 2400"),
        (make_npy(NOISE) + b"\0", "2401 bytes of samples, expected 2400"),
        (make_npy(NOISE)[:50], "cut off"),
        (make_npy(NOISE[:0]), "no samples"),
        (make_npy(np.array([{"a": 1}], dtype=object)), r"dtype '\|O'"),
        (make_npy(np.zeros(4)), r"float64 of shape \(4\)"),
        (make_npy(np.zeros(4, "<i4")), "dtype '<i4'"),
        (make_npy(np.zeros((4, 3), "<i2")), r"int16 of shape \(4, 3\)"),
        (make_npy(np.zeros(4, "<i2")), r"int16 of shape \(4\)"),
        (make_npy(np.zeros((2, 2), "<c8")), r"complex64 of shape \(2, 2\)"),
        (make_npy(np.zeros(2, [("a", "<i2"), ("b", "<i2")])), "another kind of array"),
        (make_npy_with_header("{'descr': '<c8', 'fortran_order': False, 'shape': (3L,), }\n"), "another kind"),
        (make_npy_with_header("{'descr': '<c8', 'fortran_order': False, 'shape': (True,), }\n"), "."),
        (make_npy_with_header("{'descr': '<c8', 'shape': (1,), }\n"), "does not parse"),
        (make_npy_with_header("-" * 9900), "header of 9900 bytes"),
        (make_npy_with_header("-" * 900 + "1\n"), "another kind"),
        (make_npy_with_header("{" + "(" * 900 + "}\n"), "does not parse"),
        (make_npy_with_header("{'a' 'b': (}\n"), "does not parse"),
        (make_npy_with_header("x" * 40, version=b"\x03\x00"), "version 3.0"),
        (make_npy_with_header("", version=b"\x02\x00")[:9], "cut off"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(data, found):
    with pytest.raises(InvalidRecording, match=rf"^b\.npy: .*{found}") as refusal:
        decode(data)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, complex(0, -np.inf)])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_numbers_that_are_none_are_refused(value, dtype):
    array = NOISE.astype(dtype)
    array[[7, 9]] = value
    with pytest.raises(InvalidRecording, match="2 samples are not finite, the first is number 7"):
        decode(make_npy(array))


def test_what_overflows_complex64_is_refused():
    with pytest.raises(InvalidRecording, match="1 samples are not finite"):
        decode(make_npy(np.array([0.1, 1e300 + 0j])))


@pytest.mark.parametrize("claimed", ["1000000000000", "9" * 400])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(claimed):
    data = make_npy_with_header(f"{{'descr': '<c8', 'fortran_order': False, 'shape': ({claimed},), }}\n", b"\0" * 64)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRecording, match=r"header claims .* samples|does not parse"):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_longest_recording_is_a_choice():
    assert len(decode(make_npy(NOISE), max_samples=300).samples) == 300
    with pytest.raises(InvalidRecording, match="header claims 300 samples, expected at most 299"):
        decode(make_npy(NOISE), max_samples=299)


def test_a_rate_must_come_with_the_file():
    with pytest.raises(InvalidRecording, match=r"b\.npy: no sample rate"):
        decode_recording(make_npy(NOISE), "npy", name="b.npy")
    assert decode_recording(make_npy(NOISE), "npy", name="b", stated=Stated(sample_rate_hz=1e3)).sample_rate_hz == 1e3


@settings(max_examples=300, deadline=None)
@given(damage(make_npy(NOISE)))
def test_damage_is_refused_or_harmless(data):
    try:
        samples = decode(data).samples
    except InvalidRecording:
        return
    assert np.isfinite(samples).all()
    assert 0 < len(samples) * 4 <= len(data)
