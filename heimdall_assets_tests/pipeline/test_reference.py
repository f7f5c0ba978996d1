"""A reference as clock, from a user's bytes to a position: parts, channels and files, and refusals in one line."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.domain import ApprovalStatus, Position
from heimdall_assets.errors import HeimdallError, InvalidRecording, InvalidSetting, Refused
from heimdall_assets.formats import Stated
from heimdall_assets.manifests import compute_digest
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.files import import_recordings
from heimdall_assets.pipeline.intake.handed_in import Handed
from heimdall_assets.pipeline.intake.identities import make_source
from heimdall_assets.pipeline.intake.iq_session import ImportedSession, SessionClaim
from heimdall_assets.pipeline.intake.layout import Layout, Part
from heimdall_assets.pipeline.intake.reference_timing import ReferenceClaim
from heimdall_assets.pipeline.prediction.files import locate_files
from heimdall_assets.pipeline.prediction.stored import locate_stored
from heimdall_assets.signals.acquisition import Search
from heimdall_assets.signals.geodesy import LocalFrame
from heimdall_assets.signals.reference_clock import Reference
from heimdall_assets.simulation.free_running import Emission, Listener, record_in_turn
from heimdall_assets.stores.home import Stores
from heimdall_assets_tests.formats.recordings import make_kiwisdr, make_sigmf, make_sigmf_metadata
from heimdall_assets_tests.homes import make_places
from heimdall_assets_tests.pipeline.reference_world import (
    RECEIVERS,
    REFERENCE,
    SMALL,
    START,
    START_NS,
    TRUTH,
    Made,
    World,
    list_options,
    make_claim,
    make_world,
    write_rtl_sdr,
)
from heimdall_assets_tests.variation import assert_above, assert_below, shift_seed

STATED = Stated(sample_rate_hz=SMALL.rate_hz, start_unix_ns=START_NS, frequency_hz=SMALL.wanted_hz)


@pytest.fixture(scope="module")
def made() -> Made:
    return make_world(SMALL)


@pytest.fixture
def stores(quick_path: Path) -> Stores:
    return make_places(quick_path / "home").open_stores()


def run(
    stores: Stores,
    files: list,
    reference: ReferenceClaim | None,
    stated: Stated = STATED,
    name: str = "call",
    clock: ClockClass = ClockClass.NONE,
) -> ImportedSession:
    claim = SessionClaim(name, make_source("X", TRUTH), "field", RECEIVERS, clock, reference=reference)
    return import_recordings(stores.measurements, stores.objects, claim, files, stated)


def read_rows(stores: Stores, name: str = "call") -> dict[str, dict]:
    session = stores.measurements.find_session(name)
    names = {station["id"]: station["name"] for station in session["stations"]}
    return {names[row["websdr_station_id"]]: row for row in session["measurements"]}


def assert_located(found: dict, within_m: float = 250.0) -> None:
    assert found["error_m"] < within_m
    assert found["inside_90"]
    assert 50.0 < found["ellipse_90"]["semi_major_m"] < 400.0


# --- From the command line


@pytest.fixture(scope="module")
def rtl_sdr(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Made, list[Path]]:
    """Three blocks in each file, 256 kHz, oscillators off by up to 50 ppm, hosts started up to 20 ms off."""
    world, folder = World(), tmp_path_factory.mktemp("rtl_sdr")
    heard = make_world(world)
    return world, heard, write_rtl_sdr(folder, heard.samples)


def test_bytes_of_rtl_sdr_become_a_position_and_rest_as_they_were(rtl_sdr, tmp_path):
    world, heard, files = rtl_sdr
    home = tmp_path / "home"

    def heimdall(*arguments: object) -> str:
        environment = {"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off"}
        result = CliRunner().invoke(main, [str(one) for one in arguments], env=environment)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result.stdout

    options = [*list_options(world), *files]
    source = f"X,{TRUTH.latitude},{TRUTH.longitude}"
    told = json.loads(heimdall("import", "raw-cu8", "--session", "call", "--source", source, "--json", *options))
    assert len([line for line in told["remarks"] if "clock set by DAB: start" in line]) == 4
    assert_located(json.loads(heimdall("locate", "call", "--json")))
    directly = json.loads(heimdall("locate", "--json", *options))
    assert directly["error_m"] is None  # nobody said where it is
    frame = LocalFrame(TRUTH.latitude, TRUTH.longitude)
    assert np.hypot(*frame.to_local(directly["latitude"], directly["longitude"])[:2]) < 250.0
    stores = make_places(home).open_stores()
    begin_s, end_s = world.parts[1]
    for name, row in read_rows(stores).items():
        data = (files[0].parent / f"{name}.cu8").read_bytes()
        assert row["iq_data_location"] == f"sha256:{compute_digest(data)}"
        assert stores.objects.read_location(row["iq_data_location"], 10**8) == data
        assert row["iq_first_sample"] == round(begin_s * world.rate_hz)
        assert row["iq_samples_count"] == round(end_s * world.rate_hz) - row["iq_first_sample"]
        assert 5e-9 < row["iq_start_sigma_s"] < 100e-9
        assert row["attributes"]["reference"]["name"] == "DAB"
    rates = {name: row["iq_sample_rate"] for name, row in read_rows(stores).items()}
    errors = {name: one.clock_error for name, one in heard.listeners.items()}
    for name in rates:  # of the anchor's clock, which nobody can compare with the truth
        apart = rates[name] / rates["RA"] - (1.0 + errors[name]) / (1.0 + errors["RA"])
        assert apart == pytest.approx(0.0, abs=1e-7)


# --- Where files hold it


def test_parts_in_samples_are_those_in_seconds(stores, made, tmp_path):
    files = write_rtl_sdr(tmp_path, made.samples)
    claim = make_claim(SMALL)

    def to_samples(part: Part) -> Part:
        return Part(round(part.begin * SMALL.rate_hz), round(part.end * SMALL.rate_hz), "samples")

    layout = Layout(tuple(map(to_samples, claim.layout.reference_parts)), to_samples(claim.layout.wanted_part))
    run(stores, files, claim, name="seconds")
    seconds = read_rows(stores, "seconds")
    ids = [row["id"] for row in stores.measurements.list_sessions()]
    stores.measurements.decide(ids, ApprovalStatus.REJECTED, "me", "to import again")
    run(stores, files, replace(claim, layout=layout), name="samples")
    for name, row in read_rows(stores, "samples").items():
        for column in ("iq_first_sample", "iq_samples_count", "iq_start_unix_ns", "iq_start_sigma_s", "iq_sample_rate"):
            assert row[column] == seconds[name][column]


def test_a_sidecar_says_where_its_file_holds_what(stores, made, tmp_path):
    files = write_rtl_sdr(tmp_path, made.samples)
    first, wanted, last = SMALL.parts
    for file in files:
        said = {"reference_parts_s": [first, last], "wanted_part_s": wanted}
        file.with_name(f"{file.name}.json").write_text(json.dumps(said))
    run(stores, files, replace(make_claim(SMALL), layout=Layout()))
    assert_located(locate_stored(stores, "call"))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"wanted_part_s": [0.1]}, r"RA\.cu8\.json: wanted_part: found 1 numbers, expected begin and end"),
        ({"wanted_part_s": [0.3, 0.1]}, r"wanted_part: found 0\.3 to 0\.1, expected 0 to 1e\+10, and an end after"),
        ({"wanted_part_s": [0.1, 0.2], "wanted_part_samples": [1, 2]}, "in seconds and in samples, expected one"),
        ({"reference_parts_samples": [[0.5, 2]]}, "found reference_parts_samples"),
        ({"reference_channel": 0}, "found reference_channel 0"),
        ({"reference_file": "../other.cu8"}, r"reference_file '\.\./other\.cu8', expected a name in its folder"),
        ({"reference_file": ""}, "reference_file '', expected a name in its folder"),
        ({"reference_file": ".."}, r"reference_file '\.\.', expected a name in its folder"),
        ({"wanted_part_s": [0.1, 1e300]}, r"found 0\.1 to 1e\+300, expected 0 to 1e\+10"),
    ],
)
def test_a_sidecar_that_cannot_be_believed_is_refused(stores, made, tmp_path, said, found):
    files = write_rtl_sdr(tmp_path, made.samples)
    files[0].with_name("RA.cu8.json").write_text(json.dumps(said))
    with pytest.raises(InvalidRecording, match=found):
        run(stores, files, make_claim(SMALL))


def split_in_two(made: Made) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return station -> what two tuners on one clock hear at the same time: the reference all along, and the voice."""
    once = replace(SMALL, turns_s=(0.4,))
    together = {}
    for seed in (0, 1):  # the same clocks, as they are drawn before anything is received
        together[seed] = make_world(replace(once, seed=SMALL.seed, order=(seed,))).samples
    return {name: (together[0][name], together[1][name]) for name in RECEIVERS}


