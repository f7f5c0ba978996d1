"""Refusals: what the guard says no with, as one line under a status, to browsers, tools and websockets alike.

Belongs here: a refusal, and how it and other short texts are sent. Does not belong here: when to refuse (``guard``,
``roles``, ``login``).
"""

from collections.abc import Sequence
from http import HTTPStatus

from starlette.types import Scope, Send

Headers = Sequence[tuple[bytes, bytes]]


class Refusal(Exception):
    """A request that is not let through; its message is one line for whoever asked.

    Attributes:
        status: what HTTP calls it.
        headers: what is told beside the line.
    """

    def __init__(self, status: HTTPStatus, line: str, headers: Headers = ()):
        super().__init__(line)
        self.status = status
        self.headers = tuple(headers)


async def send_refusal(refusal: Refusal, scope: Scope, send: Send) -> None:
    """Answer with the refusal's line; the connection ends, for its body may not have been read."""
    await send_text(refusal.status, f"{refusal}\n".encode(), scope, send, (*refusal.headers, (b"connection", b"close")))


async def send_text(status: HTTPStatus, data: bytes, scope: Scope, send: Send, headers: Headers = ()) -> None:
    """Answer with plain text, over HTTP or in place of a websocket."""
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    told = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(data)).encode()), *headers]
    await send({"type": f"{kind}.start", "status": int(status), "headers": told})
    await send({"type": f"{kind}.body", "body": data})
