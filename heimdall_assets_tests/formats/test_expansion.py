"""Files that expand, or claim to: refused within a second and 256 MiB, and nothing of them is kept.

Measured in a process of its own, through the command line, as a user would meet it.
"""

import bz2
import gzip
import io
import json
import lzma
import math
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heimdall_assets.formats.sigmf import decode_sigmf
from heimdall_assets_tests.formats.recordings import make_noise, make_npy_with_header, make_sigmf_metadata, make_tar
from heimdall_assets_tests.homes import make_places
from heimdall_assets_tests.spent import MAX_MEMORY_BYTES, spend

NOISE = make_noise(24_000)
META = json.dumps(make_sigmf_metadata()).encode()
IMPORT = """
from click.testing import CliRunner
from heimdall_assets.cli import main

OPTIONS = "--session s --source X,46,8 --receiver A,46,8.1 --clock none".split()
STATED = "--rate-hz 24000 --start 2026-11-20T10:00:00Z --frequency-hz 145.5e6".split()

def work(path):
    options = OPTIONS + (STATED if path.suffix == ".npy" else [])
    words = ["import", "recordings", *options, "--recording", f"A={path}"]
    if path.suffix in (".parquet", ".jsonl", ".csv"):
        words = ["import", "rss-table", "--campaign", "c", str(path)]
    result = CliRunner().invoke(main, words, env={"HEIMDALL_HOME": "THE FOLDER"})
    if result.exit_code != 0:
        raise ValueError(result.stderr.splitlines()[-1])
"""


def make_zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def make_zeros(before: bytes = b"", num_zeros: int = 100_000_000) -> bytes:
    return make_tar([("a/a.sigmf-meta", META), ("a/a.sigmf-data", before + bytes(num_zeros))])


def make_lying_zip() -> bytes:
    """A ZIP whose list claims a hundred bytes of a member that expands to 300 MB."""
    data = bytearray(make_zip(("a.sigmf-meta", META), ("a.sigmf-data", bytes(300_000_000))))
    for signature, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = data.rindex(signature)
        data[place + at : place + at + 4] = (100).to_bytes(4, "little")
    return bytes(data)


def make_shared_zip() -> bytes:
    """A ZIP whose members are all the same bytes, each claiming to be packed in the whole archive."""
    whole = make_zip(("a.sigmf-meta", META), ("a.sigmf-data", bytes(20_000_000)))
    data = bytearray(whole)
    place = data.rindex(b"PK\x01\x02")
    data[place + 20 : place + 24] = (len(whole) * 30).to_bytes(4, "little")
    return bytes(data)


def make_crowded_zip() -> bytes:
    return make_zip(*[(f"{number}", b"") for number in range(50_000)])


def make_long_header() -> bytes:
    """A tar that begins with 16 MB of what pax says."""
    said = b"11 k%04d=v\n"
    pairs = b"".join(said % (number % 9999) for number in range(1_500_000))
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(pairs)
    return header.tobuf() + pairs + bytes(-len(pairs) % 512) + make_tar([("a.sigmf-meta", META)])


def make_claim(size: int) -> bytes:
    """A tar whose dataset claims ``size`` bytes and has none."""
    header = tarfile.TarInfo("a.sigmf-data")
    header.size = size
    return make_tar([("a.sigmf-meta", META)])[: 512 + math.ceil(len(META) / 512) * 512] + header.tobuf()


def describe(capture: dict | None = None, **changes: object) -> bytes:
    """A whole archive whose metadata lie."""
    metadata = make_sigmf_metadata(**changes)
    metadata["captures"][0] |= capture or {}
    return make_tar([("a.sigmf-meta", json.dumps(metadata).encode()), ("a.sigmf-data", NOISE.tobytes())])


def make_captures(number: int) -> bytes:
    metadata = make_sigmf_metadata()
    metadata["captures"] = [{"core:sample_start": at} for at in range(number)]
    return make_tar([("a.sigmf-meta", json.dumps(metadata).encode()), ("a.sigmf-data", NOISE.tobytes())])


def make_parquet() -> bytes:
    stream = io.BytesIO()
    levels = np.full(30_000_000, -70.0)
    pq.write_table(pa.table({"level": levels, "receiver": levels, "time": levels}), stream, compression="zstd")
    return stream.getvalue()


