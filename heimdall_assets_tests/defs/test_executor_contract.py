"""The contract with Dagster: fails first, and says what moved, when a new version moves a name that is not public."""

import ast
import textwrap
from inspect import getsource, signature
from pathlib import Path

import dagster as dg
import pytest

import heimdall_assets
from heimdall_assets.definitions import build_definitions
from heimdall_assets.defs.executor import delegation
from heimdall_assets.defs.executor.delegation import CheckStepHealthResult, StepDelegatingExecutor, StepHandler
from heimdall_assets.web import dagster_page
from heimdall_assets_tests.homes import make_places

PACKAGE = Path(heimdall_assets.__file__).parent


def test_two_modules_name_what_is_not_public_and_all_of_it_is_still_there():
    private = ("dagster.", "dagster_shared.", "dagster_webserver.")
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(private):
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
        },
        "web/dagster_page.py": {
            "WorkspaceFileTarget",
            "WorkspaceOpts",
            "WorkspaceProcessContext",
            "__version__",
            "_optionally_create_temp_workspace",
            "create_app_from_workspace_process_context",
            "get_ipc_shutdown_pipe",
            "send_ipc_shutdown_message",
            "serialize_value",
        },
    }
    modules = {"defs/executor/delegation.py": delegation, "web/dagster_page.py": dagster_page}
    assert all(hasattr(modules[path], name) for path, names in found.items() for name in names)


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


def test_dagster_k8s_makes_and_names_jobs_where_ours_takes_hold():
    pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: heimdall-assets[k8s]")
    from dagster_k8s.client import DagsterKubernetesClient
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.executor import K8sStepHandler

    assert {"_get_k8s_step_job_name", "_get_container_context", "launch_step"} <= set(vars(K8sStepHandler))
    source = getsource(K8sStepHandler)
    for call in ("self._api_client.create_namespaced_job_with_retries(body=job, namespace=namespace)",
                 "container_context.get_k8s_job_config(", "self._executor_container_context"):  # fmt: skip
        assert call in source
    parameters = signature(DagsterKubernetesClient.create_namespaced_job_with_retries).parameters
    assert list(parameters)[:3] == ["self", "body", "namespace"]
    assert list(signature(K8sContainerContext.get_k8s_job_config).parameters) == ["self", "job_image", "run_launcher"]


def test_a_slot_is_freed_by_run_and_step(tmp_path: Path):
    with dg.DagsterInstance.ephemeral() as instance:
        assert callable(instance.event_log_storage.free_concurrency_slot_for_step)
    assert build_definitions(make_places(tmp_path)).executor is not None
