"""The executor: steps in processes of their own, one at a time on a GPU, and what becomes of those that are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from heimdall_assets.defs.accelerator import ACCELERATOR_TAG, GPU_POOL, build_gpu_tags
from heimdall_assets.defs.executor import LocalProcessHandler, RouterHandler, build_command, choose_executor
from heimdall_assets.defs.running import QUIET
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import prepare_dagster_home
from heimdall_assets_tests.defs.toy_graph import JOBS
from heimdall_assets_tests.homes import make_places

ROOT = Path(__file__).resolve().parents[2]
TOY = "heimdall_assets_tests.defs.toy_graph"


class Toy:
    """A folder with an instance of its own, in which jobs of the toy graph run as a user's would."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.home = prepare_dagster_home(make_places(folder / "home"))
        self.instance = dg.DagsterInstance.from_config(str(self.home))

    def run(self, job: str, config: dict[str, Any] | None = None) -> "Run":
        """Run a job whose executor is this process and whose steps are others."""
        made = dg.execute_job(
            dg.reconstructable(JOBS[job]), self.instance, run_config={**QUIET, **(config or {})}, raise_on_error=False
        )
        return Run(self.instance, made.run_id)

    def run_until(self, job: str, name: str, config: dict[str, Any] | None = None) -> "Run":
        """Run a job and cancel it, as the page does, as soon as a step has written file ``name``."""

        def cancel() -> None:
            self.wait_for(name)
            (record,) = self.instance.get_run_records(limit=1)
            self.instance.report_run_canceling(record.dagster_run)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        run = self.run(job, config)
        thread.join()
        return run

    def wait_for(self, name: str, wait_s: float = 90.0) -> str:
        """Return what a step wrote into file ``name``."""
        path = self.folder / name
        deadline = time.monotonic() + wait_s
        while not (path.exists() and path.read_text()):
            assert time.monotonic() < deadline, f"{name} never came"
            time.sleep(0.05)
        return path.read_text()

    def count_taken_slots(self) -> int:
        return self.instance.event_log_storage.get_concurrency_info(GPU_POOL).active_slot_count


class Run:
    """What Dagster recorded of a run."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str):
        self.logs = [log.dagster_event for log in instance.all_logs(run_id) if log.dagster_event is not None]
        run = instance.get_run_by_id(run_id)
        assert run is not None
        self.status = run.status

    def facts(self, asset: str) -> dict[str, Any]:
        for event in self.logs:
            if event.is_step_materialization and event.asset_key == dg.AssetKey(asset):
                metadata = event.step_materialization_data.materialization.metadata
                return {name: value.value for name, value in metadata.items()}
        raise AssertionError(f"{asset} was not materialized: {[event.message for event in self.logs]}")

    def tell(self) -> list[str]:
        """Return everything that was said, for a test that failed."""
        return [f"{event.event_type_value}: {event.message} {event.event_specific_data}" for event in self.logs]

    def messages(self, kind: dg.DagsterEventType) -> list[str]:
        found = [event for event in self.logs if event.event_type == kind]
        return [str(getattr(event.event_specific_data, "error", None) or event.message) for event in found]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    toy = Toy(tmp_path_factory.mktemp("toy"))
    # The processes of steps find the toy graph and its folder by these.
    with pytest.MonkeyPatch.context() as patch, toy.instance:
        patch.setenv("TOY_FOLDER", str(toy.folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        yield toy


@pytest.fixture
def toy(opened: Toy) -> Toy:
    for left in opened.folder.glob("*.*"):
        left.unlink()
    return opened


def context_of(step: str, tags: dict[str, str]) -> Any:
    return SimpleNamespace(
        execute_step_args=SimpleNamespace(step_keys_to_execute=[step]), step_tags={step: tags}, instance=None
    )


def test_names_of_dagster_that_are_not_public_are_still_there():
    """The contract with Dagster: fails first, and says what moved, when a new version moves it."""
    from inspect import signature

    from dagster._core.executor.step_delegating import CheckStepHealthResult, StepDelegatingExecutor, StepHandler
    from dagster._core.executor.step_delegating import StepHandlerContext as Context
    from dagster._grpc.types import ExecuteStepArgs

    assert {"name", "launch_step", "check_step_health", "terminate_step"} == set(StepHandler.__abstractmethods__)
    assert set(signature(StepDelegatingExecutor.__init__).parameters) >= {
        "step_handler",
        "retries",
        "sleep_seconds",
        "check_step_health_interval_seconds",
        "max_concurrent",
        "should_verify_step",
    }
    assert {"execute_step_args", "step_tags", "get_step_context", "dagster_run"} <= set(dir(Context))
    assert "skip_serialized_namedtuple" in signature(ExecuteStepArgs.get_command_args).parameters
    assert CheckStepHealthResult.unhealthy("why").unhealthy_reason == "why"
    assert CheckStepHealthResult.healthy().is_healthy
    # The router itself asks for nothing else.
    assert LocalProcessHandler().name == "LocalProcessHandler"


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


def test_executors_are_chosen_by_name(tmp_path: Path):
    assert choose_executor("in_process", "", tmp_path) is dg.in_process_executor
    assert choose_executor("local", "", tmp_path).name == "router"
    assert choose_executor("ray", "http://127.0.0.1:1", tmp_path).name == "router"
    with pytest.raises(InvalidSetting, match=r"HEIMDALL_EXECUTOR.*'slurm'.*in_process, local, ray"):
        choose_executor("slurm", "", tmp_path)


def resolve_tags() -> dict[str, str]:
    """The tags of the trained checkpoint's step as Dagster hands them to executors."""
    from heimdall_assets.defs.assets.trained_checkpoint import trained_checkpoint

    assert trained_checkpoint.op.pool == GPU_POOL
    return dict(trained_checkpoint.op.tags)


def test_kubernetes_gets_a_pod_with_a_gpu():
    """Through dagster-k8s's own construction of the pod, not through our reading of its documents."""
    job = pytest.importorskip("dagster_k8s.job", reason="dagster-k8s is not installed: heimdall-assets[k8s]")
    config = job.DagsterK8sJobConfig(job_image="heimdall", dagster_home="/dagster")
    made = job.construct_dagster_k8s_job(
        config, ["execute_step"], "step", user_defined_k8s_config=job.get_user_defined_k8s_config(resolve_tags())
    )
    pod = made.to_dict()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert container["resources"]["requests"] == {"cpu": "2"}
    assert pod["node_selector"] == {"nvidia.com/gpu.present": "true"}
    assert [(item["key"], item["operator"], item["effect"]) for item in pod["tolerations"]] == [
        ("nvidia.com/gpu", "Exists", "NoSchedule")
    ]


def test_ray_reads_the_same_tags():
    configs = pytest.importorskip("dagster_ray.configs", reason="dagster-ray is not installed: heimdall-assets[ray]")
    config = configs.RayExecutionConfig.from_tags(resolve_tags())
    assert (config.num_gpus, config.num_cpus) == (1, 2)
    assert build_gpu_tags(num_gpus=4)["dagster-ray/config"]["num_gpus"] == 4


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
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "dagster", "job", "execute", "-m", TOY, "-j", "endless"],
        cwd=ROOT,
        env={**os.environ, "DAGSTER_HOME": str(toy.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        toy.wait_for("endless.began")
    finally:
        process.kill()
        process.wait()
    assert toy.wait_for("endless.saved") == "DagsterExecutionInterruptedError"
