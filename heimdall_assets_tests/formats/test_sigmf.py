import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats import Stated, decode_recording
from heimdall_assets.formats.sigmf import decode_sigmf
from heimdall_assets.formats.sigmf_archive import pack_sigmf
from heimdall_assets_tests.formats.recordings import (
    damage,
    make_noise,
    make_sigmf,
    make_sigmf_metadata,
    make_tar,
    to_pairs,
)

NOISE = make_noise(300)
META = json.dumps(make_sigmf_metadata()).encode()
START_NS = 1_772_625_600_123_456_789  # 2026-03-04T12:00:00.123456789Z


def decode(data: bytes, **changes):
    limits = {"max_samples": changes.pop("max_samples")} if "max_samples" in changes else {}
    return decode_sigmf(data, "c.sigmf", Stated(**changes), **limits)


@pytest.mark.parametrize(
    ("datatype", "array"),
    [("cf32_le", NOISE), ("cf64_le", NOISE.astype(np.complex128)), ("ci16_le", to_pairs(NOISE))],
)
def test_every_supported_datatype_gives_the_same_samples(datatype, array):
    recording = decode(make_sigmf(array, make_sigmf_metadata(datatype)))
    assert recording.samples.dtype == np.complex64
    np.testing.assert_array_equal(recording.samples, NOISE)
    assert recording.sample_rate_hz == 48_000.0
    assert recording.start_unix_ns == START_NS
    assert recording.centre_frequency_hz == 145.5e6


