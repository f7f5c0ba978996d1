"""Executor: one run whose CPU steps are local processes and whose GPU-tagged step goes where a GPU is.

Dagster knows one executor a run. This router is a step-delegating executor with two handlers, chosen by the step's
``heimdall/accelerator`` tag. ``dagster._core.executor.step_delegating`` is a private path that dagster-k8s,
dagster-docker and dagster-ray all build on; this is the only module that names it, and a contract test guards it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import Field, Noneable, Selector, executor, multiple_process_executor_requirements
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)

from heimdall_assets.defs.accelerator import ACCELERATOR_TAG
from heimdall_assets.errors import InvalidSetting, MissingDependency

EXECUTORS = ("in_process", "local", "ray")
STOP_S = 60.0
"""An interrupted step may take this long to save what it has; then its processes are killed."""
HEALTH_INTERVAL_S = 2
_PR_SET_PDEATHSIG = 1
# Loaded here: a forked child must not load anything.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _step_key(context: StepHandlerContext) -> str:
    keys = context.execute_step_args.step_keys_to_execute
    if not keys or len(keys) != 1:
        raise dg.DagsterInvariantViolationError(f"steps {keys}: expected exactly one for each launch")
    return keys[0]


def _end_with_parent() -> None:
    # Without it, a step outlives a killed run and trains on beside the next run's step, in the same scratch folder.
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    # SIGINT, so that a training in progress saves its checkpoint; waited for, so that no later run meets it.
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def build_command(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a step with this very interpreter, whatever is or is not in PATH.

    Dagster starts with ``dagster``, or with the interpreter and module that the code location was loaded with.
    """
    return [sys.executable, "-m", *arguments] if arguments[0] == "dagster" else list(arguments)


class LocalProcessHandler(StepHandler):
    """Runs each step as a process of this machine; it ends when told to, and with the run that started it."""

    def __init__(self) -> None:
        super().__init__()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._seen_ended: set[int] = set()

    @property
    def name(self) -> str:
        return "LocalProcessHandler"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        key = _step_key(step_handler_context)
        arguments = step_handler_context.execute_step_args
        command = build_command(arguments.get_command_args(skip_serialized_namedtuple=True))
        environment = {**os.environ, **{item["name"]: item["value"] for item in arguments.get_command_env()}}
        # A group of its own: Ctrl+C in a terminal reaches the run, which then tells its steps, once.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self._processes[key] = process
        yield DagsterEvent.step_worker_starting(
            step_handler_context.get_step_context(key),
            message=f"process {process.pid} of this machine for step {key}",
            metadata={"pid": str(process.pid)},
        )

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        process = self._processes.get(_step_key(step_handler_context))
        if process is None:
            return CheckStepHealthResult.unhealthy("its process is not known to this executor")
        code = process.poll()
        if code is None:
            return CheckStepHealthResult.healthy()
        if process.pid not in self._seen_ended:
            # Its last event may be written and not yet read: judged at the next look.
            self._seen_ended.add(process.pid)
            return CheckStepHealthResult.healthy()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return CheckStepHealthResult.unhealthy(f"process {process.pid} {how} without telling how the step ended")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        key = _step_key(step_handler_context)
        process = self._processes.get(key)
        yield DagsterEvent.engine_event(
            step_handler_context.get_step_context(key), f"interrupting step {key}", EngineEventData()
        )
        if process is not None and process.poll() is None:
            _stop(process)


class RouterHandler(StepHandler):
    """Hands GPU-tagged steps to one handler and all others to another."""

    def __init__(self, cpu: StepHandler, gpu: StepHandler) -> None:
        super().__init__()
        self._cpu, self._gpu = cpu, gpu

    @property
    def name(self) -> str:
        return f"RouterHandler(cpu={self._cpu.name}, gpu={self._gpu.name})"

    def choose(self, context: StepHandlerContext) -> StepHandler:
        """Return the handler of this context's step."""
        tags = context.step_tags[_step_key(context)]
        return self._gpu if tags.get(ACCELERATOR_TAG) == "gpu" else self._cpu

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        return iter(self.choose(step_handler_context).launch_step(step_handler_context))

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        return self.choose(step_handler_context).check_step_health(step_handler_context)

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        yield from self.choose(step_handler_context).terminate_step(step_handler_context)
        # An interrupted step keeps its place in the pool, and where no daemon runs the next run would wait for ever.
        step_handler_context.instance.event_log_storage.free_concurrency_slot_for_step(
            step_handler_context.dagster_run.run_id, _step_key(step_handler_context)
        )


