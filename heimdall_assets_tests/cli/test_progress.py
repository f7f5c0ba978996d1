"""Progress is seen within two seconds, in terminals and in pipes, also where Dagster has turned stderr into a file."""

import os
import pty
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PROGRAM = """
import os, sys, time
from heimdall_assets.cli.terminal.progress import show_progress
with show_progress("A long walk") as listener:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # as Dagster does with the streams of a run
    listener("asset", "quick steps", 3, 3)
    listener("asset", "slow steps", 0, 4)
    time.sleep(float(sys.argv[1]))
    listener("asset", "slow steps", 4, 4)
    listener("asset", "slow steps", 4, 4)
    time.sleep(float(sys.argv[1]) / 5)
"""


def walk(folder: Path, duration_s: float) -> str:
    command = [sys.executable, "-c", PROGRAM, str(duration_s)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=folder)
    assert done.stdout == ""
    return done.stderr


def test_a_pipe_is_told_in_lines(tmp_path: Path):
    assert walk(tmp_path, 1.5) == "A long walk\nslow steps 4/4\n"


def test_how_work_goes_is_told_beside_it():
    """As the training's: step, speed and best loss, in a bar that keeps its name; in lines no more often than else."""
    program = """
import sys, time
from heimdall_assets.cli.terminal.progress import show_progress
from heimdall_assets.defs.progress import Work
with show_progress("Training") as listener:
    time.sleep(1.2)
    for step in range(200):
        listener("asset", Work("epochs trained", f"step {step}/200"), 0, 2)
    listener("asset", Work("epochs trained", "step 200/200, best val_loss 1.2000"), 2, 2)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "Training\nepochs trained 2/2, step 200/200, best val_loss 1.2000\n"
    leader, follower = pty.openpty()
    said = b""
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150"}
    with subprocess.Popen([sys.executable, "-c", program], stderr=follower, env=environment):
        os.close(follower)
        with suppress(OSError):
            while part := os.read(leader, 65536):
                said += part
    os.close(leader)
    shown = said.decode()
    for seen in ("epochs trained", "2/2", "step 200/200, best val_loss 1.2000"):
        assert seen in shown, seen


def test_what_takes_no_second_tells_nothing(tmp_path: Path):
    assert walk(tmp_path, 0.05) == ""


def test_a_terminal_shows_bars_and_that_it_is_not_dead_between_them(tmp_path: Path):
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, "2"]
    begun, spoken = time.monotonic(), None
    environment = {**os.environ, "TERM": "xterm"}
    said = b""
    with subprocess.Popen(command, stderr=follower, cwd=tmp_path, env=environment) as process:
        os.close(follower)
        with suppress(OSError):  # the terminal is gone when its last writer is
            while part := os.read(leader, 65536):
                spoken = spoken or time.monotonic()
                said += part
    os.close(leader)
    assert process.returncode == 0
    assert spoken is not None
    assert spoken - begun < 4.0  # a second after the packages are loaded
    text = said.decode()
    for seen in ("A long walk", "quick steps", "3/3", "slow steps", "0/4", "4/4", "working"):
        assert seen in text, seen
    assert "working" not in text.splitlines()[-1]  # what stays on the screen is what was done
