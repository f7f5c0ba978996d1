import json
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from heimdall_assets.domain import ApprovalStatus, ClockClass, Position
from heimdall_assets.errors import (
    HeimdallError,
    InvalidIdentifier,
    InvalidRecording,
    InvalidSetting,
    InvalidTable,
    NotFound,
    Refused,
)
from heimdall_assets.formats import decode_recording
from heimdall_assets.manifests import compute_digest
from heimdall_assets.pipeline.intake.files import (
    Stated,
    import_kiwisdr,
    import_npy,
    import_recordings,
    import_rss_table,
    import_sigmf,
)
from heimdall_assets.pipeline.intake.identities import compute_id, make_source, make_station
from heimdall_assets.pipeline.intake.iq_session import SessionClaim
from heimdall_assets.specs import DatasetSpec, RecordingSpec
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets_tests.formats.recordings import (
    START,
    make_kiwisdr,
    make_noise,
    make_npy,
    make_sigmf,
    make_sigmf_metadata,
)
from heimdall_assets_tests.formats.test_rss_table import RECEIVERS, ROWS, TABLE

NOISE = make_noise(512 * 500)
SHORT = make_noise(9600)
SOURCE = make_source("DCF77", Position(latitude=50.0155, longitude=9.0108), 10.0, frequency_hz=77_500.0)
PLACES = {
    "AA1": Position(latitude=47.1721, longitude=8.42683),
    "BB2": Position(latitude=45.77929, longitude=0.614638),
    "CC3": Position(latitude=53.665337, longitude=7.282766),
}
START_NS = 1_772_625_600 * 10**9
STATED = {"sample_rate_hz": 48_000.0, "start_unix_ns": START_NS, "frequency_hz": 145.5e6}


@pytest.fixture
def store(tmp_path):
    store = MeasurementStore(f"sqlite:///{tmp_path / 'heimdall.db'}")
    store.upgrade()
    yield store
    store.close()


@pytest.fixture
def objects(tmp_path):
    return FolderObjectStore(tmp_path / "objects")


@pytest.fixture
def expect_nothing_added(store, objects):
    yield
    assert store.list_sessions() == []
    assert store.list_stations() == []
    assert list(objects.list_digests()) == []


def write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def kiwi_name(station: str) -> str:
    return f"20260304T120000Z_77500_{station}_iq.wav"


def make_claim(**changes) -> SessionClaim:
    facts = {"name": "call", "source": SOURCE, "receivers": PLACES, "campaign": "field"} | changes
    return SessionClaim(**facts)


def run_kiwisdr(store, objects, files, spec=None, **changes):
    claim = make_claim(**({"name": "dcf", "campaign": "dcf77"} | changes))
    return import_kiwisdr(store, objects, claim, files, spec or RecordingSpec())


def run_npy(store, objects, files, stated=None, **changes):
    return import_npy(store, objects, make_claim(**changes), files, Stated(**(STATED | (stated or {}))))


def run_sigmf(store, objects, files, frequency_hz=None, **changes):
    return import_sigmf(store, objects, make_claim(**changes), files, Stated(frequency_hz=frequency_hz))


def test_kiwisdr_files_become_one_pending_session(store, objects, tmp_path):
    data = {
        kiwi_name(station): make_kiwisdr(NOISE, rate_hz=12_001.0 + index / 10) for index, station in enumerate(PLACES)
    }
    report = run_kiwisdr(store, objects, write(tmp_path, data))
    assert (report.num_stations, report.num_sources, report.num_sessions, report.num_measurements) == (3, 1, 1, 3)
    session = store.find_session("dcf")
    assert session["approval_status"] == "pending"
    assert (session["campaign"], session["origin"], session["status"]) == ("dcf77", "measured", "completed")
    assert session["source"]["name"] == "DCF77"
    assert session["source"]["error_margin_meters"] == 10.0
    assert {station["clock_class"] for station in session["stations"]} == {"gnss"}
    digests = {compute_digest(content) for content in data.values()}
    assert set(objects.list_digests()) == digests
    for row in session["measurements"]:
        assert row["frequency_hz"] == 77_500.0
        assert row["iq_samples_count"] == 499 * 512
        assert row["iq_data_format"] == "kiwisdr-wav"
        recording = decode_recording(
            objects.read_location(row["iq_data_location"], 10**8),
            row["iq_data_format"],
            name=row["iq_data_location"],
            sample_rate_hz=row["iq_sample_rate"],
            start_unix_ns=row["iq_start_unix_ns"],
        )
        assert recording.sample_rate_hz == row["iq_sample_rate"]
        assert recording.start_unix_ns == row["iq_start_unix_ns"]
        assert len(recording.samples) == row["iq_samples_count"]
        assert row["attributes"]["num_stale_blocks_left_out"] == 1
        assert row["duration_seconds"] == pytest.approx(21.29, abs=0.01)


