"""Row rules: every field of every row is suspect; the first thing wrong with a row becomes its reason.

Belongs here: judging whole columns at a time by the table of fields, so that one bad row never stops the others, and
what fields must have in common. Does not belong here: which values one field may take (``domain``), queries
(``snapshots``), what the IQ bytes hold (``signals.iq``).
"""

import json
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import SNAPSHOT, ApprovalStatus, SessionStatus
from heimdall_assets.errors import InvalidIdentifier
from heimdall_assets.fields import Bounds, Field
from heimdall_assets.stores.database.raw.one_table import NUM_PLACES, ROW_APPROVED
from heimdall_assets.stores.database.raw.rows import Mask, RawRows
from heimdall_assets.stores.database.raw.stated_receivers import RECEIVERS_VARIABLE
from heimdall_assets.stores.objects.locations import parse_location

_BY_NAME = {field.read_as: field for field in SNAPSHOT}
_USUAL_LOCATION = re.compile(r"sha256:[0-9a-f]{64}\Z")
"""Of what our importers stored; hundreds of thousands of them are told in a tenth of the time of parsing."""
_KEYS = ("measurement_id", "session_id", "station_id")


def find_reasons(
    raw: RawRows, needs_truth: bool, needs_decision: bool, is_one_table: bool = False
) -> NDArray[np.object_]:
    """Return why each row is left out, objects (N,): a text, or None where the row may be used.

    Args:
        needs_truth: for training: session completed, source validated and its position known.
        needs_decision: the ledger must hold the approval that the session's row claims.
        is_one_table: each row has an approval of its own, and rows of a session must agree where its source is.
    """
    check = _RowCheck(raw, RECEIVERS_VARIABLE if is_one_table else "websdr_stations")
    if is_one_table and needs_truth:
        check.expect_own_approval()
    if is_one_table:
        check.expect_one_place()
    if needs_truth:
        check.expect_one_of("session_status", [str(SessionStatus.COMPLETED)])
    if needs_decision:
        check.expect_decision()
    check.expect_session()
    check.expect_source(needs_truth)
    check.expect_station()
    check.expect_measurement()
    check.expect_observed()
    check.expect_one_row_a_station()
    return check.reasons


def find_good(reasons: NDArray[np.object_]) -> Mask:
    """Return which rows may be used, bool (N,): those without a reason, for no reason is an empty text."""
    return ~reasons.astype(bool)


def find_truth(raw: RawRows) -> Mask:
    """Return where the source's position is validated and possible, bool (N,)."""
    possible: Mask = raw.numbers("source_is_validated") == 1
    for name in ("source_latitude", "source_longitude"):
        possible &= _bounds_of(name).hold(raw.numbers(name))
    return possible


def _bounds_of(name: str) -> Bounds:
    bounds = _BY_NAME[name].bounds
    assert bounds is not None, name
    return bounds


