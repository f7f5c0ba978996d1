"""Row rules: every field of every row is suspect; the first thing wrong with a row becomes its reason.

Belongs here: what a believable row is, whole columns at a time, so that one bad row never stops the others. Does not
belong here: queries (``snapshots``), what the IQ bytes hold (``signals.iq``).
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import ApprovalStatus, ClockClass, IqFormat, Origin, SessionStatus
from heimdall_assets.errors import InvalidIdentifier
from heimdall_assets.stores.objects.locations import parse_location

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]


class RawRows:
    """Columns as the database gave them, each also as numbers, texts or times; NaN or None where it cannot be one."""

    def __init__(self, columns: dict[str, list[Any]], num_rows: int):
        self._columns = columns
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._texts: dict[str, NDArray[np.object_]] = {}
        self.num_rows = num_rows

    def values(self, name: str) -> list[Any]:
        """Return the values as read."""
        return self._columns[name]

    def nulls(self, name: str) -> Mask:
        """Return where the column is NULL, bool (N,)."""
        return np.fromiter((value is None for value in self._columns[name]), dtype=bool, count=self.num_rows)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return the column as float64 (N,); NaN where it is NULL or no number."""
        if name not in self._numbers:
            column = self._columns[name]
            try:
                numbers = np.array(column, dtype=np.float64)
            except (TypeError, ValueError, ArithmeticError):  # one of them is no number: one by one
                numbers = np.array([_to_float(value) for value in column], dtype=np.float64)
            self._numbers[name] = numbers
        return self._numbers[name]

    def integers(self, name: str) -> "pd.api.extensions.ExtensionArray":
        """Return the column as Int64 (N,), exact to the last digit; NA where it is NULL or no integer of 64 bits."""
        import pandas as pd

        whole = [_to_integer(value) for value in self._columns[name]]
        return pd.array(whole, dtype="Int64")

    def texts(self, name: str) -> NDArray[np.object_]:
        """Return the column as objects (N,): str, or None where it is NULL or no text."""
        if name not in self._texts:
            texts = self._texts[name] = np.empty(self.num_rows, dtype=object)
            texts[:] = [value if isinstance(value, str) else None for value in self._columns[name]]
        return self._texts[name]

    def times(self, name: str) -> "pd.Series[Any]":
        """Return the column as datetime64[us, UTC] (N,); NaT where it is NULL or no time."""
        import pandas as pd

        texts = pd.Series(self.texts(name), dtype=object)
        return pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce").astype("datetime64[us, UTC]")

    def has_truth(self) -> Mask:
        """Return where the source's position is validated and possible, bool (N,)."""
        latitude, longitude = self.numbers("source_latitude"), self.numbers("source_longitude")
        validated: Mask = self.numbers("source_is_validated") == 1
        return validated & (np.abs(latitude) <= 90) & (np.abs(longitude) <= 180)


def find_reasons(raw: RawRows, needs_truth: bool, needs_decision: bool) -> NDArray[np.object_]:
    """Return why each row is left out, objects (N,): a text, or None where the row may be used.

    Args:
        needs_truth: for training: session completed, source validated and its position known.
        needs_decision: the ledger must hold the approval that the session's row claims.
    """
    judge = _Judge(raw)
    if needs_truth:
        judge.expect_one_of("session_status", [str(SessionStatus.COMPLETED)])
    if needs_decision:
        judge.expect_decision()
    judge.expect_session()
    judge.expect_source(needs_truth)
    judge.expect_station()
    judge.expect_measurement()
    judge.expect_one_row_a_station()
    return judge.reasons


def _to_float(value: Any) -> float:
    try:
        return float("nan") if value is None or isinstance(value, bytes) else float(value)
    except (TypeError, ValueError, ArithmeticError):
        return float("nan")


