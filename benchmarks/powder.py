"""POWDER's real handhelds in the reference table, by the commands that a user types, in a home of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from heimdall_assets.places import read_places

SPLITS = ("random", "grid", "driving")
SAID = (
    "--not-heard",
    "-101",
    "--no-position",
    "-1",
    "--no-position",
    "0",
    "--time-zone",
    "UTC",
    "--frequency-hz",
    "462.7e6",
)
"""What the publisher says of the table in words beside it."""


def run_heimdall(home: Path, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("heimdall")), *arguments]
    found = subprocess.run(command, env={**os.environ, "HEIMDALL_HOME": str(home)}, stdout=subprocess.PIPE, check=True)
    return found.stdout.decode()


def run_powder(folder: Path) -> dict[str, Any]:
    """Return the figures of each of the publisher's splits: import, approval, training, release, test split.

    Args:
        folder: holds ``single_tx.csv`` and ``receivers.json``.
    """
    tests, training = {}, {}
    with TemporaryDirectory() as name:
        home = Path(name)
        files = ["--receivers", str(folder / "receivers.json"), str(folder / "single_tx.csv")]
        run_heimdall(home, "import", "rss-table", "--campaign", "powder", *SAID, *files)
        run_heimdall(home, "sessions", "approve", "--campaign", "powder", "--by", "benchmark", "--reason", "GPS truth")
        for split in SPLITS:
            started = time.monotonic()
            chosen = ["--campaign", "powder", "--set", f"SplitSpec.column=test_{split}"]
            summary = json.loads(run_heimdall(home, "train", *chosen, "--json"))
            training[split] = {"wall_s": time.monotonic() - started, "version": summary["version"]}
            releases = read_places({"HEIMDALL_HOME": name}).open_stores().releases
            tests[split] = json.loads(releases.read_file(summary["version"], "metrics.json"))
    return {
        "title": "POWDER: real levels of 1 W handhelds at 462.7 MHz, the publisher's splits, through the whole graph",
        "training": training,
        "tests": tests,
    }
