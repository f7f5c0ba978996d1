"""What a run opens: no name is looked up and nothing written elsewhere.

Seen from outside Python, in every process and whatever a library does by itself (``opened.c``).
"""

from pathlib import Path

import pytest

from heimdall_assets_tests.conftest import make_quick_folder
from heimdall_assets_tests.opened import (
    LOOKING,
    WRITING,
    NoCompiler,
    Opened,
    build_shim,
    read_log,
    watch,
)

PLANTED = """
import pathlib, socket, subprocess, sys
try:
    socket.getaddrinfo("planted.example.org", 443)
except socket.gaierror:
    pass
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as opened:
        try:
            opened.sendto(b"", ("192.0.2.7", 53)) if kind == socket.SOCK_DGRAM else opened.connect(("192.0.2.8", 80))
        except OSError:
            continue
        raise AssertionError("another machine was reached")
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
subprocess.run(["sh", "-c", 'echo planted > "$0"', sys.argv[1]], check=True)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_shim(tmp_path_factory.mktemp("shim"))
    except NoCompiler as error:
        pytest.skip(str(error))


# --- No other machine, nothing elsewhere


def list_written_elsewhere(log: list[Opened], root: Path) -> list[str]:
    """Files that were written outside home and temporary folder."""
    own = (f"{root}/home/", f"{root}/tmp/")
    return [
        opened.thing
        for opened in log
        if opened.what in WRITING
        and not opened.thing.startswith(own)
        and opened.thing != "/dev/null"
        and Path(opened.thing).parent.name != "__pycache__"  # Python's own, beside the code that it read
    ]


def list_looked_for(log: list[Opened]) -> list[str]:
    return [f"{opened.what} {opened.thing}" for opened in log if opened.what in LOOKING]


def test_a_planted_look_for_another_machine_and_a_planted_file_are_seen(shim: Path, tmp_path: Path):
    root = tmp_path.resolve()
    watch(shim, root, "-c", PLANTED, str(root / "user" / "planted"))
    log = read_log(root / "opened.log")
    assert list_looked_for(log) == [
        "resolve planted.example.org",
        "connect 192.0.2.8 port 80",
        "connect 192.0.2.7 port 53",
    ]
    assert list_written_elsewhere(log, root) == [str(root / "user" / "planted")]


def test_a_whole_run_looks_for_no_other_machine_and_writes_nothing_elsewhere(shim: Path):
    """With every switch as a user finds it: MLflow is told of the training, and nothing is set in the environment."""
    with make_quick_folder() as folder:
        root = folder.resolve()
        done = watch(shim, root, "-m", "heimdall_assets_tests.quiet_run")
        assert "all is as it was released" in done.stdout
        log = read_log(root / "opened.log")
        libraries = {"dagster", "mlflow", "onnxruntime", "huggingface_hub", "lightning", "matplotlib", "timm", "torch"}
        seen = {part for opened in log for part in libraries if f"/site-packages/{part}/" in opened.thing}
        assert seen == libraries, "a library was not even loaded: nothing is proven of it"
        assert list_looked_for(log) == []
        assert list_written_elsewhere(log, root) == []
        assert list((root / "user").iterdir()) == []  # no folder either
