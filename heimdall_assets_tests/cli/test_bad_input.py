"""Bad input on the command line: one line that names the thing, exit 2, no traceback, and nothing half written."""

import os
import pickle
import resource
import sqlite3
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.cli.terminal.output import HeimdallGroup
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.formats.recordings import make_noise, make_npy
from heimdall_assets_tests.homes import ignore, make_places

NOISE = make_noise(24_000)
OPTIONS = {
    "--session": "one",
    "--source": "Here,45,8,30",
    "--receiver": "A,45.1,8",
    "--rate-hz": "24000",
    "--start": "2026-11-20T10:00:00Z",
    "--frequency-hz": "145.5e6",
}


def run(home: Path, *arguments: object, code: int = 2) -> str:
    """What a command says: on stderr where it fails."""
    environment = {"HEIMDALL_HOME": str(home)}
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)
    assert result.exit_code == code, result.output + repr(result.exception)
    if code == 0:
        return result.stdout
    *notices, error = result.stderr.strip().splitlines()
    # What takes long on a busy machine says what it does.
    notices = [line for line in notices if not line.startswith("Locating ")]
    assert notices in ([], [f"home {home} (HEIMDALL_HOME): begun"])
    assert error.startswith("Error: ")
    return error


def import_npy(home: Path, file: Path, *more: object, code: int = 2, **changes: str) -> str:
    options = OPTIONS | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return run(home, "import", "npy", *[part for option in options.items() for part in option], *more, file, code=code)


@pytest.fixture
def recording(tmp_path):
    file = tmp_path / "A.npy"
    file.write_bytes(make_npy(NOISE))
    return file


def assert_untouched(home: Path) -> None:
    assert run(home, "sessions", "list", "--json", code=0).strip() == "[]"
    assert [path.name for path in home.rglob("*") if path.is_file() and "objects" in path.parts] == []


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (make_npy(NOISE)[:-9], "as its header claims"),
        (make_npy(NOISE) + b"xx", "as its header claims"),
        (make_npy(np.array([{}], dtype=object)), "dtype"),
        (make_npy(NOISE.real.copy()), "float32 of shape (24000)"),
        (make_npy(np.where(np.arange(24_000) == 5, np.nan, NOISE).astype(np.complex64)), "not finite"),
        (make_npy(np.zeros_like(NOISE)), "all samples are zero"),
        (make_npy(NOISE * np.float32(1e-40)), "dB of full scale, expected at least -150 dB"),
        (make_npy(NOISE.view(np.complex128)), "found floats of 32 bit, expected floats of 64"),
        (make_npy((np.sign(NOISE.real) + 1j * np.sign(NOISE.imag)).astype(np.complex64)), "clipped"),
        (pickle.dumps({"a": 1}), "expected a NumPy .npy file"),
    ],
)
def test_a_bad_recording_is_named(tmp_path, data, found):
    file = tmp_path / "A.npy"
    file.write_bytes(data)
    error = import_npy(tmp_path / "home", file)
    assert "A.npy" in error
    assert found in error
    assert_untouched(tmp_path / "home")


@pytest.mark.parametrize("name", ["../x", "a?b", "a#b", "a;b", "/etc/passwd", "http://x/y", "", "x" * 200])
def test_names_are_never_paths_or_addresses(tmp_path, recording, name):
    home = tmp_path / "home"
    make_places(home).open_stores()
    assert "expected 1 to 128" in import_npy(home, recording, session=name)
    assert "expected 1 to 128" in import_npy(home, recording, campaign=name)
    assert "expected 1 to 128" in import_npy(home, recording, receiver=f"{name},45,8")
    assert "expected 1 to 128" in run(home, "models", "show", name)
    if name:
        assert "expected 1 to 128" in run(home, "lineage", "--session", name)
        # what is a file is taken for a recording, and is none
        found = "neither its first bytes nor its name tell its format" if Path(name).is_file() else "found no session"
        assert found in run(home, "locate", name)
    assert_untouched(home)


@pytest.mark.parametrize(
    ("option", "value", "found"),
    [
        ("start", "1500-01-01T00:00:00Z", "expected an ISO 8601 time of 1970"),
        ("start", "9999-01-01T00:00:00Z", "expected an ISO 8601 time of 1970"),
        ("start", "NaT", "expected an ISO 8601 time of 1970"),
        ("start", "2026-11-20", "expected an ISO 8601 time"),
        ("rate_hz", "abc", "is not a valid float"),
        ("rate_hz", "nan", "--rate-hz: found nan, expected above 0"),
        ("frequency_hz", "inf", "--frequency-hz: found inf, expected above 0"),
        ("receiver", "A,95,8", "expected latitude from -90 to 90"),
        ("source", "Here,45,8,-1", "error_margin_m"),
    ],
)
def test_a_number_that_cannot_be_is_named(tmp_path, recording, option, value, found):
    assert found in import_npy(tmp_path / "home", recording, **{option: value})
    assert_untouched(tmp_path / "home")


