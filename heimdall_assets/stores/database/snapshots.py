"""Snapshots: rows of the database as one table, every field judged, and every row left out with its reason.

Belongs here: the one query that joins measurements to what they hang on, and the flattened table. Does not belong here:
what makes a value believable (``raw.rules``), who approved what (``measurements``).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, and_, func, select

from heimdall_assets.domain import SNAPSHOT, ApprovalStatus, SessionStatus
from heimdall_assets.fields import Field
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.raw.fetching import fetch_columns
from heimdall_assets.stores.database.raw.one_table import NUM_PLACES, ROW_APPROVED
from heimdall_assets.stores.database.raw.rows import RawRows
from heimdall_assets.stores.database.raw.rules import find_good, find_reasons, find_truth
from heimdall_assets.stores.database.shape import Kind, Shape

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ApprovedSnapshot:
    """What may be trained on, and what not.

    Attributes:
        rows: ``domain.APPROVED_COLUMNS``, sorted by session and station; those that came later only where some row has
            a value.
        left_out: measurement_id, session_id, reason: each row of an approved session that cannot be trained on.
        num_undecided: approval status -> number of measurements whose session is not approved.
    """

    rows: "pd.DataFrame"
    left_out: "pd.DataFrame"
    num_undecided: dict[str, int]


_ALIASES = {"measurements": "m", "recording_sessions": "s", "known_sources": "k", "websdr_stations": "w"}
_EVENTS = "approval_events"
_SESSION, _SOURCE = "session of its own", "source of the session"
"""Columns of the sessions that link them; no field is called so."""


def in_scope(shape: Shape, sessions: Any, dataset: DatasetSpec) -> list[Any]:
    """Return the conditions that a session's campaign and origin are those of ``dataset``."""
    conditions: list[Any] = []
    if dataset.campaigns:
        conditions.append(shape.pick(sessions, "recording_sessions", "campaign").in_(dataset.campaigns))
    if dataset.origin != "both":
        conditions.append(shape.pick(sessions, "recording_sessions", "origin") == dataset.origin)
    return conditions


def latest_events(shape: Shape, session_ids: Sequence[str] | None = None) -> tuple[Any, Any]:
    """Return two aliased tables: the number of each session's last approval event, and the events themselves.

    Args:
        shape: of the database.
        session_ids: the sessions that are asked about; None: all.
    """
    events = shape.table(_EVENTS, "every")
    last = select(events.c.recording_session_id, func.max(events.c.id).label("last_id"))
    if session_ids is not None:
        last = last.where(events.c.recording_session_id.in_(list(session_ids)))
    return last.group_by(events.c.recording_session_id).subquery("latest"), shape.table(_EVENTS, "e")


def read_snapshot(connection: Connection, shape: Shape, dataset: DatasetSpec) -> ApprovedSnapshot:
    """Return the approved, trainable rows of ``dataset``."""
    sessions = shape.table("recording_sessions", "s")
    status = shape.pick(sessions, "recording_sessions", "approval_status")
    scope = in_scope(shape, sessions, dataset)
    if shape.kind is Kind.OURS:
        raw = _join(_read_apart(connection, shape, dataset))
    else:  # tables of the field may hold an id twice, which as many rows must show
        approved = _build_query(shape, sessions).where(and_(status == str(ApprovalStatus.APPROVED), *scope))
        raw = _read_raw(connection, approved)
    is_one_table = shape.kind is Kind.ONE_TABLE
    reasons = find_reasons(raw, needs_truth=True, needs_decision=shape.kind is Kind.OURS, is_one_table=is_one_table)
    measurements = shape.table("measurements", "m")
    counts = (
        select(status, func.count())
        .select_from(measurements.join(sessions, sessions.c.id == measurements.c.recording_session_id))
        .where(and_(status != str(ApprovalStatus.APPROVED), *scope))
        .group_by(sessions.c.approval_status)
    )
    undecided = {str(name): int(count) for name, count in connection.execute(counts)}
    return ApprovedSnapshot(*_part_rows(raw, reasons), dict(sorted(undecided.items())))