SCARCE = np.random.default_rng(1).bytes(8_000_000)
"""What no packing makes shorter: whoever counts a whole file's bytes lets it expand thirty times as far."""

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "A.sigmf.gz": (lambda: gzip.compress(make_zeros(), 6), "expands to more than 30 times"),
    "A.sigmf.xz": (lambda: lzma.compress(make_zeros(), preset=0), "expands to more than 30 times"),
    "A.sigmf.bz2": (lambda: bz2.compress(make_zeros(b"", 40_000_000)), "expands to more than 30 times"),
    "A.sigmf.zip": (
        lambda: make_zip(("a.sigmf-meta", META), ("a.sigmf-data", bytes(100_000_000))),
        "expands to more than 30 times",
    ),
    "padded.sigmf.gz": (lambda: gzip.compress(make_zeros(SCARCE, 250_000_000), 1), "expands to more than 30 times"),
    "padded.sigmf.zip": (
        lambda: make_zip(("a.sigmf-meta", SCARCE), ("a.sigmf-data", bytes(250_000_000))),
        "expands to more than 30 times",
    ),
    "nested.sigmf.gz": (lambda: gzip.compress(gzip.compress(make_zeros(), 6)), "no whole tar"),
    "lying.sigmf.zip": (make_lying_zip, "no whole tar"),
    "bzip2.sigmf.zip": (
        lambda: make_zip(("a.sigmf-meta", META), ("a.sigmf-data", bytes(10_000_000)), method=zipfile.ZIP_BZIP2),
        "packed by another method than deflate",
    ),
    "shared.sigmf.zip": (make_shared_zip, "expands to more than 30 times"),
    "crowded.sigmf.zip": (make_crowded_zip, "more than 16 members"),
    "pax.sigmf": (make_long_header, "a header of 16500000 bytes"),
    "claim.sigmf": (lambda: make_claim(8 << 30), "no whole tar"),
    "offset.sigmf": (lambda: describe(offset=1 << 60), "expected the first at 1152921504606846976"),
    "header.sigmf": (lambda: describe({"core:header_bytes": 1 << 60}), "expected more than the 1152921504606846976"),
    "trailing.sigmf": (lambda: describe(trailing_bytes=1 << 60), "expected more than the 1152921504606846976"),
    "capture.sigmf": (lambda: describe({"core:sample_start": 1 << 60}), "captures at samples 1152921504606846976"),
    "channels.sigmf": (lambda: describe(num_channels=1 << 60), "1152921504606846976 channels"),
    "captures.sigmf": (lambda: make_captures(20_000), "20000 captures, expected at most 3000"),
    "A.npy": (
        lambda: make_npy_with_header("{'descr': '<c8', 'fortran_order': False, 'shape': (1000000000000,), }"),
        "expected",
    ),
    "levels.parquet": (make_parquet, "cells in .* bytes, expected at most"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that is whole, to load what reading it loads."""
    file = tmp_path_factory.mktemp("good") / "A.sigmf"
    file.write_bytes(describe())
    return file


@pytest.mark.parametrize("name", BOMBS)
def test_what_expands_or_lies_is_refused_within_a_second_and_256_mib(tmp_path: Path, good: Path, name: str):
    make, found = BOMBS[name]
    (tmp_path / name).write_bytes(make())
    home = tmp_path / "home"
    spent = spend(IMPORT.replace("THE FOLDER", str(home)), tmp_path / name, good)
    assert spent.error.startswith(f"ValueError: Error: {name}: ")
    said = spent.error
    assert "\n" not in said
    assert re.search(found, said), said
    assert spent.memory_bytes < MAX_MEMORY_BYTES
    assert spent.seconds < 1.0
    stores = make_places(home).open_stores()
    assert len(stores.measurements.list_sessions()) == 1  # the good one's
    assert len(list(stores.objects.list_digests())) == 1


def test_what_packs_well_but_as_a_recording_may_is_read(tmp_path: Path):
    """Sixteen bits of a quiet receiver, of which four move: about 5 to 1."""
    pairs = np.random.default_rng(1).integers(-8, 8, (300_000, 2)).astype("<i2")
    metadata = json.dumps(make_sigmf_metadata(datatype="ci16_le")).encode()
    whole = make_tar([("a.sigmf-meta", metadata), ("a.sigmf-data", pairs.tobytes())])
    for pack in (lambda data: gzip.compress(data, 1), lambda data: lzma.compress(data, preset=9), bz2.compress):
        assert len(decode_sigmf(pack(whole), "a.sigmf").samples) == 300_000