def write_sigmf(path: Path, samples: np.ndarray, start: str, **described: object) -> None:
    metadata = make_sigmf_metadata(sample_rate=SMALL.rate_hz, **described)
    metadata["captures"][0] |= {"core:frequency": SMALL.wanted_hz, "core:datetime": start}
    path.write_bytes(make_sigmf(samples, metadata))


def test_a_reference_on_another_channel_of_the_file(stores, made, tmp_path):
    files = []
    for name, (reference, wanted) in split_in_two(made).items():
        interleaved = np.stack([0.2 * reference, 0.2 * wanted], axis=1).reshape(-1)
        write_sigmf(tmp_path / f"{name}.sigmf", interleaved, START[:-1] + ".000000000Z", num_channels=2)
        files.append(Handed(tmp_path / f"{name}.sigmf", name, 2))
    claim = replace(make_claim(SMALL), layout=Layout(reference_channel=1))
    run(stores, files, claim, Stated())
    assert_located(locate_stored(stores, "call"))
    assert {row["iq_first_sample"] for row in read_rows(stores).values()} == {0}
    with pytest.raises(
        InvalidSetting, match="channel 2 holds reference and wanted transmission, expected two channels"
    ):
        run(stores, files, replace(claim, layout=Layout(reference_channel=2)), Stated(), name="other")