def _to_integer(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        try:
            value = int(value) if value == int(value) else None
        except (TypeError, ValueError, OverflowError, ArithmeticError):
            return None
    return value if value is not None and -(2**63) <= value < 2**63 else None


class _Judge:
    """Collects the first reason of each row."""

    def __init__(self, raw: RawRows):
        self.raw = raw
        self.reasons: NDArray[np.object_] = np.full(raw.num_rows, None, dtype=object)

    def refuse(self, bad: Mask, describe: Callable[[int], str]) -> None:
        """Give each row of ``bad`` without a reason the one that ``describe`` makes for it."""
        for row in np.flatnonzero(bad):
            if self.reasons[row] is None:
                self.reasons[row] = describe(int(row))

    def expect(self, name: str, good: Mask, expected: str, optional: bool = True) -> None:
        """Refuse rows whose value is neither ``good`` nor, where that is allowed, NULL."""
        bad = ~good & ~self.raw.nulls(name) if optional else ~good
        values = self.raw.values(name)
        self.refuse(bad, lambda row: f"{name}: found {_show(values[row])}, expected {expected}")

    def expect_range(self, name: str, low: float, high: float, optional: bool = True, above: bool = False) -> None:
        """Refuse rows whose value is no number from ``low`` (or above it) to ``high``."""
        numbers = self.raw.numbers(name)
        with np.errstate(invalid="ignore"):
            good = ((numbers > low) if above else (numbers >= low)) & (numbers <= high)
        self.expect(name, good, f"a number {'above' if above else 'from'} {low:g} to {high:g}", optional)

    def expect_one_of(self, name: str, allowed: list[str], optional: bool = False) -> None:
        """Refuse rows whose text is none of ``allowed``."""
        known = set(allowed)
        good = np.fromiter((text in known for text in self.raw.texts(name)), dtype=bool, count=self.raw.num_rows)
        self.expect(name, good, " or ".join(allowed), optional)

    def expect_text(self, name: str) -> None:
        """Refuse rows without a text."""
        texts = self.raw.texts(name)
        good = np.fromiter((bool(text) and "\x00" not in text for text in texts), dtype=bool, count=self.raw.num_rows)
        self.expect(name, good, "a text", optional=False)

    def expect_time(self, name: str) -> None:
        """Refuse rows without a time."""
        self.expect(name, self.raw.times(name).notna().to_numpy(), "a time between 1677 and 2262", optional=False)

    def expect_object(self, name: str) -> None:
        """Refuse rows whose attributes are no JSON object."""
        texts = self.raw.texts(name)
        known = {text: _is_json_object(text) for text in set(texts)}  # many rows share one session's
        good = np.fromiter((known[text] for text in texts), dtype=bool, count=self.raw.num_rows)
        self.expect(name, good, "a JSON object", optional=False)

    def expect_decision(self) -> None:
        decisions = self.raw.texts("decision")
        self.refuse(
            decisions != str(ApprovalStatus.APPROVED),
            lambda row: f"approval_status: found approved, expected the last of approval_events, {decisions[row]}",
        )

    def expect_session(self) -> None:
        for name in ("measurement_id", "session_id", "session_name", "campaign"):
            self.expect_text(name)
        self.expect_one_of("origin", [str(origin) for origin in Origin])
        self.expect_time("session_start")
        self.expect_object("session_attributes")

    def expect_source(self, needs_truth: bool) -> None:
        if needs_truth:
            self.expect_text("source_id")
            self.expect_text("source_name")
            self.expect("source_is_validated", self.raw.numbers("source_is_validated") == 1, "true", optional=False)
        self.expect_range("source_latitude", -90, 90, optional=not needs_truth)
        self.expect_range("source_longitude", -180, 180, optional=not needs_truth)
        self.expect_range("source_altitude_m", -500, 100_000)
        self.expect_range("source_error_margin_m", 0, 1e6)

    def expect_station(self) -> None:
        self.expect_text("station_id")
        stations = self.raw.values("station_id")
        self.refuse(
            self.raw.nulls("known_station_id"),
            lambda row: f"station_id: found {_show(stations[row])}, expected a station of websdr_stations",
        )
        self.expect_text("station_name")
        self.expect_one_of("clock_class", [str(clock) for clock in ClockClass])
        moves = ~self.raw.nulls("own_latitude")
        self.refuse(
            moves != ~self.raw.nulls("own_longitude"),
            lambda row: "receiver position: found one coordinate, expected latitude and longitude",
        )
        for part, limit in (("latitude", 90), ("longitude", 180)):
            self.expect_range(f"own_{part}", -limit, limit)
            numbers = self.raw.numbers(f"station_{part}")
            with np.errstate(invalid="ignore"):
                good = moves | (np.abs(numbers) <= limit)
            self.expect(f"station_{part}", good, f"a number from -{limit} to {limit}", optional=False)
        for name in ("own_altitude_m", "station_altitude_m"):
            self.expect_range(name, -500, 100_000)

    def expect_measurement(self) -> None:
        self.expect_time("timestamp")
        self.expect_range("frequency_hz", 0, 300e9, optional=False, above=True)
        for name in ("signal_strength_db", "snr_db"):
            self.expect_range(name, -1e3, 1e3)
        self.expect_range("frequency_offset_hz", -300e9, 300e9)
        has_iq = ~self.raw.nulls("iq_data_location")
        self.refuse(
            ~has_iq & self.raw.nulls("signal_strength_db"),
            lambda row: "measurement: found neither a level nor an IQ recording, expected at least one",
        )
        self.expect("iq_data_location", self._good_locations(), "sha256:<hex> or a relative object name")
        self.expect_one_of("iq_data_format", [str(iq_format) for iq_format in IqFormat], optional=True)
        self.expect_range("iq_sample_rate_hz", 0, 1e9, above=True)
        self.expect_range("iq_samples_count", 1, 1e10)
        for name in ("iq_samples_count", "iq_start_unix_ns"):
            self.expect(name, ~self.raw.integers(name).isna(), "an integer")
        self.expect_range("duration_s", 0, 1e9, above=True)
        self.expect_object("measurement_attributes")

    def expect_one_row_a_station(self) -> None:
        pairs = list(zip(self.raw.texts("session_id"), self.raw.texts("station_id"), strict=True))
        counts = Counter(pair for pair, reason in zip(pairs, self.reasons, strict=True) if reason is None)
        twice = np.fromiter((counts[pair] > 1 for pair in pairs), dtype=bool, count=self.raw.num_rows)
        self.refuse(
            twice,
            lambda row: f"station_id: found {pairs[row][1]} {counts[pairs[row]]} times in a session, expected once",
        )

    def _good_locations(self) -> Mask:
        return np.fromiter(
            (_is_location(text) for text in self.raw.texts("iq_data_location")), dtype=bool, count=self.raw.num_rows
        )


def _is_location(text: str | None) -> bool:
    try:
        parse_location(text or "")
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


def _show(value: Any) -> str:
    return "nothing" if value is None else f"{value!r:.80}"
