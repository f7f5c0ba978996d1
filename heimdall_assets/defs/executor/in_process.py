"""In process: the steps of a run one after another in the run's own process, which hears a stop wherever it waits.

Dagster's own executor in process spins while a pool is full, deaf to signals, and tries an interrupted step again. This
one is its loop with those two mended. What else it does not do: choose where steps run (``router``).
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from heimdall_assets.defs.executor.delegation import (
    ActiveExecution,
    DagsterEvent,
    DagsterExecutionInterruptedError,
    EngineEventData,
    ExecuteRunWithPlanIterable,
    InProcessExecutor,
    InstanceConcurrencyContext,
    PlanExecutionContextManager,
    RetryMode,
    create_compute_log_file_key,
    dagster_event_sequence_for_step,
)
from heimdall_assets.defs.lineage_events import Follow
from heimdall_assets.defs.orphans import works_where_asked
from heimdall_assets.defs.recovery import Begin
from heimdall_assets.defs.stopping import StepStopped, cancel_when_stopped, heed_stop

POLL_S = 0.2
"""Between two looks while a step waits for its pool."""


class PatientExecutor(InProcessExecutor):
    """Runs steps in the run's own process; SIGINT and SIGTERM end it at once where it waits, else with the step."""

    def __init__(self, retries: RetryMode, begin: Begin, follow: Follow) -> None:
        super().__init__(retries)
        self._begin, self._follow = begin, follow

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[DagsterEvent]:
        keys = execution_plan.step_keys_to_execute
        told = EngineEventData.in_process(os.getpid(), keys)
        yield DagsterEvent.engine_event(plan_context, f"Executing steps in process (pid: {os.getpid()})", told)
        yield from begin_run(plan_context, self._begin)
        with cancel_when_stopped(plan_context.instance, plan_context.run_id):
            steps = ExecuteRunWithPlanIterable(
                execution_plan=plan_context.execution_plan,
                iterator=_run_steps,
                execution_context_manager=PlanExecutionContextManager(
                    job=plan_context.job,
                    retry_mode=plan_context.retry_mode,
                    execution_plan=plan_context.execution_plan,
                    run_config=plan_context.run_config,
                    dagster_run=plan_context.dagster_run,
                    instance=plan_context.instance,
                    raise_on_error=plan_context.raise_on_error,
                    output_capture=plan_context.output_capture,
                    step_dependency_config=self.step_dependency_config,
                ),
            )
            yield from self._follow(plan_context, steps)


def begin_run(plan_context: Any, begin: Begin) -> Iterator[DagsterEvent]:
    """Put right and tidy what earlier runs left, before the steps of this one; yield an event for each thing done."""
    for line in begin(plan_context.instance, plan_context.run_id):
        yield DagsterEvent.engine_event(plan_context, line, EngineEventData())


def _run_steps(job_context: Any, execution_plan: Any) -> Iterator[DagsterEvent]:
    with (
        _claim_slots(job_context) as slots,
        execution_plan.start(
            retry_mode=job_context.retry_mode,
            instance_concurrency_context=slots,
            step_dependency_config=job_context.step_dependency_config,
        ) as active,
        ExitStack() as captured,
    ):
        yield from _capture_logs(job_context, execution_plan, captured)
        while not active.is_complete:
            heed_stop()
            if active.check_for_interrupts():
                raise DagsterExecutionInterruptedError("stopped between two steps")
            step = active.get_next_step()
            yield from active.concurrency_event_iterator(job_context)
            if step is None:
                time.sleep(POLL_S)
            else:
                yield from _run_step(job_context, active, step)


@contextmanager
def _claim_slots(job_context: Any) -> Iterator[InstanceConcurrencyContext]:
    """Yield what claims places in pools; a step that ends by a stop gives back its place."""
    run_id = job_context.dagster_run.run_id
    try:
        with InstanceConcurrencyContext(job_context.instance, job_context.dagster_run) as slots:
            yield slots
    except BaseException:
        job_context.instance.event_log_storage.free_concurrency_slots_for_run(run_id)
        raise


def _capture_logs(job_context: Any, execution_plan: Any, captured: ExitStack) -> Iterator[DagsterEvent]:
    """Have the page show what a run prints; where somebody sees it in a terminal, it goes there and nowhere else."""
    if works_where_asked(job_context.dagster_run):
        return
    manager = job_context.instance.compute_log_manager
    key = manager.build_log_key_for_run(job_context.run_id, create_compute_log_file_key())
    steps = [step.key for step in execution_plan.get_steps_to_execute_in_topo_order()]
    context = captured.enter_context(manager.capture_logs(key))
    yield DagsterEvent.capture_logs(job_context, steps, key, context)


def _run_step(job_context: Any, active: ActiveExecution, step: Any) -> Iterator[DagsterEvent]:
    context = job_context.for_step(step, active.get_known_state())
    for event in dagster_event_sequence_for_step(context):
        yield event
        active.handle_event(event)
    if isinstance(context.step_exception, StepStopped):
        raise DagsterExecutionInterruptedError(str(context.step_exception))
    active.verify_complete(job_context, step.key)
    yield from active.plan_events_iterator(job_context)