def test_a_reference_in_another_file_of_the_same_receiver(stores, made, tmp_path):
    other, wanted_folder = tmp_path / "reference", tmp_path / "wanted"
    other.mkdir()
    wanted_folder.mkdir()
    both = split_in_two(made)
    references = write_rtl_sdr(other, {name: pair[0] for name, pair in both.items()})
    wanted = write_rtl_sdr(wanted_folder, {name: pair[1] for name, pair in both.items()})
    for file in [*references, *wanted]:  # the stamps of each receiver's own clock, which are the same for both
        file.with_name(f"{file.name}.json").write_text(json.dumps({"start": "2026-11-20T10:00:00.000000000Z"}))
    files = {file.stem: Handed(file, file.stem) for file in references}
    claim = replace(make_claim(SMALL), layout=Layout(), files=files)
    run(stores, wanted, claim, replace(STATED, start_unix_ns=None))
    assert_located(locate_stored(stores, "call"))
    row = read_rows(stores)["RB"]
    assert row["attributes"]["reference"]["file_sha256"] == compute_digest((other / "RB.cu8").read_bytes())
    for file in references:  # the same, said by the sidecar of the wanted file, in whose folder it lies
        for path in (file, file.with_name(f"{file.name}.json")):
            (wanted_folder / f"dab_{path.name}").write_bytes(path.read_bytes())
        beside = wanted_folder / f"{file.name}.json"
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"reference_file": f"dab_{file.name}"}))
    by_sidecar = locate_files(
        stores, wanted, RECEIVERS, replace(STATED, start_unix_ns=None), reference=replace(claim, files={})
    )
    found = locate_stored(stores, "call")
    assert (by_sidecar["latitude"], by_sidecar["longitude"]) == (found["latitude"], found["longitude"])
    same = {file.stem: Handed(file, file.stem) for file in wanted}
    with pytest.raises(InvalidSetting, match=r"RA\.cu8: holds reference and wanted transmission, expected two files"):
        run(stores, wanted, replace(claim, files=same), replace(STATED, start_unix_ns=None), name="other")


