"""``heimdall inspect`` of tables and of what is no recording: understood, asked about, imported by what it prints."""

import gzip
import io
import json
import lzma
import shlex
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heimdall_assets.formats import Stated
from heimdall_assets.pipeline.intake.inspection import inspect_file
from heimdall_assets.pipeline.intake.strange_files import name_strange
from heimdall_assets.pipeline.intake.table_trials import HEAD_BYTES
from heimdall_assets.tables.level_values import EITHER
from heimdall_assets_tests.cli.test_first_minutes import heimdall
from heimdall_assets_tests.spent import MAX_MEMORY_BYTES, spend

PLACES = {"G1": (51.20, 4.40), "G2": (51.22, 4.40), "G3": (51.20, 4.44)}
RECEIVERS = {name: {"latitude": place[0], "longitude": place[1]} for name, place in PLACES.items()}
RECEIVERS_ASKED = "where its receivers stand (G1, G2, G3)"
INSPECT = """
from heimdall_assets.formats import Stated
from heimdall_assets.pipeline.intake.inspection import inspect_file

def work(path):
    inspect_file(path, Stated())
"""


def make_wide(num_rows: int = 60) -> pd.DataFrame:
    """Levels of three receivers, some cells empty, in German."""
    rng = np.random.default_rng(1)
    levels = pd.DataFrame({name: rng.normal(-80.0, 8.0, num_rows).round(1) for name in PLACES})
    levels.iloc[3, 0] = np.nan
    times = pd.date_range("2026-11-20 10:00:00", periods=num_rows, freq="min")
    place = {"Breite": (51.2 + rng.uniform(0, 0.05, num_rows)).round(5), "Länge": 4.4 + np.arange(num_rows) / 1000}
    return pd.DataFrame({"Zeit": times.strftime("%d.%m.%Y %H:%M:%S"), **place}).join(levels)


def make_long(num_rows: int = 60) -> pd.DataFrame:
    """The same as a row a gateway and message, with codes, as LoRaWAN servers write them."""
    wide = make_wide(num_rows)
    long = wide.melt(id_vars=["Zeit", "Breite", "Länge"], var_name="gateway_id", value_name="rssi").dropna()
    long["rssi"] = long["rssi"].where(np.arange(len(long)) % 7 != 0, -200.0)
    when = pd.to_datetime(long.pop("Zeit"), format="%d.%m.%Y %H:%M:%S")
    long.insert(0, "received_at", when.dt.strftime("%Y-%m-%dT%H:%M:%S"))
    long = long.rename(columns={"Breite": "lat", "Länge": "lng"})
    long["message_id"] = [f"m{name}" for name in when.dt.minute]
    return long.assign(freq=868.1, lsnr=5.5)


TABLES = {
    "comma.csv": lambda: make_long().to_csv(index=False).encode(),
    "tabs.tsv": lambda: make_long().to_csv(index=False, sep="\t").encode(),
    "german.csv": lambda: make_wide().to_csv(index=False, sep=";", decimal=",").encode(),
    "noname": lambda: make_wide().to_csv(index=False, sep=";", decimal=",").encode(),
    "lines.jsonl": lambda: make_long().to_json(orient="records", lines=True).encode(),
    "long.parquet": lambda: make_long().to_parquet(index=False),
    "wide.parquet": lambda: make_wide().to_parquet(index=False),
}
FILLED = {
    "NAME": "city", "RECEIVERS.json": "receivers.json", "ZONE": "UTC", "HZ": "868.1e6", EITHER: "--not-heard",
}  # fmt: skip


