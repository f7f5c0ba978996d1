"""A release to a bucket, killed at each request: nothing half shows, and the next run finishes under its number."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from heimdall_assets.stores.database.measurements import MeasurementStore

DRIVER = "heimdall_assets_tests.stores.release_kill_driver"


CALLS = {
    "first": ["list", "list", "list", "put", "put", "get", "put", "get"],
    "again": ["list", "get", "get", "delete", "delete", "list", "put", "put", "get", "put", "get"],
}


def drive(database_url: str, bucket: str, *kinds: str) -> dict[str, Any]:
    """Return what the driver found."""
    done = subprocess.run(
        [sys.executable, "-m", DRIVER, database_url, bucket, *kinds],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_a_kill_at_any_request_leaves_nothing_half_and_the_next_run_finishes(database_url: str, bucket: str) -> None:
    kinds = ("first", "again") if database_url.startswith("sqlite") else ("first",)
    found = drive(database_url, bucket, *kinds)
    assert found["broken"] == {}
    assert found["calls"] == {kind: CALLS[kind] for kind in kinds}
    assert found["num_trials"] == {"first": 11, "again": 27}[kinds[-1]]


def test_a_row_that_is_written_before_the_files_is_noticed(quick_path: Path, bucket: str) -> None:
    url = f"sqlite:///{quick_path / 'heimdall.db'}"
    MeasurementStore(url).upgrade()
    broken = drive(url, bucket, "wrong")["broken"]
    assert any("is gone from" in line for lines in broken.values() for line in lines), broken
