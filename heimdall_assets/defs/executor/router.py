"""Router: one run whose CPU steps are local processes and whose GPU-tagged step goes where a GPU is.

Dagster knows one executor a run. This one is told by run configuration, or else by ``HEIMDALL_EXECUTOR``, where steps
run; it delegates each to one of two handlers, chosen by the step's ``heimdall/accelerator`` tag, and tells that handler
what the step asks of its machine.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import Field, Noneable, Selector, multiple_process_executor_requirements

from heimdall_assets.defs.accelerator import ask_for, build_gpu_tags, encode_tags, read_asked, refuse_unkept
from heimdall_assets.defs.executor.delegation import (
    CheckStepHealthResult,
    DagsterEvent,
    EngineEventData,
    RetryMode,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
    get_retries_config,
    name_step,
)
from heimdall_assets.defs.executor.in_process import PatientExecutor, begin_run
from heimdall_assets.defs.executor.k8s import build_k8s_handler
from heimdall_assets.defs.executor.local import LocalProcessHandler, check_gpus
from heimdall_assets.defs.executor.ray import build_ray_handler
from heimdall_assets.defs.lineage_events import Follow
from heimdall_assets.defs.progress import tell_step
from heimdall_assets.defs.recovery import Begin
from heimdall_assets.defs.settings import AcceleratorConfig
from heimdall_assets.defs.stopping import cancel_when_stopped, heed_stop
from heimdall_assets.specs import AcceleratorSpec, KubernetesSpec

HEALTH_INTERVAL_S = 2
ABOUT = (
    "in_process: steps one after another; local: each a process of this machine; ray: GPU-tagged ones as Ray jobs; "
    "k8s: GPU-tagged ones as Kubernetes jobs."
)


class AskingContext(StepHandlerContext):
    """A step's context with other tags: those of what this run asks of the step's machine."""

    def __init__(self, context: StepHandlerContext, tags: Mapping[str, Mapping[str, str]]) -> None:
        vars(self).update(vars(context))
        self._tags = tags

    @property
    def step_tags(self) -> Mapping[str, Mapping[str, str]]:
        return self._tags


class RouterHandler(StepHandler):
    """Hands GPU-tagged steps to one handler and all others to another, and stops a step when its time is over.

    Args:
        cpu: of steps that want no GPU.
        gpu: of those that do.
        said: what this run asks of the machine of a GPU-tagged step; it wins over what the step says itself.
        kubernetes: how nodes are labelled.
    """

    def __init__(
        self,
        cpu: StepHandler,
        gpu: StepHandler,
        said: AcceleratorSpec | None = None,
        kubernetes: KubernetesSpec | None = None,
    ) -> None:
        super().__init__()
        self._cpu, self._gpu = cpu, gpu
        self._said, self._kubernetes = said or AcceleratorSpec(), kubernetes
        self._began_s: dict[str, float] = {}
        self._overdue: dict[str, str] = {}

    @property
    def name(self) -> str:
        return f"RouterHandler(cpu={self._cpu.name}, gpu={self._gpu.name})"

    def choose(self, context: StepHandlerContext) -> tuple[StepHandler, StepHandlerContext]:
        """Return the handler of this context's step, and the context as that one is to see it."""
        step = name_step(context)
        asked = read_asked(context.step_tags[step], self._said)
        if asked is None:
            return self._cpu, context
        tags = {**context.step_tags[step], **encode_tags(build_gpu_tags(asked, self._kubernetes))}
        return self._gpu, AskingContext(context, {**context.step_tags, step: tags})

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        handler, context = self.choose(step_handler_context)
        step = name_step(context)
        self._began_s[step] = time.monotonic()
        self._overdue.pop(step, None)
        return iter(handler.launch_step(context))

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        handler, context = self.choose(step_handler_context)
        step = name_step(context)
        asked = read_asked(context.step_tags[step], self._said)
        if asked is not None and asked.time_limit_s is not None and step not in self._overdue:
            took_s = time.monotonic() - self._began_s.setdefault(step, time.monotonic())
            if took_s > asked.time_limit_s:
                self._overdue[step] = f"step {step}: stopped after {asked.time_limit_s:g} s, its time limit"
                DagsterEvent.engine_event(context.get_step_context(step), self._overdue[step], EngineEventData())
                list(handler.terminate_step(context))
                return CheckStepHealthResult.healthy()  # it tells itself how it ended: judged at the next look
        health = handler.check_step_health(context)
        if not health.is_healthy and step in self._overdue:
            return CheckStepHealthResult.unhealthy(f"{self._overdue[step]} ({health.unhealthy_reason})")
        return health

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        handler, context = self.choose(step_handler_context)
        yield from handler.terminate_step(context)
        # An interrupted step keeps its place in the pool, and where no daemon runs the next run would wait for ever.
        context.instance.event_log_storage.free_concurrency_slot_for_step(
            context.dagster_run.run_id, name_step(context)
        )


