"""Pretrained weights: read from a file or fetched from a hub, and one line where they are out of reach."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from heimdall_assets.errors import MissingDependency
from heimdall_assets.stores.weights_files import read_weights_file

WEIGHTS = b"what a hub would give" * 100

READ = """
import hashlib, sys
from heimdall_assets.errors import MissingDependency
from heimdall_assets.stores.weights_files import read_hub_weights
try:
    data = read_hub_weights("convnext_atto", "timm/convnext_atto.d2_in1k", fetch=sys.argv[1] == "fetch")
    print(hashlib.sha256(data).hexdigest())
except MissingDependency as error:
    print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """Answers for one file as the hub does: its etag and commit in headers, its bytes."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        found = self.path.endswith("/resolve/main/model.safetensors")
        self.send_response(200 if found else 404)
        self.send_header("ETag", f'"{hashlib.sha256(WEIGHTS).hexdigest()}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Length", str(len(WEIGHTS) if found else 0))
        self.end_headers()
        if found and self.command == "GET":
            self.wfile.write(WEIGHTS)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def run_hub() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a hub on this machine, and what it was asked."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def read_in_a_process(folder: Path, how: str, **environment: str) -> str:
    """What a fresh process, whose cache is ``folder``, says: the digest of the weights, or why there are none."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", READ, how],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**inherited, "HF_HOME": str(folder), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
    )
    return done.stdout.removesuffix("\n")


def test_weights_are_fetched_once_and_then_found_without_network(tmp_path: Path):
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    with run_hub() as (address, asked):
        said = read_in_a_process(tmp_path, "look", HF_ENDPOINT=address)
        assert said == "pretrained weights of convnext_atto: were not fetched yet"
        assert asked == []  # who only looks asks nobody
        assert read_in_a_process(tmp_path, "fetch", HF_ENDPOINT=address) == digest
        assert "GET /timm/convnext_atto.d2_in1k/resolve/main/model.safetensors" in asked
        asked.clear()
        assert read_in_a_process(tmp_path, "fetch", HF_ENDPOINT=address) == digest
        assert asked == []
    assert read_in_a_process(tmp_path, "look", HF_HUB_OFFLINE="1") == digest


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_HUB_OFFLINE": "1"},
        pytest.param({"HF_ENDPOINT": "http://127.0.0.1:1"}, marks=pytest.mark.long),  # the hub's client asks six times
    ],
)
def test_a_hub_out_of_reach_is_told_in_one_line_that_names_the_way_out(tmp_path: Path, environment: dict[str, str]):
    said = read_in_a_process(tmp_path, "fetch", **environment)
    assert said.startswith(
        "pretrained weights of convnext_atto: model.safetensors of timm/convnext_atto.d2_in1k could not be fetched "
        "from timm's hub ("
    )
    assert said.endswith("; without network set ModelSpec.weights_file to a local .safetensors file")
    assert "\n" not in said


def test_a_file_is_read_as_it_is_and_one_that_is_not_there_is_named(tmp_path: Path):
    path = tmp_path / "atto.safetensors"
    with pytest.raises(MissingDependency, match=r"weights_file '.*atto\.safetensors': ENOENT: No such file"):
        read_weights_file(path)
    path.write_bytes(WEIGHTS)
    assert read_weights_file(path) == WEIGHTS
    with pytest.raises(MissingDependency, match="found a folder, expected a regular file"):
        read_weights_file(tmp_path)
