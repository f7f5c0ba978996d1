import struct
import tracemalloc
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats import Stated, decode_recording
from heimdall_assets.formats.kiwisdr import decode_kiwisdr, parse_kiwisdr, parse_kiwisdr_name
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.specs import RecordingSpec
from heimdall_assets_tests.formats.recordings import START, damage, make_kiwisdr, make_noise

RATE_HZ = 12_001.2
NOISE = make_noise(512 * 500)  # 21 s
NAME = "20260304T120000Z_77500_AB1C_iq.wav"
START_NS = int(START.timestamp()) * 10**9
BLOCK_NS = 512 / RATE_HZ * 1e9


def decode(data: bytes, name: str = NAME, **changes):
    return parse_kiwisdr(data, name=name, **changes)


def test_rate_start_and_scatter_are_those_of_the_clock():
    recording, axis = decode(make_kiwisdr(NOISE, jitter_ns=50.0, drift=2e-7))
    # a slope through 5 stamps of 50 ns over 20 s is good to some 4 ns a second; a stamp to some 50 ns
    assert recording.sample_rate_hz == pytest.approx(RATE_HZ, abs=RATE_HZ * 10e-9)
    assert abs(recording.start_unix_ns - (START_NS + round(BLOCK_NS))) <= 250
    assert 5e-9 < recording.timing_sigma_s < 150e-9
    assert recording.centre_frequency_hz == 77_500.0
    assert axis.num_fresh == 5


def test_extrapolated_stamps_do_not_enter_the_line():
    exact, _ = decode(make_kiwisdr(NOISE))
    drifting, _ = decode(make_kiwisdr(NOISE, drift=1e-6))  # 5 us at the end of each extrapolation
    assert abs(drifting.start_unix_ns - (exact.start_unix_ns)) <= 2
    assert drifting.timing_sigma_s < 2e-9


def test_blocks_with_stale_stamps_are_left_out_and_counted():
    for num_stale in (0, 1, 2, 8):
        recording, axis = decode(make_kiwisdr(NOISE, num_stale=num_stale))
        assert axis.num_stale_blocks == num_stale
        np.testing.assert_array_equal(recording.samples, NOISE[512 * num_stale :])
        assert abs(recording.start_unix_ns - (START_NS + round(num_stale * BLOCK_NS))) <= 2
    with pytest.raises(InvalidRecording, match="the first 9 blocks carry stamps of another time"):
        decode(make_kiwisdr(NOISE, num_stale=9))


def test_a_recording_may_cross_the_end_of_a_gps_week():
    start = datetime(2026, 3, 7, 23, 59, 32, tzinfo=UTC)  # the week ends 18 s before midnight of Saturday, UTC
    recording, _ = decode(make_kiwisdr(NOISE, start=start), f"{start:%Y%m%dT%H%M%S}Z_1_x_iq.wav")
    assert abs(recording.start_unix_ns - (int(start.timestamp()) * 10**9 + round(BLOCK_NS))) <= 3
    assert recording.sample_rate_hz == pytest.approx(RATE_HZ, rel=1e-9)  # stamps are rounded to 1 ns


@pytest.mark.parametrize(("year", "leap_s"), [(2016, 17), (2017, 18), (2026, 18)])
def test_leap_seconds_are_those_of_the_date(year, leap_s):
    start = datetime(year, 6, 1, 1, 2, 3, tzinfo=UTC)
    recording, _ = decode(make_kiwisdr(NOISE, start=start, leap_s=leap_s), f"{start:%Y%m%dT%H%M%S}Z_1_x_iq.wav")
    assert abs(recording.start_unix_ns - (int(start.timestamp()) * 10**9 + round(BLOCK_NS))) <= 3


def test_a_date_without_kiwisdrs_is_refused():
    with pytest.raises(InvalidRecording, match="dated before 2015-07-01"):
        decode(make_kiwisdr(NOISE), "20140101T000000Z_1_x_iq.wav")


def test_the_date_comes_from_the_name_or_the_row():
    data = make_kiwisdr(NOISE)
    named = decode_kiwisdr(data, name=NAME)
    told = decode_recording(data, "kiwisdr-wav", name="sha256:00", stated=Stated(start_unix_ns=named.start_unix_ns))
    assert told.start_unix_ns == named.start_unix_ns
    assert told.centre_frequency_hz is None
    assert decode_kiwisdr(data, name=f"sessions/a/{NAME}").start_unix_ns == named.start_unix_ns
    with pytest.raises(InvalidRecording, match="neither a start nor a file name with the date"):
        decode_kiwisdr(data, name="sha256:00")
    stated = Stated(start_unix_ns=named.start_unix_ns - 2_000_000)
    with pytest.raises(InvalidRecording, match="ms after the time that its row states"):
        decode_recording(data, "kiwisdr-wav", name="x", stated=stated)


