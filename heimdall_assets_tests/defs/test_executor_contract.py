"""The contract with Dagster: fails first, and says what moved, when a new version moves a name that is not public."""

import ast
import textwrap
from inspect import getsource, signature
from pathlib import Path

import dagster as dg

import heimdall_assets
from heimdall_assets.definitions import build_definitions
from heimdall_assets.defs.executor import delegation
from heimdall_assets.defs.executor.delegation import CheckStepHealthResult, StepDelegatingExecutor, StepHandler
from heimdall_assets_tests.homes import make_places

PACKAGE = Path(heimdall_assets.__file__).parent


def test_one_module_names_what_is_not_public_and_all_of_it_is_still_there():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dagster."):
                found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).update(item.name for item in node.names)
    assert found == {
        "defs/executor/delegation.py": {
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
        }
    }
    assert all(hasattr(delegation, name) for names in found.values() for name in names)


def test_a_handler_has_four_duties_and_is_told_what_it_needs():
    assert {"name", "launch_step", "check_step_health", "terminate_step"} == set(StepHandler.__abstractmethods__)
    told = {"execute_step_args", "step_tags", "get_step_context", "dagster_run", "instance"}
    assert told <= set(dir(delegation.StepHandlerContext))
    assert CheckStepHealthResult.unhealthy("why").unhealthy_reason == "why"
    assert CheckStepHealthResult.healthy().is_healthy


def test_the_executor_takes_what_it_is_given():
    assert set(signature(StepDelegatingExecutor.__init__).parameters) >= {
        "step_handler",
        "retries",
        "sleep_seconds",
        "check_step_health_interval_seconds",
        "max_concurrent",
        "should_verify_step",
    }
    assert list(signature(delegation.InProcessExecutor.__init__).parameters)[:2] == ["self", "retries"]
    assert "executor_config" in dg.InitExecutorContext._fields


def test_the_loop_of_steps_in_process_is_still_made_of_the_same_calls():
    """``defs.executor.in_process`` is Dagster's own loop, mended: what that does beyond this is missing in ours."""
    from dagster._core.execution.plan import execute_plan
    from dagster._core.executor import in_process

    def list_methods(function):
        nodes = ast.walk(ast.parse(textwrap.dedent(getsource(function))))
        return {node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}

    assert list_methods(execute_plan.inner_plan_execution_iterator) == {
        "append", "build_log_key_for_run", "capture_logs", "close", "concurrency_event_iterator", "enter_context",
        "for_step", "generator", "get_known_state", "get_next_step", "get_steps_to_execute_in_topo_order",
        "exc_info", "handle_event", "inst", "inst_param", "invariant", "plan_events_iterator",
        "sleep_til_ready", "start", "verify_complete",
    }  # fmt: skip
    assert list_methods(in_process.InProcessExecutor.execute) == {
        "engine_event", "getpid", "in_process", "inst_param"
    }  # fmt: skip
    assert {"check_for_interrupts", "is_complete"} <= set(dir(delegation.ActiveExecution))


def test_a_step_says_its_command_and_its_arguments_apart():
    from dagster._grpc.types import ExecuteStepArgs

    assert "skip_serialized_namedtuple" in signature(ExecuteStepArgs.get_command_args).parameters
    assert callable(ExecuteStepArgs.get_command_env)


def test_a_slot_is_freed_by_run_and_step(tmp_path: Path):
    with dg.DagsterInstance.ephemeral() as instance:
        assert callable(instance.event_log_storage.free_concurrency_slot_for_step)
    assert build_definitions(make_places(tmp_path)).executor is not None