def test_an_archive_that_the_library_itself_writes_is_read(tmp_path):
    from sigmf import SigMFFile

    data = tmp_path / "a.sigmf-data"
    NOISE.tofile(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = SigMFFile(data_file=data, global_info={"core:datatype": "cf32_le", "core:sample_rate": 48_000})
        written.add_capture(0, metadata={"core:datetime": "2026-03-04T12:00:00.123456789Z"})
        written.archive(str(tmp_path / "a.sigmf"))
    recording = decode((tmp_path / "a.sigmf").read_bytes())
    np.testing.assert_array_equal(recording.samples, NOISE)
    assert recording.start_unix_ns == START_NS
    assert recording.centre_frequency_hz is None


def test_a_packed_pair_keeps_its_bytes_and_is_the_same_archive_every_time(tmp_path):
    others = {"rx.sigmf-data": NOISE.tobytes()}
    packed = pack_sigmf("rx.sigmf-meta", META, others)
    assert packed == pack_sigmf("rx.sigmf-meta", META, others)
    np.testing.assert_array_equal(decode(packed).samples, NOISE)
    (tmp_path / "rx.sigmf").write_bytes(packed)
    with tarfile.open(tmp_path / "rx.sigmf") as archive:
        assert archive.extractfile("rx/rx.sigmf-meta").read() == META
        assert archive.extractfile("rx/rx.sigmf-data").read() == NOISE.tobytes()


@pytest.mark.parametrize(
    ("text", "nanoseconds", "step_s"),
    [
        ("2026-03-04T12:00:00Z", 0, 1.0),
        ("2026-03-04T12:00:00.5Z", 500_000_000, 0.1),
        ("2026-03-04T12:00:00.123456Z", 123_456_000, 1e-6),
        ("2026-03-04T12:00:00.123456789012Z", 123_456_789, 1e-9),
    ],
)
def test_a_start_is_as_good_as_its_digits(text, nanoseconds, step_s):
    metadata = make_sigmf_metadata()
    metadata["captures"][0]["core:datetime"] = text
    recording = decode(make_sigmf(NOISE, metadata))
    # what was cut off lies anywhere in the step: its middle is the start, step / sqrt(12) the standard deviation
    middle = nanoseconds + int(step_s * 1e9) // 2
    assert recording.start_unix_ns == 1_772_625_600 * 10**9 + middle
    assert recording.timing_sigma_s == pytest.approx(step_s / 12**0.5)


def test_without_a_datetime_the_recording_is_untimed():
    metadata = make_sigmf_metadata()
    del metadata["captures"][0]["core:datetime"]
    recording = decode(make_sigmf(NOISE, metadata))
    assert recording.start_unix_ns is None
    assert recording.timing_sigma_s is None


def test_annotations_and_undeclared_extensions_are_not_looked_at():
    metadata = make_sigmf_metadata(**{"label": None})
    metadata["global"]["strange:thing"] = 3
    metadata["annotations"] = [{"core:sample_start": 10**9, "core:sample_count": 5}]
    np.testing.assert_array_equal(decode(make_sigmf(NOISE, metadata)).samples, NOISE)


def test_the_hash_of_the_samples_is_checked():
    good = hashlib.sha512(NOISE.tobytes()).hexdigest()
    assert len(decode(make_sigmf(NOISE, make_sigmf_metadata(sha512=good))).samples) == 300
    with pytest.raises(InvalidRecording, match="samples do not match core:sha512"):
        decode(make_sigmf(NOISE, make_sigmf_metadata(sha512="0" * 128)))


def change_capture(**changes) -> dict:
    metadata = make_sigmf_metadata()
    metadata["captures"][0] |= {f"core:{name}": value for name, value in changes.items()}
    return metadata


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        (make_sigmf_metadata(dataset="/etc/passwd"), "core:dataset '/etc/passwd'"),
        (make_sigmf_metadata(dataset="y.bin"), "a further member 'x.sigmf-data'"),
        (make_sigmf_metadata(dataset="../x.bin"), "core:dataset"),
        (make_sigmf_metadata(metadata_only=True), "core:metadata_only, expected a recording with its samples"),
        (make_sigmf_metadata("cf32"), "core:datatype 'cf32' without _le or _be"),
        (make_sigmf_metadata("cf32_me"), "core:datatype 'cf32_me'"),
        (make_sigmf_metadata(datatype="x"), "SigMF schema"),
        (make_sigmf_metadata(sample_rate=None), "no sample rate, expected one in the file or stated"),
        (make_sigmf_metadata(sample_rate=0), "core:sample_rate 0|SigMF schema"),
        (make_sigmf_metadata(sample_rate=-5), "SigMF schema"),
        (make_sigmf_metadata(sample_rate="48000"), "SigMF schema"),
        (make_sigmf_metadata(num_channels=2), "2 channels, expected it said which one"),
        (make_sigmf_metadata(trailing_bytes=2400), "2400 bytes, expected more than the 2400 that are no samples"),
        (make_sigmf_metadata(trailing_bytes=3), "2397 bytes of samples, expected whole samples"),
        (change_capture(header_bytes=2**40), "expected more than the 1099511627776 that are no samples"),
        (make_sigmf_metadata(offset=10**12), r"captures at samples 0, expected the first at 1000000000000"),
        (make_sigmf_metadata(geolocation={"type": "Point", "coordinates": [8.0, 146.0]}), "core:geolocation|schema"),
        (
            make_sigmf_metadata(extensions=[{"name": "spatial", "version": "1.0.0", "optional": False}]),
            "core:extensions asks for 'spatial', which is not known here",
        ),
        (change_capture(datetime="yesterday"), "core:datetime 'yesterday'|SigMF schema"),
        (change_capture(datetime="2026-02-30T00:00:00Z"), "core:datetime"),
        (change_capture(datetime=5), "SigMF schema"),
        (change_capture(sample_start=5), r"captures at samples 5, expected the first at 0 \(core:offset\)"),
        (make_sigmf_metadata() | {"captures": make_sigmf_metadata()["captures"] * 2}, "captures at samples 0, 0"),
        (make_sigmf_metadata() | {"captures": [{"core:sample_start": 0}, {"core:sample_start": 300}]}, "sample 300"),
        ({"captures": [], "annotations": []}, "without a 'global' object"),
        (make_sigmf_metadata() | {"global": 5}, "without a 'global' object"),
        (make_sigmf_metadata() | {"captures": 5}, "SigMF schema"),
        (b"[1, 2]", "without a 'global' object"),
        (b"", "no strict JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (META.replace(b"48000", b"NaN"), "NaN is no JSON number"),
        (META.replace(b"48000", b"-Infinity"), "-Infinity is no JSON number"),
        (META.replace(b"48000", b"1e999"), "1e999 is not finite"),
        (META.replace(b"48000", b"9" * 5000), "no strict JSON"),
        (META.replace(b'"core:sample_rate"', b'"core:datatype"'), "duplicate key 'core:datatype'"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 32"),
        (b'{"global": ' * 40 + b"1" + b"}" * 40, "nested deeper than 32"),
        (b'{"a": "' + b"x" * 5_000_000 + b'"}', "bytes of JSON, at most"),
    ],
)
def test_metadata_that_cannot_be_trusted_are_refused_in_one_line(metadata, found):
    with pytest.raises(InvalidRecording, match=rf"^c\.sigmf: .*({found})") as refusal:
        decode(make_sigmf(NOISE, metadata))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_brackets_in_text_are_no_nesting():
    metadata = make_sigmf_metadata(description="[" * 100 + '\\"{{{')
    assert len(decode(make_sigmf(NOISE, metadata)).samples) == 300


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "0 bytes that are no whole tar|only nothing"),
        (b"not a tar at all" * 100, "no whole tar"),
        (make_sigmf(NOISE)[:1500], "no whole tar|expected one .sigmf-meta"),
        (make_tar([("x.sigmf-meta", META)]), "only .sigmf-meta"),
        (make_tar([("x.sigmf-meta", META), ("y.sigmf-data", NOISE.tobytes())]), "a further member 'y.sigmf-data'"),
        (make_tar([("x.sigmf-meta", META)] * 2), "a further member"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b""), ("x.exe", b"")]), "a further member 'x.exe'"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-collection", b"")]), "member 'x.sigmf-collection'"),
        (make_tar([("../x.sigmf-meta", META), ("../x.sigmf-data", NOISE.tobytes())]), "member 0 '../x.sigmf-meta'"),
        (make_tar([("/x.sigmf-meta", META), ("/x.sigmf-data", NOISE.tobytes())]), "member 0 '/x.sigmf-meta'"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b"")], tarfile.SYMTYPE), "member 'x.sigmf-meta'"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b"")], tarfile.LNKTYPE), "member 'x.sigmf-meta'"),
        (make_tar([("x.sigmf-meta", META)], tarfile.FIFOTYPE), "member 'x.sigmf-meta'"),
        (make_tar([(f"{index}", b"") for index in range(40)]), "member 16 '16'"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b"")]), "0 bytes of samples"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b"abc")]), "3 bytes of samples, expected whole samples"),
    ],
)
def test_an_archive_of_anything_else_is_refused(data, found):
    with pytest.raises(InvalidRecording, match=rf"^c\.sigmf: .*({found})"):
        decode(data)


