"""The contract with Dagster: fails first, and says what moved, when a new version moves a name that is not public."""

import ast
from inspect import signature
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
            "CheckStepHealthResult",
            "DagsterEvent",
            "EngineEventData",
            "RetryMode",
            "StepDelegatingExecutor",
            "StepHandler",
            "StepHandlerContext",
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
    assert dg.in_process_executor.executor_creation_fn is not None
    assert "executor_config" in dg.InitExecutorContext._fields


def test_a_step_says_its_command_and_its_arguments_apart():
    from dagster._grpc.types import ExecuteStepArgs

    assert "skip_serialized_namedtuple" in signature(ExecuteStepArgs.get_command_args).parameters
    assert callable(ExecuteStepArgs.get_command_env)


def test_a_slot_is_freed_by_run_and_step(tmp_path: Path):
    with dg.DagsterInstance.ephemeral() as instance:
        assert callable(instance.event_log_storage.free_concurrency_slot_for_step)
    assert build_definitions(make_places(tmp_path)).executor is not None
