"""One table: measurements(session_id, websdr_id, latitude, ..., approved) of somebody else, seen as the field's tables.

Belongs here: what its columns mean, as queries that give the four tables; nothing is written or copied. Does not belong
here: what is stated beside it (``stated_receivers``), which rows can be believed (``rules``).

A row is one receiver's recording of one session. Latitude and longitude are the transmitter's, so the rows of a session
agree on them; approved is of the row, and a session is approved where one of its rows is.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    DateTime,
    Double,
    Integer,
    Numeric,
    String,
    Text,
    and_,
    case,
    cast,
    column,
    func,
    literal,
    null,
    or_,
    select,
    table,
    text,
    true,
)

from heimdall_assets.domain import ApprovalStatus, SessionStatus
from heimdall_assets.errors import InvalidSetting, StorageError
from heimdall_assets.manifests import compute_json_digest
from heimdall_assets.stores.database.raw.stated_receivers import (
    EXAMPLE,
    OFFSET_EXPECTED,
    OFFSET_VARIABLE,
    RECEIVERS_VARIABLE,
    StatedReceiver,
    Statement,
)

NAME = "measurements"
KEYS = ("session_id", "websdr_id")
REQUIRED = (*KEYS, "latitude", "longitude", "frequency_mhz", "snr_db", "timestamp", "approved")
ROW_APPROVED, NUM_PLACES = "row_approved", "num_places"
"""What only a database of one table has: the row's own approval, and how many places the session's rows state."""

COLUMNS = {
    "websdr_stations": ("id", "name", "latitude", "longitude", "altitude_asl", "clock_class"),
    "known_sources": ("id", "name", "latitude", "longitude", "is_validated"),
    "recording_sessions": (
        "id", "known_source_id", "session_name", "session_start", "status", "approval_status", NUM_PLACES,
    ),
    "measurements": (
        "id", "recording_session_id", "websdr_station_id", "timestamp", "frequency_hz", "snr_db", "iq_data_location",
        "iq_data_format", "iq_sample_rate", ROW_APPROVED,
    ),
}  # fmt: skip
"""The field's tables and the columns that this one gives them."""

_STATED = ("id", "latitude", "longitude", "altitude_asl", "clock_class", "iq_sample_rate")
_STATED_SQLITE = "SELECT {} FROM json_each(:stated)".format(
    ", ".join(f"json_extract(value, '$[{at}]') AS {name}" for at, name in enumerate(_STATED))
)
_STATED_POSTGRESQL = "SELECT {} FROM json_array_elements(CAST(:stated AS json))".format(
    ", ".join(f"value->>{at} AS {name}" for at, name in enumerate(_STATED))
)
_NUMBERS = ("latitude", "longitude", "frequency_mhz", "snr_db")
_ZONE_GLOBS = ("*:*[Zz]", "*:*[+-][0-9][0-9]", "*:*[+-][0-9][0-9][0-9][0-9]", "*:*[+-][0-9][0-9]:[0-9][0-9]")
_ZONE_PATTERN = ":.*([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$"