def test_stamps_far_from_the_name_are_refused():
    data = make_kiwisdr(NOISE)
    assert decode(data, "20260304T123000Z_77500_AB1C_iq.wav")
    with pytest.raises(InvalidRecording, match=r"starts \+2\.0 h after its name says"):
        decode(data, "20260304T100000Z_77500_AB1C_iq.wav")


def test_the_name_says_time_frequency_and_station():
    parsed = parse_kiwisdr_name("20171127T104156Z_77500_F1JEK_a_iq.wav")
    assert parsed.start == datetime(2017, 11, 27, 10, 41, 56, tzinfo=UTC)
    assert (parsed.centre_frequency_hz, parsed.station) == (77_500.0, "F1JEK_a")


@pytest.mark.parametrize(
    "name", ["a.wav", "20171127T104156Z_0_F1JEK_iq.wav", "20171327T104156Z_77500_F1JEK_iq.wav", NAME + "\n"]
)
def test_another_name_is_refused(name):
    with pytest.raises(InvalidRecording, match="not a KiwiSDR file name"):
        parse_kiwisdr_name(name)


@pytest.mark.parametrize("age", [254, 255])
def test_a_receiver_without_gnss_is_refused_with_the_reason(age):
    data = make_kiwisdr(NOISE, ages=dict.fromkeys(range(1, 500), age))
    with pytest.raises(
        InvalidRecording, match=rf"{NAME}: the receiver had no GNSS fix \(age {age} in 499 of 500 blocks"
    ):
        decode(data)


def test_fixes_that_are_lost_later_still_time_the_recording():
    recording, axis = decode(make_kiwisdr(NOISE, ages=dict.fromkeys(range(400, 500), 255)))
    assert axis.num_fresh == 4
    assert len(recording.samples) == 499 * 512


def test_too_few_fresh_stamps_are_refused():
    with pytest.raises(InvalidRecording, match="2 fresh GNSS stamps in 200 blocks, expected at least 3"):
        decode(make_kiwisdr(NOISE[: 512 * 200]))


def test_missing_samples_are_found_wherever_they_are():
    for block in (40, 250, 480):
        gap = {index: 10 * BLOCK_NS for index in range(block, 500)}
        with pytest.raises(InvalidRecording, match="samples are missing"):
            decode(make_kiwisdr(NOISE, stamp_errors_ns=gap))


def test_one_wrong_stamp_is_not_believed():
    exact, _ = decode(make_kiwisdr(NOISE))
    fresh = next(index for index in range(500) if index * BLOCK_NS >= 11e9)
    for wrong in ({100: 1e12}, {fresh: 3e7}):
        recording, axis = decode(make_kiwisdr(NOISE, stamp_errors_ns=wrong))
        assert abs(recording.start_unix_ns - (exact.start_unix_ns)) <= 2
        assert axis.num_fresh == (5 if fresh not in wrong else 4)


def test_stamps_that_scatter_are_refused():
    with pytest.raises(InvalidRecording, match=r"scatter by|lie on a line"):
        decode(make_kiwisdr(NOISE, jitter_ns=40_000.0))


def test_a_clock_that_stands_still_is_refused():
    still = {index: -(index * BLOCK_NS) for index in range(500)}
    with pytest.raises(InvalidRecording, match=r"rising line|lie on a line"):
        decode(make_kiwisdr(NOISE, stamp_errors_ns=still))


def test_the_header_must_state_about_the_true_rate():
    with pytest.raises(InvalidRecording, match=r"12001\.2 Hz by its stamps, expected the header's 12100 Hz"):
        decode(make_kiwisdr(NOISE, header_rate_hz=12_100))


GOOD = make_kiwisdr(NOISE)


def patch(data: bytes, offset: int, piece: bytes) -> bytes:
    return data[:offset] + piece + data[offset + len(piece) :]


def resize(data: bytes) -> bytes:
    return patch(data, 4, struct.pack("<I", len(data) - 8))


@pytest.mark.parametrize("num_bytes", [1, 500, 2074])
def test_a_killed_recorder_loses_its_last_block_and_no_more(num_bytes):
    whole, axis = decode(GOOD)
    last = 36 + 2074 * 498
    killed = patch(GOOD, 4, struct.pack("<I", last - 8))[: last + num_bytes]
    recording, cut = decode(killed)
    np.testing.assert_array_equal(recording.samples, whole.samples[: 497 * 512])
    assert (recording.attributes["num_bytes_left_out"], cut.num_fresh) == (num_bytes, axis.num_fresh)
    assert "num_bytes_left_out" not in whole.attributes


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "0 bytes that are no RIFF/WAVE file"),
        (b"ID3" + bytes(200), "no RIFF/WAVE file"),
        (GOOD[:-1], "expected .* as its RIFF header claims"),
        (GOOD + bytes(2075), "expected .* as its RIFF header claims"),
        (resize(GOOD[:-100]), "expected whole blocks"),
        (resize(GOOD[:36]), "no RIFF/WAVE file"),
        (patch(GOOD, 20, struct.pack("<H", 3)), r"coding 3, 2 channels"),
        (patch(GOOD, 22, struct.pack("<H", 1)), "1 channels"),
        (patch(GOOD, 34, struct.pack("<H", 8)), "8 bit"),
        (patch(GOOD, 24, bytes(4)), "at 0 Hz"),
        (patch(GOOD, 36, b"LIST"), "no GNSS stamps"),
        (patch(GOOD, 54, b"fact"), "no GNSS stamps"),
        (patch(GOOD, 58, struct.pack("<I", 2046)), "expected whole blocks"),
        (patch(GOOD, 58, bytes(4)), "expected whole blocks"),
        (patch(GOOD, 36 + 2074 * 7, b"xiwi"), "block 7 of 500 starts with b'xiwi"),
        (patch(GOOD, 36 + 2074 * 9 + 22, struct.pack("<I", 9)), "block 9 of 500 starts with b'data"),
    ],
)
def test_what_is_no_such_file_is_refused(data, found):
    with pytest.raises(InvalidRecording, match=rf"^{NAME}: .*{found}"):
        decode(data)


