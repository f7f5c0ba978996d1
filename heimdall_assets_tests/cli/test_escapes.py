"""What rows, files and arguments say is shown escaped: no name moves a cursor, clears a screen or feigns a line."""

import ast
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.cli.terminal.output import escape_text, write_fields, write_json, write_lines, write_table
from heimdall_assets_tests.package_names import ROOT
from heimdall_assets_tests.stores.one_table import make_one_table, write_receivers

ODD = "walk\x1b[2J\r\nError: all is lost \x07\x9b31m\u202e\udcff"
SHOWN = r"walk\x1b[2J\r\nError: all is lost \x07\x9b31m\u202e\udcff"
STORED = ODD.replace("\udcff", "")  # half a surrogate is in no database
TIME = "2024-05-17 12:00:00+02:00"


def assert_quiet(said: str) -> None:
    """Fail where a text holds more than what is printed, and line breaks."""
    assert [line for line in said.split("\n") if not line.isprintable()] == []


def test_a_session_with_an_odd_name_is_listed_and_shown_escaped(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'one.db'}"
    make_one_table(url, [(STORED, "1", 45.1, 8.1, 145.5, 12.5, TIME, TIME, True)], id="TEXT")
    stated = write_receivers(tmp_path / "receivers.json", {"1": {"latitude": 45.0, "longitude": 8.0}})
    environment = {"HEIMDALL_HOME": str(tmp_path / "home"), "HEIMDALL_DATABASE_URL": url, "HEIMDALL_RECEIVERS": stated}

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, arguments, env=environment)
        assert_quiet(result.stdout)
        assert_quiet(result.stderr)
        return result.output

    shown = SHOWN.removesuffix(r"\udcff")
    assert shown in run("sessions", "list").replace("\n", "")
    assert shown in run("sessions", "show", STORED)
    assert json.loads(run("sessions", "list", "--json"))[0]["id"] == STORED
    missing = run("sessions", "show", f"{STORED}!")
    assert r"session walk\x1b[2J Error: all is lost" in missing
    assert missing.count("\n") == 1
    for command in (["locate", STORED], ["lineage", "--session", STORED], ["models", "show", STORED]):
        assert run(*command).startswith("Error: ")


def test_tables_fields_lines_and_json_escape_alike(capsys: pytest.CaptureFixture[str]):
    write_table(f"title {ODD}", ["column", ODD], [[1.0, ODD]])
    write_fields({"name": ODD, ODD: [ODD]})
    write_lines(f"{ODD}\nsecond\n")
    written = capsys.readouterr().out
    assert_quiet(written)
    assert written.endswith("Error: all is lost \\x07\\x9b31m\\u202e\\udcff\nsecond\n")
    write_json({ODD: ODD, "plain": "\u00e9"})
    written = capsys.readouterr().out
    assert_quiet(written)
    assert json.loads(written) == {ODD: ODD, "plain": "\u00e9"}
    assert '"plain": "\u00e9"' in written


def test_what_is_printable_stays():
    for text in ("", "walk 1", "caf\u00e9 \u6ce2 [bold] \\ '\""):
        assert escape_text(text) == text
    assert escape_text(ODD) == SHOWN


def test_a_terminal_is_shown_the_title_of_progress_escaped():
    lines = (
        "import time",
        "from heimdall_assets.cli.terminal import progress",
        "progress.SPEAK_AFTER_S = 0.0",
        "with progress.show_progress('Reading \\x07 [bold]') as listen:",
        "    time.sleep(0.3)",
        "    listen('', 'said \\x07', 0, 0)",
        "    listen('asset', 'work \\x07 [red]', 1, 2)",
    )
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", "\n".join(lines)], stderr=theirs, check=True)
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert "\x07" not in said
    for part in (r"Reading \x07 [bold]", r"said \x07", r"work \x07 [red]"):
        assert part in said


def test_no_command_writes_past_the_escapes():
    found = []
    for path in sorted((ROOT / "heimdall_assets" / "cli").rglob("*.py")):
        if path.parent.name == "terminal":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "click.echo", "click.secho"}:
                found.append(f"{path.name}:{node.lineno}")
    assert found == []
