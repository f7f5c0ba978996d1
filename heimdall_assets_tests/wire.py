"""A wire between us and a real server that speaks any protocol of TCP: it can be cut, lose an answer, and be mended."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_ABORTED = struct.pack("ii", 1, 0)
_PIECE_BYTES = 1 << 16


@dataclass
class Wire:
    """A wire to a server of this machine.

    Attributes:
        port: where it is taken up.
        is_cut: whoever takes it up is hung up on.
        loses_answers: the next answer never comes: the wire is cut in its place.
    """

    port: int
    is_cut: bool = False
    loses_answers: bool = False
    _ends: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cut(self) -> None:
        """Cut it now, for all who hold it, and until ``mend``."""
        self.is_cut = True
        with self._lock:
            ends, self._ends = self._ends, []
        for pair in ends:
            for end in pair:
                _hang_up(end)

    def mend(self) -> None:
        """Let it be taken up again."""
        self.is_cut = self.loses_answers = False

    def carry(self, near: socket.socket, far: socket.socket) -> None:
        """Carry bytes both ways, until either end is closed."""
        with self._lock:
            self._ends.append((near, far))
        for source, target, answers in ((near, far, False), (far, near, True)):
            threading.Thread(target=self._carry, args=(source, target, answers), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                if answers and self.loses_answers:
                    self.cut()
                    return
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTED)  # a reset, as from a machine that is gone
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def run_wire(port: int) -> Iterator[Wire]:
    """Give a wire to the server at a port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(int(listener.getsockname()[1]))

        def listen() -> None:
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                try:
                    if wire.is_cut:
                        raise ConnectionError
                    wire.carry(near, socket.create_connection(("127.0.0.1", port)))
                except OSError:
                    _hang_up(near)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield wire
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            wire.cut()
    thread.join()
