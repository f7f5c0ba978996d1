"""Local: each step as a process of this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from heimdall_assets.counts import say_count
from heimdall_assets.defs.accelerator import SAVING_S
from heimdall_assets.defs.executor.delegation import (
    CheckStepHealthResult,
    DagsterEvent,
    EngineEventData,
    StepHandler,
    StepHandlerContext,
    name_step,
)
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.pipeline.processes import interrupt_with_parent
from heimdall_assets.specs import AcceleratorSpec
from heimdall_assets.stores.capacity import list_gpus


def _stop(process: "subprocess.Popen[bytes]") -> None:
    # SIGINT, so that a training in progress saves its checkpoint; waited for, so that no later run meets it.
    process.send_signal(signal.SIGINT)
    try:
        process.wait(SAVING_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def build_command(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a step with this very interpreter, whatever is or is not in PATH.

    Dagster starts with ``dagster``, or with the interpreter and module that the code location was loaded with.
    """
    return [sys.executable, "-m", *arguments] if arguments[0] == "dagster" else list(arguments)


def check_gpus(said: AcceleratorSpec) -> None:
    """Refuse GPUs that are asked for by kind or number and that this machine does not have.

    Raises:
        InvalidSetting: there are too few of that kind, as NVIDIA's driver says.
    """
    if said.gpu_type is None and not {"num_gpus"} & said.model_fields_set:
        return
    told = [gpu.name for gpu in list_gpus()]
    kind = said.gpu_type or ""
    if sum(kind.lower() in name.lower() for name in told) < said.num_gpus:
        found = ", ".join(told) or "no GPU"
        asked = say_count(said.num_gpus, "GPU") + (f" of type {kind}" if kind else "")
        raise InvalidSetting(f"executor local: found {found:.200} on this machine, expected {asked}")


class LocalProcessHandler(StepHandler):
    """Runs each step as a process of this machine; it ends when told to, and with the run that started it.

    Args:
        variables: set in the environment of each step, beside this process's own.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._variables = dict(variables or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._seen_ended: set[int] = set()

    @property
    def name(self) -> str:
        return "LocalProcessHandler"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        key = name_step(step_handler_context)
        arguments = step_handler_context.execute_step_args
        command = build_command(arguments.get_command_args(skip_serialized_namedtuple=True))
        asked = {item["name"]: item["value"] for item in arguments.get_command_env()}
        # A group of its own: Ctrl+C in a terminal reaches the run, which then tells its steps, once.
        process = subprocess.Popen(
            command,
            env={**os.environ, **self._variables, **asked},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=interrupt_with_parent,  # else it would train on beside the next run of a killed one
        )
        self._processes[key] = process
        yield DagsterEvent.step_worker_starting(
            step_handler_context.get_step_context(key),
            message=f"process {process.pid} of this machine for step {key}",
            metadata={"pid": str(process.pid)},
        )

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        process = self._processes.get(name_step(step_handler_context))
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
        key = name_step(step_handler_context)
        process = self._processes.get(key)
        yield DagsterEvent.engine_event(
            step_handler_context.get_step_context(key), f"interrupting step {key}", EngineEventData()
        )
        if process is not None and process.poll() is None:
            _stop(process)

    def end(self) -> None:
        """Return once every process has ended; a step's last event comes a moment before its process's end."""
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAVING_S)
            if process.poll() is None:
                _stop(process)
