"""Lineage pages: where releases come from, in parts, and sessions that are decided about, served to a browser.

Each is drawn when asked for, from the provenance and the tables frozen with the release; results and model card stand
beside it. A path is never a file's: it is the version of a published release or the digest of a result, or nothing is
shown. Nothing runs in a browser: links and forms lead from page to page. One form changes something: it decides about
sessions, and is an approver's (``decision_forms``).
"""

from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus

from anyio import CapacityLimiter, to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from heimdall_assets.domain import Role
from heimdall_assets.errors import HeimdallError, NotFound
from heimdall_assets.people import name_people_in_html
from heimdall_assets.stores.home import Stores
from heimdall_assets.web.decision_forms import Answer, answer_form, check_role
from heimdall_assets.web.guard import BODY_S, MAX_BODY_BYTES, read_body
from heimdall_assets.web.queries import parse_query
from heimdall_assets.web.refusals import Refusal, send_refusal
from heimdall_assets.web.release_pages import find_part, render_releases
from heimdall_assets.web.result_pages import HTML, Page, find_stored, render_release
from heimdall_assets.web.run_pages import find_run_page
from heimdall_assets.web.session_pages import PNG, Desk, find_session_page
from heimdall_assets.web.visitors import Seals, Visitor

PARTS = ("results", "card")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""What these pages hold themselves, and nothing that runs."""
AUDITING = Desk(Visitor(Role.AUDITOR))
"""Where nobody decides."""
DRAWN_AT_ONCE = 4
"""Pages; more wait for these, and never for a thread that Dagster's page needs."""


def find_page(stores: Stores, path: str, query: str = "", desk: Desk = AUDITING) -> Page:
    """Return the page at ``path``, of what the query asks for.

    The list of releases is at ``/``, one release at ``/v1.2.3``, below it ``sessions?q=WORDS&page=NUMBER``,
    ``session?id=ID``, ``changes``, its results and its model card; a result that is not released is at
    ``/results/DIGEST``, each figure at ``/results/DIGEST/NAME.svg`` and ``/trainings/DIGEST/losses.svg``.
    Trainings are at ``/runs``, one of them, which may be under way, at ``/runs/ID``; sessions at ``/sessions``, one of
    them at ``/sessions/ID``, of which ``desk`` says who may decide.

    Raises:
        NotFound: the path is none of them, or the query is not one that the page has; nothing of either is opened.
    """
    stored = None if query else find_stored(stores.objects, path) or find_run_page(stores, path)
    stored = stored or find_session_page(stores, path, query, desk)
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


def build_lineage_app(open_stores: Callable[[], Stores], seals: Seals | None = None) -> ASGIApp:
    """Return what serves the pages of the stores that ``open_stores`` opens, each drawn in a thread.

    ``seals`` are those of forms; None: nobody decides anything.
    """
    limiter = CapacityLimiter(DRAWN_AT_ONCE)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        desk = Desk(scope["user"], seals)
        try:
            if scope["method"] == "POST":
                check_role(desk.visitor.role)
                body = await read_body(scope, receive, MAX_BODY_BYTES, BODY_S)
                answer = await to_thread.run_sync(lambda: take_form(open_stores(), body, desk), limiter=limiter)
                await _send_answer(answer, send)
                return
            target = _read_target(scope)
            page = await to_thread.run_sync(lambda: draw_page(open_stores(), *target, desk), limiter=limiter)
        except NotFound as error:
            await send_refusal(Refusal(HTTPStatus.NOT_FOUND, str(error)), scope, send)
        except (HeimdallError, OSError) as error:
            await send_refusal(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)), scope, send)
        else:
            await _send_page(page, send)

    return serve


def draw_page(stores: Stores, path: str, query: str, desk: Desk = AUDITING) -> Page:
    """Return the page that was asked for, with the names of people in place of their pseudonyms."""
    return _name_people(stores, find_page(stores, path, query, desk))


def take_form(stores: Stores, body: bytes, desk: Desk) -> Answer:
    """Return the answer to a form, with names likewise; raises ``Refusal`` for one that is none."""
    answer = answer_form(stores, body, desk)
    return answer if answer.page is None else replace(answer, page=_name_people(stores, answer.page))


def _name_people(stores: Stores, page: Page) -> Page:
    if page.kind != HTML:
        return page
    return Page(HTML, name_people_in_html(page.data.decode(), stores.read_names).encode())


def _read_target(scope: Scope) -> tuple[str, str]:
    """Return path and query as they were written: nothing of a path is decoded."""
    return scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")


async def _send_answer(answer: Answer, send: Send) -> None:
    if answer.page is not None:
        await _send_page(answer.page, send, answer.status)
        return
    headers = [
        (b"location", answer.address.encode("ascii")),
        (b"content-length", b"0"),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _send_page(page: Page, send: Send, status: HTTPStatus = HTTPStatus.OK) -> None:
    headers = [
        (b"content-type", (page.kind if page.kind == PNG else f"{page.kind}; charset=utf-8").encode()),
        (b"content-length", str(len(page.data)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": page.data})