def test_a_wanted_part_that_holds_the_reference_itself_is_told_by_its_place(stores, made, tmp_path):
    files = write_rtl_sdr(tmp_path, made.samples)
    claim = make_claim(SMALL)
    assert locate_files(stores, files, RECEIVERS, STATED, reference=claim)["remarks"][-1].startswith(
        "RD.cu8: clock set"
    )
    first, _, last = SMALL.parts
    layout = Layout((Part(*first),), Part(*last))  # as where the tuner stayed
    found = locate_files(stores, files, RECEIVERS, STATED, reference=replace(claim, layout=layout))
    assert found["remarks"][-1].startswith("the ellipse holds the place of DAB, by which the clocks were set")
    run(stores, files, replace(claim, layout=layout))
    assert locate_stored(stores, "call")["remarks"] == found["remarks"][-1:]


def test_each_receiver_has_a_reference_of_its_own(stores, made, tmp_path):
    both, files = split_in_two(made), {}
    for name, pair in both.items():
        for what, samples in zip(("dab", "voice"), pair, strict=True):
            (tmp_path / what).mkdir(exist_ok=True)
            (file,) = write_rtl_sdr(tmp_path / what, {name: samples})
            file.with_name(f"{file.name}.json").write_text(json.dumps({"start": "2026-11-20T10:00:00.000000000Z"}))
        files[name] = Handed(tmp_path / "dab" / f"{name}.cu8", name)
    wanted, stated = [tmp_path / "voice" / f"{name}.cu8" for name in files], replace(STATED, start_unix_ns=None)
    claim = replace(make_claim(SMALL), layout=Layout())
    twice = files | {"RB": Handed(files["RA"].path, "RB")}
    said = "reference of station RB: the same recording as .*reference of station RA, from the same sample on"
    with pytest.raises(InvalidRecording, match=said):
        run(stores, wanted, replace(claim, files=twice), stated)
    more = files | {"RX": files["RA"]}
    with pytest.raises(InvalidSetting, match="--reference-recording RX: found no other file of that station"):
        run(stores, wanted, replace(claim, files=more), stated)
    beside = files["RA"].path.with_name("RA.cu8.json")
    beside.write_text(json.dumps({"start": "2026-11-20T10:00:00.000000000Z", "wanted_part_s": [0.1, 0.2]}))
    with pytest.raises(InvalidRecording, match=r"RA\.cu8: its sidecar says wanted_part, expected it in that of"):
        run(stores, wanted, replace(claim, files=files), stated)
    assert stores.measurements.list_sessions() == []


def test_a_files_own_clock_gives_way_to_the_reference(stores, made, tmp_path):
    # Computers whose clocks are tens of milliseconds off, as their SigMF files say: rows say what the reference says.
    files = []
    for place, (name, samples) in enumerate(made.samples.items()):
        write_sigmf(tmp_path / f"{name}.sigmf", 0.2 * samples, f"{START[:-1]}.0{place}0000000Z")
        files.append(tmp_path / f"{name}.sigmf")
    claim = make_claim(SMALL)
    wider = replace(claim.reference, search=replace(claim.reference.search, reach_s=0.08))
    run(stores, files, replace(claim, reference=wider), Stated())
    assert_located(locate_stored(stores, "call"))
    starts_ns = [row["iq_start_unix_ns"] for row in read_rows(stores).values()]
    assert np.ptp(starts_ns) < 45e6  # as they began; their files say 30 ms more, or less


