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
from heimdall_assets.defs.executor.local import LocalProcessHandler, build_command, check_gpus
from heimdall_assets.defs.executor.router import RouterHandler
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.specs import AcceleratorSpec
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
    assert router.choose(context_of("a", {ACCELERATOR_TAG: "gpu"}))[0] is gpu
    assert router.choose(context_of("a", {}))[0] is cpu
    assert router.choose(context_of("a", {ACCELERATOR_TAG: "none"}))[0] is cpu


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


def test_a_step_that_takes_too_long_is_stopped_and_says_why(toy: Toy):
    run = toy.run("endless", {"execution": {"config": {"accelerator": {"time_limit_s": 0.1}}}})
    assert run.status == dg.DagsterRunStatus.FAILURE
    told = "\n".join(run.messages(dg.DagsterEventType.ENGINE_EVENT))
    assert "step endless_on_gpu: stopped after 0.1 s, its time limit" in told
    assert toy.count_taken_slots() == 0


@pytest.mark.parametrize(
    ("backend", "asked", "said"),
    [
        ("in_process", {"time_limit_s": 60}, "in_process: found AcceleratorSpec.time_limit_s, which it cannot keep"),
        ("local", {"spot": True}, "found AcceleratorSpec.spot, which it cannot keep; expected executor k8s"),
        ("local", {"memory_gib": 8}, "AcceleratorSpec.memory_gib, which it cannot keep; expected executor ray or k8s"),
        ("ray", {"spot": True}, "found AcceleratorSpec.spot, which it cannot keep; expected executor k8s"),
        ("k8s", {"num_gpus": -1}, "AcceleratorSpec.num_gpus: found -1, expected greater than or equal to 0"),
        ("k8s", {"gpu_type": "H200", "num_gpus": 0}, "gpu_type: found H200 with num_gpus 0, expected at least 1"),
    ],
)
def test_what_a_backend_cannot_keep_is_refused_before_anything_runs(toy: Toy, backend: str, asked: dict, said: str):
    with pytest.raises(InvalidSetting, match=said):
        toy.run("alone", {"execution": {"config": {"backend": {backend: {}}, "accelerator": asked}}})


def test_a_gpu_that_this_machine_does_not_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA H200\necho Tesla T4\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    check_gpus(AcceleratorSpec(gpu_type="h200"))
    check_gpus(AcceleratorSpec(num_gpus=2))
    with pytest.raises(InvalidSetting, match="found NVIDIA H200, Tesla T4 on this machine, expected 2 GPUs of"):
        check_gpus(AcceleratorSpec(gpu_type="h200", num_gpus=2))
    (tmp_path / "nvidia-smi").unlink()
    check_gpus(AcceleratorSpec())
    with pytest.raises(InvalidSetting, match="found no GPU on this machine, expected 1 GPU of type A100"):
        check_gpus(AcceleratorSpec(gpu_type="A100"))


def test_an_unknown_backend_is_refused_before_anything_runs(toy: Toy):
    with pytest.raises(dg.DagsterInvalidConfigError, match="slurm"):
        toy.run("alone", {"execution": {"config": {"backend": {"slurm": {}}}}})
