"""A kill at any state-changing call leaves old or new, never half; the step run again ends as if nobody killed it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heimdall_assets_tests.conftest import make_quick_folder

DRIVER = "heimdall_assets_tests.pipeline.kill_driver"
SECONDS = 600.0
LONG_SECONDS = 3600.0

# Step -> at how many of its calls; 0: at each. What follows a release at each, for there is one order of four stores to
# keep, and a release of the same again at every fourth; a stage before it puts objects and then a reference, whichever
# stage it is. The long form takes each call of each step.
SHORT = {
    "take_snapshot": 4, "pin_recordings": 4, "extract_features": 4, "split_sessions": 4, "train_checkpoint": 3,
    "evaluate_checkpoint": 1, "export_checkpoint": 1, "release_model": 4, "apply_promotion": 0, "release_again": 24,
    "decide_again": 0, "promote_release": 0, "roll_back": 0,
}  # fmt: skip
STAGES = tuple(SHORT)

# Wrong order of writing -> the step that does it, and what is said of it.
WRONG = {
    "latest before commit": ("release_model", "latest.json: names v1.0.0, published are []"),
    "row before files": ("release_model", "is gone from"),
    "reference before object": ("take_snapshot", "lacks"),
}


def drive(folder: Path, seconds: float = SECONDS, **plan: Any) -> dict[str, Any]:
    """Return what the driver found."""
    workers = len(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-m", DRIVER, str(folder), json.dumps({"workers": workers, **plan})],
        env={**os.environ, "OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def short() -> dict[str, Any]:
    """What the short form found; one run, for what comes before the first kill takes as long as the kills."""
    with make_quick_folder() as folder:
        return drive(folder, steps=SHORT, wrong={wrong: step for wrong, (step, _) in WRONG.items()})


def test_a_kill_in_any_stage_leaves_old_or_new_and_the_same_again_ends_the_same(short: dict[str, Any]):
    assert short["broken"] == {}
    calls = short["calls"]
    assert all(calls[step] for step in STAGES)
    assert calls["release_again"].count("commit") == 4  # the number, what it will hold, published, latest
    assert calls["apply_promotion"] == ["commit", "commit"]  # challenger, champion
    assert calls["promote_release"] == calls["roll_back"] == ["commit"]
    assert {"scratch: remove", "scratch: remove_folder"} <= set(calls["train_checkpoint"])
    assert short["num_trials"] > SHORT["release_again"] + len(STAGES)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_order_is_noticed(wrong: str, short: dict[str, Any]):
    _, expected = WRONG[wrong]
    assert any(expected in line for line in short["noticed"][wrong]), short["noticed"]


@pytest.mark.long
@pytest.mark.parametrize("step", STAGES)
def test_a_kill_before_and_after_each_call(step: str, quick_path: Path):
    found = drive(quick_path, LONG_SECONDS, steps={step: 0}, after=True)
    assert found["broken"] == {}
    assert found["num_trials"] == 2 * len(found["calls"][step])
