"""Dagster's page: its code server and its daemon, started and ended with it, and the applications that serve it.

What ``dagster dev`` does, with the webserver in this process, so that a guard stands before it. Belongs here: every
name of Dagster's that is not public and that this takes. Does not belong here: what guards the page (``guard``), the
server that it runs in (``serving``).
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import dagster as dg
from dagster._cli.dev import _optionally_create_temp_workspace
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_graphql.schema import create_schema
from dagster_shared.cli import WorkspaceOpts
from dagster_shared.ipc import get_ipc_shutdown_pipe, send_ipc_shutdown_message
from dagster_shared.serdes import serialize_value
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__
from graphql import GraphQLSchema
from starlette.types import ASGIApp

from heimdall_assets.web.roles import FindRun, RunFacts

CODE = "heimdall_assets.definitions"
DAEMON_STOP_S = 60.0
STATEMENT_TIMEOUT_MS, POOL_RECYCLE_S, POOL_OVERFLOW = 15_000, 3600, 20
"""As ``dagster-webserver`` asks databases when nobody says otherwise."""
REFRESH_MS = 2000
"""How often the page asks for news, as under ``dagster dev``."""


@contextmanager
def run_code_server(instance: dg.DagsterInstance, module: str = CODE) -> Iterator[list[str]]:
    """Give the arguments by which others find a code server for ``module``, which is started anew when it dies."""
    with _optionally_create_temp_workspace(
        use_legacy_code_server_behavior=False,
        workspace_opts=WorkspaceOpts(module_name=(module,)),
        instance=instance,
        code_server_log_level="warning",
    ) as arguments:
        yield list(arguments)


@contextmanager
def run_daemon(instance: dg.DagsterInstance, workspace: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Give a running daemon: sensors, schedules and the queue of runs; it has ended afterwards."""
    reading, writing = get_ipc_shutdown_pipe()
    told = ["--instance-ref", serialize_value(instance.get_ref()), "--code-server-log-level", "warning", *workspace]
    command = [sys.executable, "-m", "dagster._daemon", "run", "--shutdown-pipe", str(reading), *told]
    process = subprocess.Popen(command, pass_fds=[reading])
    os.close(reading)
    try:
        yield process
    finally:
        with suppress(BrokenPipeError):  # it has ended already
            send_ipc_shutdown_message(writing)
        with suppress(subprocess.TimeoutExpired):
            process.wait(DAEMON_STOP_S)
        process.kill()
        process.wait()


@contextmanager
def open_app(instance: dg.DagsterInstance, workspace: Sequence[str], read_only: bool) -> Iterator[ASGIApp]:
    """Give Dagster's page on a running code server; where it is ``read_only``, Dagster refuses every mutation."""
    files = [argument for argument in workspace if argument != "--workspace"]
    with WorkspaceProcessContext(
        instance,
        version=__version__,
        read_only=read_only,
        workspace_load_target=WorkspaceFileTarget(files),
        code_server_log_level="warning",
    ) as context:
        yield create_app_from_workspace_process_context(context, live_data_poll_rate=REFRESH_MS)


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """Give the instance that ``DAGSTER_HOME`` names, asked as a server asks that runs for long."""
    with dg.DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_TIMEOUT_MS, POOL_RECYCLE_S, POOL_OVERFLOW)
        yield instance


def read_schema() -> GraphQLSchema:
    """Return what can be asked of Dagster's page."""
    return cast(GraphQLSchema, create_schema().graphql_schema)


def find_run(instance: dg.DagsterInstance) -> FindRun:
    """Return what tells of a run of this instance what it computes; None: there is no such run."""

    def find(run_id: str) -> RunFacts | None:
        run = instance.get_run_by_id(run_id)
        if run is None:
            return None
        assets = run.asset_selection
        return RunFacts(run.job_name, frozenset(key.to_user_string() for key in assets) if assets else None)

    return find
