"""A proxy between us and a real S3 service: it counts requests, and does to some of them what networks do.

Signatures name the host that was asked, so that the service takes what comes through here as it was signed.
"""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class Fault:
    """What happens to the next requests of a kind.

    Attributes:
        act: ``refuse`` (``status`` and ``code``), ``slow`` (``delay_s``), ``cut`` (in the middle of the answer's
            body), ``cut_upload`` (in the middle of the request's), ``lose`` (done, and never answered), ``flip`` (a
            bit of the answer's body).
        method, part: of the requests, ``*`` any; ``part`` stands in their path.
        after: how many of them pass before.
        times: how many of them then.
    """

    act: str
    method: str = "GET"
    part: str = "/"
    after: int = 0
    times: int = 10**6
    status: int = 503
    code: str = "SlowDown"
    delay_s: float = 0.0


@dataclass
class FaultProxy:
    """A running proxy.

    Attributes:
        endpoint: its address.
        asked: method and path of each request that came, as they came.
        faults: what is to happen; the first that fits does.
    """

    endpoint: str
    asked: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def count(self) -> Counter[str]:
        """Return how many requests of each method came since the last call."""
        with self.lock:
            found = Counter(method for method, _ in self.asked)
            self.asked.clear()
        return found

    def take(self, method: str, path: str) -> Fault | None:
        """Note a request; return what is to happen to it."""
        with self.lock:
            self.asked.append((method, path))
            for fault in self.faults:
                if fault.method not in (method, "*") or fault.part not in path:
                    continue
                if fault.after > 0:
                    fault.after -= 1
                elif fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def run_proxy(service: str) -> Iterator[FaultProxy]:
    """Give a proxy before the service at an address."""
    host = urlsplit(service).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def _serve(self) -> None:
            fault = proxy.take(self.command, self.path)
            size = int(self.headers.get("Content-Length") or 0)
            act = fault.act if fault else ""
            if act == "cut_upload":
                self.rfile.read(size // 2)
                self.close_connection = True
                return
            body = self.rfile.read(size)
            if fault and act == "refuse":
                return self._answer(fault.status, {}, f"<Error><Code>{fault.code}</Code></Error>".encode())
            if fault and act == "slow":
                time.sleep(fault.delay_s)
            upstream = http.client.HTTPConnection(host, timeout=60)
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            data, headers = answer.read(), {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
            if self.command == "HEAD":
                headers["Content-Length"] = answer.getheader("Content-Length", "0")
            upstream.close()
            if act == "lose":
                self.close_connection = True
                return
            if act == "flip" and data:
                data = bytes([data[0] ^ 1]) + data[1:]
            self._answer(answer.status, headers, data, cut=act == "cut")

        def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(data)))
            elif "Content-Length" not in headers:
                self.send_header("Content-Length", "0")
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = self.close_connection or cut

        def handle(self) -> None:
            with suppress(ConnectionError, BrokenPipeError):
                super().handle()

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