def test_two_to_the_31_frames_in_a_hundred_bytes_are_refused_before_anything_is_allocated():
    data = patch(GOOD, 58, struct.pack("<I", 2**32 - 4))[:100]
    tracemalloc.start()
    try:
        for lie in (data, resize(data), patch(data, 4, b"\xff\xff\xff\xff")):
            with pytest.raises(InvalidRecording):
                decode(lie)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_longest_recording_is_a_choice():
    with pytest.raises(InvalidRecording, match="256000 samples, expected at most 255999"):
        decode(GOOD, max_samples=255_999)


SMALL = make_kiwisdr(make_noise(8 * 120), rate_hz=100.0, block=8, fix_every_s=2.0)


def test_what_is_damaged_below_is_whole():
    recording, axis = decode(SMALL)
    assert axis.num_fresh == 5
    # without any scatter there remains the rounding of the stamps to 1 ns
    assert recording.timing_sigma_s == pytest.approx(1e-9 / 12**0.5)


@settings(max_examples=300, deadline=None)
@given(damage(SMALL))
def test_damage_is_refused_or_harmless(data):
    try:
        recording, _ = decode(data)
    except InvalidRecording:
        return
    assert np.isfinite(recording.samples).all()
    assert 0 < len(recording.samples) * 4 <= len(data)
    assert recording.sample_rate_hz == pytest.approx(100.0, rel=2e-3)
    assert recording.timing_sigma_s <= 10e-6


def read_real(folder, station):
    path = next((folder / "kiwisdr_dcf77_2017").glob(f"*_{station}_iq.wav"))
    return parse_kiwisdr(path.read_bytes(), name=path.name)


@pytest.mark.parametrize("station", ["DF0KL", "F1JEK", "HB9RYZ"])
def test_real_recordings_are_timed_to_tens_of_nanoseconds(shared_data, station):
    recording, axis = read_real(shared_data, station)
    assert 12_001.02 < recording.sample_rate_hz < 12_001.21
    assert 9e-9 < recording.timing_sigma_s < 100e-9
    assert axis.num_stale_blocks == 1
    facts = check_recording(recording, RecordingSpec(), name=station, expected_rate_hz=12_001.0)
    assert facts["clipped_fraction"] < 1e-3
    assert facts["duration_s"] > 28


@pytest.mark.parametrize(("station", "distance_km"), [("DF0KL", 423), ("F1JEK", 790), ("HB9RYZ", 319)])
def test_second_marks_of_dcf77_arrive_at_the_second_and_the_flight_time(shared_data, station, distance_km):
    # DCF77 lowers its carrier at the start of each UTC second, except the 59th: the time axis, leap seconds included,
    # must put these marks at the second + distance / c + the receive filter's delay (about 0.4 ms).
    recording, _ = read_real(shared_data, station)
    rate_hz = recording.sample_rate_hz
    level = np.convolve(np.abs(recording.samples), np.ones(12) / 12, mode="same")
    first_s = -(-recording.start_unix_ns // 10**9)
    marks_ms = []
    for second in range(first_s + 1, first_s + 27):
        zero = (second * 10**9 - recording.start_unix_ns) * 1e-9 * rate_hz
        window = level[round(zero - 0.02 * rate_hz) : round(zero + 0.04 * rate_hz)]
        low, high = np.percentile(window, [10, 90])
        if low < 0.3 * high:
            marks_ms.append(np.flatnonzero(window < (low + high) / 2)[0] / rate_hz * 1e3 - 20.0)
    flight_ms = distance_km / 299.792
    assert len(marks_ms) > 15
    assert float(np.median(marks_ms)) == pytest.approx(flight_ms + 0.35, abs=0.35)


def test_the_real_recording_without_gnss_is_refused(shared_data):
    path = next((shared_data / "kiwisdr_without_gnss").glob("*.wav"))
    with pytest.raises(InvalidRecording, match=r"G7UAK_iq\.wav: the receiver had no GNSS fix \(age 255 in 234 of 235"):
        decode_kiwisdr(path.read_bytes(), name=path.name)