def read_tables(connection: Connection, shape: Shape, dataset: DatasetSpec) -> "dict[str, pd.DataFrame]":
    """Return today's rows, not judged: table of the database -> columns named as in ``ApprovedSnapshot.rows``.

    Measurements and sessions are the approved ones, of these the completed; sources and stations are all there are.
    Apart, they are a fifth of what they are as one table.
    """
    import pandas as pd

    raws = _read_apart(connection, shape, dataset)
    found = {
        name: pd.DataFrame(
            {
                field.snapshot: _show_unreadable(raw, field, _read_column(raw, field))
                for field in SNAPSHOT
                if field.table == name and field.snapshot
            }
        )
        for name, raw in raws.items()
    }
    found["websdr_stations"]["station_id"] = raws["websdr_stations"].texts("known_station_id")
    for name, link in (("session_id", _SESSION), ("source_id", _SOURCE)):
        found["recording_sessions"][name] = raws["recording_sessions"].texts(link)
    is_complete = raws["recording_sessions"].texts("session_status") == str(SessionStatus.COMPLETED)
    found["recording_sessions"] = found["recording_sessions"][is_complete]
    known = find_truth(raws["known_sources"])
    for name in ("source_latitude", "source_longitude"):
        found["known_sources"][name] = np.where(known, found["known_sources"][name], np.nan)
    _place_receivers(found, raws["measurements"])
    return found


def _read_apart(connection: Connection, shape: Shape, dataset: DatasetSpec) -> dict[str, RawRows]:
    """Return what a snapshot is read from, table by table; the decisions stand with their sessions."""
    tables = {name: shape.table(name, alias) for name, alias in _ALIASES.items()}
    heard, sessions = tables["measurements"], tables["recording_sessions"]
    status = shape.pick(sessions, "recording_sessions", "approval_status")
    approved = and_(status == str(ApprovalStatus.APPROVED), *in_scope(shape, sessions, dataset))
    raws = {}
    for name, table in tables.items():
        columns = _pick_columns(shape, name, table)
        source = table
        if table is sessions:
            columns += [sessions.c.id.label(_SESSION), sessions.c.known_source_id.label(_SOURCE)]
            if shape.kind is Kind.OURS:
                latest, events = latest_events(shape)
                source = sessions.outerjoin(latest, latest.c.recording_session_id == sessions.c.id)
                source = source.outerjoin(events, events.c.id == latest.c.last_id)
                columns += _pick_columns(shape, _EVENTS, events)
        elif table is heard:
            source = heard.join(sessions, sessions.c.id == heard.c.recording_session_id)
        empty = _find_empty(connection, shape, heard) if table is heard and shape.one_table is None else set()
        query = select(*[column for column in columns if column.name not in empty]).select_from(source)
        raws[name] = _read_raw(connection, query.where(approved) if table in (heard, sessions) else query, empty)
    return raws


def _find_empty(connection: Connection, shape: Shape, heard: Any) -> set[str]:
    """Return what no measurement has a value of: half of the columns, usually; to count is quicker than to fetch."""
    optional = [field for field in SNAPSHOT if field.table == "measurements" and field.may_be_null]
    columns = {field.read_as: shape.pick(heard, field.table, field.name) for field in optional}
    labelled = [column.label(name) for name, column in columns.items()]
    first = connection.execute(select(*labelled).select_from(heard).limit(1)).one_or_none()
    unseen = [] if first is None else [name for name, value in zip(columns, first, strict=True) if value is None]
    if not unseen:
        return set()
    counts = connection.execute(select(*[func.count(columns[name]) for name in unseen]).select_from(heard)).one()
    return {name for name, count in zip(unseen, counts, strict=True) if count == 0}


def _join(raws: dict[str, RawRows]) -> RawRows:
    """Return a row for each measurement, which takes what it hangs on from where that stands."""
    heard = raws["measurements"]
    sessions, sources, stations = (raws[name] for name in ("recording_sessions", "known_sources", "websdr_stations"))
    of_session = heard.find("session_id", sessions.values(_SESSION))
    source_of = np.append(sessions.find(_SOURCE, sources.values("source_id")), -1)
    of_station = heard.find("station_id", stations.values("known_station_id"))
    heard.hang_on(sessions, of_session)
    heard.hang_on(sources, source_of[of_session])
    heard.hang_on(stations, of_station)
    return heard


def _pick_columns(shape: Shape, name: str, table: Any) -> list[Any]:
    return [shape.pick(table, name, field.name).label(field.read_as) for field in SNAPSHOT if field.table == name]


def _show_unreadable(raw: RawRows, field: Field, column: Any) -> Any:
    """Return a column in which what is no value of its type stands as it was written, and not as missing."""
    import pandas as pd

    bad = ~raw.nulls(field.read_as) & np.asarray(pd.isna(column))
    if not bad.any():
        return column
    shown = pd.Series(column, dtype=object)
    shown[bad] = [repr(value) for value, is_bad in zip(raw.values(field.read_as), bad, strict=True) if is_bad]
    return shown


