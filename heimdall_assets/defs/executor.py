"""Executor: one run whose CPU steps are local processes and whose GPU-tagged step goes where a GPU is.

Dagster knows one executor a run. This router is a step-delegating executor with two handlers, chosen by the step's
``heimdall/accelerator`` tag. ``dagster._core.executor.step_delegating`` is a private path that dagster-k8s,
dagster-docker and dagster-ray all build on; this is the only module that names it, and a contract test guards it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
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


def _step_key(context: StepHandlerContext) -> str:
    keys = context.execute_step_args.step_keys_to_execute
    if not keys or len(keys) != 1:
        raise dg.DagsterInvariantViolationError(f"steps {keys}: expected exactly one for each launch")
    return keys[0]


class LocalProcessHandler(StepHandler):
    """Runs each step as a process of this machine, ended as a whole group when the step is."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def name(self) -> str:
        return "LocalProcessHandler"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        key = _step_key(step_handler_context)
        arguments = step_handler_context.execute_step_args
        command = list(arguments.get_command_args(skip_serialized_namedtuple=True))
        environment = {**os.environ, **{item["name"]: item["value"] for item in arguments.get_command_env()}}
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, stdout=subprocess.DEVNULL, start_new_session=True
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
        if code in (None, 0):
            return CheckStepHealthResult.healthy()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return CheckStepHealthResult.unhealthy(f"process {process.pid} {how}")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        key = _step_key(step_handler_context)
        process = self._processes.get(key)
        yield DagsterEvent.engine_event(
            step_handler_context.get_step_context(key), f"interrupting step {key}", EngineEventData()
        )
        # SIGINT, so that a training in progress saves its checkpoint before it ends.
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)


class RouterHandler(StepHandler):
    """Hands GPU-tagged steps to one handler and all others to another."""

    def __init__(self, cpu: StepHandler, gpu: StepHandler) -> None:
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
        return iter(self.choose(step_handler_context).terminate_step(step_handler_context))


def _build_ray_handler(address: str) -> StepHandler:
    try:
        from dagster_ray.core.executor import RayStepHandler
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise MissingDependency("executor ray: found no dagster-ray; install heimdall-assets[ray]") from error
    # num_gpus and num_cpus stay unset here: the executor's would win over those of the step's tag.
    return RayStepHandler(
        client=JobSubmissionClient(address),
        env_vars=None,
        runtime_env=None,
        num_cpus=None,
        num_gpus=None,
        memory=None,
        resources=None,
    )


@executor(
    name="router",
    config_schema={
        "gpu": Field(
            Selector({"local": {}, "ray": {"address": dg.StringSource}}),
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
    gpu = _build_ray_handler(config["gpu"]["ray"]["address"]) if "ray" in config["gpu"] else cpu
    return StepDelegatingExecutor(
        RouterHandler(cpu, gpu),
        retries=RetryMode.from_config(config["retries"]) or RetryMode.DISABLED,
        max_concurrent=config["max_concurrent"],
        sleep_seconds=0.2,
        check_step_health_interval_seconds=5,
        should_verify_step=True,
    )


def choose_executor(name: str, ray_address: str) -> dg.ExecutorDefinition:
    """Return the executor called ``name``; in-process is the laptop's.

    Raises:
        InvalidSetting: there is none of that name.
    """
    if name == "in_process":
        return dg.in_process_executor
    if name == "local":
        return router_executor
    if name == "ray":
        return router_executor.configured({"gpu": {"ray": {"address": ray_address}}}, name="router")
    raise InvalidSetting(f"HEIMDALL_EXECUTOR: found {name!r}, expected one of {', '.join(EXECUTORS)}")