def test_the_same_import_twice_adds_nothing(store, objects, tmp_path):
    files = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE)})
    run_kiwisdr(store, objects, files)
    again = run_kiwisdr(store, objects, files)
    assert (again.num_sessions, again.num_measurements, again.num_unchanged) == (0, 0, 4)
    other = run_kiwisdr(store, objects, files, campaign="other")
    assert (other.num_stations, other.num_sessions, other.num_measurements) == (0, 1, 1)


def test_another_recording_under_the_same_name_is_refused(store, objects, tmp_path):
    run_kiwisdr(store, objects, write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE)}))
    changed = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(make_noise(512 * 500, seed=1))})
    with pytest.raises(Refused):
        run_kiwisdr(store, objects, changed)
    assert len(store.find_session("dcf")["measurements"]) == 1


@pytest.mark.usefixtures("expect_nothing_added")
@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (
            {kiwi_name("BB2"): make_kiwisdr(NOISE, ages=dict.fromkeys(range(500), 255))},
            "BB2_iq.wav: the receiver had no",
        ),
        ({kiwi_name("BB2"): make_kiwisdr(NOISE)[:-7]}, "BB2_iq.wav: .* as its RIFF header claims"),
        ({kiwi_name("BB2"): make_kiwisdr(np.zeros_like(NOISE))}, "BB2_iq.wav: all samples are zero"),
        ({kiwi_name("BB2"): make_kiwisdr(np.full_like(NOISE, -1 - 1j))}, "BB2_iq.wav: every sample|at full scale"),
        ({kiwi_name("XX9"): make_kiwisdr(NOISE)}, "XX9_iq.wav: no position for station XX9, expected one of AA1, BB2"),
        (
            {"20260304T120000Z_77501_AA1_iq.wav": make_kiwisdr(NOISE)},
            "station AA1 already has 20260304T120000Z_77500_AA1",
        ),
        ({"recording.wav": make_kiwisdr(NOISE)}, "recording.wav: not a KiwiSDR file name"),
    ],
)
def test_one_bad_file_refuses_the_whole_import(store, objects, tmp_path, bad, found):
    files = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE)} | bad)
    with pytest.raises(InvalidRecording, match=found):
        run_kiwisdr(store, objects, files)


@pytest.mark.usefixtures("expect_nothing_added")
def test_files_that_do_not_overlap_are_refused(store, objects, tmp_path):
    later = make_kiwisdr(NOISE, start=START + timedelta(minutes=5))
    files = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE), kiwi_name("BB2"): later})
    with pytest.raises(
        InvalidRecording, match=r"BB2_iq\.wav: overlaps .*AA1_iq\.wav by -278\.\d+ s, expected at least"
    ):
        run_kiwisdr(store, objects, files)


@pytest.mark.usefixtures("expect_nothing_added")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"files": []}, InvalidRecording),
        ({"campaign": "../x"}, InvalidIdentifier),
        ({"name": "a/b"}, InvalidIdentifier),
        ({"name": ""}, InvalidIdentifier),
        ({"spec": RecordingSpec(max_samples=1000)}, InvalidRecording),
        ({"files": [Path("/dev/zero")]}, HeimdallError),
        ({"files": [Path("nowhere") / kiwi_name("AA1")]}, NotFound),
    ],
)
def test_what_is_no_import_is_refused(store, objects, tmp_path, changes, error):
    files = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE)})
    with pytest.raises(error):
        run_kiwisdr(store, objects, **({"files": files} | changes))


def test_a_file_that_changes_meanwhile_is_refused(store, objects, tmp_path):
    class Meddling(FolderObjectStore):
        def put_bytes(self, data, media_type):
            (tmp_path / kiwi_name("BB2")).write_bytes(b"other")
            return super().put_bytes(data, media_type)

    files = write(tmp_path, {kiwi_name(station): make_kiwisdr(NOISE) for station in ("AA1", "BB2")})
    with pytest.raises(InvalidRecording, match="changed while it was imported"):
        run_kiwisdr(store, Meddling(tmp_path / "objects"), files)
    assert store.list_sessions() == []