def test_a_reference_tells_what_receive_filters_delay(stores, tmp_path):
    """KiwiSDR files, timed by GNSS and late by filters of 10 to 70 us that both files of a receiver share."""
    rng, rate_hz, num = np.random.default_rng(shift_seed(8)), 12_001.0, 512 * 470
    start = datetime(2026, 11, 20, 11, 0, 0, tzinfo=UTC)
    filters_s = dict(zip(RECEIVERS, (12e-6, 31e-6, 70e-6, 44e-6), strict=True))
    sent = [(rng.normal(size=(num + 2000, 2)) @ [0.5, 0.5j]).astype(np.complex64) for _ in range(2)]
    emissions = [
        Emission(samples, rate_hz, -0.05, place, 5e6) for samples, place in zip(sent, (REFERENCE, TRUTH), strict=True)
    ]
    files: dict[str, dict[str, Handed]] = {"reference": {}, "wanted": {}}
    for name, place in RECEIVERS.items():
        for number, kind in enumerate(files):
            late = Listener(place, 0.0, 0.0, (filters_s[name],) * 2)
            turns = [(number, num / rate_hz)]
            samples = record_in_turn(rng, emissions, turns, late, rate_hz, 20.0)
            path = tmp_path / f"{kind}_{name}.wav"
            path.write_bytes(make_kiwisdr(0.1 * samples, rate_hz=rate_hz, start=start, num_stale=0))
            files[kind][name] = Handed(path, name)
    search = Search(1e-3, 1e-6, 5e6)  # GNSS keeps clocks and oscillators
    claim = ReferenceClaim(Reference("TX", REFERENCE, search), files=files["reference"])
    stated = Stated(start_unix_ns=START_NS + 3_600 * 10**9, frequency_hz=5e6)
    run(stores, list(files["wanted"].values()), None, stated, name="as they are")
    plain = locate_stored(stores, "as they are")
    ids = [row["id"] for row in stores.measurements.list_sessions()]
    stores.measurements.decide(ids, ApprovalStatus.REJECTED, "me", "to import again")
    run(stores, list(files["wanted"].values()), claim, stated)
    found = locate_stored(stores, "call")
    assert_located(found)
    assert plain["error_m"] > 10.0 * found["error_m"]


# --- What is refused


def check_refused(stores: Stores, kind: type[HeimdallError], found: str, *arguments, **named) -> None:
    with pytest.raises(kind, match=found) as caught:
        run(stores, *arguments, **named)
    assert "\n" not in str(caught.value)
    assert stores.measurements.list_sessions() == []


LAID_OUT = make_claim(SMALL).layout


@pytest.mark.parametrize(
    ("layout", "kind", "found"),
    [
        (
            replace(LAID_OUT, wanted_part=Part(0.6, 0.8)),
            InvalidRecording,
            r"RA\.cu8: part 0.6:0.8 s, samples 38400 to 51200, expected within its 44800 samples \(0.7 s\)",
        ),
        (
            replace(LAID_OUT, wanted_part=Part(0.1, 0.45)),
            InvalidRecording,
            r"reference part \(samples 0 to 12800\) and wanted part \(samples 6400 to 28800\) overlap",
        ),
        (
            replace(LAID_OUT, reference_parts=(Part(0.0, 0.2), Part(0.15, 0.2))),
            InvalidRecording,
            r"reference part \(samples 0 to 12800\) and reference part \(samples 9600 to 12800\) overlap",
        ),
        (
            replace(LAID_OUT, reference_parts=(Part(0.0, 0.05),)),
            InvalidRecording,
            r"reference \(samples 0 to 3200\).*0.05",
        ),
        (replace(LAID_OUT, wanted_part=None), InvalidSetting, "says no wanted part, expected --reference-part and"),
        (Layout(), InvalidSetting, "says no part of either"),
        (Layout(reference_channel=2), InvalidSetting, "reference in channel 2, expected the wanted one named too"),
    ],
)
def test_parts_that_cannot_be_are_refused(stores, made, tmp_path, layout, kind, found):
    files = write_rtl_sdr(tmp_path, made.samples)
    check_refused(stores, kind, found, files, replace(make_claim(SMALL), layout=layout))


