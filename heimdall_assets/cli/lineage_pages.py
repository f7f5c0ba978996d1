"""Lineage pages: what ``heimdall lineage MODEL --html`` writes, served read-only to a browser of this machine.

Each is drawn when asked for, from the provenance frozen with the release; results and model card stand beside it. A
path is never a file's: it is the version of a published release or the digest of a result, or nothing is shown.
"""

from collections.abc import Callable
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from heimdall_assets.cli.result_pages import HTML, Page, find_stored, render_release
from heimdall_assets.errors import HeimdallError, InvalidSetting, NotFound
from heimdall_assets.lineage.report import render_html
from heimdall_assets.pipeline.releases.audit import read_provenance
from heimdall_assets.stores.home import Stores

HOST = "127.0.0.1"
PARTS = ("results", "card")


def find_page(stores: Stores, path: str) -> Page:
    """Return the page at ``path``.

    The list of releases is at ``/``, one release at ``/v1.2.3``, its results and its model card below it; a result that
    is not released at ``/results/DIGEST``, each figure at ``/results/DIGEST/NAME.svg`` and
    ``/trainings/DIGEST/losses.svg``.

    Raises:
        NotFound: the path is none of them; it is compared with what is stored and never opened.
    """
    stored = find_stored(stores.objects, path)
    if stored is not None:
        return stored
    releases = {str(record["version"]): record for record in stores.releases.list_releases()}
    if path == "/":
        return Page(HTML, _render_list(releases).encode())
    version, _, part = path[1:].partition("/")
    if not path.startswith("/") or version not in releases or ((part or path[1:] != version) and part not in PARTS):
        raise NotFound(f"lineage page {path!r:.60}: found no such release, expected / or one such as /v1.0.0")
    if part:
        return render_release(stores, releases[version], part)
    return Page(HTML, render_html(read_provenance(stores, version), releases[version].get("provenance")).encode())


def _render_list(releases: dict[str, dict[str, Any]]) -> str:
    rows = [
        f'<li><a href="/{escape(version)}">{escape(version)}</a> {escape(", ".join(record["aliases"]))} '
        f'(<a href="/{escape(version)}/results">results</a>, <a href="/{escape(version)}/card">card</a>)</li>'
        for version, record in reversed(releases.items())
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Lineage</title>'
        f"<h1>Released models</h1><ul>{''.join(rows) or '<li>none yet</li>'}</ul></html>"
    )


def _build_handler(open_stores: Callable[[], Stores], public_host: str | None) -> type[BaseHTTPRequestHandler]:
    hosts = {HOST, "localhost", public_host}

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "heimdall", ""
        timeout = 30.0

        def do_GET(self) -> None:
            # Another site's script that lets its own name point here is not answered.
            if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in hosts:
                self._answer(HTTPStatus.MISDIRECTED_REQUEST, Page("text/plain", b"not an address of this server\n"))
                return
            try:
                page = find_page(open_stores(), self.path)
            except NotFound as error:
                self._answer(HTTPStatus.NOT_FOUND, Page("text/plain", f"{error}\n".encode()))
            except (HeimdallError, OSError) as error:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, Page("text/plain", f"{error}\n".encode()))
            else:
                self._answer(HTTPStatus.OK, page)

        do_HEAD = do_GET

        def _answer(self, status: HTTPStatus, page: Page) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{page.kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(page.data)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(page.data)

        def log_message(self, *_: object) -> None:
            """Keep the terminal to Dagster's own log."""

    return Handler


class LineageServer:
    """The pages on one port of 127.0.0.1: taken at once, answered on from ``start`` to ``stop``."""

    def __init__(self, open_stores: Callable[[], Stores], port: int, public_url: str):
        handler = _build_handler(open_stores, urlsplit(public_url).hostname)
        try:
            self._server = ThreadingHTTPServer((HOST, port), handler)
        except OSError as error:
            raise InvalidSetting(
                f"lineage pages: port {port} of {HOST} cannot be had ({error.strerror}); choose one with --lineage-port"
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, name="lineage-pages", daemon=True)

    def start(self) -> None:
        """Answer from now on, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more and give the port back."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
