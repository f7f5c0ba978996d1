"""What the how-to says about a new column is so: its diff, applied to a copy of the package, does all that it lists."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heimdall_assets.errors import StorageError
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.shape import REVISION
from heimdall_assets_tests.added_column import fill_home

ROOT = Path(__file__).resolve().parents[1]
HOW_TO = ROOT / "docs" / "how-to" / "add-a-column.md"
MOST_FILES = 3


def read_diff() -> str:
    """Return the diff of the how-to, its step numbered after the newest one of today."""
    (diff,) = re.findall(r"```diff\n(.*?)```", HOW_TO.read_text(), flags=re.DOTALL)
    following = f"{int(REVISION) + 1:04d}"
    return diff.replace("0002", following).replace('down_revision = "0001"', f'down_revision = "{REVISION}"')


@pytest.fixture(scope="module")
def changed_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that has the column."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "heimdall_assets", folder / "heimdall_assets", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        ["git", "apply", "-"],
        check=True,
        cwd=folder,
        input=read_diff(),
        text=True,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
    )
    return folder


def test_a_new_column_is_few_files() -> None:
    assert 0 < len(re.findall(r"^\+\+\+ ", read_diff(), flags=re.MULTILINE)) <= MOST_FILES


def test_a_new_column_arrives_everywhere_and_changes_nothing_old(
    changed_package: Path, database_url: str, quick_path: Path
) -> None:
    told = fill_home(database_url, quick_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "heimdall_assets_tests.added_column", json.dumps(told)],
        cwd=changed_package,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(changed_package), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["went", "through"]
    following = f"{int(REVISION) + 1:04d}"
    assert f"upgraded from schema revision {REVISION} to {following}" in done.stderr
    with pytest.raises(StorageError, match=f"revision {following}, but this version .* up to {REVISION}: install the"):
        MeasurementStore(database_url).upgrade()