class RayJobHandler(StepHandler):
    """dagster-ray's handler, which moreover waits for a cancelled job and notices one that somebody stopped."""

    def __init__(self, handler: Any) -> None:
        super().__init__()
        self._handler = handler
        self._seen_ended: set[str] = set()

    @property
    def name(self) -> str:
        return "RayJobHandler"

    def _name_job(self, context: StepHandlerContext) -> str:
        return str(self._handler._get_ray_job_submission_id(context))

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        return iter(self._handler.launch_step(step_handler_context))

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        health: CheckStepHealthResult = self._handler.check_step_health(step_handler_context)
        if not health.is_healthy:
            return health
        job = self._name_job(step_handler_context)
        status = self._handler.client.get_job_status(job)
        if not status.is_terminal():
            return health
        if job not in self._seen_ended:
            self._seen_ended.add(job)
            return health
        return CheckStepHealthResult.unhealthy(f"Ray job {job} is {status} without telling how the step ended")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        yield from self._handler.terminate_step(step_handler_context)
        job = self._name_job(step_handler_context)
        deadline_s = time.monotonic() + STOP_S
        while time.monotonic() < deadline_s and not self._handler.client.get_job_status(job).is_terminal():
            time.sleep(0.2)


def _build_ray_handler(address: str, env_vars: list[str]) -> StepHandler:
    # A cancelled training needs longer than Ray's 3 s to save: the cluster sets RAY_JOB_STOP_WAIT_TIME_S higher.
    try:
        from dagster_ray.core.executor import RayStepHandler
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise MissingDependency("executor ray: found no dagster-ray; install heimdall-assets[ray]") from error
    # num_gpus and num_cpus stay unset here: the executor's would win over those of the step's tag.
    handler = RayStepHandler(
        client=JobSubmissionClient(address),
        env_vars=env_vars,
        runtime_env=None,
        num_cpus=None,
        num_gpus=None,
        memory=None,
        resources=None,
    )
    return RayJobHandler(handler)


@executor(
    name="router",
    config_schema={
        "gpu": Field(
            Selector({"local": {}, "ray": {"address": dg.StringSource, "env_vars": Field([str], default_value=[])}}),
            is_required=False,
            default_value={"local": {}},
            description="Where GPU-tagged steps run.",
        ),
        "max_concurrent": Field(Noneable(int), is_required=False, default_value=2),
        "retries": get_retries_config(),
    },
    requirements=multiple_process_executor_requirements(),
)
def router_executor(init_context: dg.InitExecutorContext) -> StepDelegatingExecutor:
    """CPU steps as processes of this machine, GPU-tagged steps where ``gpu`` says."""
    config: dict[str, Any] = dict(init_context.executor_config)
    cpu = LocalProcessHandler()
    gpu = _build_ray_handler(**config["gpu"]["ray"]) if "ray" in config["gpu"] else cpu
    return StepDelegatingExecutor(
        RouterHandler(cpu, gpu),
        retries=RetryMode.from_config(config["retries"]) or RetryMode.DISABLED,
        max_concurrent=config["max_concurrent"],
        sleep_seconds=0.2,
        check_step_health_interval_seconds=HEALTH_INTERVAL_S,
        should_verify_step=True,
    )


def choose_executor(name: str, ray_address: str, home: Path) -> dg.ExecutorDefinition:
    """Return the executor called ``name``; in-process is the laptop's.

    Args:
        name: one of ``EXECUTORS``.
        ray_address: of the Ray cluster's dashboard.
        home: told to Ray's steps. All other addresses, and above all passwords, are the cluster's own environment:
            what a job is handed stands in Ray's dashboard.

    Raises:
        InvalidSetting: there is none of that name.
    """
    if name == "in_process":
        return dg.in_process_executor
    if name == "local":
        return router_executor
    if name == "ray":
        ray = {"address": ray_address, "env_vars": [f"HEIMDALL_HOME={home}"]}
        return router_executor.configured({"gpu": {"ray": ray}}, name="router")
    raise InvalidSetting(f"HEIMDALL_EXECUTOR: found {name!r}, expected one of {', '.join(EXECUTORS)}")