def test_what_expands_beyond_any_recording_is_refused_before_it_is_expanded():
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRecording, match=r"expands to more than 30 times its length, expected a recording"):
            decode(stream.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def test_a_member_that_claims_more_than_the_archive_holds_is_refused():
    data = bytearray(make_tar([("x.sigmf-data", NOISE.tobytes()), ("x.sigmf-meta", META)]))
    data[124:136] = b"77777777777\0"  # 8 GB, octal
    header = bytes(data[:148]) + b" " * 8 + bytes(data[156:512])
    data[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(InvalidRecording, match=r"no whole tar|bytes of"):
        decode(bytes(data))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(value):
    samples = NOISE.copy()
    samples[11] = value
    with pytest.raises(InvalidRecording, match="1 samples are not finite, the first is number 11"):
        decode(make_sigmf(samples))
    with pytest.raises(InvalidRecording, match="not finite"):
        decode(make_sigmf(np.array([1e300 + 0j, 0]), make_sigmf_metadata("cf64_le")))


def test_the_longest_recording_is_a_choice():
    with pytest.raises(InvalidRecording, match="300 samples, expected at most 299"):
        decode(make_sigmf(NOISE), max_samples=299)


def test_a_row_that_states_another_start_is_refused():
    data = make_sigmf(NOISE)
    same = decode_recording(data, "sigmf", name="c", stated=Stated(start_unix_ns=START_NS + 900_000))
    assert same.start_unix_ns == START_NS
    with pytest.raises(InvalidRecording, match=r"c: first sample -2\.000 ms after the stated time"):
        decode_recording(data, "sigmf", name="c", stated=Stated(start_unix_ns=START_NS + 2_000_000))


def test_a_format_that_nobody_decodes_is_refused():
    with pytest.raises(InvalidRecording, match="format 'mp3', expected one of iq-wav, kiwisdr-wav, npy, raw-cf32"):
        decode_recording(b"", "mp3", name="c")


def zip_files(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        lzma.compress,
        bz2.compress,
        lambda _: zip_files({"x/x.sigmf-meta": META, "x/x.sigmf-data": NOISE.tobytes()}),
    ],
    ids=["gzip", "xz", "bzip2", "zip"],
)
def test_a_compressed_archive_is_the_same_recording(pack):
    packed = pack(make_sigmf(NOISE))
    np.testing.assert_array_equal(decode(packed).samples, NOISE)
    with pytest.raises(InvalidRecording, match=r"cut off|no whole tar"):
        decode(packed[:-30])


# Every coding of the standard, written by NumPy alone: (dtype of a component, zero, full scale).
COMPONENTS = {
    "f32_le": ("<f4", 0, 1), "f32_be": (">f4", 0, 1), "f64_le": ("<f8", 0, 1), "f64_be": (">f8", 0, 1),
    "i32_le": ("<i4", 0, 2**31), "i32_be": (">i4", 0, 2**31), "u32_le": ("<u4", 2**31 - 0.5, 2**31 - 0.5),
    "i16_le": ("<i2", 0, 2**15), "i16_be": (">i2", 0, 2**15), "u16_be": (">u2", 2**15 - 0.5, 2**15 - 0.5),
    "i8": ("i1", 0, 2**7), "u8": ("u1", 2**7 - 0.5, 2**7 - 0.5),
}  # fmt: skip


def write_components(values: np.ndarray, coding: str) -> bytes:
    dtype, zero, scale = COMPONENTS[coding]
    scaled = values.astype(np.float64) * scale + zero
    return (scaled if "f" in dtype else np.rint(scaled)).astype(dtype).tobytes()


@pytest.mark.parametrize("coding", COMPONENTS)
def test_every_coding_is_read_to_its_step(coding):
    pairs = NOISE.view(np.float32).reshape(-1, 2)
    archive = make_tar(
        [("x.sigmf-meta", json.dumps(make_sigmf_metadata(f"c{coding}")).encode()),
         ("x.sigmf-data", write_components(pairs, coding))]
    )  # fmt: skip
    step = 1e-7 if "f" in COMPONENTS[coding][0] or "32" in coding else 1.0 / COMPONENTS[coding][2]
    np.testing.assert_allclose(decode(archive).samples.view(np.float32).reshape(-1, 2), pairs, atol=step)


@pytest.mark.parametrize("coding", ["f32_le", "i16_be", "i16_le"])
def test_real_samples_become_their_analytic_signal(coding):
    # A real tone of 6 kHz is half a complex one at +6 and half at -6; its analytic signal is the whole at +6.
    time_s = np.arange(4800) / 48_000.0
    tone = 0.5 * np.cos(2 * np.pi * 6000.0 * time_s + 0.3)
    archive = make_tar(
        [("x.sigmf-meta", json.dumps(make_sigmf_metadata(f"r{coding}")).encode()),
         ("x.sigmf-data", write_components(tone, coding))]
    )  # fmt: skip
    recording = decode(archive)
    assert recording.attributes == {"analytic_signal": True}
    np.testing.assert_allclose(recording.samples, 0.5 * np.exp(1j * (2 * np.pi * 6000.0 * time_s + 0.3)), atol=1e-4)


def test_a_channel_is_one_of_those_that_lie_interleaved():
    channels = [make_noise(300, seed=seed) for seed in range(3)]
    data = make_sigmf(np.stack(channels, axis=1).reshape(-1), make_sigmf_metadata(num_channels=3))
    for number, samples in enumerate(channels, start=1):
        np.testing.assert_array_equal(decode(data, channel=number).samples, samples)
    with pytest.raises(InvalidRecording, match="channel 4 stated, expected 1 to 3"):
        decode(data, channel=4)


def make_with_captures(captures: list[dict], raw: bytes, **described) -> bytes:
    metadata = make_sigmf_metadata(**described) | {
        "captures": [{f"core:{name}": value for name, value in one.items()} for one in captures]
    }
    return make_tar([("x.sigmf-meta", json.dumps(metadata).encode()), ("x.sigmf-data", raw)])


START = "2026-03-04T12:00:00.000000000Z"
AFTER_100 = "2026-03-04T12:00:00.002083333Z"  # 100 samples at 48 kHz
MUCH_LATER = "2026-03-04T12:00:01.000000000Z"


def test_header_and_trailing_bytes_are_no_samples():
    raw = b"HEAD" * 3 + NOISE[:100].tobytes() + b"NEXT" + NOISE[100:].tobytes() + b"tail!"
    captures = [{"sample_start": 0, "header_bytes": 12}, {"sample_start": 100, "header_bytes": 4}]
    recording = decode(make_with_captures(captures, raw, trailing_bytes=5))
    np.testing.assert_array_equal(recording.samples, NOISE)


def test_samples_count_from_the_offset():
    captures = [{"sample_start": 10**12, "datetime": START}]
    np.testing.assert_array_equal(decode(make_with_captures(captures, NOISE.tobytes(), offset=10**12)).samples, NOISE)


def test_captures_that_follow_each_other_are_one_recording():
    captures = [
        {"sample_start": 0, "datetime": START, "frequency": 1e8},
        {"sample_start": 100, "datetime": AFTER_100, "frequency": 1e8},
        {"sample_start": 200},
    ]
    recording = decode(make_with_captures(captures, NOISE.tobytes()))
    np.testing.assert_array_equal(recording.samples, NOISE)
    assert recording.attributes == {"num_captures": 3}
    assert recording.start_unix_ns == 1_772_625_600 * 10**9


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"datetime": START}, {"datetime": MUCH_LATER}),
        ({"frequency": 1e8}, {"frequency": 2e8}),
        ({"global_index": 0}, {"global_index": 5000}),
    ],
    ids=["a gap in time", "retuned", "dropped samples"],
)
def test_of_stretches_with_a_gap_between_them_the_longest_counts_and_the_rest_is_counted(first, second):
    captures = [{"sample_start": 0} | first, {"sample_start": 100} | second]
    recording = decode(make_with_captures(captures, NOISE.tobytes()))
    np.testing.assert_array_equal(recording.samples, NOISE[100:])
    assert recording.attributes == {"num_captures": 2, "num_samples_left_out": 100}
    if "datetime" in second:
        assert recording.start_unix_ns == 1_772_625_601 * 10**9