def test_npy_files_become_a_session_with_what_they_cannot_say(store, objects, tmp_path):
    files = write(
        tmp_path, {"AA1.npy": make_npy(SHORT), "websdr_BB2.npy": make_npy(SHORT), "call_7_CC3.npy": make_npy(SHORT)}
    )
    report = run_npy(store, objects, files, clock_class=ClockClass.NTP)
    assert report.num_measurements == 3
    session = store.find_session("call")
    assert {station["name"] for station in session["stations"]} == set(PLACES)
    assert {station["clock_class"] for station in session["stations"]} == {"ntp"}
    for row in session["measurements"]:
        assert (row["iq_sample_rate"], row["iq_start_unix_ns"], row["frequency_hz"]) == (48_000.0, START_NS, 145.5e6)
        assert objects.read_location(row["iq_data_location"], 10**8) == make_npy(SHORT)


@pytest.mark.usefixtures("expect_nothing_added")
@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"AA1.npy": make_npy(SHORT), "DD4.npy": make_npy(SHORT)}, r"DD4\.npy: names no known station"),
        ({"AA1.npy": make_npy(SHORT), "x_AA1.npy": make_npy(SHORT)}, r"x_AA1\.npy: station AA1 already has AA1\.npy"),
        ({"AA1.npy": make_npy(SHORT), "BB2.npy": make_npy(np.array([{}], dtype=object))}, r"BB2\.npy: dtype '\|O'"),
        ({"AA1.npy": make_npy(SHORT[:100])}, r"AA1\.npy: 0\.002083 s long, expected at least 0\.1 s"),
    ],
)
def test_bad_npy_imports_are_refused(store, objects, tmp_path, files, found):
    with pytest.raises(InvalidRecording, match=found):
        run_npy(store, objects, write(tmp_path, files))


@pytest.mark.usefixtures("expect_nothing_added")
@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"frequency_hz": 0.0}, "AA1.npy: frequency_hz 0.0"),
        ({"frequency_hz": float("nan")}, "AA1.npy: frequency_hz nan"),
        ({"sample_rate_hz": float("nan")}, "AA1.npy: sample rate nan"),
        ({"sample_rate_hz": -1.0}, "AA1.npy: sample rate -1"),
        ({"sample_rate_hz": 1e200}, "AA1.npy: 9.6e-197 s long"),
        ({"start_unix_ns": 2**63}, "AA1.npy: starts 9223372036854775808 ns after 1970"),
        ({"start_unix_ns": -1}, "AA1.npy: starts -1 ns after 1970"),
    ],
)
def test_numbers_that_cannot_be_are_refused(store, objects, tmp_path, changes, found):
    with pytest.raises(InvalidRecording, match=found):
        run_npy(store, objects, write(tmp_path, {"AA1.npy": make_npy(SHORT)}), changes)


def test_sigmf_archives_and_pairs_become_a_session(store, objects, tmp_path):
    pair = {"BB2.sigmf-meta": json.dumps(make_sigmf_metadata()).encode(), "BB2.sigmf-data": SHORT.tobytes()}
    files = write(tmp_path, {"AA1.sigmf": make_sigmf(SHORT)} | pair)
    assert run_sigmf(store, objects, files, clock_class=ClockClass.GNSS).num_measurements == 2
    for row in store.find_session("call")["measurements"]:
        recording = decode_recording(objects.read_location(row["iq_data_location"], 10**8), "sigmf", name="x")
        np.testing.assert_array_equal(recording.samples, SHORT)
        assert row["frequency_hz"] == 145.5e6
        assert row["iq_start_unix_ns"] == START_NS + 123_456_789
    without_data = run_sigmf(store, objects, [files[0], files[1]], clock_class=ClockClass.GNSS)
    assert without_data.num_measurements == 0


def without(field: str) -> dict:
    metadata = make_sigmf_metadata()
    del metadata["captures"][0][field]
    return metadata


@pytest.mark.usefixtures("expect_nothing_added")
@pytest.mark.parametrize(
    ("files", "error", "found"),
    [
        ({"AA1.sigmf": make_sigmf(SHORT, without("core:datetime"))}, InvalidRecording, "does not say when it starts"),
        ({"AA1.sigmf": make_sigmf(SHORT, without("core:frequency"))}, InvalidRecording, "no core:frequency"),
        ({"AA1.sigmf-data": SHORT.tobytes()}, InvalidRecording, "without its .sigmf-meta"),
        ({"AA1.sigmf-meta": b"{}"}, NotFound, r"AA1\.sigmf-data: found no file"),
        ({"AA1.zip": b"{}"}, InvalidRecording, "expected a .sigmf archive"),
    ],
)
def test_bad_sigmf_imports_are_refused(store, objects, tmp_path, files, error, found):
    with pytest.raises(error, match=found):
        run_sigmf(store, objects, write(tmp_path, files))


