"""Bounds: what one request, and all that are under way together, may cost.

Belongs here: the numbers, counting bytes and places. Does not belong here: slow heads and open connections
(``web.connections``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from starlette.types import Message, Receive

from heimdall_assets.web.refusals import Refusal

MB = 1_000_000
RETRY = (b"retry-after", b"1")


@dataclass(frozen=True)
class Bounds:
    """What the service bears.

    Attributes:
        workers: threads that compute answers.
        queue: requests that wait for one of them.
        max_body_bytes: of one request.
        max_held_bytes: of the bodies of all requests together.
        body_s: for a whole body to come.
        answer_s: from the whole body to the answer.
        max_shadow_jobs: answers that wait for the shadow.
    """

    workers: int = 2
    queue: int = 64
    max_body_bytes: int = 64 * MB
    max_held_bytes: int = 256 * MB
    body_s: float = 20.0
    answer_s: float = 30.0
    max_shadow_jobs: int = 100


class Room:
    """Bytes of bodies that are held, and requests that are computed or wait for it; used by the event loop alone."""

    def __init__(self, bounds: Bounds):
        self._bounds = bounds
        self.num_bytes = 0
        self.num_requests = 0

    @contextmanager
    def holding(self, receive: Receive) -> Iterator[Receive]:
        """Give a ``receive`` whose bytes count until the end; they are refused where all together are too many."""
        held = 0

        async def receive_counted() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held += size
            self.num_bytes += size
            if self.num_bytes > self._bounds.max_held_bytes:
                raise Refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"bodies: found more than {self._bounds.max_held_bytes} bytes of all requests together, expected "
                    "fewer; ask again",
                    [RETRY],
                )
            return message

        try:
            yield receive_counted
        finally:
            self.num_bytes -= held

    def enter(self) -> None:
        """Take a place among the requests that are computed or wait.

        Raises:
            Refusal: there is none.
        """
        most = self._bounds.workers + self._bounds.queue
        if self.num_requests >= most:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"requests: found {most} under way, expected fewer; ask again",
                [RETRY],
            )
        self.num_requests += 1

    def leave(self) -> None:
        """Give the place back."""
        self.num_requests -= 1
