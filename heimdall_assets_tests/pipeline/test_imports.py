import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from heimdall_assets.domain import ApprovalStatus, Position
from heimdall_assets.errors import (
    HeimdallError,
    InvalidIdentifier,
    InvalidRecording,
    InvalidSetting,
    NotFound,
    Refused,
)
from heimdall_assets.formats import Stated, decode_recording
from heimdall_assets.manifests import compute_digest
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.files import import_recordings
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

NOISE = make_noise(512 * 500)
OTHER = make_noise(512 * 500, seed=1)
SHORT, SECOND, THIRD = (make_noise(9600, seed=seed) for seed in range(3))
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
    return import_recordings(store, objects, claim, files, Stated(), "kiwisdr", spec or RecordingSpec()).report


def run_npy(store, objects, files, stated=None, **changes):
    said = Stated(**(STATED | (stated or {})))
    return import_recordings(store, objects, make_claim(**changes), files, said, "npy").report


def run_sigmf(store, objects, files, frequency_hz=None, **changes):
    said = Stated(frequency_hz=frequency_hz)
    return import_recordings(store, objects, make_claim(**changes), files, said, "sigmf").report


def test_kiwisdr_files_become_one_pending_session(store, objects, tmp_path):
    data = {
        kiwi_name(station): make_kiwisdr(make_noise(512 * 500, seed=index), rate_hz=12_001.0 + index / 10)
        for index, station in enumerate(PLACES)
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
            stated=Stated(sample_rate_hz=row["iq_sample_rate"], start_unix_ns=row["iq_start_unix_ns"]),
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


@pytest.mark.parametrize("other", [{"campaign": "other"}, {"name": "again"}])
def test_a_recording_is_in_one_session_only(store, objects, tmp_path, other):
    files = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE)})
    run_kiwisdr(store, objects, files)
    with pytest.raises(Refused, match=r"is in session dcf \(campaign dcf77\) already, expected one that no other"):
        run_kiwisdr(store, objects, files, **other)
    # somebody mistook the transmitter: that session is rejected, and the recording imported as what it is
    store.decide([store.find_session("dcf")["id"]], ApprovalStatus.REJECTED, "ada", "another transmitter")
    assert run_kiwisdr(store, objects, files, **other).num_sessions == 1


def test_a_recording_is_approved_in_one_session_only(store, objects, tmp_path):
    files = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE)})

    def decide(decision, *names):
        return store.decide([store.find_session(name)["id"] for name in names], decision, "ada", "looked at it")

    run_kiwisdr(store, objects, files)
    decide(ApprovalStatus.REJECTED, "dcf")
    run_kiwisdr(store, objects, files, name="again")
    with pytest.raises(Refused, match=r"its recording sha256:\w+ is in session (dcf|again) \(campaign dcf77\) already"):
        decide(ApprovalStatus.APPROVED, "dcf", "again")
    assert decide(ApprovalStatus.APPROVED, "again") == 1
    with pytest.raises(Refused, match=r"session dcf: its recording .* is in session again \(campaign dcf77\) already"):
        decide(ApprovalStatus.APPROVED, "dcf")
    assert {row["session_name"]: row["approval_status"] for row in store.list_sessions()} == {
        "again": "approved",
        "dcf": "rejected",
    }
    decide(ApprovalStatus.REJECTED, "again")
    assert decide(ApprovalStatus.APPROVED, "dcf") == 1


@pytest.mark.usefixtures("expect_nothing_added")
def test_two_stations_do_not_make_the_same_recording(store, objects, tmp_path):
    files = write(tmp_path, {kiwi_name(station): make_kiwisdr(NOISE) for station in ("AA1", "BB2")})
    with pytest.raises(InvalidRecording, match=r"BB2_iq\.wav: the same bytes as .*AA1_iq\.wav"):
        run_kiwisdr(store, objects, files)


@pytest.mark.usefixtures("expect_nothing_added")
@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (NOISE[512 * 100 :], "from 51200 samples later on"),
        (make_noise(512 * 500, seed=0)[: 512 * 499], "from the same sample on"),
        (0.5 * NOISE[512 * 3 :], "from 1536 samples later on"),  # the writer of the file rounds it to 16 bits
    ],
    ids=["later", "same", "weaker"],
)
def test_two_stations_do_not_make_cuts_of_one_recording(store, objects, tmp_path, cut, said):
    files = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE), kiwi_name("BB2"): make_kiwisdr(cut)})
    with pytest.raises(InvalidRecording, match=rf"BB2_iq\.wav: the same recording as .*AA1_iq\.wav, {said}: they diff"):
        run_kiwisdr(store, objects, files)


@pytest.mark.usefixtures("expect_nothing_added")
@pytest.mark.parametrize("name", ["latest", "champion", "challenger", "v1.2.3"])
def test_a_session_is_not_called_as_models_are(store, objects, tmp_path, name):
    with pytest.raises(InvalidIdentifier, match=f"session name '{name}': expected another one"):
        run_kiwisdr(store, objects, write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE)}), name=name)


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
        ({"recording.wav": make_kiwisdr(OTHER)}, "recording.wav: names no known station"),
    ],
)
def test_one_bad_file_refuses_the_whole_import(store, objects, tmp_path, bad, found):
    files = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE)} | bad)
    with pytest.raises(InvalidRecording, match=found):
        run_kiwisdr(store, objects, files)


@pytest.mark.usefixtures("expect_nothing_added")
def test_files_that_do_not_overlap_are_refused(store, objects, tmp_path):
    later = make_kiwisdr(OTHER, start=START + timedelta(minutes=5))
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

    files = write(tmp_path, {kiwi_name("AA1"): make_kiwisdr(NOISE), kiwi_name("BB2"): make_kiwisdr(OTHER)})
    with pytest.raises(InvalidRecording, match="changed while it was imported"):
        run_kiwisdr(store, Meddling(tmp_path / "objects"), files)
    assert store.list_sessions() == []


