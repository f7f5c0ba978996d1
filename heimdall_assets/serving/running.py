"""Running: the service on a bound socket, its threads, until it is told to stop.

Belongs here: threads beside the server, the end. Does not belong here: the socket and the command (``cli.answering``),
signals and connections (``web.serving``, ``web.connections``).
"""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from heimdall_assets.errors import HeimdallError
from heimdall_assets.serving.app import Door, build_app
from heimdall_assets.serving.service import Service
from heimdall_assets.web.connections import Limits
from heimdall_assets.web.serving import Server, build_server, serve

_LOG = logging.getLogger(__name__)

WATCH_S = 0.5
"""How often the ledger is asked for models to open ahead."""

STOP_S = 4
"""For answers under way when the service is told to stop; whole within 5 s."""


@contextmanager
def prepare_server(service: Service, door: Door, limits: Limits | None = None) -> Iterator[Server]:
    """Give a server of the service, its threads running until it is left; who computes then is not waited for."""
    pool = ThreadPoolExecutor(service.bounds.workers, "answer")
    stopped = threading.Event()
    server = build_server(build_app(service, door, pool), limits)
    server.config.timeout_graceful_shutdown = STOP_S
    threading.Thread(target=_watch, args=(service, stopped), name="watch", daemon=True).start()
    service.shadow.start()
    try:
        yield server
    finally:
        stopped.set()
        service.shadow.stop()
        pool.shutdown(wait=False, cancel_futures=True)


def log_to_stderr() -> None:
    """Write what the service's room tells to stderr, tracebacks too; a command's own notices are one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    room = logging.getLogger("heimdall_assets.serving")
    room.addHandler(handler)
    room.propagate = False
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a warning for each form that is none


def run_service(service: Service, bound: socket.socket, door: Door) -> None:
    """Serve on a bound socket until an interrupt; answers under way are finished, but not for ever."""
    log_to_stderr()
    with prepare_server(service, door) as server:
        asyncio.run(serve(server, [bound], None))
    if service.room.num_requests:  # a thread that computes still would hold the process up
        logging.shutdown()
        os._exit(0)


def _watch(service: Service, stopped: threading.Event) -> None:
    """Open models ahead while the ledger names new ones."""
    told = ""
    while not stopped.is_set():
        try:
            service.look_ahead()
            told = ""
        except HeimdallError as error:
            if str(error) != told:  # once, not twice a second
                _LOG.warning("ledger: %s", error)
                told = str(error)
        stopped.wait(WATCH_S)