class _RowCheck:
    """Collects the first reason of each row."""

    def __init__(self, raw: RawRows, stations: str):
        self.raw = raw
        self.stations = stations  # what names them
        self.reasons: NDArray[np.object_] = np.full(raw.num_rows, None, dtype=object)

    def refuse(self, bad: Mask, describe: Callable[[int], str]) -> None:
        """Give each row of ``bad`` without a reason the one that ``describe`` makes for it."""
        for row in np.flatnonzero(bad):
            if self.reasons[row] is None:
                self.reasons[row] = describe(int(row))

    def expect(self, name: str, good: Mask, expected: str, optional: bool = True) -> None:
        """Refuse rows whose value is neither ``good`` nor, where that is allowed, NULL."""
        bad = ~good & ~self.raw.nulls(name) if optional else ~good
        self.refuse(bad, lambda row: f"{name}: found {self.show(name, row)}, expected {expected}")

    def show(self, name: str, row: int) -> str:
        """Return a value for people."""
        value = self.raw.value(name, row)
        return "nothing" if value is None else f"{value!r:.80}"

    def expect_value(self, field: Field, optional: bool | None = None) -> None:
        """Refuse rows whose value the type, the bounds or the choices of ``field`` exclude; NULL unless it may be."""
        name = field.read_as
        if optional is None:
            optional = field.is_optional or field.fill is not None
        if field.bounds is not None:
            self.expect(name, field.bounds.hold(self.raw.numbers(name)), f"a number {field.bounds}", optional)
        if field.kind is int:
            self.expect(name, ~np.asarray(self.raw.integers(name).isna()), "an integer", optional)
        elif field.kind is bool:
            self.expect(name, ~np.asarray(self.raw.flags(name).isna()), "true or false", optional)
        elif field.kind is datetime:
            self.expect(name, ~np.asarray(self.raw.times(name).isna()), "a time between 1677 and 2262", optional)
        elif field.kind is dict:
            self.expect_object(name, optional)
        elif field.choices:
            self.expect_one_of(name, field.choices, optional)
        elif field.kind is str:
            self.expect_text(name, optional)

    def expect_one_of(self, name: str, allowed: list[str], optional: bool = False) -> None:
        """Refuse rows whose text is none of ``allowed``."""
        self.expect(name, self.raw.test(name, set(allowed).__contains__), " or ".join(allowed), optional)

    def expect_text(self, name: str, optional: bool = False) -> None:
        """Refuse rows without a text."""
        self.expect(name, self.raw.test(name, _is_text), "a text", optional)

    def expect_object(self, name: str, optional: bool = False) -> None:
        """Refuse rows whose attributes are no JSON object."""
        self.expect(name, self.raw.test(name, cache(_is_json_object)), "a JSON object", optional)  # many are the same

    def expect_decision(self) -> None:
        decisions = self.raw.texts("decision")
        self.refuse(
            ~self.raw.test("decision", lambda text: text == str(ApprovalStatus.APPROVED)),
            lambda row: f"approval_status: found approved, expected the last of approval_events, {decisions[row]}",
        )

    def expect_own_approval(self) -> None:
        self.refuse(
            self.raw.numbers(ROW_APPROVED) != 1,
            lambda row: "approved: found a row that is not, in a session with one that is, expected true",
        )

    def expect_one_place(self) -> None:
        self.refuse(
            self.raw.numbers(NUM_PLACES) > 1,
            lambda row: (
                f"latitude, longitude: found {self.raw.value(NUM_PLACES, row)} places in the rows of one session, "
                "expected one, the transmitter's"
            ),
        )

    def expect_session(self) -> None:
        for name in ("measurement_id", "session_id"):
            self.expect_value(_BY_NAME[name])
        for field in _list_fields("recording_sessions"):
            if field.read_as != "session_status":  # only training asks for it, and first
                self.expect_value(field)

    def expect_source(self, needs_truth: bool) -> None:
        for field in _list_fields("known_sources"):
            name = field.read_as
            if name == "source_is_validated":
                if needs_truth:
                    self.expect(name, self.raw.numbers(name) == 1, "true", optional=False)
            elif needs_truth:
                self.expect_value(field)
            elif field.bounds is not None:
                self.expect_value(field, optional=True)

    def expect_station(self) -> None:
        self.expect_value(_BY_NAME["station_id"])
        self.refuse(
            self.raw.nulls("known_station_id"),
            lambda row: f"station_id: found {self.show('station_id', row)}, expected a station of {self.stations}",
        )
        for field in _list_fields("websdr_stations"):
            if field.read_as != "known_station_id" and not field.is_place:
                self.expect_value(field)
        self.expect_place()

    def expect_place(self) -> None:
        """Refuse rows of receivers that stand nowhere: neither where the measurement says nor where the station is."""
        moves = ~self.raw.nulls("own_latitude")
        self.refuse(
            moves != ~self.raw.nulls("own_longitude"),
            lambda row: "receiver position: found one coordinate, expected latitude and longitude",
        )
        for part in ("latitude", "longitude"):
            self.expect_value(_BY_NAME[f"own_{part}"])
            name = f"station_{part}"
            good = moves | _bounds_of(name).hold(self.raw.numbers(name))
            self.expect(name, good, f"a number {_bounds_of(name)}", optional=False)
        for name in ("own_altitude_m", "station_altitude_m"):
            self.expect_value(_BY_NAME[name])

    def expect_measurement(self) -> None:
        for field in _list_fields("measurements"):
            if field.read_as == "iq_data_location":
                self.expect_content(field.read_as)
            elif field.read_as not in _KEYS and not field.is_place:
                self.expect_value(field)

    def expect_content(self, location: str) -> None:
        """Refuse rows that hold neither a level nor a recording, nor what was made of one: an arrival, a bearing."""
        nothing = self.raw.nulls(location)
        for name in ("signal_strength_db", "arrival_unix_ns", "bearing_deg"):
            nothing = nothing & self.raw.nulls(name)
        self.refuse(
            nothing,
            lambda row: (
                "measurement: found neither a level nor an IQ recording, nor an arrival nor a bearing, "
                "expected at least one"
            ),
        )
        good = self.raw.test(location, _is_location)
        self.expect(location, good, "sha256:<hex>, a relative object name or s3://BUCKET/NAME")

    def expect_observed(self) -> None:
        """Refuse arrivals and bearings without their sigma, and arrivals of sessions that have recordings too.

        Arrivals from recordings count from a zero of their own, which no ready-made one shares.
        """
        self.expect_both("arrival_unix_ns", "arrival_sigma_s")
        self.expect_both("bearing_deg", "bearing_sigma_deg")
        sessions = self.raw.ranks("session_id")
        recorded = np.bincount(sessions, ~self.raw.nulls("iq_data_location")) > 0
        among = recorded[sessions]
        self.refuse(
            among & ~self.raw.nulls("arrival_unix_ns"),
            lambda row: (
                "arrival_unix_ns: found one in a session that has IQ recordings, whose arrivals count from "
                "another zero, expected the one or the other"
            ),
        )

    def expect_both(self, name: str, sigma: str) -> None:
        """Refuse rows that hold a value without its sigma, or a sigma alone."""
        self.refuse(
            self.raw.nulls(name) != self.raw.nulls(sigma),
            lambda row: (
                f"{sigma}: found {self.show(sigma, row)} with {name} {self.show(name, row)}, expected both or none"
            ),
        )

    def expect_one_row_a_station(self) -> None:
        stations = self.raw.ranks("station_id")
        pairs = self.raw.ranks("session_id") * (stations.max(initial=0) + 1) + stations
        good = find_good(self.reasons)
        known, counts = np.unique(pairs[good], return_counts=True)
        twice = dict(zip(known[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True))
        names = self.raw.texts("station_id")
        self.refuse(
            good & np.isin(pairs, known[counts > 1]),
            lambda row: f"station_id: found {names[row]} {twice[int(pairs[row])]} times in a session, expected once",
        )


def _list_fields(table: str) -> list[Field]:
    return [field for field in SNAPSHOT if field.table == table]


def _is_text(text: str | None) -> bool:
    return text is not None and text != "" and "\x00" not in text


def _is_location(text: str | None) -> bool:
    if text is None:
        return False
    if _USUAL_LOCATION.match(text):
        return True
    try:
        parse_location(text)
    except InvalidIdentifier:
        return False
    return True


def _is_json_object(value: Any) -> bool:
    if value == "{}":
        return True
    try:
        decoded = json.loads(value, parse_constant=_refuse_constant)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(decoded, dict)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