def test_a_reference_that_is_not_there_is_refused_with_the_file(stores, made, tmp_path):
    noise = (np.random.default_rng(1).normal(size=(44_800, 2)) @ [0.7, 0.7j]).astype(np.complex64)
    files = write_rtl_sdr(tmp_path, made.samples | {"RC": noise})
    check_refused(stores, HeimdallError, r"RC\.cu8: reference DAB not found", files, make_claim(SMALL))


def test_one_receiver_is_refused(stores, made, tmp_path):
    files = write_rtl_sdr(tmp_path, made.samples)[:1]
    check_refused(stores, HeimdallError, "1 recording, expected at least 2", files, make_claim(SMALL))


def test_a_reference_that_nobody_there_can_hear_is_refused(stores, made, tmp_path):
    files = write_rtl_sdr(tmp_path, made.samples)
    claim = make_claim(SMALL)
    far = replace(
        claim.reference,
        position=Position(latitude=7.9, longitude=46.2),  # swapped
        search=replace(claim.reference.search, carrier_hz=200e6),
    )
    check_refused(
        stores, InvalidRecording, r"RA\.cu8: reference DAB .* km from station RA, .* \(radio horizon\)", files,
        replace(claim, reference=far),
    )  # fmt: skip


def test_a_clock_by_reference_asks_for_the_reference_and_for_no_other(stores, made, tmp_path):
    files = write_rtl_sdr(tmp_path, made.samples)
    check_refused(
        stores, InvalidSetting, "clock reference: found no reference", files, None, clock=ClockClass.REFERENCE
    )
    check_refused(
        stores, InvalidSetting, "clock ntp: found beside a reference", files, make_claim(SMALL), clock=ClockClass.NTP
    )
    files[0].with_name("RA.cu8.json").write_text(json.dumps({"wanted_part_s": [0.1, 0.2]}))
    check_refused(stores, InvalidSetting, r"RA\.cu8: wanted_part: found no reference", files, None)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--reference-transmitter", "DAB,46,8"], "expected NAME=LAT,LON"),
        (["--reference-transmitter", "DAB=146,8"], "--reference-transmitter DAB: found 146, 8, 0 m"),
        (["--reference-transmitter", "DAB=46,8,0,-1"], "margin: found -1 m"),
        (["--reference-transmitter", "DAB=46,8"], "found no frequency, expected --reference-frequency-hz"),
        (["--reference-part", "0:1"], "--reference-part: found without a reference"),
        (["--reference-transmitter", "D=46,8", "--reference-frequency-hz", "1e8", "--wanted-part", "1"], "BEGIN:END"),
        (["--reference-transmitter", "D=46,8", "--reference-frequency-hz", "-1"], "--reference-frequency-hz: found -1"),
        (
            ["--reference-transmitter", "D=46,8", "--reference-frequency-hz", "1e8", "--reference-search-s", "100"],
            "--reference-search-s: found 100, expected 1e-06 to 60",
        ),
        (
            ["--reference-transmitter", "D=46,8", "--reference-frequency-hz", "1e8", "--parts-in", "samples",
             "--wanted-part", "0.5:2"],
            "expected whole samples",
        ),
        (
            ["--reference-transmitter", "D=46,8", "--reference-frequency-hz", "1e8", "--reference-channel", "1",
             "--reference-recording", "RA=FILE"],
            "--reference-channel: found beside --reference-recording, expected one of them",
        ),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_in_one_line(tmp_path, options, found):
    file = tmp_path / "RA.cu8"
    file.write_bytes(bytes(range(256)) * 400)
    base = ["import", "raw-cu8", "--session", "s", "--source", "X,46,8", "--receiver", "RA,46,8", "--rate-hz", "64000"]
    base += ["--start", "2026-11-20T10:00:00Z", "--frequency-hz", "145.5e6", str(file)]
    base += [one.replace("FILE", str(file)) for one in options]
    result = CliRunner().invoke(main, base, env={"HEIMDALL_HOME": str(tmp_path / "home")})
    assert result.exit_code == 2
    assert found in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
    assert not (tmp_path / "home").exists()


