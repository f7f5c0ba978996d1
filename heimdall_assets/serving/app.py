"""The application: addresses of the service, each request from its head to its answer, refusals as JSON of one line.

Belongs here: HTTP. Does not belong here: answers (``serving.service``), the server and its end (``serving.running``).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heimdall_assets.errors import InvalidInput
from heimdall_assets.serving.openapi import build_document
from heimdall_assets.serving.parsing import FORM, JSON
from heimdall_assets.serving.service import Given, Service
from heimdall_assets.web.guard import Site, check_host, check_origin, read_body
from heimdall_assets.web.refusals import Refusal

_LOG = logging.getLogger(__name__)

LOCATE = "/v1/locate"
OPEN = ("/healthz", "/readyz", "/openapi.json")
"""Answered to whoever shows no key: probes have none."""

MAX_LINE = 1000
CHOSEN = "heimdall.chosen"
"""In the scope of a request: version and by what it was chosen."""

UNEXPECTED = "service: found an error of its own, expected none; its log says which"


@dataclass(frozen=True)
class Door:
    """Who may ask.

    Attributes:
        hosts: what a request may call its host; empty: whatever it likes.
        wants_key: whether a key must be shown; else who shows none is nobody in particular.
    """

    hosts: frozenset[str]
    wants_key: bool


def build_app(service: Service, door: Door, pool: ThreadPoolExecutor) -> ASGIApp:
    """Return the application; answers are computed in the threads of ``pool``."""
    document = build_document()
    asked = _Asked(service, door, pool)
    routes = [
        Route(LOCATE, asked.locate, methods=["POST"]),
        Route("/v1/models", asked.tell(service.describe_models), methods=["GET"]),
        Route("/v1/shadow", asked.tell(service.shadow.describe), methods=["GET"]),
        Route("/metrics", asked.measure, methods=["GET"]),
        Route("/healthz", asked.live, methods=["GET"]),
        Route("/readyz", asked.ready, methods=["GET"]),
        Route("/openapi.json", asked.tell(lambda: document), methods=["GET"]),
    ]
    handlers: dict[Any, Any] = {Refusal: _answer_refusal, HTTPException: _answer_http, InvalidInput: _answer_input}
    handlers[Exception] = _answer_unexpected
    app = Starlette(routes=routes, exception_handlers=handlers)
    return _Watch(app, service, frozenset(route.path for route in routes))


class _Asked:
    """The endpoints."""

    def __init__(self, service: Service, door: Door, pool: ThreadPoolExecutor):
        self._service, self._door, self._pool = service, door, pool
        self._site = Site(door.hosts, {})

    async def locate(self, request: Request) -> Response:
        caller = await self._let_in(request)
        content_type = _check_content(request)
        service, bounds = self._service, self._service.bounds
        with service.room.holding(request.receive) as receive:
            body = await read_body(request.scope, receive, bounds.max_body_bytes, bounds.body_s)
            given = await self._compute(lambda: service.answer(caller, content_type, body))
        request.scope[CHOSEN] = (given.choice.version, given.choice.chosen_by)
        later = None if given.job is None else BackgroundTask(service.shadow.offer, given.job)
        return _write(given, later)

    async def _compute(self, call: Callable[[], Given]) -> Given:
        """Return what a thread computes; it keeps its place until it ends, however long somebody waits for it."""
        self._service.room.enter()
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        future.add_done_callback(lambda done: self._service.room.leave())
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._service.bounds.answer_s)
        except TimeoutError:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is heard by nobody
            future.cancel()  # where it has not begun
            raise Refusal(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"answer: found none within {self._service.bounds.answer_s:g} s, expected one; ask again",
            ) from None

    def tell(self, call: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that answers with what ``call`` returns, in a thread."""

        async def endpoint(request: Request) -> Response:
            await self._let_in(request)
            return JSONResponse(await to_thread.run_sync(call))

        return endpoint

    async def measure(self, request: Request) -> Response:
        await self._let_in(request)
        return Response(self._service.metrics.encode(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def live(self, request: Request) -> Response:
        return JSONResponse({"state": "alive"})

    async def ready(self, request: Request) -> Response:
        problem = await to_thread.run_sync(self._service.find_problem)
        if problem is not None:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, problem)
        return JSONResponse({"state": "ready"})

    async def _let_in(self, request: Request) -> str | None:
        """Return who asks, by name; None: nobody in particular.

        Raises:
            Refusal: it names another host, another site made a browser ask, or the key does not count.
        """
        headers = Headers(scope=request.scope)
        if self._door.hosts:
            check_host(headers, self._door.hosts)
            check_origin(request.scope, headers, self._site)
        told = headers.get("authorization")
        if told is None:
            if self._door.wants_key and request.url.path not in OPEN:
                raise _refuse_key("found none, expected one, shown as Authorization: Bearer KEY")
            return None
        kind, _, shown = told.partition(" ")
        caller = None
        if kind.lower() == "bearer":
            caller = await to_thread.run_sync(self._service.find_caller, shown.strip())
        if caller is None:
            raise _refuse_key("found none that counts, expected one, shown as Authorization: Bearer KEY")
        return caller


class _Watch:
    """Counts and times every request, and writes what nobody expected to the log."""

    def __init__(self, app: ASGIApp, service: Service, routes: frozenset[str]):
        self._app, self._service, self._routes = app, service, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _refuse_socket(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        route = scope["path"] if scope["path"] in self._routes else "other"
        metrics = self._service.metrics

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            ends = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)
            if ends:
                metrics.note_request(route, status, scope.get(CHOSEN), time.monotonic() - began)

        with metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_watched)
            except Exception:  # it was answered with one line, which says nothing of it
                _LOG.exception("request to %s", route)


