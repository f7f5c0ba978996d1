import hashlib
import json
import tarfile
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings

from heimdall_assets.domain import IqFormat
from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats import decode_recording
from heimdall_assets.formats.sigmf import decode_sigmf, pack_sigmf
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
    return decode_sigmf(data, name="c.sigmf", **changes)


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
    packed = pack_sigmf(META, NOISE.tobytes(), stem="rx")
    assert packed == pack_sigmf(META, NOISE.tobytes(), stem="rx")
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
    assert recording.start_unix_ns == 1_772_625_600 * 10**9 + nanoseconds
    # a value rounded to steps errs uniformly: standard deviation of one step / sqrt(12)
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
        (make_sigmf_metadata(dataset="../x.bin"), "core:dataset"),
        (make_sigmf_metadata(metadata_only=True), "expected the samples inside the archive"),
        (make_sigmf_metadata("rf32_le"), "core:datatype 'rf32_le'"),
        (make_sigmf_metadata("cf32_be"), "core:datatype 'cf32_be'"),
        (make_sigmf_metadata("ci8"), "core:datatype 'ci8'"),
        (make_sigmf_metadata(datatype="x"), "SigMF schema"),
        (make_sigmf_metadata(sample_rate=None), "core:sample_rate None"),
        (make_sigmf_metadata(sample_rate=0), "core:sample_rate 0|SigMF schema"),
        (make_sigmf_metadata(sample_rate=-5), "SigMF schema"),
        (make_sigmf_metadata(sample_rate="48000"), "SigMF schema"),
        (make_sigmf_metadata(num_channels=2), "2 channels"),
        (make_sigmf_metadata(trailing_bytes=8), "trailing bytes"),
        (change_capture(header_bytes=8), "header or trailing bytes"),
        (change_capture(datetime="yesterday"), "core:datetime 'yesterday'|SigMF schema"),
        (change_capture(datetime="2026-02-30T00:00:00Z"), "core:datetime"),
        (change_capture(datetime=5), "SigMF schema"),
        (change_capture(sample_start=5), "expected one that starts at sample 0"),
        (make_sigmf_metadata() | {"captures": []}, "0 captures"),
        (make_sigmf_metadata() | {"captures": make_sigmf_metadata()["captures"] * 2}, "2 captures"),
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
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b""), ("x.exe", b"")]), "member 'x.exe'"),
        (make_tar([("../x.sigmf-meta", META), ("../x.sigmf-data", NOISE.tobytes())]), "member 0 '../x.sigmf-meta'"),
        (make_tar([("/x.sigmf-meta", META), ("/x.sigmf-data", NOISE.tobytes())]), "member 0 '/x.sigmf-meta'"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b"")], tarfile.SYMTYPE), "member 'x.sigmf-meta'"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b"")], tarfile.LNKTYPE), "member 'x.sigmf-meta'"),
        (make_tar([("x.sigmf-meta", META)], tarfile.FIFOTYPE), "member 'x.sigmf-meta'"),
        (make_tar([(f"{index}", b"") for index in range(40)]), "member '0'"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b"")]), "0 bytes of samples"),
        (make_tar([("x.sigmf-meta", META), ("x.sigmf-data", b"abc")]), "3 bytes of samples, expected whole samples"),
    ],
)
def test_an_archive_of_anything_else_is_refused(data, found):
    with pytest.raises(InvalidRecording, match=rf"^c\.sigmf: .*({found})"):
        decode(data)


def test_a_compressed_archive_is_not_unpacked():
    import gzip
    import io

    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRecording, match="no whole tar"):
            decode(stream.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
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
    same = decode_recording(data, IqFormat.SIGMF, name="c", start_unix_ns=START_NS + 900_000)
    assert same.start_unix_ns == START_NS
    with pytest.raises(InvalidRecording, match=r"c: first sample -2\.000 ms after the time that its row states"):
        decode_recording(data, IqFormat.SIGMF, name="c", start_unix_ns=START_NS + 2_000_000)


def test_a_format_that_nobody_decodes_is_refused():
    with pytest.raises(InvalidRecording, match="format 'mp3', expected one of npy, sigmf, kiwisdr-wav"):
        decode_recording(b"", "mp3", name="c")


@settings(max_examples=200, deadline=None)
@given(damage(make_sigmf(NOISE)))
def test_damage_is_refused_or_harmless(data):
    try:
        samples = decode(data).samples
    except InvalidRecording:
        return
    assert np.isfinite(samples).all()
    assert 0 < len(samples) * 4 <= len(data)
