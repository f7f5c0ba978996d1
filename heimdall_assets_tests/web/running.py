"""A guard that runs, for tests: its server in a thread of this process, on a free port, over real HTTP."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from starlette.types import ASGIApp

from heimdall_assets.domain import Role
from heimdall_assets.web.connections import Limits
from heimdall_assets.web.guard import Gate, Guard, Site
from heimdall_assets.web.login import OpenGate
from heimdall_assets.web.serving import build_server

START_S = 30.0


@contextmanager
def serve_site(
    build: Callable[[socket.socket], Site], gate: Gate | None = None, limits: Limits | None = None, body_s: float = 20.0
) -> Iterator[int]:
    """Give the port of a running guard whose one site is built for its socket."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with _run(Guard({port: build(bound)}, gate or OpenGate(Role.APPROVER), body_s=body_s), bound, limits):
            yield port


@contextmanager
def serve_app(app: ASGIApp) -> Iterator[int]:
    """Give the port of an application that nothing guards."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with _run(app, bound, None):
            yield bound.getsockname()[1]


@contextmanager
def _run(app: ASGIApp, bound: socket.socket, limits: Limits | None) -> Iterator[None]:
    server = build_server(app, limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        deadline = time.monotonic() + START_S
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()


def ask(
    port: int, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    """Return status, text and headers of the answer to one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace"), answer.headers
    finally:
        connection.close()