def test_a_given_frequency_serves_recordings_without_one(store, objects, tmp_path):
    files = write(tmp_path, {"AA1.sigmf": make_sigmf(SHORT, without("core:frequency"))})
    run_sigmf(store, objects, files, frequency_hz=433.5e6)
    assert store.find_session("call")["measurements"][0]["frequency_hz"] == 433.5e6


def write_table(folder: Path, table: bytes = TABLE) -> dict[str, Path]:
    return dict(zip(("table", "receivers"), write(folder, {"t.csv": table, "r.json": RECEIVERS}), strict=True))


@pytest.mark.parametrize(
    ("names", "stated", "clock", "found"),
    [
        (["AA1.npy"], {"start_unix_ns": None}, "none", "AA1.npy: found no start, expected it stated"),
        (["AA1.npy"], {"sample_rate_hz": None, "frequency_hz": None}, "none", "found no sample rate and frequency"),
        (["AA1.sigmf"], {}, "none", "AA1.sigmf: found a stated sample rate 48000.0, expected none"),
        ([kiwi_name("AA1")], {"sample_rate_hz": None, "start_unix_ns": None}, "none", "a stated frequency 145500000"),
        ([kiwi_name("AA1")], dict.fromkeys(STATED), "gnss", "found a stated clock gnss, expected none"),
        (["AA1.npy", "BB2.sigmf"], {}, "none", r"found \.npy, \.sigmf, expected all"),
        (["AA1"], {}, "none", "found no ending, expected all"),
    ],
)
@pytest.mark.usefixtures("expect_nothing_added")
def test_what_is_stated_must_be_what_files_cannot_say(store, objects, tmp_path, names, stated, clock, found):
    files = write(tmp_path, dict.fromkeys(names, b"never read"))
    claim = make_claim(clock_class=ClockClass(clock))
    with pytest.raises(InvalidSetting, match=found):
        import_recordings(store, objects, claim, files, Stated(**(STATED | stated)))


def test_recordings_are_imported_as_what_their_names_say(store, objects, tmp_path):
    npy = write(tmp_path, {"AA1.npy": make_npy(SHORT), "BB2.npy": make_npy(SHORT)})
    import_recordings(store, objects, make_claim(clock_class=ClockClass.GNSS), npy, Stated(**STATED))
    sigmf = write(tmp_path, {"AA1.sigmf": make_sigmf(SHORT)})
    import_recordings(store, objects, make_claim(name="sigmf"), sigmf, Stated())
    kiwi = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE)})
    import_recordings(store, objects, make_claim(name="kiwi"), kiwi, Stated())
    formats = {
        name: store.find_session(name)["measurements"][0]["iq_data_format"] for name in ("call", "sigmf", "kiwi")
    }
    assert formats == {"call": "npy", "sigmf": "sigmf", "kiwi": "kiwisdr-wav"}
    assert {station["clock_class"] for station in store.find_session("kiwi")["stations"]} == {"gnss"}


def test_each_row_of_a_table_becomes_a_session(store, tmp_path):
    report = import_rss_table(store, **write_table(tmp_path), campaign="powder")
    assert (report.num_sessions, report.num_measurements, report.num_stations) == (3, 4, 3)
    first, second, third = store.list_sessions(campaign="powder")
    assert first["session_name"] == "powder-20221123T132440"
    assert first["attributes"] == {"test_grid": 0, "test_note": "a", "not_heard": ["hill"]}
    assert third["attributes"]["heard_without_position"] == ["bus-1"]
    heard = {row["name"]: row for row in store.find_session(second["id"])["stations"]}
    assert set(heard) == {"bus-1", "hill"}
    assert heard["bus-1"]["latitude"] is None
    rows = {row["websdr_station_id"]: row for row in store.find_session(second["id"])["measurements"]}
    moving = rows[heard["bus-1"]["id"]]
    assert (moving["signal_strength_db"], moving["receiver_latitude"], moving["receiver_longitude"]) == (
        -80.5,
        40.761,
        -111.841,
    )
    assert moving["frequency_hz"] == 462.7e6
    source = store.find_session(second["id"])["source"]
    assert (source["latitude"], source["longitude"]) == (40.766, -111.836)
    assert (source["source_type"], source["error_margin_meters"]) == ("handheld", 5.0)