class RouterExecutor(StepDelegatingExecutor):
    """Runs steps with a ``RouterHandler``; a run has ended when the processes of its steps on this machine have."""

    def __init__(
        self, router: RouterHandler, local: LocalProcessHandler, around: tuple[Begin, Follow], **options: Any
    ) -> None:
        super().__init__(router, sleep_seconds=0.2, should_verify_step=True, **options)
        self._local, (self._begin, self._follow) = local, around

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[DagsterEvent]:
        yield from begin_run(plan_context, self._begin)
        try:
            with cancel_when_stopped(plan_context.instance, plan_context.run_id):
                for event in self._follow(plan_context, super().execute(plan_context, execution_plan)):
                    heed_stop()
                    tell_step(event)
                    yield event
        finally:
            self._local.end()


def _list_requirements(config: Mapping[str, Any]) -> Sequence[Any]:
    return [] if "in_process" in config["backend"] else multiple_process_executor_requirements()


@dataclass(frozen=True)
class Machines:
    """Where steps may run, and what GPU-tagged ones ask, when a run does not say otherwise.

    Attributes:
        backend: ``in_process``, ``local``, ``ray`` or ``k8s``.
        ray_address: of the Ray cluster's dashboard.
        kubernetes: of the Kubernetes cluster: image, namespace and the like.
        kubeconfig: the file that opens the latter; None: a pod's own service account.
        accelerator: what GPU-tagged steps ask.
        variables: the environment of each step that runs elsewhere; nothing secret, for others can read it there.
    """

    backend: str
    ray_address: str
    kubernetes: KubernetesSpec = field(default_factory=KubernetesSpec)
    kubeconfig: Path | None = None
    accelerator: AcceleratorSpec = field(default_factory=AcceleratorSpec)
    variables: Mapping[str, str] = field(default_factory=dict)


def build_executor(machines: Machines, begin: Begin, follow: Follow) -> dg.ExecutorDefinition:
    """Return the executor of the graph.

    Args:
        machines: where steps may run.
        begin: called before the first step of a run.
        follow: is given the events of its steps, and gives them on.
    """
    address = Field(dg.StringSource, is_required=False, default_value=machines.ray_address)
    choices = {"in_process": {}, "local": {}, "ray": {"address": address}, "k8s": {}}
    asked = {
        name: Field(item.config_type, is_required=False, description=item.description)
        for name, item in AcceleratorConfig.to_fields_dict().items()
    }

    @dg.executor(
        name="router",
        config_schema={
            "backend": Field(
                Selector(choices), is_required=False, default_value={machines.backend: {}}, description=ABOUT
            ),
            "accelerator": Field(asked, is_required=False, description="What this run's GPU-tagged step asks."),
            "max_concurrent": Field(Noneable(int), is_required=False, default_value=2),
            "retries": get_retries_config(),
        },
        requirements=_list_requirements,
    )
    def router(init_context: dg.InitExecutorContext) -> Any:
        """Every step where ``backend`` says."""
        config: dict[str, Any] = dict(init_context.executor_config)
        (backend,) = config["backend"]
        retries = RetryMode.from_config(config["retries"]) or RetryMode.DISABLED
        said = ask_for(machines.accelerator, config.get("accelerator", {}))
        refuse_unkept(backend, said)
        if backend == "in_process":
            return PatientExecutor(retries, begin, follow)
        local = LocalProcessHandler(machines.variables)
        cpu: StepHandler = local
        gpu: StepHandler = local
        if backend == "local":
            check_gpus(said)
        elif backend == "ray":
            gpu = build_ray_handler(config["backend"]["ray"]["address"], machines.variables, said.gpu_type)
        else:
            gpu = build_k8s_handler(machines.kubernetes, machines.kubeconfig, machines.variables)
            cpu = gpu if machines.kubernetes.cpu_steps == "pods" else local
        return RouterExecutor(
            RouterHandler(cpu, gpu, said, machines.kubernetes),
            local,
            (begin, follow),
            retries=retries,
            max_concurrent=config["max_concurrent"],
            check_step_health_interval_seconds=HEALTH_INTERVAL_S,
        )

    return router