def test_wrong_words_are_told_in_one_line(tmp_path, recording):
    home = tmp_path / "home"
    make_places(home).open_stores()
    assert "No such command 'nonsense'" in run(home, "nonsense")
    assert "No such option '--nonsense'" in run(home, "sessions", "list", "--nonsense")
    assert "does not exist" in import_npy(home, tmp_path / "B.npy")
    assert "--receiver A: found it twice" in import_npy(home, recording, "--receiver", "A,45,9")
    assert "campaign nowhere: found no sessions" in run(
        home, "sessions", "approve", "--campaign", "nowhere", "--by", "me", "--reason", "x"
    )


@click.group(cls=HeimdallGroup)
@click.option("--debug", is_flag=True)
def failing(debug: bool) -> None:
    """Commands that fail in ways nobody foresaw."""


@failing.command()
def strangely() -> None:
    raise RuntimeError("something\nelse")


@failing.command()
def diskless() -> None:
    raise OSError(28, "No space left on device", "/somewhere/file")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("strangely", "Error: unexpected RuntimeError: something else (heimdall --debug ... shows where)"),
        ("diskless", "Error: /somewhere/file: No space left on device"),
    ],
)
def test_what_is_no_error_of_ours_is_one_line_too(command, said):
    result = CliRunner().invoke(failing, [command])
    assert (result.exit_code, result.stderr.strip()) == (2, said)
    debugged = CliRunner().invoke(failing, ["--debug", command])
    assert debugged.exit_code == 2
    assert "Traceback" in debugged.stderr


def test_a_home_below_a_file_is_refused(tmp_path, recording):
    (tmp_path / "file").touch()
    assert "could not make its folder" in import_npy(tmp_path / "file" / "home", recording)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_home_that_may_not_be_written_is_refused(tmp_path, recording):
    tmp_path.chmod(0o500)
    assert "folder that may be written" in import_npy(tmp_path, recording)


def test_a_database_that_is_none_is_named(tmp_path):
    (tmp_path / "heimdall.db").write_bytes(b"this is no database" * 100)
    assert "expected a SQLite file" in run(tmp_path, "sessions", "list")
    (tmp_path / "heimdall.db").unlink()
    (tmp_path / "heimdall.db").mkdir()
    assert "heimdall.db: found a folder, expected a regular file" in run(tmp_path, "models", "list")


def test_a_disk_that_takes_no_more_loses_nothing_and_a_retry_heals(tmp_path, recording):
    home = tmp_path / "home"
    make_places(home).open_stores()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # the recording is longer
    try:
        error = import_npy(home, recording)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be stored (EFBIG: File too large)" in error
    assert_untouched(home)
    import_npy(home, recording, code=0)


@pytest.fixture
def simulated(tmp_path):
    """A home with one simulated session of four receivers, its name, and a way to change its rows."""
    places = make_places(tmp_path / "home")
    spec = SimulationSpec(num_sessions=1, min_receivers=4, max_receivers=4)
    stores = places.open_stores()
    import_simulated(stores, spec, "demo", ignore)
    name = stores.measurements.list_sessions()[0]["session_name"]
    connection = sqlite3.connect(places.home / "heimdall.db", isolation_level=None)
    yield places.home, name, connection
    connection.close()


FIRST = "where id = (select min(id) from measurements)"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("iq_data_location = '../../etc/passwd'", "expected sha256:<hex>, a relative object name or s3://BUCKET/NAME"),
        ("iq_data_location = 'http://x/y'", "expected sha256:<hex>, a relative object name or s3://BUCKET/NAME"),
        ("iq_data_location = 'sessions/none.npy'", "found nothing below"),
        ("iq_data_format = 'pickle'", "format 'pickle'"),
        ("iq_samples_count = 5", "expected 5, as its row says"),
        ("frequency_hz = -1", "expected a number above 0"),
    ],
)
def test_one_bad_row_costs_its_receiver_and_is_listed(simulated, change, found):
    home, name, connection = simulated
    connection.execute(f"update measurements set {change} {FIRST}")
    said = run(home, "locate", name, code=0)
    assert "90 % ellipse" in said
    assert any("left out: " in line and found in line for line in said.splitlines())


@pytest.mark.parametrize("option", ["--port", "--lineage-port"])
@pytest.mark.parametrize("port", ["x", "", "1e3", "0", "65536"])
def test_a_port_that_is_none_is_named(tmp_path, option, port):
    assert f"Invalid value for '{option}'" in run(tmp_path / "home", "ui", option, port)
    assert not (tmp_path / "home").exists()


def test_a_session_without_receivers_is_refused(simulated):
    home, name, connection = simulated
    connection.execute("delete from measurements")
    assert "found 0 usable measurements, expected at least 1" in run(home, "locate", name)
    assert "0 receivers" in run(home, "sessions", "show", name, code=0)


def test_a_session_whose_rows_are_all_bad_says_why(simulated):
    home, name, connection = simulated
    connection.execute("update measurements set frequency_hz = -1")
    error = run(home, "locate", name)
    assert "found 0 usable measurements" in error
    assert "frequency_hz: found -1" in error
