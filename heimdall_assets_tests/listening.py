"""A small real web server that remembers what it was sent, for tests of whatever tells others."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Heard:
    """What was posted: path, headers in lower case, and the JSON of the body, in the order in which it came."""

    url: str = ""
    status: int = 200
    posts: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    @property
    def bodies(self) -> list[Any]:
        return [body for *_, body in self.posts]


@contextmanager
def listen_to_posts(status: int = 200) -> Iterator[Heard]:
    """Give what a server on 127.0.0.1 hears; it answers ``status``, which may be changed."""
    heard = Heard(status=status)

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            heard.posts.append((self.path, headers, json.loads(data)))
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            self.send_response(heard.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        heard.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()