def test_a_table_may_serve_two_campaigns_and_several_cuts(store, tmp_path):
    files = write_table(tmp_path)
    import_rss_table(store, **files, campaign="powder", where={"test_grid": "0"})
    other = import_rss_table(store, **files, campaign="powder-grid", where={"test_grid": "1"})
    assert (other.num_sessions, other.num_stations) == (1, 0)
    whole = import_rss_table(store, **files, campaign="powder")
    assert whole.num_sessions == 2
    (tmp_path / "cut").mkdir()
    cut = write_table(tmp_path / "cut", TABLE.replace(ROWS[0].encode() + b"\n", b""))
    assert import_rss_table(store, **cut, campaign="powder").num_sessions == 0


def test_two_transmissions_of_one_second_have_two_names(store, tmp_path):
    later = ROWS[0].replace("40.765", "40.7655")
    import_rss_table(store, **write_table(tmp_path, TABLE + b"\n" + later.encode()), campaign="powder")
    names = {session["session_name"] for session in store.list_sessions()}
    assert {"powder-20221123T132440", "powder-20221123T132440-2"} <= names


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"campaign": "a/b"}, InvalidIdentifier),
        ({"campaign": "x" * 128}, InvalidIdentifier),
        ({"frequency_hz": -1.0}, InvalidSetting),
        ({"error_margin_m": float("nan")}, InvalidSetting),
        ({"source_type": "hand/held"}, InvalidIdentifier),
        ({"where": {"test_grid": "9"}}, InvalidTable),
        ({"table": Path("nowhere.csv")}, NotFound),
    ],
)
def test_a_bad_table_import_adds_nothing(store, tmp_path, changes, error):
    with pytest.raises(error):
        import_rss_table(store, **(write_table(tmp_path) | {"campaign": "powder"} | changes))
    assert store.list_sessions() == []


def test_ids_follow_from_what_a_thing_is():
    place = PLACES["AA1"]
    assert make_station("a", place, ClockClass.NONE) == make_station("a", place, ClockClass.NONE)
    assert len({compute_id(*key) for key in [("a", "b", "c"), ("a", "bc"), ("ab", "c"), ("a", "b", "c", None)]}) == 4
    stations = [make_station("a", place, ClockClass.NONE), make_station("a", place, ClockClass.GNSS)]
    stations += [make_station("b", place, ClockClass.NONE), make_station("a", PLACES["BB2"], ClockClass.NONE)]
    stations += [make_station("a", None, ClockClass.NONE)]
    assert len({station.id for station in stations}) == 5


def test_the_real_recordings_import_and_are_approved(store, objects, shared_data):
    places = {
        "HB9RYZ": Position(latitude=47.1721, longitude=8.42683),
        "F1JEK": Position(latitude=45.779290, longitude=0.614638),
        "DF0KL": Position(latitude=53.665337, longitude=7.282766),
    }
    files = sorted((shared_data / "kiwisdr_dcf77_2017").glob("*.wav"))
    assert run_kiwisdr(store, objects, files, receivers=places).num_measurements == 3
    session = store.find_session("dcf")
    store.decide([session["id"]], ApprovalStatus.APPROVED, "tester", "published truth")
    snapshot = store.read_approved(DatasetSpec())
    assert len(snapshot.rows) == 3
    assert snapshot.rows["iq_sample_rate_hz"].between(12_001.02, 12_001.21).all()


@pytest.mark.usefixtures("expect_nothing_added")
def test_the_real_recording_without_gnss_is_not_imported(store, objects, shared_data):
    files = list((shared_data / "kiwisdr_without_gnss").glob("*.wav"))
    with pytest.raises(InvalidRecording, match="had no GNSS fix"):
        run_kiwisdr(store, objects, files, receivers={"G7UAK": PLACES["AA1"]})


def test_the_real_table_imports_in_seconds_and_is_approved(store, shared_data):
    folder = shared_data / "powder_rss"
    files = {"table": folder / "single_tx.csv", "receivers": folder / "receivers.json"}
    started = time.process_time()
    report = import_rss_table(store, **files, campaign="powder")
    assert time.process_time() - started < 30
    # 47 levels were heard by buses that did not know where they were
    assert (report.num_sessions, report.num_measurements, report.num_stations) == (4039, 94_205 - 47, 40)
    store.decide([session["id"] for session in store.list_sessions()], ApprovalStatus.APPROVED, "tester", "published")
    snapshot = store.read_approved(DatasetSpec(campaigns=["powder"]))
    assert snapshot.rows["session_id"].nunique() == 4039
    assert len(snapshot.rows) == 94_205 - 47
    november = import_rss_table(store, **files, campaign="powder-november", where={"test_november": "1"})
    assert (november.num_sessions, november.num_stations, november.num_sources) == (351, 0, 0)