def _place_receivers(found: "dict[str, pd.DataFrame]", heard: RawRows) -> None:
    """Give each measurement the place of its receiver: its own, where it has one or half of one, else its station's."""
    stations = found["websdr_stations"].drop_duplicates("station_id").set_index("station_id")
    moves = ~heard.nulls("own_latitude") | ~heard.nulls("own_longitude")
    for part in ("latitude", "longitude", "altitude_m"):
        standing = found["measurements"]["station_id"].map(stations[f"receiver_{part}"])
        found["measurements"][f"receiver_{part}"] = np.where(moves, heard.numbers(f"own_{part}"), standing)
        del found["websdr_stations"][f"receiver_{part}"]


def read_chosen_sessions(connection: Connection, shape: Shape, session_ids: Sequence[str]) -> ApprovedSnapshot:
    """Return the usable rows of sessions, whatever their approval; NaN for the place of a source that is not known."""
    sessions = shape.table("recording_sessions", "s")
    identity = shape.pick(sessions, "recording_sessions", "id")
    raw = _read_raw(connection, _build_query(shape, sessions, session_ids).where(identity.in_(list(session_ids))))
    reasons = find_reasons(raw, needs_truth=False, needs_decision=False, is_one_table=shape.kind is Kind.ONE_TABLE)
    return ApprovedSnapshot(*_part_rows(raw, reasons), {})


def _build_query(shape: Shape, sessions: Any, session_ids: Sequence[str] | None = None) -> Select[Any]:
    tables = {name: shape.table(name, alias) for name, alias in _ALIASES.items()} | {"recording_sessions": sessions}
    heard, sources, stations = tables["measurements"], tables["known_sources"], tables["websdr_stations"]
    joined = (
        heard.join(sessions, sessions.c.id == heard.c.recording_session_id)
        .outerjoin(sources, sources.c.id == sessions.c.known_source_id)
        .outerjoin(stations, stations.c.id == heard.c.websdr_station_id)
    )
    if shape.kind is Kind.OURS:
        latest, tables[_EVENTS] = latest_events(shape, session_ids)
        joined = joined.outerjoin(latest, latest.c.recording_session_id == sessions.c.id)
        joined = joined.outerjoin(tables[_EVENTS], tables[_EVENTS].c.id == latest.c.last_id)
    columns = [shape.pick(tables.get(field.table), field.table, field.name).label(field.read_as) for field in SNAPSHOT]
    if shape.kind is Kind.ONE_TABLE:
        columns += [heard.c[ROW_APPROVED], sessions.c[NUM_PLACES]]
    return select(*columns).select_from(joined)


def _read_raw(connection: Connection, query: Select[Any], empty: Collection[str] = ()) -> RawRows:
    """Return what ``query`` finds, beside columns that are ``empty``."""
    columns = fetch_columns(connection, query)
    raw = RawRows(columns, len(next(iter(columns.values()))))
    raw.leave_empty(empty)
    return raw


def _part_rows(raw: RawRows, reasons: NDArray[np.object_]) -> "tuple[pd.DataFrame, pd.DataFrame]":
    import pandas as pd

    good = find_good(reasons)
    # The rules leave one row a station of a session: no third key is needed.
    by_key = np.lexsort((raw.ranks("station_id"), raw.ranks("session_id")))
    left_out = pd.DataFrame(
        {
            "measurement_id": raw.texts("measurement_id")[~good],
            "session_id": raw.texts("session_id")[~good],
            "reason": reasons[~good],
        }
    ).astype("string")
    rows = _flatten(raw.choose(by_key[good[by_key]]))
    return rows, left_out.sort_values(["session_id", "measurement_id", "reason"], ignore_index=True)


def _flatten(raw: RawRows) -> "pd.DataFrame":
    import pandas as pd

    # A column that came later is there once a row has a value: its coming alone changes no snapshot.
    kept = [field for field in SNAPSHOT if field.snapshot and not (field.since and raw.nulls(field.read_as).all())]
    columns = {field.snapshot: _read_column(raw, field) for field in kept}
    known = find_truth(raw)
    for part in ("source_latitude", "source_longitude"):
        columns[part] = np.where(known, columns[part], np.nan)
    return pd.DataFrame(columns, copy=False)  # nobody else holds them


def _read_column(raw: RawRows, field: Field) -> Any:
    """Return a column of dtype ``field.dtype``."""
    if field.kind is float:
        numbers = raw.numbers(field.read_as)
        if field.table == "websdr_stations" and field.is_place and raw.has("own_latitude"):
            moves = ~np.isnan(raw.numbers("own_latitude")) & ~np.isnan(raw.numbers("own_longitude"))
            numbers = np.where(moves, raw.numbers(f"own_{field.path[-1]}"), numbers)
        return numbers if field.fill is None else np.where(np.isnan(numbers), field.fill, numbers)
    if field.kind is int:
        return raw.integers(field.read_as)
    if field.kind is bool:
        return raw.flags(field.read_as)
    return raw.times(field.read_as) if field.kind is datetime else raw.strings(field.read_as)
