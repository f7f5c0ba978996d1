"""The executor: steps in processes of their own, one at a time on a GPU, and what becomes of those that are killed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from heimdall_assets.defs.accelerator import ACCELERATOR_TAG
from heimdall_assets.defs.executor.local import LocalProcessHandler, build_command
from heimdall_assets.defs.executor.router import RouterHandler
from heimdall_assets_tests.defs.toy_home import Toy, open_toy


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    with open_toy(tmp_path_factory.mktemp("toy")) as toy:
        yield toy


@pytest.fixture
def toy(opened: Toy) -> Toy:
    opened.forget()
    return opened


def context_of(step: str, tags: dict[str, str]) -> Any:
    return SimpleNamespace(
        execute_step_args=SimpleNamespace(step_keys_to_execute=[step]), step_tags={step: tags}, instance=None
    )


def test_only_gpu_steps_go_to_the_gpu_handler():
    cpu, gpu = LocalProcessHandler(), LocalProcessHandler()
    router = RouterHandler(cpu, gpu)
    assert router.choose(context_of("a", {ACCELERATOR_TAG: "gpu"})) is gpu
    assert router.choose(context_of("a", {})) is cpu
    assert router.choose(context_of("a", {ACCELERATOR_TAG: "none"})) is cpu


def test_a_step_of_several_keys_is_refused():
    context = context_of("a", {})
    context.execute_step_args.step_keys_to_execute = ["a", "b"]
    with pytest.raises(dg.DagsterInvariantViolationError, match="exactly one"):
        RouterHandler(LocalProcessHandler(), LocalProcessHandler()).choose(context)


def test_a_step_runs_with_the_interpreter_of_its_code_location():
    assert build_command(["dagster", "api", "execute_step"]) == [
        sys.executable,
        "-m",
        "dagster",
        "api",
        "execute_step",
    ]
    own = ["/elsewhere/python", "-m", "dagster", "api", "execute_step"]
    assert build_command(own) == own


def test_an_unknown_process_is_unhealthy():
    health = LocalProcessHandler().check_step_health(context_of("a", {}))
    assert not health.is_healthy
    assert "not known" in str(health.unhealthy_reason)


def test_steps_run_apart_one_at_a_time_on_the_gpu_and_a_killed_one_again(toy: Toy):
    (toy.folder / "first.die").touch()
    run = toy.run("toy")
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    assert len({os.getpid(), *(run.facts(name)["pid"] for name in ("on_cpu", "first_on_gpu", "second_on_gpu"))}) == 4
    first, second = run.facts("first_on_gpu"), run.facts("second_on_gpu")
    assert first["ended_s"] <= second["began_s"] or second["ended_s"] <= first["began_s"]
    (retry,) = run.messages(dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert "Step first_on_gpu failed health check" in retry
    assert "killed by SIGKILL" in retry
    assert toy.count_taken_slots() == 0
    assert not Path(f"/proc/{run.facts('on_cpu')['pid']}").exists()  # a run has ended when its processes have


def test_a_killed_step_without_retries_fails_the_run_and_frees_the_gpu(toy: Toy):
    (toy.folder / "second.die").touch()
    run = toy.run("alone")
    assert run.status == dg.DagsterRunStatus.FAILURE
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert "Step second_on_gpu failed health check" in failure
    assert "killed by SIGKILL" in failure
    assert toy.count_taken_slots() == 0


def test_a_cancelled_run_waits_for_its_step_to_save(toy: Toy):
    run = toy.run_until("endless", "endless.began")
    assert (toy.folder / "endless.saved").read_text() == "DagsterExecutionInterruptedError"
    assert not Path(f"/proc/{(toy.folder / 'endless.began').read_text()}").exists()
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert toy.count_taken_slots() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot end a process with its parent")
def test_no_step_outlives_a_killed_run(toy: Toy):
    with toy.start("endless"):
        toy.wait_for("endless.began")
    assert toy.wait_for("endless.saved") == "DagsterExecutionInterruptedError"
    toy.mark_killed_run()
    assert toy.count_taken_slots() == 0


@pytest.mark.long
def test_two_runs_share_the_one_gpu(toy: Toy):
    with toy.start("alone") as other:
        here = toy.run("alone")
        assert other.wait(120) == 0
    (there,) = [run for run in toy.find_runs("alone", 2) if run.run_id != here.run_id]
    first, second = here.facts("second_on_gpu"), there.facts("second_on_gpu")
    assert first["ended_s"] <= second["began_s"] or second["ended_s"] <= first["began_s"]


def test_a_run_without_processes_of_its_own_steps_is_a_choice_too(toy: Toy):
    run = toy.run("pair", {"execution": {"config": {"backend": {"in_process": {}}}}})
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    assert {run.facts(name)["pid"] for name in ("on_cpu", "second_on_gpu")} == {os.getpid()}
    assert toy.count_taken_slots() == 0


def test_a_cancelled_run_in_one_process_frees_the_gpu(toy: Toy):
    run = toy.run_until("endless", "endless.began", {"execution": {"config": {"backend": {"in_process": {}}}}})
    assert (toy.folder / "endless.saved").read_text() == "DagsterExecutionInterruptedError"
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert toy.count_taken_slots() == 0


def test_an_unknown_backend_is_refused_before_anything_runs(toy: Toy):
    with pytest.raises(dg.DagsterInvalidConfigError, match="slurm"):
        toy.run("alone", {"execution": {"config": {"backend": {"slurm": {}}}}})
