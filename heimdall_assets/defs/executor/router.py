"""Router: one run whose CPU steps are local processes and whose GPU-tagged step goes where a GPU is.

Dagster knows one executor a run. This one is told by run configuration, or else by ``HEIMDALL_EXECUTOR``, where steps
run; it delegates each to one of two handlers, chosen by the step's ``heimdall/accelerator`` tag.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster import Field, Noneable, Selector, multiple_process_executor_requirements

from heimdall_assets.defs.accelerator import ACCELERATOR_TAG
from heimdall_assets.defs.executor.delegation import (
    CheckStepHealthResult,
    DagsterEvent,
    RetryMode,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
    get_retries_config,
    name_step,
)
from heimdall_assets.defs.executor.in_process import PatientExecutor, begin_run
from heimdall_assets.defs.executor.local import LocalProcessHandler
from heimdall_assets.defs.executor.ray import build_ray_handler
from heimdall_assets.defs.progress import tell_step
from heimdall_assets.defs.recovery import Begin
from heimdall_assets.defs.stopping import cancel_when_stopped, heed_stop

HEALTH_INTERVAL_S = 2
ABOUT = "in_process: steps one after another; local: each a process of this machine; ray: GPU-tagged ones as Ray jobs."


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
        tags = context.step_tags[name_step(context)]
        return self._gpu if tags.get(ACCELERATOR_TAG) == "gpu" else self._cpu

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        return iter(self.choose(step_handler_context).launch_step(step_handler_context))

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        return self.choose(step_handler_context).check_step_health(step_handler_context)

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        yield from self.choose(step_handler_context).terminate_step(step_handler_context)
        # An interrupted step keeps its place in the pool, and where no daemon runs the next run would wait for ever.
        step_handler_context.instance.event_log_storage.free_concurrency_slot_for_step(
            step_handler_context.dagster_run.run_id, name_step(step_handler_context)
        )


class RouterExecutor(StepDelegatingExecutor):
    """Runs steps with a ``RouterHandler``; a run has ended when the processes of its steps have."""

    def __init__(self, cpu: LocalProcessHandler, gpu: StepHandler, begin: Begin, **options: Any) -> None:
        super().__init__(RouterHandler(cpu, gpu), sleep_seconds=0.2, should_verify_step=True, **options)
        self._cpu, self._begin = cpu, begin

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[DagsterEvent]:
        yield from begin_run(plan_context, self._begin)
        try:
            with cancel_when_stopped(plan_context.instance, plan_context.run_id):
                for event in super().execute(plan_context, execution_plan):
                    heed_stop()
                    tell_step(event)
                    yield event
        finally:
            self._cpu.end()


def _list_requirements(config: Mapping[str, Any]) -> Sequence[Any]:
    return [] if "in_process" in config["backend"] else multiple_process_executor_requirements()


def build_executor(backend: str, ray_address: str, variables: Mapping[str, str], begin: Begin) -> dg.ExecutorDefinition:
    """Return the executor of the graph.

    Args:
        backend: where steps run when run configuration does not say: ``in_process``, ``local`` or ``ray``.
        ray_address: of the Ray cluster's dashboard, when run configuration does not say.
        variables: the environment of each step that runs elsewhere; nothing secret, for Ray's dashboard shows it.
        begin: called before the first step of a run.
    """
    address = Field(dg.StringSource, is_required=False, default_value=ray_address)
    choices = {"in_process": {}, "local": {}, "ray": {"address": address}}

    @dg.executor(
        name="router",
        config_schema={
            "backend": Field(Selector(choices), is_required=False, default_value={backend: {}}, description=ABOUT),
            "max_concurrent": Field(Noneable(int), is_required=False, default_value=2),
            "retries": get_retries_config(),
        },
        requirements=_list_requirements,
    )
    def router(init_context: dg.InitExecutorContext) -> Any:
        """Every step where ``backend`` says."""
        config: dict[str, Any] = dict(init_context.executor_config)
        retries = RetryMode.from_config(config["retries"]) or RetryMode.DISABLED
        if "in_process" in config["backend"]:
            return PatientExecutor(retries, begin)
        cpu = LocalProcessHandler(variables)
        ray = config["backend"].get("ray")
        gpu = cpu if ray is None else build_ray_handler(ray["address"], variables)
        return RouterExecutor(
            cpu,
            gpu,
            begin,
            retries=retries,
            max_concurrent=config["max_concurrent"],
            check_step_health_interval_seconds=HEALTH_INTERVAL_S,
        )

    return router
