"""Lineage pages: what ``heimdall lineage MODEL --html`` writes, served read-only to a browser.

Each is drawn when asked for, from the provenance frozen with the release; results and model card stand beside it. A
path is never a file's: it is the version of a published release or the digest of a result, or nothing is shown.
"""

from collections.abc import Callable
from html import escape
from http import HTTPStatus
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from heimdall_assets.errors import HeimdallError, NotFound
from heimdall_assets.lineage.page import render_html
from heimdall_assets.people import name_people_in_html
from heimdall_assets.pipeline.releases.audit import read_data
from heimdall_assets.pipeline.releases.reading import read_decisions, read_provenance
from heimdall_assets.stores.home import Stores
from heimdall_assets.web.refusals import Refusal, send_refusal
from heimdall_assets.web.result_pages import HTML, Page, find_stored, render_release

PARTS = ("results", "card")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""What these pages hold themselves, and nothing that runs."""
DRAWN_AT_ONCE = 4
"""Pages; more wait for these, and never for a thread that Dagster's page needs."""


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
    provenance = read_provenance(stores, version)
    data, decisions = read_data(stores, provenance), read_decisions(stores, provenance)
    page = render_html(provenance, data, decisions, releases[version].get("provenance"))
    return Page(HTML, page.encode())


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


def build_lineage_app(open_stores: Callable[[], Stores]) -> ASGIApp:
    """Return what serves the pages of the stores that ``open_stores`` opens, each drawn in a thread."""
    limiter = CapacityLimiter(DRAWN_AT_ONCE)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            page = await to_thread.run_sync(lambda: _draw(open_stores(), _read_target(scope)), limiter=limiter)
        except NotFound as error:
            await send_refusal(Refusal(HTTPStatus.NOT_FOUND, str(error)), scope, send)
        except (HeimdallError, OSError) as error:
            await send_refusal(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)), scope, send)
        else:
            await _send_page(page, send)

    return serve


def _draw(stores: Stores, target: str) -> Page:
    """Return the page that was asked for, with the names of people in place of their pseudonyms."""
    page = find_page(stores, target)
    if page.kind != HTML:
        return page
    return Page(HTML, name_people_in_html(page.data.decode(), stores.read_names).encode())


def _read_target(scope: Scope) -> str:
    """Return what was asked for as it was written: nothing of it is decoded, and no page has a query."""
    asked = scope["raw_path"].decode("latin-1")
    return f"{asked}?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else asked


async def _send_page(page: Page, send: Send) -> None:
    headers = [
        (b"content-type", f"{page.kind}; charset=utf-8".encode()),
        (b"content-length", str(len(page.data)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": int(HTTPStatus.OK), "headers": headers})
    await send({"type": "http.response.body", "body": page.data})
