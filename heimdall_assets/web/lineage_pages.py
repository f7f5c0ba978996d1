"""Lineage pages: where releases come from, in parts, served read-only to a browser.

Each is drawn when asked for, from the provenance and the tables frozen with the release; results and model card stand
beside it. A path is never a file's: it is the version of a published release or the digest of a result, or nothing is
shown. Nothing runs in a browser: links and one form lead from page to page.
"""

from collections.abc import Callable
from http import HTTPStatus

from anyio import CapacityLimiter, to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from heimdall_assets.errors import HeimdallError, NotFound
from heimdall_assets.people import name_people_in_html
from heimdall_assets.stores.home import Stores
from heimdall_assets.web.queries import parse_query
from heimdall_assets.web.refusals import Refusal, send_refusal
from heimdall_assets.web.release_pages import find_part, render_releases
from heimdall_assets.web.result_pages import HTML, Page, find_stored, render_release
from heimdall_assets.web.run_pages import find_run_page

PARTS = ("results", "card")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""What these pages hold themselves, and nothing that runs."""
DRAWN_AT_ONCE = 4
"""Pages; more wait for these, and never for a thread that Dagster's page needs."""


def find_page(stores: Stores, path: str, query: str = "") -> Page:
    """Return the page at ``path``, of what the query asks for.

    The list of releases is at ``/``, one release at ``/v1.2.3``, below it ``sessions?q=WORDS&page=NUMBER``,
    ``session?id=ID``, ``changes``, its results and its model card; a result that is not released is at
    ``/results/DIGEST``, each figure at ``/results/DIGEST/NAME.svg`` and ``/trainings/DIGEST/losses.svg``.
    Trainings are at ``/runs``, one of them, which may be under way, at ``/runs/ID``.

    Raises:
        NotFound: the path is none of them, or the query is not one that the page has; nothing of either is opened.
    """
    stored = None if query else find_stored(stores.objects, path) or find_run_page(stores, path)
    if stored is not None:
        return stored
    records = stores.releases.list_releases()
    releases = {str(record["version"]): record for record in records}
    if path == "/":
        parse_query(query, ())
        return Page(HTML, render_releases(stores, records).encode())
    version, slash, part = path[1:].partition("/")
    draw = find_part(part)
    is_part = bool(part) and (draw is not None or part in PARTS)
    if not path.startswith("/") or version not in releases or bool(slash) != is_part:
        raise NotFound(f"lineage page {path!r:.60}: found no such release, expected / or one such as /v1.0.0")
    if draw is None:
        parse_query(query, ())
        return render_release(stores, releases[version], part)
    return Page(HTML, draw(stores, releases[version], query).encode())


def build_lineage_app(open_stores: Callable[[], Stores]) -> ASGIApp:
    """Return what serves the pages of the stores that ``open_stores`` opens, each drawn in a thread."""
    limiter = CapacityLimiter(DRAWN_AT_ONCE)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            page = await to_thread.run_sync(lambda: draw_page(open_stores(), *_read_target(scope)), limiter=limiter)
        except NotFound as error:
            await send_refusal(Refusal(HTTPStatus.NOT_FOUND, str(error)), scope, send)
        except (HeimdallError, OSError) as error:
            await send_refusal(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)), scope, send)
        else:
            await _send_page(page, send)

    return serve


def draw_page(stores: Stores, path: str, query: str) -> Page:
    """Return the page that was asked for, with the names of people in place of their pseudonyms."""
    page = find_page(stores, path, query)
    if page.kind != HTML:
        return page
    return Page(HTML, name_people_in_html(page.data.decode(), stores.read_names).encode())


def _read_target(scope: Scope) -> tuple[str, str]:
    """Return path and query as they were written: nothing of a path is decoded."""
    return scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")


async def _send_page(page: Page, send: Send) -> None:
    headers = [
        (b"content-type", f"{page.kind}; charset=utf-8".encode()),
        (b"content-length", str(len(page.data)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": int(HTTPStatus.OK), "headers": headers})
    await send({"type": "http.response.body", "body": page.data})
