"""Tables of levels on the command line: what is asked is answered by the options that the question names."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets_tests.cli.test_bad_input import run

RECEIVERS = {"A": (51.20, 4.40), "B": (51.22, 4.40), "C": (51.20, 4.44)}
TABLE = """Zeit;Breite;Länge;A;B;C;Raum
20.11.2026 10:00:00;51,2010;4,4010;-70,5;-98,0;100;12
20.11.2026 10:01:00;51,2050;4,4110;-81,5;100;-92,5;12
20.11.2026 10:01:00;51,2050;4,4110;-81,5;100;-92,5;12
20.11.2026 10:02:00;;;-81,5;-90,5;-92,5;
"""
COLUMNS = ["--column", "time=Zeit", "--column", "latitude=Breite", "--column", "longitude=Länge"]


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    receivers, table = tmp_path / "receivers.json", tmp_path / "levels.csv"
    places = {name: {"latitude": place[0], "longitude": place[1]} for name, place in RECEIVERS.items()}
    receivers.write_text(json.dumps(places))
    table.write_text(TABLE)
    return ["import", "rss-table", "--receivers", receivers, table]


def succeed(home: Path, *arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(part) for part in arguments], env={"HEIMDALL_HOME": str(home)})
    assert result.exit_code == 0, result.output
    return result


def test_a_table_of_a_spreadsheet_is_asked_about_until_it_is_a_session(tmp_path, files):
    home = tmp_path / "home"
    assert "no column for the time of each row, expected --column time=NAME with one of Zeit, Breite" in run(
        home, *files
    )
    assert "found '20.11.2026 10:00:00', expected a time such as" in run(home, *files, *COLUMNS)
    form = ["--time-format", "%d.%m.%Y %H:%M:%S"]
    asked = run(home, *files, *COLUMNS, *form)
    assert "times carry no zone (Zeit)" in asked
    assert "100 stands in 25 % of cells (B, C)" in asked
    answers = re.findall(r"--(?:time-zone|not-heard) [^ ,;]+", asked)
    assert answers == ["--time-zone UTC", "--not-heard 100"]
    assert run(home, "sessions", "list", "--json", code=0).strip() == "[]"
    said = [word for answer in answers for word in answer.split()]
    told = succeed(home, *files, *COLUMNS, *form, *said, "--frequency-hz", "868.1e6", "--json")
    found = json.loads(told.stdout)
    assert (found["num_sessions"], found["num_measurements"]) == (2, 4)
    assert found["left_out"] == {"no position of the source": 1, "time and position of an earlier row": 1}
    assert found["taken_as"] == [
        "levels in dBm, or dB below a full scale, 100 not heard",
        "times without a zone as UTC",
        "columns kept as attributes: Raum",
    ]
    session = json.loads(succeed(home, "sessions", "show", "field-20261120T100000", "--json").stdout)
    assert session["attributes"] == {"Raum": 12, "not_heard": ["C"]}


def test_what_was_left_out_and_what_was_believed_is_told(tmp_path, files):
    said = [
        "--time-format",
        "%d.%m.%Y %H:%M:%S",
        "--time-zone",
        "UTC",
        "--frequency-hz",
        "868.1e6",
        "--not-heard",
        "100",
    ]
    told = succeed(tmp_path / "home", *files, *COLUMNS, *said).stdout.splitlines()
    assert told[0].startswith("added: 3 stations, 2 sources, 2 sessions, 4 measurements")
    assert "taken as: times without a zone as UTC" in told
    assert "left out: 1 row: no position of the source" in told
    assert "left out: 1 row: time and position of an earlier row" in told


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (["--column", "latitude"], "--column 'latitude': expected WHAT=COLUMN"),
        (["--column", "time=a", "--column", "time=b"], "--column time: found 'a' and 'b', expected one of them"),
        (["--level", "loud"], "--level: found 'loud', expected a number"),
        (["--no-position", "x"], "--no-position: found 'x', expected a number"),
        (["--unit", "rssi"], "--unit rssi, --db-per-unit None: expected both for RSSI"),
        (["--unit", "rssi", "--db-per-unit", "0"], "--db-per-unit 0.0: expected a step"),
        (["--time-zone", "Mars"], "time zone 'Mars': expected a name such as UTC or Europe/Rome"),
        (["--frequency-hz", "868.1"], "--frequency-hz 868.1, expected 3000 to 3e+11 Hz"),
        (["--where", "Raum=13"], "no row with Raum=13"),
    ],
)
def test_what_is_said_wrongly_is_refused_in_one_line(tmp_path, files, more, found):
    said = [] if "--column" in more else COLUMNS
    basics = ["--time-format", "%d.%m.%Y %H:%M:%S", "--not-heard", "100"]
    basics += [] if "--time-zone" in more else ["--time-zone", "UTC"]
    basics += [] if "--frequency-hz" in more else ["--frequency-hz", "868.1e6"]
    assert found in run(tmp_path / "home", *files, *said, *basics, *more)