@dataclass(frozen=True)
class OneTable:
    """The table, and what is stated beside it.

    Attributes:
        schema: where it is; None on SQLite.
        is_postgresql: else SQLite, whose columns hold values of any type.
        is_flag: approved is a boolean; else a number, 1: yes.
        has_zone: its times are instants; None: they are text, and each says or does not.
        offset: of times without a zone, ``+HH:MM``; empty: each says its own.
        receivers: id -> where it stands and how it records.
    """

    schema: str | None
    is_postgresql: bool
    is_flag: bool
    has_zone: bool | None
    offset: str
    receivers: dict[str, StatedReceiver]

    @property
    def digest(self) -> str:
        """Digest of what is stated: another statement is another database."""
        said = {name: receiver.model_dump(mode="json") for name, receiver in self.receivers.items()}
        return compute_json_digest({"receivers": said, "offset": self.offset})

    def select(self, name: str) -> Any:
        """Return the query that gives the field's table ``name``."""
        if name == "websdr_stations":
            return self._select_stations()
        rows = _Rows(self)
        return {"known_sources": rows.sources, "recording_sessions": rows.sessions, NAME: rows.measurements}[name]()

    def _select_stations(self) -> Any:
        rows = [
            [name, one.latitude, one.longitude, one.altitude_m, str(one.clock_class), one.iq_sample_rate_hz]
            for name, one in sorted(self.receivers.items())
        ]
        kinds = [Text, Double, Double, Double, Text, Double]
        # One value, however many receivers there are: a query of thousands takes seconds to write.
        listed = text(_STATED_POSTGRESQL if self.is_postgresql else _STATED_SQLITE).bindparams(stated=json.dumps(rows))
        found = listed.columns(*map(column, _STATED)).subquery("listed")
        picked: list[Any] = [cast(found.c[name], kind).label(name) for name, kind in zip(_STATED, kinds, strict=True)]
        return select(*picked, cast(found.c.id, Text).label("name"))


class _Rows:
    """The columns of the table as the field's tables call and measure them."""

    def __init__(self, one: OneTable):
        self.one = one
        self.found = table(NAME, *[column(name) for name in REQUIRED], schema=one.schema)
        c = self.found.c
        self.session = func.coalesce(cast(c.session_id, Text), "")
        self.receiver = cast(c.websdr_id, Text)
        self.approved = c.approved.is_(true()) if one.is_flag else c.approved == 1
        self.place = (
            func.coalesce(cast(c.latitude, Text), "none") + "," + func.coalesce(cast(c.longitude, Text), "none")
        )

    def measurements(self) -> Any:
        c, stated = self.found.c, self.one._select_stations().subquery("receivers")
        location = literal("sessions/") + self.session + "/websdr_" + self.receiver + ".npy"
        return select(
            (self.session + "/" + func.coalesce(self.receiver, "")).label("id"),
            self.session.label("recording_session_id"),
            self.receiver.label("websdr_station_id"),
            self._instant().label("timestamp"),
            self._to_hz().label("frequency_hz"),
            c.snr_db.label("snr_db"),
            location.label("iq_data_location"),
            literal("npy").label("iq_data_format"),
            stated.c.iq_sample_rate.label("iq_sample_rate"),
            case((self.approved, 1), else_=0).label(ROW_APPROVED),
        ).select_from(self.found.outerjoin(stated, stated.c.id == self.receiver))

    def sessions(self) -> Any:
        counted = case((self.approved, self.place))  # rows that are not approved have no say
        is_approved = func.max(case((self.approved, 1), else_=0)) == 1
        return select(
            self.session.label("id"),
            func.coalesce(func.min(counted), func.min(self.place)).label("known_source_id"),
            self.session.label("session_name"),
            func.min(self._instant()).label("session_start"),
            literal(str(SessionStatus.COMPLETED)).label("status"),
            case((is_approved, str(ApprovalStatus.APPROVED)), else_=str(ApprovalStatus.PENDING)).label(
                "approval_status"
            ),
            case((is_approved, func.count(func.distinct(counted))), else_=func.count(func.distinct(self.place))).label(
                NUM_PLACES
            ),
        ).group_by(self.session)

    def sources(self) -> Any:
        c = self.found.c
        return select(
            self.place.label("id"),
            self.place.label("name"),
            func.min(c.latitude).label("latitude"),
            func.min(c.longitude).label("longitude"),
            literal(1).label("is_validated"),  # to approve a row is to say that its transmitter is known
        ).group_by(self.place)

    def _to_hz(self) -> Any:
        # To the mHz: what decimals of MHz say, without the digits that doubling them brings.
        found = self.found.c.frequency_mhz
        hz = func.round(cast(found, Double) * 1e9) / 1e3
        if self.one.is_postgresql:
            return hz
        return case((func.typeof(found).in_(("integer", "real")), hz), else_=cast(found, Text) + " (text)")

    def _instant(self) -> Any:
        said = cast(self.found.c.timestamp, Text)
        if self.one.has_zone or not self.one.offset:
            return said
        if self.one.has_zone is False:
            return said + self.one.offset
        return case((_says_zone(said, self.one.is_postgresql), said), else_=said + self.one.offset)