def test_the_time_of_a_later_capture_places_the_first_sample():
    captures = [{"sample_start": 0}, {"sample_start": 96, "datetime": MUCH_LATER}]  # 2 ms before
    assert decode(make_with_captures(captures, NOISE.tobytes())).start_unix_ns == 1_772_625_601 * 10**9 - 2_000_000


def test_a_capture_says_where_the_receiver_stood_before_the_recording_does():
    point = {"type": "Point", "coordinates": [8.5, 46.5, 450.0]}
    elsewhere = {"type": "Point", "coordinates": [9.0, 47.0]}
    captures = [{"sample_start": 0, "geolocation": point}]
    place = decode(make_with_captures(captures, NOISE.tobytes(), geolocation=elsewhere)).position
    assert (place.latitude, place.longitude, place.altitude_m) == (46.5, 8.5, 450.0)
    place = decode(make_with_captures([{"sample_start": 0}], NOISE.tobytes(), geolocation=elsewhere)).position
    assert (place.latitude, place.longitude, place.altitude_m) == (47.0, 9.0, 0.0)


def test_a_name_of_any_length_that_a_file_system_holds_is_packed():
    stem = "n" * 240
    packed = pack_sigmf(f"{stem}.sigmf-meta", META, {f"{stem}.sigmf-data": NOISE.tobytes()})
    np.testing.assert_array_equal(decode(packed).samples, NOISE)


def test_a_dataset_of_another_name_is_the_one_that_its_metadata_name():
    meta = json.dumps(make_sigmf_metadata(dataset="capture.iq")).encode()
    packed = pack_sigmf("x.sigmf-meta", meta, {"capture.iq": NOISE.tobytes()})
    np.testing.assert_array_equal(decode(packed).samples, NOISE)


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ({"sample_rate_hz": 50_000.0}, "sample rate 48000 Hz in the file, expected the stated 50000 Hz"),
        ({"frequency_hz": 145e6}, "frequency 145500000 Hz in the file, expected the stated 145000000 Hz"),
        ({"start_unix_ns": START_NS + 10**9}, "first sample -1000.000 ms after the stated time"),
    ],
)
def test_what_is_stated_against_the_files_own_word_is_refused(stated, found):
    with pytest.raises(InvalidRecording, match=found):
        decode(make_sigmf(NOISE), **stated)


@settings(max_examples=200, deadline=None)
@given(damage(make_sigmf(NOISE)))
def test_damage_is_refused_or_harmless(data):
    try:
        samples = decode(data).samples
    except InvalidRecording:
        return
    assert np.isfinite(samples).all()
    assert 0 < len(samples) * 4 <= len(data)
