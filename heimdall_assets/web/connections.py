"""Connections: how long a client may take, and how many it may hold, so that slow ones delay nobody.

uvicorn waits for a request's head without end and counts no connections. Here a head must come whole within seconds of
the connection or of the answer before it, an answer must be taken, and where there are too many connections, the one
that has kept us waiting longest makes room: whoever asks in one go is answered, however many say nothing.

Does not belong here: what is asked (``guard``, which also bounds how long a body may take).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


@dataclass(frozen=True)
class Limits:
    """What one server bears.

    Attributes:
        head_s: from the connection, or the answer before, to the end of a request's head.
        write_s: for a client to take what lies ready for it.
        connections: in all; far below the 1024 files that a process may often open.
        of_one_client: connections of one address; all of a proxy's users are one.
    """

    head_s: float = 10.0
    write_s: float = 30.0
    connections: int = 400
    of_one_client: int = 300


@dataclass
class _Entry:
    client: str
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)


class Ledger:
    """The open connections of a server: whose they are, and which of them keep us waiting, the longest first."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._open: dict[asyncio.Transport, _Entry] = {}
        self._waiting: dict[asyncio.Transport, None] = {}  # keeps the order in which they began to wait

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, transport: asyncio.Transport) -> None:
        """Count a new connection; where there are too many, one that waits is cut off, or else this one."""
        peer = transport.get_extra_info("peername")
        client = str(peer[0]) if peer else ""
        of_client = [other for other, entry in self._open.items() if entry.client == client]
        if len(of_client) >= self.limits.of_one_client:
            self._make_room([other for other in self._waiting if self._open[other].client == client] or [transport])
        elif len(self._open) >= self.limits.connections:
            self._make_room([*self._waiting] or [transport])
        self._open[transport] = _Entry(client)
        if not transport.is_closing():
            self.mark(transport, waits=True)

    def _make_room(self, candidates: list[asyncio.Transport]) -> None:
        longest = candidates[0]
        longest.abort()
        self.forget(longest)

    def mark(self, transport: asyncio.Transport, waits: bool) -> None:
        """Say whether a connection's next move is the client's."""
        if not waits:
            self._waiting.pop(transport, None)
        elif transport in self._open:
            self._waiting.setdefault(transport)

    def expect(self, transport: asyncio.Transport, what: str, seconds: float, otherwise: Callable[[], None]) -> None:
        """Call ``otherwise`` in so many seconds, unless ``what`` is met before; it is expected once at a time."""
        entry = self._open.get(transport)
        if entry is not None and what not in entry.timers:
            entry.timers[what] = asyncio.get_running_loop().call_later(seconds, otherwise)

    def meet(self, transport: asyncio.Transport, what: str) -> None:
        """Say that ``what`` was expected is there."""
        entry = self._open.get(transport)
        if entry is not None and what in entry.timers:
            entry.timers.pop(what).cancel()

    def forget(self, transport: asyncio.Transport) -> None:
        """Count a connection no more."""
        self._waiting.pop(transport, None)
        entry = self._open.pop(transport, None)
        for timer in entry.timers.values() if entry else ():
            timer.cancel()


class HttpConnection(H11Protocol):
    """uvicorn's, watched by a ledger."""

    def __init__(self, *arguments: Any, ledger: Ledger, **settings: Any):
        super().__init__(*arguments, **settings)
        self._ledger = ledger
        self._is_handed_on = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._ledger.admit(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)
            self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ledger.forget(self.transport)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._is_handed_on = True
        self._ledger.meet(self.transport, "head")
        self._ledger.mark(self.transport, waits=False)
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._ledger.expect(self.transport, "reading", self._ledger.limits.write_s, self.transport.abort)
        self._look()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._ledger.meet(self.transport, "reading")
        self._look()

    def _look(self) -> None:
        if self._is_handed_on:
            return
        state = self.conn.their_state
        if state is h11.IDLE:
            self._ledger.expect(self.transport, "head", self._ledger.limits.head_s, self._give_up)
        else:
            self._ledger.meet(self.transport, "head")
        self._ledger.mark(self.transport, state in (h11.IDLE, h11.SEND_BODY) or self.flow.write_paused)

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:  # it has begun to ask: tell it
            line = f"request: found no whole head within {self._ledger.limits.head_s:g} s\n".encode()
            headers = [("content-type", "text/plain"), ("content-length", str(len(line))), ("connection", "close")]
            for event in (h11.Response(status_code=408, headers=headers), h11.Data(line), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class SocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's, which has taken over a connection of the ledger."""

    def __init__(self, *arguments: Any, ledger: Ledger, **settings: Any):
        super().__init__(*arguments, **settings)
        self._ledger = ledger

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.initial_response and self.close_sent:
            self.handshake_complete = True  # refused; uvicorn would log an application that forgot to answer

    def connection_lost(self, exc: Exception | None) -> None:
        self._ledger.forget(self.transport)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._ledger.expect(self.transport, "reading", self._ledger.limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._ledger.meet(self.transport, "reading")