def write(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("name", TABLES)
def test_the_printed_command_imports_the_table_once_its_capitals_are_filled_in(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    found = inspect_file(write(tmp_path, name, TABLES[name]()), Stated())
    assert (found.problem, found.title.startswith("table of received levels, ")) == (None, True)
    is_long = found.facts["form"] == "a row a receiver and transmission"
    assert is_long == (name not in ("german.csv", "noname", "wide.parquet"))
    assert (found.facts["rows"], found.facts["receivers"]) == (179 if is_long else 60, "3: G1, G2, G3")
    assert any("times carry no zone" in line for line in found.missing)
    assert any("where its receivers stand (G1, G2, G3)" in line for line in found.missing)
    assert any("-200 stands in 14.5 % of cells" in line for line in found.missing) == is_long
    (tmp_path / "receivers.json").write_text(json.dumps(RECEIVERS))
    words = shlex.split(found.command)[1:]
    unanswered = heimdall(tmp_path / "home", *words, code=2).stderr  # as it stands, it decides nothing
    assert unanswered.startswith(("Usage: ", "Error: "))
    told = heimdall(tmp_path / "home", *[FILLED.get(word, word) for word in words], "--json")
    report = json.loads(told.stdout)
    assert report["num_sessions"] == found.facts["sessions"] == 60
    assert report["num_measurements"] == int(found.facts["levels"].split()[0])


def make_observed(*without: str) -> bytes:
    """Arrivals and bearings at three gateways of 20 transmissions between them, without some of the columns."""
    rng = np.random.default_rng(2)
    rows = [
        {
            "session": f"u{number}", "time": 1_795_168_800 + 60 * number, "receiver": name,
            "arrival": str((1_795_168_800 + 60 * number) * 10**9 + int(rng.integers(0, 10_000))),
            "arrival_sigma_ns": 500, "bearing": rng.uniform(0.0, 360.0).__round__(1), "bearing_sigma_deg": 5,
            "latitude": 51.21, "longitude": 4.41,
        }
        for number in range(20)
        for name in PLACES
    ]  # fmt: skip
    return pd.DataFrame(rows).drop(columns=list(without)).to_csv(index=False).encode()


def test_the_command_for_arrivals_and_bearings_imports_them_once_it_is_filled_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = make_observed("arrival_sigma_ns", "bearing_sigma_deg")
    found = inspect_file(write(tmp_path, "gateways.csv", table), Stated())
    assert (found.problem, found.title) == (None, "table of arrivals or bearings, CSV separated by commas")
    assert [found.facts[name] for name in ("sessions", "arrivals", "bearings")] == [20, 60, 60]
    for asked in (
        RECEIVERS_ASKED,
        "one-sigma error of arrivals",
        "either north",
        "error of bearings",
        "--frequency-hz",
    ):
        assert any(asked in line for line in found.missing), asked
    (tmp_path / "receivers.json").write_text(json.dumps(RECEIVERS))
    words = shlex.split(found.command)[1:]
    assert words[:2] == ["import", "observations"]
    filled = {**FILLED, "NS": "500", "DEG": "5", "NORTH": "true"}
    told = heimdall(tmp_path / "home", *[filled.get(word, word) for word in words], "--json")
    assert json.loads(told.stdout)["num_sessions"] == 20


def test_what_a_table_of_arrivals_lacks_is_asked_for_and_what_is_wrong_is_said(tmp_path):
    found = inspect_file(write(tmp_path, "a.csv", make_observed("session", "bearing", "time")), Stated())
    assert "--column session=COLUMN" in found.command
    assert "--column time" not in found.command  # an arrival is a time
    found = inspect_file(write(tmp_path, "b.csv", make_observed("arrival", "time")), Stated())
    assert "--column time=COLUMN" in found.command
    wrong = make_observed().replace(b",5,51.21", b",-5,51.21", 1)
    found = inspect_file(write(tmp_path, "c.csv", wrong), Stated())
    assert found.command is None
    assert "the one-sigma error of a bearing" in found.problem


@pytest.mark.parametrize("latitude", ["", "999", "91"])
def test_places_that_are_none_in_a_table_of_arrivals_end_in_a_line(tmp_path, latitude):
    table = make_observed().replace(b"51.21", latitude.encode())
    found = inspect_file(write(tmp_path, "a.csv", table), Stated())
    assert found.problem is not None


def test_the_course_of_who_carried_the_transmitter_makes_no_table_of_bearings(tmp_path):
    table = make_wide().assign(bearing=np.arange(60))
    found = inspect_file(write(tmp_path, "walk.csv", table.to_csv(index=False).encode()), Stated())
    assert found.title.startswith("table of received levels")


def test_an_archive_that_is_too_long_to_list_is_not_called_damaged():
    head = b"PK\x03\x04" + bytes(100)
    assert name_strange(head, is_whole=False) == (
        "ZIP archive",
        "is packed; unpack it, and inspect what comes out (unzip)",
    )
    assert name_strange(head)[0] == "ZIP archive that is damaged"


def test_columns_that_are_known_untold_need_no_option_and_a_whole_table_no_answer(tmp_path):
    table = make_long().rename(
        columns={"lat": "latitude", "lng": "longitude", "received_at": "time", "gateway_id": "receiver"}
    )
    table = table.rename(columns={"message_id": "session", "lsnr": "snr", "freq": "frequency_mhz"})
    table = table[table["rssi"] > -200.0]
    table["time"] += "Z"
    for part, at in (("latitude", 0), ("longitude", 1)):
        table[f"receiver_{part}"] = [PLACES[name][at] for name in table["receiver"]]
    file = write(tmp_path, "t.csv", table.to_csv(index=False).encode())
    found = inspect_file(file, Stated())
    assert found.missing == []
    assert found.command == f"heimdall import rss-table --campaign NAME {file}"
    assert json.loads(heimdall(tmp_path / "home", *shlex.split(found.command)[1:], "--json").stdout)["num_sessions"]


def test_what_could_be_two_things_and_what_is_not_there_is_asked_for_by_its_option(tmp_path):
    table = make_long().rename(columns={"lat": "latitude"}).assign(lat=51.0).drop(columns="received_at")
    found = inspect_file(write(tmp_path, "t.csv", table.to_csv(index=False).encode()), Stated())
    assert "--column time=COLUMN" in found.command
    assert "--column latitude=COLUMN" in found.command
    assert any("columns latitude and lat may each be the latitude" in line for line in found.missing)
    assert any(line.startswith("which column is the time: --column time=ONE of ") for line in found.missing)


def test_a_day_that_could_be_a_month_is_asked_about(tmp_path):
    table = make_wide()
    table["Zeit"] = pd.to_datetime(table["Zeit"], format="%d.%m.%Y %H:%M:%S").dt.strftime("05/06/%Y %H:%M:%S")
    found = inspect_file(write(tmp_path, "t.csv", table.to_csv(index=False).encode()), Stated())
    assert "--time-format FORM" in found.command
    (asked,) = [line for line in found.missing if "how times are written" in line]
    assert "'%d/%m/%Y %H:%M:%S' or '%m/%d/%Y %H:%M:%S'" in asked


def test_words_among_levels_are_named(tmp_path):
    table = make_wide().astype({name: object for name in PLACES})
    table.loc[5:9, "G2"] = "lost"
    found = inspect_file(write(tmp_path, "t.csv", table.to_csv(index=False).encode()), Stated())
    assert "--not-heard lost" in found.command
    assert any("'lost' stands in 5 cells among levels" in line for line in found.missing)


def test_receivers_that_move_are_listed_as_moving(tmp_path):
    table = make_wide().rename(columns={"G3": "G3_rss"})
    table["G3_x"], table["G3_y"] = 51.25, 4.45 + np.arange(len(table)) / 1000
    found = inspect_file(write(tmp_path, "t.csv", table.to_csv(index=False).encode()), Stated())
    assert found.facts["receivers"] == "3: G1, G2, G3"
    assert any('"G3": null where it moves' in line for line in found.missing)


def test_of_a_long_table_its_first_rows_are_looked_at_and_that_is_said(tmp_path):
    line = make_wide().to_csv(index=False, header=False).encode()
    header = ",".join(make_wide().columns).encode() + b"\n"
    data = header + line * (HEAD_BYTES // len(line) + 10)
    found = inspect_file(write(tmp_path, "t.csv", data), Stated())
    assert found.command is not None
    assert found.facts["rows"].endswith(f"(of the first {HEAD_BYTES} bytes)")


def test_the_table_of_powder_is_told_what_its_publisher_says_of_it(shared_data):
    found = inspect_file(shared_data / "powder_rss" / "single_tx.csv", Stated())
    said = " ".join(shlex.split(found.command)[5:-1])
    assert said == (
        f"--receivers RECEIVERS.json --time-zone ZONE --frequency-hz HZ {EITHER} -101 --no-position -1 --no-position 0"
    )
    assert found.facts["receivers"].startswith("40: ")
    assert found.facts["rows"].endswith(f"(of the first {HEAD_BYTES} bytes)")


# --- what is no table of levels


def make_zip(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return data.getvalue()


def make_npz() -> bytes:
    data = io.BytesIO()
    np.savez(data, hill=np.zeros(10, np.complex64), valley=np.zeros(10, np.complex64))
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "title", "problem"),
    [
        ("a.npz", make_npz(), "NumPy archive (.npz) of 'hill.npy', 'valley.npy'", "save each receiver's samples"),
        ("a.zip", make_zip(a_dot_txt=b"x"), "ZIP archive of 'a.txt'", "is packed; unpack it"),
        ("a.zip", make_zip(a_dot_txt=b"x")[:-9], "ZIP archive that is damaged", "expected a whole copy"),
        ("a.xlsx", make_zip(xl__workbook_dot_xml=b"x"), "Excel workbook", "save its sheet as CSV UTF-8"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n"), "gzip archive", "gunzip"),
        ("a.csv.xz", lzma.compress(b"a,b\n1,2\n"), "xz archive", "unxz"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5 file", "as .npy"),
        ("a.db", b"SQLite format 3\0" + bytes(100), "SQLite database", "HEIMDALL_DATABASE_URL"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), "table, but none that is read", "text in UTF-16, expected UTF-8"),
        ("a.json", b'[{"a": 1}]', "table, but none that is read", "a JSON array, expected a JSON object a line"),
        ("a.jsonl", b'{"a": {"b": 1}}', "table, but none that is read", "found an object (nested)"),
        ("a.csv", b"name,age\nAda,36\n", "table, but none that is read", "none of its columns (name, age) looks like"),
        ("a.csv", b"", "table, but none that is read", "empty"),
        ("a.txt", b"name,age\nAda,36\n", "no recording that is known here", "or a table of received levels"),
    ],
)
def test_what_is_not_read_is_named_with_what_to_do(request, tmp_path, name, data, title, problem):
    assert "-data" in request.node.name, "bytes that hold the time of packing stand in the test's name"
    file = write(tmp_path, name, data)
    found = inspect_file(file, Stated())
    assert found.title == title
    assert problem.replace("or a table", "a table") in found.problem
    assert found.command is None
    told = heimdall(tmp_path / "home", "inspect", file)
    assert f"cannot be used: {name}: " in told.stdout


CELLS = st.one_of(
    st.floats(-160, 30).map(lambda value: f"{value:.1f}"),
    st.sampled_from(["", "-101", "100", "n/a", "2026-11-20 10:00:00", "20.11.2026 10:00", "1795000000", "51.2", "4,4"]),
    st.text(max_size=6),
)
HEADERS = st.sampled_from(
    ["time", "Zeit", "lat", "latitude", "lng", "Länge", "rssi", "level", "gateway", "receiver", "A", "B_rss", "B_x",
     "B_y", "freq", "frequency_mhz", "session", "source", "snr", "", "receiver_latitude", "receiver_longitude",
     "x" * 200]
)  # fmt: skip


@st.composite
def tables_of_sorts(draw: st.DrawFn) -> bytes:
    """Text that looks like a table: known columns, cells of any kind, rows of a wrong length, any delimiter."""
    header = draw(st.lists(HEADERS, min_size=1, max_size=8))
    rows = draw(st.lists(st.lists(CELLS, min_size=len(header), max_size=len(header)), max_size=6))
    if draw(st.booleans()):
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    else:
        delimiter = draw(st.sampled_from(",;\t|"))
        lines = [delimiter.join(row) for row in [header, *rows]]
    text = draw(st.sampled_from(["\n", "\r\n"])).join(lines)
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig"])), "replace")


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    data=st.one_of(
        tables_of_sorts(), tables_of_sorts(), st.binary(max_size=3000), st.text(max_size=500).map(str.encode)
    ),
    ending=st.sampled_from(["", ".csv", ".tsv", ".jsonl", ".parquet", ".npz", ".zip", ".bin"]),
)
def test_a_thousand_files_of_any_kind_are_told_of_within_a_second_each(tmp_path_factory, data, ending):
    path = write(tmp_path_factory.getbasetemp(), f"file{ending}", data)
    started = time.process_time()
    found = inspect_file(path, Stated())
    assert time.process_time() - started < 1.0
    assert not any("\n" in line for line in [found.problem or "", found.command or "", *found.missing])
    assert (found.problem is None) == (found.command is not None)


HUGE = {
    "wide.csv": lambda: b",".join(b"c%d" % at for at in range(300_000)) + b"\n" + b"-70," * 299_999 + b"-70\n",
    "deep.jsonl": lambda: b'{"a":' * 100_000,
    "line.csv": lambda: b"time,lat,lng,gateway,rssi\n" + b"9" * 30_000_000,
    "quote.csv": lambda: b'time,lat,lng,gateway,"rssi\n' + b"1,2,3,4,5\n" * 2_000_000,
    "levels.csv": lambda: b"time,lat,lng,gateway,rssi\n" + b"2026-11-20T10:00:00Z,51.2,4.4,G1,-70\n" * 1_000_000,
    "magic.zip": lambda: b"PK\x03\x04" + bytes(100_000_000),
    "magic.gz": lambda: b"\x1f\x8b" + bytes(100_000_000),
    "zeros.bin": lambda: bytes(200_000_000),
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_files_cost_no_more_than_their_beginning(tmp_path, name):
    small = write(tmp_path, "small.csv", TABLES["comma.csv"]())
    spent = spend(INSPECT, write(tmp_path, name, HUGE[name]()), small)
    assert spent.memory_bytes < MAX_MEMORY_BYTES
    assert spent.seconds < 1.0