async def _refuse_socket(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})


def _write(given: Given, later: BackgroundTask | None) -> Response:
    if given.body is not None:
        return JSONResponse(given.body, background=later)
    told = {"error": _one_line(given.line), "version": given.choice.version, "chosen_by": given.choice.chosen_by}
    return JSONResponse(told, HTTPStatus.UNPROCESSABLE_ENTITY, background=later)


def _check_content(request: Request) -> str:
    """Return the content type of a request, JSON or a form.

    Raises:
        Refusal: it is another, or encoded.
    """
    found = request.headers.getlist("content-type")
    kind = found[0].partition(";")[0].strip().lower() if len(found) == 1 else ""
    if kind not in (JSON, FORM):
        named = ", ".join(repr(text[:60]) for text in found) or "none"
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content type: found {named}, expected {JSON} or {FORM}")
    if request.headers.get("content-encoding"):
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content encoding: found one, expected plain {kind}")
    return found[0]


def _refuse_key(line: str) -> Refusal:
    return Refusal(HTTPStatus.UNAUTHORIZED, f"key: {line}", [(b"www-authenticate", b"Bearer")])


def _answer_refusal(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    answer = _refuse(refusal.status, str(refusal))
    for name, value in refusal.headers:
        answer.headers[name.decode()] = value.decode()
    if request.method == "POST" and refusal.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        answer.headers["connection"] = "close"  # its body may not have been read
    return answer


def _answer_input(request: Request, error: Exception) -> Response:
    return _refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))


def _answer_unexpected(request: Request, error: Exception) -> Response:
    """Answer what nobody expected; it is raised on, and written to the log by who watches."""
    answer = _refuse(HTTPStatus.INTERNAL_SERVER_ERROR, UNEXPECTED)
    answer.headers["connection"] = "close"
    return answer


def _answer_http(request: Request, error: Exception) -> Response:
    """Answer what Starlette refuses: an address that there is not, a method that it has not."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        line = f"method: found {request.method[:20]}, expected {allowed.replace(', ', ' or ')}"
    else:
        line = f"address: found {request.url.path[:60]!r}, expected one of those in /openapi.json"
    answer = _refuse(HTTPStatus(error.status_code), line)
    answer.headers.update({**(error.headers or {}), "connection": "close"})
    return answer


def _refuse(status: HTTPStatus, line: str) -> Response:
    return JSONResponse({"error": _one_line(line)}, int(status))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_LINE]
