"""Real recordings through the command line, as a new user would: import, locate, approve, graph."""

import json

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main

RECEIVERS = ["HB9RYZ,47.1721,8.42683", "F1JEK,45.779290,0.614638", "DF0KL,53.665337,7.282766"]


@pytest.fixture
def heimdall(tmp_path, monkeypatch):
    """Run a command in a home of its own; return exit code, output and what it said on stderr."""
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path / "home"))

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output + str(result.exception)
        return result

    return run


def import_dcf77(heimdall, shared_data):
    options = [part for receiver in RECEIVERS for part in ("--receiver", receiver)]
    files = sorted((shared_data / "kiwisdr_dcf77_2017").glob("*.wav"))
    assert len(files) == 3
    heimdall("import", "kiwisdr", "--session", "dcf77", "--source", "DCF77,50.0155,9.0108", *options, *files)


def test_dcf77_is_located_within_15_km_and_inside_its_ellipse(heimdall, shared_data):
    import_dcf77(heimdall, shared_data)
    found = json.loads(heimdall("locate", "dcf77", "--json").stdout)
    assert found["error_m"] < 15_000
    assert found["inside_90"] is True
    assert found["ellipse_90"]["semi_major_m"] < 100_000  # an ellipse that says nothing would hold anything
    text = heimdall("locate", "dcf77").stdout
    assert "inside the ellipse" in text


def test_a_recording_without_gnss_is_refused_and_nothing_is_added(heimdall, shared_data):
    file = next((shared_data / "kiwisdr_without_gnss").glob("*.wav"))
    result = heimdall(
        "import",
        "kiwisdr",
        "--session",
        "x",
        "--source",
        "MSF,54.9,-3.3",
        "--receiver",
        "G7UAK,51.17,-1.4",
        file,
        code=2,
    )
    assert "no GNSS fix" in result.stderr
    assert [line for line in result.stderr.splitlines() if not line.endswith("begun")] == [
        result.stderr.splitlines()[-1]
    ]
    assert json.loads(heimdall("sessions", "list", "--json").stdout) == []


POWDER = [
    "--not-heard", "-101", "--no-position", "-1", "--no-position", "0", "--time-zone", "UTC",
    "--frequency-hz", "462.7e6",
]  # fmt: skip


def test_powder_rows_appear_in_the_snapshot_after_approval(heimdall, shared_data):
    folder = shared_data / "powder_rss"
    heimdall(
        "import",
        "rss-table",
        "--receivers",
        folder / "receivers.json",
        "--campaign",
        "powder",
        *POWDER,
        folder / "single_tx.csv",
    )
    from heimdall_assets.places import read_places
    from heimdall_assets.specs import DatasetSpec

    store = read_places().open_stores().measurements
    assert not len(store.read_approved(DatasetSpec()).rows)
    said = json.loads(
        heimdall("sessions", "approve", "--campaign", "powder", "--by", "me", "--reason", "GPS", "--json").stdout
    )
    assert said["num_sessions"] == 4039
    snapshot = store.read_approved(DatasetSpec(campaigns=["powder"]))
    assert snapshot.rows["session_id"].nunique() == 4039
    assert [store.read_names()[one] for one in snapshot.rows["approved_by"].unique()] == ["me"]


def test_where_takes_a_part_of_a_table(heimdall, shared_data):
    folder = shared_data / "powder_rss"
    said = heimdall(
        "import", "rss-table", "--receivers", folder / "receivers.json", "--campaign", "grid",
        *POWDER, "--where", "test_grid=1", folder / "single_tx.csv", "--json",
    )  # fmt: skip
    assert 0 < json.loads(said.stdout)["num_sessions"] < 4039
