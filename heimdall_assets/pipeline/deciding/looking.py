"""Looking: sessions as people look at them before they decide, and one recording of theirs as it sounds on a plot.

Belongs here: what is read and computed for a look; it is kept nowhere but where ``heimdall locate`` keeps it. Does not
belong here: layout (``lineage.pages``), deciding (``stores.database.measurements``).
"""

from dataclasses import dataclass
from typing import Any

from heimdall_assets.errors import UNUSABLE, CannotLocate, HeimdallError, NotFound, OutOfReach, describe_fault
from heimdall_assets.physical import Recording
from heimdall_assets.pipeline.deciding.doubts import find_doubts
from heimdall_assets.pipeline.prediction.stored import locate_stored
from heimdall_assets.pipeline.stages.recordings import UNREAD, decode_row
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores.database.decisions import list_reasons, read_history
from heimdall_assets.stores.database.marks import read_marks
from heimdall_assets.stores.database.session_list import (
    Place,
    SessionPage,
    Wanted,
    count_statuses,
    find_neighbour,
    list_campaigns,
    read_page,
)
from heimdall_assets.stores.home import Stores

_BYTES_PER_SAMPLE = 16  # complex128, the widest format read


@dataclass(frozen=True)
class Choice:
    """A page of sessions to choose from.

    Attributes:
        page: the sessions.
        counts: approval status -> how many of those that are wanted have it.
        campaigns: that there are; station ids and names likewise.
        marks: session id -> what it is now.
        doubts: session id -> what is doubtful of it.
        reasons: that were given lately.
        is_writable: whether anything can be decided in this database.
    """

    page: SessionPage
    counts: dict[str, int]
    campaigns: list[str]
    stations: list[dict[str, Any]]
    marks: dict[str, str]
    doubts: dict[str, list[str]]
    reasons: list[str]
    is_writable: bool


@dataclass(frozen=True)
class Look:
    """One session, looked at.

    Attributes:
        session: as ``MeasurementStore.find_session`` tells it.
        mark: what it is now.
        doubts: what is doubtful of it.
        history: every decision, each with ``signed_by``.
        found: where the classical estimators put it (``locate_stored``); None: nowhere, and ``refusal`` says why.
    """

    session: dict[str, Any]
    mark: str
    doubts: list[str]
    history: list[dict[str, Any]]
    reasons: list[str]
    following: str | None
    found: dict[str, Any] | None
    refusal: str
    is_writable: bool


def choose_sessions(stores: Stores, wanted: Wanted, at: tuple[str, Place] | None, length: int) -> Choice:
    """Return a page of the sessions that are wanted, with what people choose by."""
    store, database = stores.measurements, stores.measurements.database
    with database.reading() as connection:
        shape = database.shape
        page = read_page(connection, shape, wanted, at, length)
        counts = count_statuses(connection, shape, wanted)
        campaigns = list_campaigns(connection, shape)
        marks = read_marks(connection, shape, [str(row["id"]) for row in page.rows])
    doubts = find_doubts(store, page.rows)
    reasons = list_reasons(database)
    return Choice(page, counts, campaigns, store.list_stations(), marks, doubts, reasons, database.is_writable)


def look_at(stores: Stores, session_id: str, wanted: Wanted) -> Look:
    """Return one session with all that a decision about it can rest on.

    Args:
        stores: of the home.
        session_id: of the session.
        wanted: among which the following one is looked for.

    Raises:
        NotFound: there is no such session.
    """
    store, database = stores.measurements, stores.measurements.database
    session = store.find_session(session_id)
    if str(session["id"]) != session_id:
        raise NotFound(f"session {session_id:.140}: found no session with this id")
    with database.reading() as connection:
        mark = read_marks(connection, database.shape, [session_id])[session_id]
        following = find_neighbour(connection, database.shape, wanted, session_id)
    found, refusal = _locate(stores, session_id)
    return Look(
        session=session,
        mark=mark,
        doubts=find_doubts(store, [{**session, "heard": session["measurements"]}])[session_id],
        history=[row for row in read_history(database, session_id) if row["recording_session_id"] == session_id],
        reasons=list_reasons(database),
        following=following,
        found=found,
        refusal=refusal,
        is_writable=database.is_writable,
    )


def find_following(stores: Stores, session_id: str, wanted: Wanted) -> str | None:
    """Return the id of the session to look at after one; None: there is none."""
    database = stores.measurements.database
    with database.reading() as connection:
        return find_neighbour(connection, database.shape, wanted, session_id)


def read_recording(stores: Stores, session_id: str, measurement_id: str) -> Recording:
    """Return what one receiver recorded of a session.

    Raises:
        NotFound: the session has no such measurement, or it has no recording, or none that can be read.
        OutOfReach: the service that holds recordings cannot be asked.
    """
    rows = stores.measurements.read_session(session_id).rows
    chosen = rows[(rows["measurement_id"] == measurement_id) & rows["iq_data_location"].notna()]
    if not len(chosen):
        raise NotFound(f"measurement {measurement_id:.60}: found no recording of session {session_id:.60}")
    row = {str(name): value for name, value in chosen.iloc[0].items()}
    spec = RecordingSpec()
    try:
        data = stores.objects.read_location(
            str(row["iq_data_location"]), max_bytes=spec.max_samples * _BYTES_PER_SAMPLE
        )
        return decode_row(data, row, spec.max_samples)
    except OutOfReach:
        raise
    except (*UNREAD, *UNUSABLE) as error:
        raise NotFound(f"measurement {measurement_id:.60}: cannot be drawn: {describe_fault(error)}") from error


def _locate(stores: Stores, session_id: str) -> tuple[dict[str, Any] | None, str]:
    try:
        return locate_stored(stores, session_id), ""
    except CannotLocate as error:
        return None, str(error)
    except HeimdallError as error:
        return None, f"could not be computed now: {error}"