def test_npy_files_become_a_session_with_what_they_cannot_say(store, objects, tmp_path):
    files = write(
        tmp_path, {"AA1.npy": make_npy(SHORT), "websdr_BB2.npy": make_npy(SECOND), "call_7_CC3.npy": make_npy(THIRD)}
    )
    report = run_npy(store, objects, files, clock_class=ClockClass.NTP)
    assert report.num_measurements == 3
    session = store.find_session("call")
    assert {station["name"] for station in session["stations"]} == set(PLACES)
    assert {station["clock_class"] for station in session["stations"]} == {"ntp"}
    for row in session["measurements"]:
        assert (row["iq_sample_rate"], row["iq_start_unix_ns"], row["frequency_hz"]) == (48_000.0, START_NS, 145.5e6)
    stored = {objects.read_location(row["iq_data_location"], 10**8) for row in session["measurements"]}
    assert stored == {make_npy(samples) for samples in (SHORT, SECOND, THIRD)}


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
        ({"sample_rate_hz": 1e200}, r"AA1.npy: sample rate 1e\+200 Hz, expected 500 to 1e\+09"),
        ({"sample_rate_hz": 1e-300}, "AA1.npy: sample rate 1e-300 Hz"),
        ({"sample_rate_hz": 1e9}, "AA1.npy: 9.6e-06 s long"),
        ({"start_unix_ns": 2**63}, "AA1.npy: starts 9223372036854775808 ns after 1970"),
        ({"start_unix_ns": -1}, "AA1.npy: starts -1 ns after 1970"),
    ],
)
def test_numbers_that_cannot_be_are_refused(store, objects, tmp_path, changes, found):
    with pytest.raises(InvalidRecording, match=found):
        run_npy(store, objects, write(tmp_path, {"AA1.npy": make_npy(SHORT)}), changes)


def test_sigmf_archives_and_pairs_become_a_session(store, objects, tmp_path):
    pair = {"BB2.sigmf-meta": json.dumps(make_sigmf_metadata()).encode(), "BB2.sigmf-data": SECOND.tobytes()}
    files = write(tmp_path, {"AA1.sigmf": make_sigmf(SHORT)} | pair)
    assert run_sigmf(store, objects, files, clock_class=ClockClass.GNSS).num_measurements == 2
    found = set()
    for row in store.find_session("call")["measurements"]:
        recording = decode_recording(objects.read_location(row["iq_data_location"], 10**8), "sigmf", name="x")
        found.add(recording.samples.tobytes())
        assert row["frequency_hz"] == 145.5e6
        assert row["iq_start_unix_ns"] == START_NS + 123_456_789
    assert found == {SHORT.tobytes(), SECOND.tobytes()}
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
        ({"AA1.sigmf": make_sigmf(SHORT, without("core:frequency"))}, InvalidRecording, "does not say its frequency"),
        ({"AA1.sigmf-data": SHORT.tobytes()}, InvalidRecording, "without its .sigmf-meta"),
        ({"AA1.sigmf-meta": b"{}"}, InvalidRecording, r"AA1\.sigmf-meta: metadata without a 'global' object"),
        ({"AA1.sigmf-meta": b'{"global": {}}'}, NotFound, r"AA1\.sigmf-data: found no file"),
        ({"AA1.zip": b"{}"}, InvalidRecording, "expected a SigMF archive"),
    ],
)
def test_bad_sigmf_imports_are_refused(store, objects, tmp_path, files, error, found):
    with pytest.raises(error, match=found):
        run_sigmf(store, objects, write(tmp_path, files))


def test_a_given_frequency_serves_recordings_without_one(store, objects, tmp_path):
    files = write(tmp_path, {"AA1.sigmf": make_sigmf(SHORT, without("core:frequency"))})
    run_sigmf(store, objects, files, frequency_hz=433.5e6)
    assert store.find_session("call")["measurements"][0]["frequency_hz"] == 433.5e6


@pytest.mark.parametrize(
    ("names", "stated", "clock", "found"),
    [
        (["AA1.npy"], {"start_unix_ns": None}, "none", "AA1.npy: found no start, expected it stated"),
        (["AA1.npy"], {"sample_rate_hz": None, "frequency_hz": None}, "none", "found no sample rate and frequency"),
        (["AA1.cu8"], {"full_scale": 2.0}, "none", "AA1.cu8: found a stated full scale 2.0, expected none"),
        ([kiwi_name("AA1")], {"start_unix_ns": None}, "none", "a stated sample rate 48000"),
        ([kiwi_name("AA1")], dict.fromkeys(STATED), "gnss", "found a stated clock gnss, expected none"),
        (["AA1"], {}, "none", "AA1: neither its first bytes nor its name tell its format"),
    ],
)
@pytest.mark.usefixtures("expect_nothing_added")
def test_what_is_stated_must_be_what_files_cannot_say(store, objects, tmp_path, names, stated, clock, found):
    files = write(tmp_path, dict.fromkeys(names, b"never read"))
    claim = make_claim(clock_class=ClockClass(clock))
    with pytest.raises(InvalidSetting, match=found):
        import_recordings(store, objects, claim, files, Stated(**(STATED | stated)))


def test_recordings_are_imported_as_what_their_names_say(store, objects, tmp_path):
    npy = write(tmp_path, {"AA1.npy": make_npy(SHORT), "BB2.npy": make_npy(SECOND)})
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
