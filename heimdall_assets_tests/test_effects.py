"""The finders of writes, connections and clocks that the house is held to find each planted one, and little else."""

import pytest

from heimdall_assets_tests.effects import find_clock_reads, find_connections, find_writes


@pytest.mark.parametrize(
    "planted",
    [
        "open('a', 'w')",
        "open('a', mode='ab')",
        "open('a', how)",
        "with path.open('wb') as file:\n    pass",
        "(folder / 'a').open(mode='r+')",
        "import io\nio.open('a', 'x')",
        "import gzip\ngzip.open('a', 'wt')",
        "import tarfile\ntarfile.open('a', 'w:gz')",
        "from zipfile import ZipFile\nZipFile('a', 'w')",
        "path.write_text('a')",
        "path.write_bytes(b'a')",
        "path.mkdir(parents=True, exist_ok=True)",
        "path.touch()",
        "path.unlink(missing_ok=True)",
        "path.rmdir()",
        "path.symlink_to(other)",
        "partial.replace(path)",
        "path.with_suffix('.tmp').rename(path)",
        "import os\nos.replace(a, b)",
        "import os as system\nsystem.makedirs('a')",
        "from os import remove as forget",
        "def later():\n    import shutil",
        "from tempfile import TemporaryDirectory",
        "import sqlite3",
        "import numpy as np\nnp.save('a.npy', samples)",
        "import numpy as np\nnp.memmap('a', mode='w+')",
        "import numpy as np\nnp.load('a.npy', mmap_mode='r+')",
        "samples.tofile(path)",
        "import torch\ntorch.save(state, path)",
        "import torch\ntorch.onnx.export(module, inputs, path)",
        "from safetensors.torch import save_file\nsave_file(weights, path)",
        "table.to_parquet('a')",
        "table.to_csv(path)",
        "figure.savefig(path)",
        "import pyarrow.parquet as pq\npq.write_table(table, path)",
        "import logging\nlogging.FileHandler('a')",
    ],
)
def test_a_planted_write_is_found(planted: str):
    assert len(find_writes(planted)) == 1


@pytest.mark.parametrize(
    "harmless",
    [
        "open('a')",
        "path.open('rb')",
        "path.read_bytes()",
        "text.replace('a', 'b')",
        "from dataclasses import replace\nreplace(spec, seed=1)",
        "import dataclasses\ndataclasses.replace(spec)",
        "time.replace(tzinfo=UTC)",
        "table.rename(columns={'a': 'b'})",
        "series.rename({'a': 'b'})",
        "import io\nbuffer = io.BytesIO()\nnp.save(buffer, samples, allow_pickle=False)",
        "from io import BytesIO\nfile = BytesIO()\ntorch.save(state, file)\ntable.to_parquet(file)",
        "import io, tarfile\ntarfile.open(fileobj=io.BytesIO(), mode='w')",
        "import tarfile\ntarfile.open(path, 'r:xz')",
        "from safetensors.numpy import save\nsave(weights)",
        "import torch\ntorch.onnx.export(module, inputs)",
        "text = table.to_csv()",
        "import numpy as np\nnp.load('a.npy', mmap_mode='r')",
        "import os\nos.environ.get('A'), os.getpid(), os.kill(pid, 9)",
    ],
)
def test_what_stays_in_memory_or_reads_is_no_write(harmless: str):
    assert find_writes(harmless) == []


@pytest.mark.parametrize(
    ("planted", "count"),
    [
        ("import socket", 1),
        ("from urllib.request import urlopen", 1),
        ("def later():\n    import requests", 1),
        ("from huggingface_hub import hf_hub_download", 1),
        ("import sqlalchemy as sa", 1),
        ("import timm\ntimm.create_model('convnext_atto', pretrained=True)", 1),
        ("import timm\ntimm.create_model('convnext_atto', pretrained=asked)", 1),
        ("import torch\ntorch.hub.load('a', 'b')", 1),
        ("from urllib.parse import urlsplit", 0),
        ("import timm\ntimm.create_model('convnext_atto', pretrained=False)", 0),
    ],
)
def test_a_planted_connection_is_found(planted: str, count: int):
    assert len(find_connections(planted)) == count


@pytest.mark.parametrize(
    ("planted", "count"),
    [
        ("import time\ntime.time()", 1),
        ("from time import monotonic as tell\ntell()", 1),
        ("from datetime import UTC, datetime\ndatetime.now(UTC)", 1),
        ("import datetime\ndatetime.date.today()", 1),
        ("import pandas as pd\npd.Timestamp.now('UTC')", 1),
        ("from datetime import datetime\ndatetime.fromisoformat(text)", 0),
        ("session.time()", 0),
    ],
)
def test_a_planted_look_at_the_clock_is_found(planted: str, count: int):
    assert len(find_clock_reads(planted)) == count