# --- Parts of one file in several sessions


def test_two_wanted_parts_of_one_file_are_two_sessions_but_no_sample_is_in_both(stores, made, tmp_path):
    files = write_rtl_sdr(tmp_path, made.samples)
    claim = make_claim(SMALL)
    begin_s, end_s = SMALL.parts[1]
    middle_s = 0.5 * (begin_s + end_s)
    run(stores, files, replace(claim, layout=replace(claim.layout, wanted_part=Part(begin_s, middle_s))), name="one")
    run(stores, files, replace(claim, layout=replace(claim.layout, wanted_part=Part(middle_s, end_s))), name="two")
    ids = [row["id"] for row in stores.measurements.list_sessions()]
    stores.measurements.decide(ids, ApprovalStatus.APPROVED, "me", "apart from each other")
    with pytest.raises(Refused, match=r"session three: its recording .* is in session (one|two)"):
        run(stores, files, claim, name="three")


# --- Coverage


@pytest.mark.long
@pytest.mark.parametrize(
    ("bandwidth_hz", "snr_db"), [(48_000.0, 20.0), (6000.0, 0.0)], ids=["echoes decide", "noise decides"]
)
def test_ellipses_hold_what_they_claim(stores, tmp_path, bandwidth_hz, snr_db):
    # Echoes on the way from the reference as large as TimingSpec.reference_s says: no receiver's is known.
    rng = np.random.default_rng(shift_seed(7))
    held, num = [], 200
    for number in range(num):
        place = Position(latitude=float(rng.uniform(45.6, 46.4)), longitude=float(rng.uniform(7.5, 8.6)))
        world = replace(
            SMALL,
            seed=shift_seed(number),
            truth=place,
            bandwidth_hz=bandwidth_hz,
            snr_db=snr_db,
            excess_sigma_s=0.3e-6,
        )
        files = write_rtl_sdr(tmp_path, make_world(world).samples)
        try:
            found = locate_files(stores, files, RECEIVERS, STATED, reference=make_claim(world))
        except HeimdallError:  # a voice too faint to compare, or no clear reference: said, and no position claimed
            continue
        held.append(is_inside(found, place))
    assert len(held) > 0.9 * num
    assert_above(np.mean(held), 0.85, f"coverage with a reference of {bandwidth_hz:g} Hz")
    assert_below(np.mean(held), 0.95, f"coverage with a reference of {bandwidth_hz:g} Hz")


def is_inside(found: dict, truth: Position) -> bool:
    """Return whether a place lies in the 90 % ellipse of what was found."""
    east, north = LocalFrame(found["latitude"], found["longitude"]).to_local(truth.latitude, truth.longitude)[:2]
    ellipse = found["ellipse_90"]
    azimuth = np.radians(ellipse["azimuth_deg"])
    along, across = (
        east * np.sin(azimuth) + north * np.cos(azimuth),
        east * np.cos(azimuth) - north * np.sin(azimuth),
    )
    return bool((along / ellipse["semi_major_m"]) ** 2 + (across / ellipse["semi_minor_m"]) ** 2 <= 1.0)
