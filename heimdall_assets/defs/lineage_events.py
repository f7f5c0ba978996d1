"""Lineage events: OpenLineage told of each asset while a run goes on, where an address or a folder is set for it.

Belongs here: reading Dagster's events as they pass, sending, and that nobody's absence stops a run. Does not belong
here: what an event says (``lineage.exports.openlineage_steps``).

Only the transports of OpenLineage's own library are used: its client adds what it finds in the environment and in git's
settings, which is nobody's business.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import dagster as dg

from heimdall_assets.defs.origins import describe_origin, hide_person
from heimdall_assets.defs.progress import notice
from heimdall_assets.errors import HeimdallError, MissingDependency
from heimdall_assets.lineage.exports.openlineage_steps import Attempt, Made, tell_failure, tell_made, tell_start
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import PARQUET_MEDIA_TYPE
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.computing import read_facts
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.plain_files import make_plain_folder

if TYPE_CHECKING:
    from openlineage.client.transport import Transport

VARIABLE = "HEIMDALL_OPENLINEAGE"
ANSWER_S = 5.0
_ONCE: dict[str, Any] = {"total": 0, "read": 0, "connect": 0, "status_forcelist": []}
"""No event is sent a second time: a run does not wait for whoever only listens."""

KEY_VARIABLE = "OPENLINEAGE_API_KEY"
"""As all tools of OpenLineage call the key of their collector."""

Follow = Callable[[Any, Iterable[dg.DagsterEvent]], Iterator[dg.DagsterEvent]]
"""Called with the context of a run's plan and the events of its steps, which it gives on."""


def build_following(open_stores: Callable[[], Stores], target: str | Path | None) -> Follow:
    """Return what tells ``target`` of the steps of a run.

    Args:
        open_stores: opened where the first asset is made.
        target: web address, or a folder that holds a file of events for each run; None: nobody is told.
    """

    def follow(plan_context: Any, events: Iterable[dg.DagsterEvent]) -> Iterator[dg.DagsterEvent]:
        if target is None:
            yield from events
            return
        following = _Following(plan_context, target, open_stores)
        try:
            for event in events:
                for line in following.hear(event):
                    notice(line)
                    plan_context.log.warning(line)
                yield event
        finally:
            following.end()

    return follow


class _Following:
    """What is told of one run; after the first event that could not be sent, nothing more."""

    def __init__(self, plan_context: Any, target: str | Path, open_stores: Callable[[], Stores]):
        self._run = plan_context.dagster_run
        self._steps = {step.key: _list_assets(step) for step in plan_context.execution_plan.steps}
        self._open_stores, self._target = cache(open_stores), target
        self._read_origin = cache(lambda: hide_person(describe_origin(self._run), self._open_stores()))
        self._open: dict[str, Attempt] = {}
        self._attempts: dict[str, int] = {}
        self._transport: Transport | None = None
        self._is_over = False

    def hear(self, event: dg.DagsterEvent) -> list[str]:
        """Tell of one event of Dagster's; return a line where that could not be done, the first time."""
        if self._is_over:
            return []
        try:
            for made in self._describe(event):
                self._tell(made)
        except Exception as error:  # whatever the library and the network raise: the run is worth more
            self._is_over = True
            why = _describe_fault(error)
            return [f"{VARIABLE}: could not be told of {event.step_key} ({why}); it is told no more of this run"]
        return []

    def end(self) -> None:
        """Tell that what is not done was given up: the run was stopped."""
        try:
            for attempt in list(self._open.values()):
                if not self._is_over:
                    self._tell(tell_failure(attempt, datetime.now(UTC), None))
        except Exception:  # the run is over, and nobody listens
            self._is_over = True
        if self._transport is not None:
            self._transport.close()

    def _tell(self, event: Any) -> None:
        if self._transport is None:
            self._transport = open_transport(self._target, self._run.run_id)
        self._transport.emit(event)

    def _describe(self, event: dg.DagsterEvent) -> Iterator[Any]:
        kind, now = event.event_type, datetime.now(UTC)
        step = event.step_key or ""
        if kind in (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED):
            for asset in self._steps.get(step, ()):
                yield tell_start(self._begin(asset), now)
        elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
            materialization = event.step_materialization_data.materialization
            attempt = self._open.pop(materialization.asset_key.to_user_string(), None)
            if attempt is not None:
                yield tell_made(attempt, now, self._read(materialization))
        elif kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.STEP_UP_FOR_RETRY):
            for asset in self._steps.get(step, ()):
                if (attempt := self._open.pop(asset, None)) is not None:
                    yield tell_failure(attempt, now, _find_cause(event))

    def _begin(self, asset: str) -> Attempt:
        number = self._attempts[asset] = self._attempts.get(asset, 0) + 1
        stage = STAGES.get(asset)
        parents = () if stage is None else tuple(stage.parents)
        code_version = None if stage is None else stage.code_version
        origin = self._read_origin()
        told = {"started_by": origin.started_by, "reason": origin.reason, "profile": origin.profile}
        self._open[asset] = Attempt(asset, self._run.run_id, number, told, parents, code_version)
        return self._open[asset]

    def _read(self, materialization: Any) -> Made:
        """Return what was made, as it rests."""
        from heimdall_assets.stores.objects.tables import read_columns

        objects = self._open_stores().objects
        manifest = Manifest.decode(objects.read_bytes((materialization.tags or {})["dagster/data_version"]))
        tables = {
            part.digest: read_columns(objects.read_bytes(part.digest))
            for part in manifest.artifacts.values()
            if part.media_type == PARQUET_MEDIA_TYPE
        }
        reused = materialization.metadata.get("reused")
        facts = read_facts(objects, manifest.digest)
        return Made(manifest, facts, None if reused is None else bool(reused.value), tables)


def open_transport(target: str | Path, run_id: str) -> "Transport":
    """Return what sends events to an address, or appends them to the file of a run in a folder.

    Raises:
        MissingDependency: openlineage-python is not installed.
        StorageError: the folder could not be made.
    """
    try:
        from openlineage.client.transport.file import FileConfig, FileTransport
        from openlineage.client.transport.http import HttpConfig, HttpTransport
    except ImportError as error:
        raise MissingDependency("found no package openlineage-python; install heimdall-assets[exports]") from error
    if isinstance(target, Path):
        make_plain_folder(target)
        return FileTransport(FileConfig(str(target / f"{run_id}.jsonl"), append=True))
    parts = urlsplit(target)
    asked: dict[str, Any] = {"url": target, "timeout": ANSWER_S, "retry": _ONCE}
    if parts.path.strip("/"):  # who names a path means it; else it is where all collectors listen
        asked |= {"url": urlunsplit((*parts[:2], "", "", "")), "endpoint": urlunsplit(("", "", *parts[2:]))}
    key = os.environ.get(KEY_VARIABLE)
    auth = {"auth": {"type": "api_key", "apiKey": key}} if key else {}
    return HttpTransport(HttpConfig.from_dict({**asked, **auth}))


def _list_assets(step: Any) -> tuple[str, ...]:
    keys = [output.properties.asset_key for output in step.step_outputs if output.properties is not None]
    return tuple(key.to_user_string() for key in keys if key is not None)


def _find_cause(event: dg.DagsterEvent) -> str:
    data: Any = event.event_specific_data
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return "unknown" if error is None else str(error.message).strip()


def _describe_fault(error: Exception) -> str:
    """Return why nothing could be sent; words of the library repeat the address, which may hold a password."""
    if isinstance(error, HeimdallError):
        return str(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    return type(error).__name__ if status is None else f"it answers {status}"
