"""train.sbatch as SLURM runs it: told to stop before its time is over, saved, put back into the queue, gone on with.

There is no SLURM here. What it does is a signal to the batch shell alone (``--signal=B:INT``) and one command that the
script gives, ``scontrol requeue``, which a program of that name notes down.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heimdall_assets.profiles.reading import read_profile
from heimdall_assets_tests.homes import fill_home
from heimdall_assets_tests.package_names import ROOT
from heimdall_assets_tests.serving import wait_for

SCRIPT = ROOT / "deploy" / "slurm" / "train.sbatch"
PROGRAMS = Path(sys.executable).parent
STAND_IN = """#!/bin/sh
# Trains until it is told to stop, and saves.
echo "$@" > {folder}/arguments
trap 'echo saved >> {folder}/saved; exit 143' TERM
: > {folder}/begun
{work}
"""


@contextmanager
def submit(folder: Path, *options: str, programs: Path = PROGRAMS) -> Iterator["subprocess.Popen[bytes]"]:
    """Give the batch shell of a job whose settings say that its home is ``folder``."""
    own = folder / "bin"
    own.mkdir(exist_ok=True)
    (own / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/scontrol\n')
    (own / "scontrol").chmod(0o755)
    (folder / "heimdall.env").write_text(f"HEIMDALL_HOME={folder}\nHEIMDALL_TRACKING=off\nLOKY_MAX_CPU_COUNT=1\n")
    with (folder / "job.log").open("ab") as log:
        process = subprocess.Popen(
            ["bash", SCRIPT, folder / "heimdall.env", *options],
            env={**os.environ, "PATH": f"{own}:{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make_stand_in(folder: Path, work: str) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "heimdall").write_text(STAND_IN.format(folder=folder, work=work))
    (folder / "bin" / "heimdall").chmod(0o755)


def test_a_job_that_is_told_to_stop_waits_for_what_is_saved_and_goes_back_into_the_queue(tmp_path: Path):
    make_stand_in(tmp_path, "while :; do sleep 0.1; done")
    with submit(tmp_path, "--profile", "hpc", "--campaign", "city") as job:
        wait_for((tmp_path / "begun").exists, 30.0, "the training to begin", tmp_path / "job.log", 0.05)
        job.send_signal(signal.SIGINT)
        assert job.wait(30) == 143
    assert (tmp_path / "saved").read_text() == "saved\n"
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"
    assert (tmp_path / "arguments").read_text() == "train --profile hpc --campaign city\n"


@pytest.mark.parametrize("status", [0, 2])
def test_a_job_that_ends_by_itself_is_not_put_back(tmp_path: Path, status: int):
    make_stand_in(tmp_path, f"exit {status}")
    with submit(tmp_path) as job:
        assert job.wait(30) == status
    assert not (tmp_path / "scontrol").exists()


def test_a_job_without_settings_says_what_it_expected():
    done = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "found no file of settings, expected: sbatch train.sbatch FILE" in done.stderr


def test_the_job_is_told_in_time_and_may_go_back():
    told = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", SCRIPT.read_text(), re.MULTILINE))
    assert told["signal"] == "B:INT@120"
    assert told["open-mode"] == "append"
    assert "requeue" in told
    assert "array" not in told
    assert int(told["signal"].partition("@")[2]) >= 2 * 60  # twice what an interrupted step may take


def test_the_command_with_a_profile_asks_slurm_for_what_the_profile_needs():
    (asked,) = re.findall(
        r"^#   sbatch (.*) deploy/slurm/train.sbatch heimdall.env --profile hpc$", SCRIPT.read_text(), re.M
    )
    needs = read_profile("hpc").profile.needs
    assert asked == f"--gres=gpu:{needs.gpus} --cpus-per-task={needs.cpus} --mem={needs.memory_gib:g}G"
    assert f"sbatch {asked} deploy" in (ROOT / "docs" / "guide" / "deploy.md").read_text()


@pytest.mark.parametrize("script", [SCRIPT, ROOT / "deploy" / "install.sh"], ids=lambda path: path.name)
def test_a_script_is_one(script: Path):
    shell = "bash" if script.suffix == ".sbatch" else "sh"
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
def test_a_real_training_is_stopped_saved_and_gone_on_with(tmp_path: Path):
    fill_home(tmp_path)
    options = ["ModelSpec.use_spectrograms=false", "ModelSpec.width=16", "ModelSpec.num_layers=1",
               "ModelSpec.num_heads=2", "TrainingSpec.num_threads=1", "EvaluationSpec.num_bootstrap=100",
               "TrainingSpec.max_epochs=60", "TrainingSpec.early_stopping_patience=60"]  # fmt: skip
    words = [word for option in options for word in ("--set", option)]
    log = tmp_path / "job.log"
    with submit(tmp_path, *words) as job:

        def has_kept_some() -> bool:
            assert job.poll() is None, log.read_text()
            return bool(list((tmp_path / "scratch").rglob("*.ckpt")))

        wait_for(has_kept_some, 300.0, "a first epoch", log, 0.2)
        job.send_signal(signal.SIGINT)
        assert job.wait(120) != 0
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"
    assert "Stopped." in log.read_text()
    with submit(tmp_path, *words) as job:  # as SLURM starts it again
        assert job.wait(600) == 0, log.read_text()
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"
    assert "Release v1.0.0" in log.read_text()
