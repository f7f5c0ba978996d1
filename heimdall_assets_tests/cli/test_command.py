"""The command itself: how it is found, handed over to, completed, helped with and stopped."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from heimdall_assets.cli import COMMANDS, main
from heimdall_assets_tests.package_names import ROOT


def test_help_shows_each_command_in_the_order_of_a_first_walk_and_cuts_none_of_ours():
    said = CliRunner().invoke(main, ["--help"]).stdout
    shown = re.findall(r"^  ([\w-]+)  +(.*)$", said.partition("Commands:\n")[2], re.MULTILINE)
    assert [name for name, _ in shown] == [command.name for command in COMMANDS]
    assert [name for name, _ in shown][:3] == ["demo", "inspect", "import"]
    assert [name for name, text in shown if text.endswith("...")] in ([], ["ui"])


def test_a_shell_completes_commands_and_options():
    shell = BashComplete(main, {}, "heimdall", "_HEIMDALL_COMPLETE")
    assert [item.value for item in shell.get_completions([], "mo")] == ["models"]
    assert "--campaign" in [item.value for item in shell.get_completions(["train"], "--")]
    assert "_HEIMDALL_COMPLETE=bash_complete" in shell.source()


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    """What `make install` writes, in a checkout whose path has blanks, seen through a link from elsewhere."""
    checkout = tmp_path / "my work" / "the checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, checkout / name)
    command = checkout / ".venv" / "bin" / "heimdall"
    command.write_text('#!/bin/sh\nfor word in "$@"; do echo "<$word>"; done\necho $$\nsleep "${1:-0}"\nexit 7\n')
    command.chmod(0o755)
    (checkout / ".venv" / ".installed").touch()
    subprocess.run(["make", "--silent", "install"], cwd=checkout, check=True, capture_output=True, timeout=60)
    link = tmp_path / "a link"
    link.symlink_to(checkout / "heimdall")
    return link


def test_the_wrapper_hands_over_words_status_and_signals(wrapper: Path, tmp_path: Path):
    done = subprocess.run([wrapper, "0", "two words", ""], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[:3] == ["<0>", "<two words>", "<>"]
    assert done.returncode == 7
    with subprocess.Popen([wrapper, "60"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "<60>\n"
        assert int(process.stdout.readline()) == process.pid  # no shell between
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["as tables", "as JSON"])
def test_a_reader_that_has_seen_enough_is_told_nothing(tmp_path: Path, more: list[str]):
    program = "from heimdall_assets.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "settings", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(30) == 1


def test_the_wrapper_is_no_part_of_the_repository():
    assert "/heimdall" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_command_that_is_stopped_ends_as_shells_expect():
    @main.command("stopped")
    def stopped() -> None:
        raise KeyboardInterrupt

    try:
        ended = CliRunner().invoke(main, ["stopped"])
    finally:
        main.commands.pop("stopped")
    assert isinstance(stopped, click.Command)
    assert (ended.exit_code, ended.stderr) == (130, "Stopped.\n")