def _says_zone(said: Any, is_postgresql: bool) -> Any:
    if is_postgresql:
        return said.op("~")(_ZONE_PATTERN)
    return or_(*[said.op("GLOB")(pattern) for pattern in _ZONE_GLOBS])


def is_one_table(names: set[str], columns: set[str]) -> bool:
    """Return whether a database with tables ``names`` is of this kind, by the columns of its measurements."""
    return "recording_sessions" not in names and set(KEYS) <= columns


def read_one_table(
    connection: Connection, found: dict[str, Any], schema: str | None, statement: Statement, shown: str
) -> OneTable:
    """Return the table with what is stated beside it.

    Args:
        connection: to its database.
        found: its columns, name -> SQLAlchemy type.
        schema: where it is.
        statement: what its reader says.
        shown: names the database in errors.

    Raises:
        StorageError: it lacks a column, or one is of a type that cannot be what it is called.
        InvalidSetting: it does not say something that nobody states.
    """
    is_postgresql = connection.dialect.name == "postgresql"
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise StorageError(f"{shown}: table {NAME} lacks {', '.join(missing)}; expected {', '.join(REQUIRED)}")
    if is_postgresql:
        _check_types(found, shown)
    said = found["timestamp"]
    has_zone = bool(said.timezone) if is_postgresql and isinstance(said, DateTime) else None
    offset = statement.offset or ""
    if not offset and not has_zone:
        _ask_for_zone(connection, schema, has_zone, shown)
    if not statement.receivers:
        raise InvalidSetting(
            f"{shown}: its one table {NAME} does not say where receivers stand{_list_receivers(connection, schema)}; "
            f"expected {RECEIVERS_VARIABLE}=FILE, JSON such as {EXAMPLE}"
        )
    is_flag = isinstance(found["approved"], Boolean) if is_postgresql else False
    return OneTable(schema, is_postgresql, is_flag, has_zone, offset, statement.read_receivers())


def _check_types(found: dict[str, Any], shown: str) -> None:
    for name in _NUMBERS:
        if not isinstance(found[name], Numeric | Integer):
            raise StorageError(f"{shown}: column {name} of {NAME} is {found[name]}, expected a number")
    if not isinstance(found["approved"], Boolean | Integer):
        raise StorageError(f"{shown}: column approved of {NAME} is {found['approved']}, expected a boolean, or 0 and 1")
    if not isinstance(found["timestamp"], DateTime | String):
        raise StorageError(f"{shown}: column timestamp of {NAME} is {found['timestamp']}, expected a timestamp")


def _ask_for_zone(connection: Connection, schema: str | None, has_zone: bool | None, shown: str) -> None:
    rows = table(NAME, column("timestamp"), schema=schema)
    said = cast(rows.c.timestamp, Text)
    bare = [] if has_zone is False else [~_says_zone(said, connection.dialect.name == "postgresql")]
    first = connection.execute(select(said).where(and_(said.is_not(null()), *bare)).limit(1)).scalar()
    if first is not None:
        raise InvalidSetting(
            f"{shown}: times of {NAME} carry no zone (found {str(first)!r:.40}); say whose they are, "
            f"{OFFSET_VARIABLE}: {OFFSET_EXPECTED}"
        )


def _list_receivers(connection: Connection, schema: str | None) -> str:
    rows = table(NAME, column("websdr_id"), schema=schema)
    query = select(cast(rows.c.websdr_id, Text)).where(rows.c.websdr_id.is_not(None)).distinct().limit(9)
    found = sorted(str(row[0]) for row in connection.execute(query))
    return f" (found {', '.join(found[:8])}{' ...' if len(found) > 8 else ''})" if found else ""
