"""``heimdall ui``: Dagster's page, its daemon and the lineage pages, started together and ended together.

With ``--workspace`` the page alone: code server and daemon are services of their own then, and do their own recovery.
"""

import ipaddress
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from heimdall_assets.cli.terminal.output import write_text
from heimdall_assets.dagster_home import PATIENCE, prepare_dagster_home
from heimdall_assets.errors import InvalidSetting, Refused
from heimdall_assets.pipeline.processes import interrupt_with_parent
from heimdall_assets.places import read_places
from heimdall_assets.stores.locks import hold_lock
from heimdall_assets.stores.users import UsersFile

if TYPE_CHECKING:
    from heimdall_assets.variables import Places

HOST, ANY = "127.0.0.1", ("0.0.0.0", "::")
STOP_S = 60.0
"""A training that is under way may take this long to save what it has; then everything is killed."""
# On a busy machine a run's process needs more than Dagster's own minute to start, and is then given up while it starts.


@click.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--lineage-port",
    type=click.IntRange(1, 65535),
    help="Of the lineage pages; default: that of HEIMDALL_LINEAGE_URL.",
)
@click.option("--host", default=HOST, show_default=True, help="Address to listen on; any other needs HEIMDALL_USERS.")
@click.option(
    "--workspace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File that says where the code server runs; a daemon then runs elsewhere too, and the page is served alone.",
)
@click.option("--read-only", is_flag=True, help="For auditors: everything is shown, nothing can be changed.")
def ui(port: int, lineage_port: int | None, host: str, workspace: Path | None, read_only: bool) -> None:
    """Open Dagster's page on this home, with the lineage pages beside it.

    Where HEIMDALL_USERS names a file (heimdall users add writes it), everybody logs in, and a role says what each may;
    else whoever is at this machine may everything, and no other machine reaches the page. Names by which a proxy or a
    network calls it stand in HEIMDALL_ALLOWED_HOSTS.
    """
    places = read_places()
    _check_login(places, host)
    folder = prepare_dagster_home(places)
    chosen = lineage_port or _choose_lineage_port(places)
    shown = HOST if host in ANY else f"[{host}]" if ":" in host else host
    # Whoever sits behind a proxy names its address; else the links lead to the port itself.
    url = places.lineage_url if "lineage_url" in places.model_fields_set else f"http://{shown}:{chosen}"
    with (
        # Any number of pages may be served on one daemon; without a workspace this one starts a daemon of its own.
        nullcontext() if workspace else _hold_page(places.home, f"http://{shown}:{port}") as lock,
        bind_port("page", host, port, "--port") as page,
        bind_port("lineage pages", host, chosen, "--lineage-port") as lineage,
    ):
        if workspace is None:
            _recover(places, folder)
        environment = {
            **PATIENCE,
            **os.environ,
            "DAGSTER_HOME": str(folder),
            "HEIMDALL_HOME": str(places.home),
            "HEIMDALL_LINEAGE_URL": url,
        }
        write_text(f"The graph: http://{shown}:{port}/asset-groups   releases, sessions: {url}   end with Ctrl+C")
        bound = (page.fileno(), lineage.fileno())
        command = [sys.executable, "-m", "heimdall_assets.web", *map(str, bound)]
        command += ["--read-only"] if read_only else []
        command += ["--workspace", str(workspace)] if workspace else []
        sys.exit(_run_page(command, environment, bound if lock is None else (lock, *bound)))


def _check_login(places: "Places", host: str) -> None:
    """Refuse to show the page to other machines where nobody is asked for a name, or where nobody could come in."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise InvalidSetting(f"--host: found {host!r:.80}, expected an address such as {HOST} or 0.0.0.0") from None
    if places.users is None:
        if not address.is_loopback:
            raise Refused(
                f"page: --host {host} shows it to other machines, expected a login before that: HEIMDALL_USERS names "
                "the file of users, which heimdall users add NAME --role ROLE writes"
            )
    elif not UsersFile(places.users).list_users():
        raise Refused(f"users {places.users}: found nobody, expected a user; heimdall users add NAME --role ROLE")


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
    from heimdall_assets.definitions import recover_at
    from heimdall_assets.running.history import open_history

    with open_history(places, folder) as instance:
        for line in recover_at(places)(instance, None):
            write_text(line, err=True)


def _choose_lineage_port(places: "Places") -> int:
    from heimdall_assets.variable_kinds import LINEAGE_URL

    parts = urlsplit(places.lineage_url)
    own = parts.hostname in ("127.0.0.1", "localhost") and parts.port is not None
    return int(parts.port if own and parts.port else urlsplit(LINEAGE_URL).port or 0)


@contextmanager
def bind_port(what: str, host: str, port: int, option: str) -> Iterator[socket.socket]:
    """Yield a socket that has the port, so that nobody else takes it before the page's process listens on it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise InvalidSetting(
                f"{what}: port {port} of {host} cannot be had ({error.strerror}); choose one with {option}"
            ) from error
        yield bound


def _run_page(command: list[str], environment: dict[str, str], handed: tuple[int, ...]) -> int:
    """Run the page's process until it ends or somebody ends us; return its exit status.

    Args:
        handed: descriptors that it is handed, the home's lock among them: it holds that to its end.
    """
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    # Before the process: started by a shell that ignores interrupts, it would inherit that and never end.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    # A process group of its own, ended as a whole: code server and runs would be left behind otherwise. A killed
    # `heimdall ui` would leave sensors that go on starting runs.
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, preexec_fn=interrupt_with_parent, pass_fds=handed
    )
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
