"""Serving: one server for both ports, behind one guard, until it is told to stop or Dagster's daemon ends.

Belongs here: the server's settings and its end. Does not belong here: the command that starts this process
(``cli.serving``), what it serves (``dagster_page``, ``lineage_pages``).
"""

import asyncio
import contextlib
import math
import signal
import socket
import subprocess
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from heimdall_assets.web.connections import HttpConnection, Ledger, Limits, SocketConnection

STOP_S = 5
"""For answers under way when the server stops; open websockets are closed at once."""
MAX_MESSAGE_BYTES = 1_000_000
LOOK_S = 0.5


class Server(uvicorn.Server):
    """uvicorn's, which leaves signals to whoever runs it, and sends at once what it has to send."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        # Connections inherit it. Without, the second part of each answer waits 40 ms for a client's delayed receipt:
        # asyncio sets it on sockets alone that say their protocol, which bound ones of Python do not.
        for bound in sockets or []:
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().startup(sockets=sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Capture none."""
        yield


def build_server(app: ASGIApp, limits: Limits | None = None) -> Server:
    """Return a server of ``app`` within ``limits``; it listens once it runs (``serve``)."""
    ledger = Ledger(limits or Limits())
    config = uvicorn.Config(
        cast(Any, app),
        http=cast(Any, partial(HttpConnection, ledger=ledger)),
        ws=cast(Any, partial(SocketConnection, ledger=ledger)),
        ws_max_size=MAX_MESSAGE_BYTES,
        loop="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is never what a header says
        timeout_keep_alive=math.ceil(ledger.limits.head_s),
        timeout_graceful_shutdown=STOP_S,
    )
    return Server(config)


async def serve(server: Server, sockets: Iterable[socket.socket], daemon: "subprocess.Popen[bytes] | None") -> bool:
    """Serve on ``sockets`` until an interrupt or until ``daemon`` ends; return whether the daemon ended by itself.

    Without a ``daemon`` of ours, one runs elsewhere and its end is nothing to us.
    """

    def has_ended() -> bool:
        return daemon is not None and daemon.poll() is not None

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop)
    serving = asyncio.create_task(server.serve(sockets=list(sockets)))
    while not serving.done() and not has_ended():
        await asyncio.wait([serving], timeout=LOOK_S)
    ended = has_ended() and not server.should_exit
    stop()
    await serving
    return ended
