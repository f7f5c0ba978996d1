"""Delegation: the names of Dagster that are not public and that a way of running steps is built on, in one place.

dagster-k8s, dagster-docker and dagster-ray build on the same ones. A contract test says first what a new version moved.
"""

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable, execute_run
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import dagster_event_sequence_for_step
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)

__all__ = [
    "ActiveExecution",
    "CheckStepHealthResult",
    "DagsterEvent",
    "DagsterExecutionInterruptedError",
    "EngineEventData",
    "ExecuteRunWithPlanIterable",
    "InMemoryJob",
    "InProcessExecutor",
    "InstanceConcurrencyContext",
    "PlanExecutionContextManager",
    "RetryMode",
    "StepDelegatingExecutor",
    "StepHandler",
    "StepHandlerContext",
    "create_compute_log_file_key",
    "dagster_event_sequence_for_step",
    "execute_run",
    "get_retries_config",
    "name_step",
]


def name_step(context: StepHandlerContext) -> str:
    """Return the key of the one step that a context is about.

    Raises:
        dagster.DagsterInvariantViolationError: it is about none or several.
    """
    keys = context.execute_step_args.step_keys_to_execute
    if not keys or len(keys) != 1:
        raise dg.DagsterInvariantViolationError(f"steps {keys}: expected exactly one for each launch")
    return keys[0]
