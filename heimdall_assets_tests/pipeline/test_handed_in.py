"""Files handed in: formats told by their first bytes, sidecars, names, places and collections."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from heimdall_assets.domain import Position
from heimdall_assets.errors import HeimdallError, InvalidRecording, InvalidSetting
from heimdall_assets.formats import FORMATS, Stated
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.files import import_recordings
from heimdall_assets.pipeline.intake.handed_in import Handed, find_format, gather_files, list_read
from heimdall_assets.pipeline.intake.identities import make_source
from heimdall_assets.pipeline.intake.iq_session import ImportedSession, SessionClaim
from heimdall_assets_tests.formats.recordings import (
    make_iq_wav,
    make_kiwisdr,
    make_noise,
    make_npy,
    make_sigmf,
    make_sigmf_metadata,
    to_pairs,
)
from heimdall_assets_tests.homes import make_places

NOISES = [make_noise(9600, seed=seed) for seed in range(3)]
HERE = Position(latitude=46.0, longitude=8.0)
NOTHING = Stated()
SIDECAR = {"sample_rate_hz": 48_000.0, "start": "2026-03-04T12:00:00.123Z", "frequency_hz": 145.5e6}
PLACE = {"latitude": 46.5, "longitude": 8.5, "altitude_m": 450.0}
SECOND_NS = 1_772_625_600 * 10**9


@pytest.fixture
def stores(tmp_path):
    return make_places(tmp_path / "home").open_stores()


def run(stores, files, stated=NOTHING, format_name=None, **changes) -> ImportedSession:
    facts = {"name": "call", "source": make_source("X", HERE), "campaign": "field", "receivers": {"A": HERE, "B": HERE}}
    claim = SessionClaim(**(facts | changes))
    return import_recordings(stores.measurements, stores.objects, claim, files, stated, format_name)


def write(folder: Path, name: str, data: bytes, sidecar: dict | None = None) -> Path:
    (folder / name).write_bytes(data)
    if sidecar is not None:
        (folder / f"{name}.json").write_text(json.dumps(sidecar))
    return folder / name


def read_call(stores) -> dict[str, dict]:
    """Return station -> its row, its position and its clock."""
    session = stores.measurements.find_session("call")
    stations = {station["id"]: station for station in session["stations"]}
    return {
        stations[row["websdr_station_id"]]["name"]: row | {"station": stations[row["websdr_station_id"]]}
        for row in session["measurements"]
    }


def test_a_session_may_hold_files_of_several_formats(stores, tmp_path):
    files = [
        write(tmp_path, "A.npy", make_npy(NOISES[0]), SIDECAR),
        write(tmp_path, "B.sigmf", make_sigmf(NOISES[1])),
    ]
    run(stores, files)
    assert {name: row["iq_data_format"] for name, row in read_call(stores).items()} == {"A": "npy", "B": "sigmf"}


def test_a_sidecar_says_what_its_file_cannot_and_how_well(stores, tmp_path):
    told = SIDECAR | PLACE | {"station": "hill", "clock_class": "gnss_calibrated"}
    done = run(stores, [write(tmp_path, "odd name.cu8", to_bytes(NOISES[0]), told)], receivers={})
    (row,) = read_call(stores).values()
    assert row["station"]["name"] == "hill"
    assert (row["station"]["latitude"], row["station"]["altitude_asl"]) == (46.5, 450.0)
    assert row["station"]["clock_class"] == "gnss_calibrated"
    assert (row["iq_sample_rate"], row["frequency_hz"]) == (48_000.0, 145.5e6)
    assert row["iq_start_unix_ns"] == SECOND_NS + 123_500_000  # the middle of its millisecond
    assert row["iq_start_sigma_s"] == pytest.approx(1e-3 / 12**0.5)
    assert done.remarks == [
        "odd name.cu8: its start is known to 0.00029 s (one sigma), worse than clock gnss_calibrated claims "
        "(7.6e-08 s); both count"
    ]


def to_bytes(samples: np.ndarray) -> bytes:
    return np.rint(samples.view(np.float32) * 127.5 + 127.5).astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    ("sidecar", "found"),
    [
        (SIDECAR | {"sample_rate": 1}, r"A\.npy\.json: found 'sample_rate', expected sample_rate_hz\?"),
        (
            SIDECAR | {"start": "2026-03-04T12:00:00"},
            "start '2026-03-04T12:00:00', expected an ISO 8601 time",
        ),
        (SIDECAR | {"sample_rate_hz": "48000"}, "found sample_rate_hz '48000'"),
        (SIDECAR | {"latitude": 46.0}, "found one of latitude and longitude"),
        (SIDECAR | {"latitude": 146.0, "longitude": 8.0}, "found latitude 146.0"),
        (SIDECAR | {"clock_class": "atomic"}, "found clock_class 'atomic'"),
        ([1], "found list, expected an object"),
    ],
)
def test_a_sidecar_that_cannot_be_believed_is_refused(stores, tmp_path, sidecar, found):
    with pytest.raises(InvalidRecording, match=found):
        run(stores, [write(tmp_path, "A.npy", make_npy(NOISES[0]), sidecar)])
    assert stores.measurements.list_sessions() == []


def test_a_common_start_leaves_no_doubt_between_receivers(stores, tmp_path):
    # Whatever digits it has, all files begin at that one moment: nothing is lost between them.
    stated = Stated(sample_rate_hz=48_000.0, start_unix_ns=SECOND_NS, frequency_hz=145.5e6)
    files = [write(tmp_path, f"{name}.npy", make_npy(NOISES[place])) for place, name in enumerate("AB")]
    done = run(stores, files, stated, clock_class=ClockClass.GNSS_CALIBRATED)
    assert done.remarks == []
    assert [row["iq_start_sigma_s"] for row in read_call(stores).values()] == [None, None]


def test_a_recording_is_named_with_its_receiver_and_channel(stores, tmp_path):
    interleaved = np.stack(NOISES[:2], axis=1).reshape(-1)
    file = write(tmp_path, "array.sigmf", make_sigmf(interleaved, make_sigmf_metadata(num_channels=2)))
    run(stores, [Handed(file, "A", 1), Handed(file, "B", 2)])
    rows = read_call(stores)
    assert {name: row["iq_channel"] for name, row in rows.items()} == {"A": 1, "B": 2}
    assert {row["iq_samples_count"] for row in rows.values()} == {9600}


def place_point(latitude: float, longitude: float) -> dict:
    return make_sigmf_metadata(geolocation={"type": "Point", "coordinates": [longitude, latitude]})


def test_a_file_says_where_it_was_made(stores, tmp_path):
    run(stores, [write(tmp_path, "hill.sigmf", make_sigmf(NOISES[0], place_point(46.5, 8.5)))], receivers={})
    (row,) = read_call(stores).values()
    assert (row["station"]["name"], row["station"]["latitude"]) == ("hill", 46.5)


def test_a_place_that_contradicts_the_stated_one_is_refused(stores, tmp_path):
    # 0.1 degrees of latitude are 11.1 km; 0.0005 are 56 m
    far = write(tmp_path, "A.sigmf", make_sigmf(NOISES[0], place_point(46.1, 8.0)))
    with pytest.raises(InvalidRecording, match=r"A\.sigmf: .* made at 46\.10000, 8\.00000, 11,11\d m from"):
        run(stores, [far])
    run(stores, [far], receiver_margin_m=12_000.0)
    near = write(tmp_path, "B.sigmf", make_sigmf(NOISES[1], place_point(46.0005, 8.0)))
    run(stores, [near], name="near")


def test_a_collection_gives_its_recordings(stores, tmp_path):
    streams = []
    for place, name in enumerate("AB"):
        meta = json.dumps(make_sigmf_metadata()).encode()
        write(tmp_path, f"{name}.sigmf-meta", meta)
        write(tmp_path, f"{name}.sigmf-data", NOISES[place].tobytes())
        streams.append({"name": name, "hash": hashlib.sha512(meta).hexdigest()})
    listed = {"collection": {"core:version": "1.2.0", "core:streams": streams}}
    file = write(tmp_path, "all.sigmf-collection", json.dumps(listed).encode())
    run(stores, [file])
    assert set(read_call(stores)) == {"A", "B"}
    write(tmp_path, "A.sigmf-meta", json.dumps(make_sigmf_metadata(description="changed")).encode())
    with pytest.raises(InvalidRecording, match=r"A\.sigmf-meta: does not match its hash in all\.sigmf-collection"):
        run(stores, [file], name="again")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.wav", make_kiwisdr(make_noise(512 * 20)), "kiwisdr-wav"),
        ("20260304T120000Z_77500_A_iq.wav", make_iq_wav(to_pairs(NOISES[0]), 16), "iq-wav"),
        ("a.bin", make_npy(NOISES[0]), "npy"),
        ("a.CU8", b"anything", "raw-cu8"),
        ("gqrx_20261120_100000_145500000_1800000_fc.raw", b"anything", "raw-cf32"),
        ("a.sigmf.xz", b"anything", "sigmf"),
    ],
)
def test_first_bytes_tell_a_format_before_names_do(tmp_path, name, data, expected):
    assert find_format(write(tmp_path, name, data)).name == expected


def test_a_format_is_one_record_that_is_found(tmp_path):
    assert len({known.command for known in FORMATS.values()}) == len(FORMATS)
    with pytest.raises(InvalidSetting, match="format 'mp3': expected one of kiwisdr, npy, raw-cf32"):
        find_format(tmp_path / "a", "mp3")
    with pytest.raises(InvalidSetting, match=r"a\.bin: neither its first bytes nor its name tell its format"):
        find_format(write(tmp_path, "a.bin", b"anything"))


@pytest.mark.parametrize("number", range(60))
def test_files_of_random_bytes_are_refused_in_one_line_whatever_their_name(stores, tmp_path, number):
    rng = np.random.default_rng(number)
    endings = sorted(ending for known in FORMATS.values() for ending in known.endings)
    heads = (b"", b"RIFF", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x1f\x8b", b'{"global":')
    data = heads[number % len(heads)] + rng.bytes(int(rng.integers(0, 400)))
    file = write(tmp_path, f"A{endings[number % len(endings)]}", data)
    stated = Stated(sample_rate_hz=48_000.0, start_unix_ns=SECOND_NS, frequency_hz=145.5e6)
    for said in (Stated(), stated):
        with pytest.raises(HeimdallError) as refusal:
            run(stores, [file], said)
        assert "\n" not in str(refusal.value)
    assert stores.measurements.list_sessions() == []


def test_a_name_says_nothing_of_a_start_that_its_file_says_itself(stores, tmp_path):
    start = datetime(2026, 11, 20, 10, 0, 0, 250_000, tzinfo=UTC)
    wave = make_iq_wav(to_pairs(NOISES[0]), 16, start=start)
    run(stores, [write(tmp_path, "A_HDSDR_20261120_100000Z_145500kHz_RF.wav", wave)])
    (row,) = read_call(stores).values()
    assert row["iq_start_sigma_s"] is None  # the chunk knows milliseconds, the name whole seconds
    assert row["attributes"]["timing_sigma_s"] == pytest.approx(1e-3 / 12**0.5)


def test_every_file_that_a_recording_is_read_from_is_listed(tmp_path):
    meta = write(tmp_path, "A.sigmf-meta", json.dumps(make_sigmf_metadata()).encode())
    data = write(tmp_path, "A.sigmf-data", NOISES[0].tobytes())
    beside = write(tmp_path, "A.sigmf-meta.json", b'{"station": "A"}')
    alone = write(tmp_path, "B.sigmf", make_sigmf(NOISES[1]))
    listed = [list_read(told) for told in gather_files([Handed(meta), Handed(data), Handed(alone)], NOTHING)]
    assert listed == [[meta, beside, data], [alone]]
