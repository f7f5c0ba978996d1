"""OpenLineage while a run goes on: START of each asset that a step begins, then COMPLETE, FAIL or ABORT.

Belongs here: the events of one attempt to make one asset. Does not belong here: when they are told, and to whom
(``defs.lineage_events``); what is said of computations long done (``openlineage``), whose facets these are.

Source: OpenLineage 2-0-2 (https://openlineage.io/spec/2-0-2/OpenLineage.json) and its facets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from heimdall_assets.lineage.exports.openlineage import (
    describe_facts,
    describe_job,
    describe_run,
    list_inputs,
    list_outputs,
)
from heimdall_assets.lineage.exports.released import URN, make_uuid
from heimdall_assets.manifests import Manifest

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent, RunState


@dataclass(frozen=True)
class Attempt:
    """One attempt of a step of Dagster's to make one asset.

    Attributes:
        asset: its name, the kind of its manifest.
        dagster_run: id of the run.
        number: from 1 on.
        told: who had it run, and why.
        parents: what the asset is computed from.
        code_version: of the asset.
    """

    asset: str
    dagster_run: str
    number: int
    told: Mapping[str, str | None]
    parents: tuple[str, ...] = ()
    code_version: str | None = None


@dataclass(frozen=True)
class Made:
    """What an attempt made.

    Attributes:
        manifest: of the asset.
        facts: of the computation that gave it, with its environment in full; None: nobody kept any.
        reused: whether it was found rather than computed; None: nobody says.
        tables: digest of each of its tables -> columns -> types.
    """

    manifest: Manifest
    facts: Mapping[str, Any] | None
    reused: bool | None
    tables: Mapping[str, Mapping[str, str]]


def tell_start(attempt: Attempt, time: datetime) -> "RunEvent":
    """Return the event that an attempt began."""
    from openlineage.client.event_v2 import RunState

    return _tell(attempt, RunState.START, time, describe_run(_name(attempt), attempt.told, {}, attempt.dagster_run))


def tell_made(attempt: Attempt, time: datetime, made: Made) -> "RunEvent":
    """Return the event that an attempt made its asset: settings, inputs and outputs by digest, who computed it when."""
    from openlineage.client.event_v2 import RunState

    manifest, facts = made.manifest, made.facts
    told = dict(attempt.told)
    if facts is not None:
        first = {
            "computed_at": facts["started_at"],
            "duration_s": facts["duration_s"],
            "computed_by": facts["started_by"],
        }
        told |= {**first, **describe_facts(facts), **attempt.told}
    if made.reused is not None:
        told["reused"] = "yes" if made.reused else "no"
    run = describe_run(_name(attempt), told, manifest.specs, attempt.dagster_run)
    event = _tell(attempt, RunState.COMPLETE, time, run)
    event.inputs = list_inputs(manifest.parents)
    event.outputs = list_outputs(manifest.model_dump(mode="json"), manifest.digest, made.tables)
    return event


def tell_failure(attempt: Attempt, time: datetime, message: str | None) -> "RunEvent":
    """Return the event that an attempt failed with ``message``, or (None) that it was given up."""
    from openlineage.client.event_v2 import RunState
    from openlineage.client.facet_v2 import error_message_run

    run = describe_run(_name(attempt), attempt.told, {}, attempt.dagster_run)
    if message is None:
        return _tell(attempt, RunState.ABORT, time, run)
    said = error_message_run.ErrorMessageRunFacet(message, "PYTHON", producer=URN)
    run.facets = {**(run.facets or {}), "errorMessage": said}
    return _tell(attempt, RunState.FAIL, time, run)


def _name(attempt: Attempt) -> str:
    return make_uuid("attempt", attempt.dagster_run, attempt.asset, str(attempt.number))


def _tell(attempt: Attempt, state: "RunState", time: datetime, run: Any) -> "RunEvent":
    from openlineage.client.event_v2 import RunEvent

    return RunEvent(
        eventType=state,
        eventTime=time.isoformat(timespec="milliseconds"),
        run=run,
        job=describe_job(attempt.asset, attempt.parents, attempt.code_version),
        producer=URN,
    )
