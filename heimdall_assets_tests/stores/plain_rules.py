"""The rules of rows written plainly, one row at a time and slowly: what the columns of ``raw.rules`` must come to.

Rows are SQLAlchemy's, of the one query that joins all tables; every value is looked at alone.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pandas as pd
from sqlalchemy import and_

from heimdall_assets.domain import SNAPSHOT
from heimdall_assets.errors import InvalidIdentifier
from heimdall_assets.fields import Field
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.shape import Kind
from heimdall_assets.stores.database.snapshots import _build_query
from heimdall_assets.stores.objects.locations import parse_location

FIELDS = {field.read_as: field for field in SNAPSHOT}
NOTHING = "measurement: found neither a level nor an IQ recording, nor an arrival nor a bearing, expected at least one"
CONTENT = ("iq_data_location", "signal_strength_db", "arrival_unix_ns", "bearing_deg")
Row = dict[str, Any]


def read_plainly(store: MeasurementStore) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows and left_out of the approved snapshot of everything."""
    shape = store.database.shape
    sessions = shape.table("recording_sessions", "s")
    status = shape.pick(sessions, "recording_sessions", "approval_status")
    with store.database.reading() as connection:
        found = connection.execute(_build_query(shape, sessions).where(and_(status == "approved")))
        rows = [dict(row._mapping) for row in found]
    reasons = judge_rows(rows, shape.kind)
    good = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    bad = [(row, reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None]
    return flatten(good), list_left_out(bad)


def judge_rows(rows: list[Row], kind: Kind) -> list[str | None]:
    reasons = [next(find_reasons(row, kind), None) for row in rows]
    recorded = {to_text(row["session_id"]) for row in rows if row["iq_data_location"] is not None}
    for number, row in enumerate(rows):
        if reasons[number] is None and row["arrival_unix_ns"] is not None and to_text(row["session_id"]) in recorded:
            reasons[number] = (
                "arrival_unix_ns: found one in a session that has IQ recordings, whose arrivals count from another "
                "zero, expected the one or the other"
            )
    counts = Counter(
        (row["session_id"], row["station_id"]) for row, reason in zip(rows, reasons, strict=True) if reason is None
    )
    for number, row in enumerate(rows):
        times = counts[row["session_id"], row["station_id"]]
        if reasons[number] is None and times > 1:
            reasons[number] = f"station_id: found {row['station_id']} {times} times in a session, expected once"
    return reasons


def find_reasons(row: Row, kind: Kind) -> Iterator[str]:
    """Yield what is wrong with one row, in the order of the rules."""
    is_one_table = kind is Kind.ONE_TABLE
    if is_one_table and row["row_approved"] != 1:
        yield "approved: found a row that is not, in a session with one that is, expected true"
    if is_one_table and row["num_places"] > 1:
        yield (
            f"latitude, longitude: found {row['num_places']} places in the rows of one session, expected one, the "
            "transmitter's"
        )
    yield from expect(row, "session_status", row["session_status"] == "completed", "completed", False)
    if kind is Kind.OURS and row["decision"] != "approved":
        yield f"approval_status: found approved, expected the last of approval_events, {row['decision']}"
    for name in ("measurement_id", "session_id"):
        yield from judge_value(row, name)
    for field in SNAPSHOT:
        if field.table == "recording_sessions" and field.read_as != "session_status":
            yield from judge_value(row, field.read_as)
    for field in SNAPSHOT:
        if field.read_as == "source_is_validated":
            yield from expect(row, field.read_as, to_number(row[field.read_as]) == 1, "true", False)
        elif field.table == "known_sources":
            yield from judge_value(row, field.read_as)
    yield from judge_station(row, "HEIMDALL_RECEIVERS" if is_one_table else "websdr_stations")
    yield from judge_heard(row)


def judge_station(row: Row, stations: str) -> Iterator[str]:
    yield from judge_value(row, "station_id")
    if row["known_station_id"] is None:
        yield f"station_id: found {show(row['station_id'])}, expected a station of {stations}"
    for name in ("station_name", "clock_class"):
        yield from judge_value(row, name)
    moves = row["own_latitude"] is not None
    if moves != (row["own_longitude"] is not None):
        yield "receiver position: found one coordinate, expected latitude and longitude"
    for part in ("latitude", "longitude"):
        yield from judge_value(row, f"own_{part}")
        name = f"station_{part}"
        yield from expect(
            row, name, moves or in_bounds(row, name), f"a number {FIELDS[name].bounds}", False
        )  # fmt: skip
    for name in ("own_altitude_m", "station_altitude_m"):
        yield from judge_value(row, name)


def judge_heard(row: Row) -> Iterator[str]:
    for field in SNAPSHOT:
        name = field.read_as
        if name == "iq_data_location":
            if all(row[content] is None for content in CONTENT):
                yield NOTHING
            yield from expect(
                row, name, is_location(row[name]), "sha256:<hex>, a relative object name or s3://BUCKET/NAME"
            )
        elif field.table == "measurements" and not field.is_place and not name.endswith(("n_id", "t_id")):
            yield from judge_value(row, name)
    for name, sigma in (("arrival_unix_ns", "arrival_sigma_s"), ("bearing_deg", "bearing_sigma_deg")):
        if (row[name] is None) != (row[sigma] is None):
            yield f"{sigma}: found {show(row[sigma])} with {name} {show(row[name])}, expected both or none"


def judge_value(row: Row, name: str) -> Iterator[str]:
    field, value = FIELDS[name], row[name]
    optional = field.is_optional or field.fill is not None
    if field.bounds is not None:
        yield from expect(row, name, in_bounds(row, name), f"a number {field.bounds}", optional)
    if field.kind is int:
        yield from expect(row, name, to_integer(value) is not None, "an integer", optional)
    elif field.kind is datetime:
        yield from expect(row, name, to_time(value) is not pd.NaT, "a time between 1677 and 2262", optional)
    elif field.kind is dict:
        yield from expect(row, name, is_json_object(value), "a JSON object", optional)
    elif field.choices:
        yield from expect(row, name, value in field.choices, " or ".join(field.choices), optional)
    elif field.kind is str:
        is_text = isinstance(value, str) and value != "" and "\x00" not in value
        yield from expect(row, name, is_text, "a text", optional)


def expect(row: Row, name: str, good: bool, expected: str, optional: bool = True) -> Iterator[str]:
    if not good and not (optional and row[name] is None):
        yield f"{name}: found {show(row[name])}, expected {expected}"


def show(value: Any) -> str:
    return "nothing" if value is None else f"{value!r:.80}"


def in_bounds(row: Row, name: str) -> bool:
    number, bounds = to_number(row[name]), FIELDS[name].bounds
    assert bounds is not None
    return (bounds.low < number if bounds.above else bounds.low <= number) and number <= bounds.high


def to_number(value: Any) -> float:
    try:
        return float("nan") if value is None or isinstance(value, bytes) else float(value)
    except ValueError:
        return float("nan")


def to_integer(value: Any) -> int | None:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole and -(2**63) <= int(value) < 2**63 else None


def to_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def to_time(value: Any) -> Any:
    return pd.to_datetime(pd.Series([to_text(value)]), utc=True, format="ISO8601", errors="coerce")[0]


def is_json_object(value: Any) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return isinstance(json.loads(value, parse_constant=refuse), dict) if isinstance(value, str) else False
    except ValueError:
        return False


def is_location(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(parse_location(value))
    except InvalidIdentifier:
        return False


CONVERT: dict[str, Callable[[Any], Any]] = {
    "float64": to_number,
    "Int64": to_integer,
    "string": to_text,
    "datetime64[us, UTC]": to_time,
}


def flatten(rows: list[Row]) -> pd.DataFrame:
    """Return the usable rows as the snapshot has them."""
    rows = sorted(rows, key=lambda row: (row["session_id"], row["station_id"]))
    kept = [
        field
        for field in SNAPSHOT
        if field.snapshot and not (field.since and all(row[field.read_as] is None for row in rows))
    ]
    return pd.DataFrame(
        {field.snapshot: pd.Series([convert(row, field) for row in rows], dtype=field.dtype) for field in kept}
    )


def convert(row: Row, field: Field) -> Any:
    value = row[field.read_as]
    if field.table == "websdr_stations" and field.is_place and row["own_latitude"] is not None:
        value = row[f"own_{field.path[-1]}"]
    found = CONVERT[field.dtype](value)
    return field.fill if field.fill is not None and found != found else found


def list_left_out(bad: list[tuple[Row, str]]) -> pd.DataFrame:
    told = [(to_text(row["measurement_id"]), to_text(row["session_id"]), reason) for row, reason in bad]
    table = pd.DataFrame(told, columns=["measurement_id", "session_id", "reason"], dtype="string")
    return table.sort_values(["session_id", "measurement_id", "reason"], ignore_index=True)
