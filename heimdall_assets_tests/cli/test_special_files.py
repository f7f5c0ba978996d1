"""Pipes, devices, sockets and folders where a command takes a file: one line at once, and nobody waits."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.errors import InvalidInput, MissingDependency
from heimdall_assets.formats import Stated
from heimdall_assets.pipeline.intake.inspection import inspect_file
from heimdall_assets.stores.database.raw.stated_receivers import Statement
from heimdall_assets.stores.weights_files import read_weights_file
from heimdall_assets_tests.cli.test_bad_input import OPTIONS
from heimdall_assets_tests.formats.recordings import make_noise, make_npy

IMPORT = [part for option in OPTIONS.items() for part in option]
TAKING = {
    "inspect": ["inspect", "FILE"],
    "inspect --format": ["inspect", "--format", "npy", "FILE"],
    "import recordings": ["import", "recordings", *IMPORT, "FILE"],
    "import --recording": ["import", "npy", *IMPORT, "--recording", "A=FILE"],
    "import rss-table": ["import", "rss-table", "FILE"],
    "import --receivers": ["import", "rss-table", "--receivers", "FILE", "TABLE"],
    "import observations": ["import", "observations", "FILE"],
    "locate": ["locate", "FILE"],
    "locate several": ["locate", "FILE", "TABLE"],
    "locate --recording": ["locate", "--recording", "A=FILE"],
    "train --settings": ["train", "--settings", "FILE"],
    "plan --settings": ["plan", "--settings", "FILE"],
    "train --profile": ["train", "--profile", "FILE"],
    "config validate": ["config", "validate", "FILE"],
    "config show": ["config", "show", "FILE"],
}


@pytest.fixture(autouse=True)
def never_waits() -> Iterator[None]:
    """End a test that waits for somebody to write into its pipe."""

    def fail(*_: object) -> None:
        raise TimeoutError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def refuse(folder: Path, *arguments: str, **environment: str) -> str:
    """Return the one line in which a command ends."""
    result = CliRunner().invoke(main, arguments, env={"HEIMDALL_HOME": str(folder / "home"), **environment})
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert not (folder / "home").exists()
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("arguments", TAKING.values(), ids=TAKING)
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
def test_what_is_no_regular_file_is_refused_by_every_command(tmp_path: Path, arguments: list[str], kind: str):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    path = tmp_path / "given"
    with socket.socket(socket.AF_UNIX) as made:
        if kind == "a pipe":
            make_pipe(path)
        elif kind == "a device":
            path.symlink_to("/dev/zero")
        else:
            made.bind(os.path.relpath(path))
        words = [word.replace("FILE", str(path)).replace("TABLE", str(tmp_path / "table.csv")) for word in arguments]
        assert f"{path}: found {kind}, expected a regular file" in refuse(tmp_path, *words)


def test_a_table_that_is_a_pipe_is_refused(tmp_path: Path):
    pipe = make_pipe(tmp_path / "table.csv")
    assert refuse(tmp_path, "locate", str(pipe)) == f"Error: table {pipe}: found a pipe, expected a regular file"


def test_a_sidecar_that_is_a_pipe_is_refused_rather_than_passed_over(tmp_path: Path):
    (tmp_path / "A.npy").write_bytes(make_npy(make_noise(24_000)))
    pipe = make_pipe(tmp_path / "A.npy.json")
    found = inspect_file(tmp_path / "A.npy", Stated())
    assert found.problem == f"{pipe}: found a pipe, expected a regular file"


def test_a_library_that_is_handed_a_pipe_does_not_wait_either(tmp_path: Path):
    pipe = make_pipe(tmp_path / "A.cu8")
    assert inspect_file(pipe, Stated()).problem == f"{pipe}: found a pipe, expected a regular file"


def test_places_that_are_pipes_are_refused(tmp_path: Path):
    pipe = make_pipe(tmp_path / "pipe")
    said = refuse(tmp_path, "sessions", "list", HEIMDALL_DATABASE_URL=f"sqlite:///{pipe}")
    assert said == f"Error: database sqlite:///{pipe}: found a pipe, expected a regular file"
    with pytest.raises(InvalidInput, match=r"^HEIMDALL_RECEIVERS: .*pipe: found a pipe, expected a regular file$"):
        Statement(receivers=str(pipe)).read_receivers()
    with pytest.raises(MissingDependency, match=r"^weights_file '.*pipe': found a pipe, expected a regular file$"):
        read_weights_file(pipe)
