"""``heimdall ui``: Dagster's page, its daemon and the lineage pages, started together and ended together."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from heimdall_assets.errors import InvalidSetting, Refused
from heimdall_assets.pipeline.processes import interrupt_with_parent
from heimdall_assets.places import prepare_dagster_home, read_places
from heimdall_assets.stores.locks import hold_lock

if TYPE_CHECKING:
    from heimdall_assets.variables import Places

STOP_S = 60.0
"""A training that is under way may take this long to save what it has; then everything is killed."""
# On a busy machine a run's process needs more than Dagster's own minute to start, and is then given up while it starts.
PATIENCE = {"DAGSTER_GRPC_TIMEOUT_SECONDS": "600", "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "600"}
"""What Dagster reads from its environment; what is set already wins."""


@click.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--lineage-port",
    type=click.IntRange(1, 65535),
    help="Of the lineage pages; default: that of HEIMDALL_LINEAGE_URL.",
)
def ui(port: int, lineage_port: int | None) -> None:
    """Open Dagster's page on this home (127.0.0.1 only: it has no login), with the lineage pages beside it."""
    from heimdall_assets.cli.lineage_pages import HOST, LineageServer

    places = read_places()
    folder = prepare_dagster_home(places)
    chosen = lineage_port or _choose_lineage_port(places)
    # Whoever sits behind a proxy names its address; else the links lead to the port itself.
    url = places.lineage_url if "lineage_url" in places.model_fields_set else f"http://{HOST}:{chosen}"
    with _hold_page(places.home, f"http://{HOST}:{port}") as lock:
        _check_port(HOST, port)
        server = LineageServer(places.open_stores, chosen, url)
        _recover(places, folder)
        environment = {
            **PATIENCE,
            **os.environ,
            "DAGSTER_HOME": str(folder),
            "HEIMDALL_HOME": str(places.home),
            "HEIMDALL_LINEAGE_URL": url,
        }
        click.echo(f"The graph: http://{HOST}:{port}/asset-groups   releases: {url}   end with Ctrl+C")
        try:
            sys.exit(_run_dagster(_build_command(HOST, port), environment, lock, server.start))
        finally:
            server.stop()


@contextmanager
def _hold_page(home: Path, address: str) -> Iterator[int]:
    """Yield the lock of a home's page: a second daemon beside the first would start every retraining twice."""
    holder = f"process {os.getpid()} of {socket.gethostname()}, {address}"
    try:
        with hold_lock(home / "page.lock", holder) as lock:
            yield lock
    except Refused as error:
        raise Refused(f"home {home}: its page is open already; {error}") from None


def _recover(places: "Places", folder: Path) -> None:
    """Put right what killed processes left before anything of the page starts; say so."""
    import dagster as dg

    from heimdall_assets.definitions import recover_at

    with dg.DagsterInstance.from_config(str(folder)) as instance:
        for line in recover_at(places)(instance, None):
            click.echo(line, err=True)


def _choose_lineage_port(places: "Places") -> int:
    from heimdall_assets.variable_kinds import LINEAGE_URL

    parts = urlsplit(places.lineage_url)
    own = parts.hostname in ("127.0.0.1", "localhost") and parts.port is not None
    return int(parts.port if own and parts.port else urlsplit(LINEAGE_URL).port or 0)


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InvalidSetting(
                f"page: port {port} of {host} cannot be had ({error.strerror}); choose one with --port"
            ) from error


def _build_command(host: str, port: int) -> list[str]:
    command = [sys.executable, "-W", "ignore:Function `dev_command` is superseded", "-m", "dagster", "dev"]
    return [*command, "-m", "heimdall_assets.definitions", "--host", host, "--port", str(port)]


def _run_dagster(command: list[str], environment: dict[str, str], lock: int, on_start: Callable[[], None]) -> int:
    """Run ``dagster dev`` until it ends or somebody ends us; return its exit status. It holds ``lock`` to its end."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    # Before the process: started by a shell that ignores interrupts, it would inherit that and never end.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    # A process group of its own, ended as a whole: dagster dev leaves children behind otherwise. A killed `heimdall ui`
    # would leave sensors that go on starting runs.
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, preexec_fn=interrupt_with_parent, pass_fds=(lock,)
    )
    on_start()
    while not stopping and process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    return _end_group(process)


def _end_group(process: "subprocess.Popen[bytes]") -> int:
    """Interrupt the whole group, wait for its leader, kill what is left; return the leader's exit status."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
