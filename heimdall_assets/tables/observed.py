"""Arrival times and bearings of a table to checked numbers, each with its one-sigma error.

Belongs here: what a cell says of an arrival without losing a digit, which north a bearing counts from, and that no
sigma is assumed. Does not belong here: which rows are one transmission (``long_levels``), times of day (``times``).
"""

import re
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import ArrivalSigma, Bearing, BearingSigma
from heimdall_assets.errors import InvalidTable
from heimdall_assets.fields import read_bounds
from heimdall_assets.formats.written_times import parse_time
from heimdall_assets.tables.cells import MISSING, Cells
from heimdall_assets.tables.claim import ObservedClaim, TableClaim
from heimdall_assets.tables.questions import Question

_FIRST_NS, _LAST_NS = 315_532_800 * 10**9, 7_258_118_400 * 10**9
"""1980 and 2200, between which no count of one unit since 1970 can be one of another."""

_UNITS_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_PLAIN = re.compile(r"\d+([.,]\d+)?([eE]\+?\d+)?")
_FLOAT_DIGITS = 17
"""Significant digits that tell every float64 from its neighbours: a fraction with no more may have been one."""

_MIN_FLOATS = 3
"""So many different cells, each what a float64 prints, came of one: nanoseconds written as seconds do so by chance once
in ten million."""

_SQRT_12 = 12**0.5

_FULL_TURN, _MIN_BEARINGS = 2.0 * np.pi + 1e-3, 3
"""Of this many bearings in degrees all lie within 2 pi once in 200 000 times."""

_TRIAL_SIGMA_S, _TRIAL_SIGMA_DEG = 0.1, 5.0
"""With which whoever only looks looks on; coarse, so that no way of writing times is refused for it."""


@dataclass(frozen=True)
class Observed:
    """Arrivals and bearings of M rows.

    Attributes:
        arrival_unix_ns: int64 (M,), ns since 1970; 0 where there is none.
        arrival_sigma_s: float64 (M,); NaN: no arrival.
        bearing_deg: float64 (M,), from true north over east, 0 to 360; NaN: none.
        bearing_sigma_deg: float64 (M,); NaN: no bearing.
    """

    arrival_unix_ns: NDArray[np.int64]
    arrival_sigma_s: NDArray[np.float64]
    bearing_deg: NDArray[np.float64]
    bearing_sigma_deg: NDArray[np.float64]

    @property
    def has_arrival(self) -> NDArray[np.bool_]:
        """Which rows have an arrival, bool (M,)."""
        return np.isfinite(self.arrival_sigma_s)

    def take(self, rows: NDArray[np.int64]) -> "Observed":
        """Return the given rows, in that order."""
        return Observed(*(values[rows] for values in vars(self).values()))


def read_observed(
    cells: Cells, columns: dict[str, str], claim: TableClaim
) -> tuple[Observed, list[Question], list[str]]:
    """Return the arrivals and bearings of R rows, what must be said before they are believed, and what was believed.

    Raises:
        InvalidTable: there is a column for neither; a cell is no time or no bearing, a sigma is missing or none above
            0, or arrivals are written with fewer digits than their sigma claims.
    """
    said = claim.observed
    assert said is not None
    if not {"arrival", "bearing"} & columns.keys():
        raise InvalidTable(
            f"{cells.name}: no column for arrival or bearing, expected --column arrival=NAME or --column bearing=NAME "
            f"with one of {', '.join(cells.columns):.200}"
        )
    unix_ns, step_ns, unit = _read_arrivals(cells, columns)
    has_arrival = unix_ns > 0
    sigma_s, questions = _read_arrival_sigma_s(cells, columns, said, has_arrival)
    bearing_deg, sigma_deg, more = _read_bearings(cells, columns, said)
    taken = [f"arrivals in {unit}"] if unit else []
    if said.declination_deg is not None:
        taken.append(f"bearings from magnetic north, {said.declination_deg:g} degrees east of true north")
    if not questions and has_arrival.any():
        open_s = step_ns * 1e-9 / _SQRT_12
        cells.refuse(
            has_arrival & (sigma_s < open_s),
            columns["arrival"],
            f"more digits: one step of {step_ns:g} ns leaves {open_s:.2g} s open, more than the stated sigma",
        )
    return Observed(unix_ns, sigma_s, bearing_deg, sigma_deg), questions + more, taken


def _read_arrivals(cells: Cells, columns: dict[str, str]) -> tuple[NDArray[np.int64], float, str]:
    """Return arrivals in ns since 1970 (R,), 0 where none stands, the step they are written in, and their unit."""
    unix_ns = np.zeros(cells.num_rows, dtype=np.int64)
    if "arrival" not in columns:
        return unix_ns, 0.0, ""
    column = columns["arrival"]
    text = [cell.strip() for cell in cells.columns[column]]
    there = np.array([cell not in MISSING for cell in text])
    if not there.any():
        return unix_ns, 0.0, ""
    unit = _find_unit(text[int(np.flatnonzero(there)[0])])
    found = [
        ((_parse_count(cell, unit) if unit else _parse_iso(cell)) if here else (0, np.inf))
        for cell, here in zip(text, there.tolist(), strict=True)
    ]
    expected = (
        f"in {unit} since 1970 as the first row" if unit else "s, ms, us or ns since 1970, or ISO 8601 with a zone"
    )
    cells.refuse(np.array([one is None for one in found]), column, f"an arrival of 1980 to 2200, {expected}")
    known = [one for one in found if one is not None]
    unix_ns[:] = [one[0] for one in known]
    # Printing may drop zeros from the end: the row with the most digits tells how finely all are written.
    step_ns = float(min(one[1] for one in known))
    counts = {cell for cell, here in zip(text, there.tolist(), strict=True) if here} if unit else set()
    if len(counts) >= _MIN_FLOATS and all(map(_is_printed_float, counts)):
        step_ns = max(step_ns, *(float(np.spacing(float(_to_decimal(cell)))) * _UNITS_NS[unit] for cell in counts))
    return unix_ns, step_ns, f"{unit} since 1970" if unit else "ISO 8601"


def _find_unit(text: str) -> str:
    """Return the unit of a count since 1970, which its size tells; empty: it is no count."""
    if not _PLAIN.fullmatch(text):
        return ""
    number = _to_decimal(text)
    units = [name for name, unit_ns in _UNITS_NS.items() if _FIRST_NS <= number * unit_ns < _LAST_NS]
    return units[0] if units else ""


def _parse_count(text: str, unit: str) -> tuple[int, float] | None:
    """Return a count as whole ns, and the ns that its last digit counts; None: it is none.

    A float64 of seconds since 1970 knows 238 ns, whatever number of digits it is printed with.
    """
    if not _PLAIN.fullmatch(text):
        return None
    number, unit_ns = _to_decimal(text), _UNITS_NS[unit]
    exponent = number.as_tuple().exponent
    step = 10.0 ** int(exponent)
    if ("." in text or "," in text or "e" in text.lower()) and len(number.as_tuple().digits) <= _FLOAT_DIGITS:
        step = max(step, float(np.spacing(float(number))))
    unix_ns = int((number * unit_ns).to_integral_value())
    return (unix_ns, max(step * unit_ns, 1.0)) if _FIRST_NS <= unix_ns < _LAST_NS else None


def _is_printed_float(text: str) -> bool:
    """Return whether a count is what a float64 prints with as many decimals, such as C's ``%.9f`` or ``%.0f``.

    Examples:
        >>> _is_printed_float("1795000000.123000145"), _is_printed_float("1795000000.123000000")
        (True, False)
    """
    number = _to_decimal(text)
    decimals = max(-int(number.as_tuple().exponent), 0)
    return Decimal(f"{float(number):.{decimals}f}") == number


def _parse_iso(text: str) -> tuple[int, float] | None:
    try:
        written = parse_time(text)
    except ValueError:
        return None
    return (written.unix_ns, float(written.step_ns)) if _FIRST_NS <= written.unix_ns < _LAST_NS else None


def _to_decimal(text: str) -> Decimal:
    try:
        return Decimal(text.replace(",", "."))
    except InvalidOperation:  # an exponent beyond all
        return Decimal(0)


def _read_arrival_sigma_s(
    cells: Cells, columns: dict[str, str], said: ObservedClaim, has_arrival: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], list[Question]]:
    """Return the sigma of each arrival in s (R,), NaN where there is none, and the question for it."""
    nothing = np.full(cells.num_rows, np.nan)
    if "arrival" not in columns:
        return nothing, []
    units = {"arrival_sigma_s": 1.0, "arrival_sigma_us": 1e-6, "arrival_sigma_ns": 1e-9}
    roles = [role for role in units if role in columns]
    option = said.arrival_sigma_s is not None
    if len(roles) + option > 1:
        told = [f"column {columns[role]:.60}" for role in roles] + ["--arrival-sigma-ns"] * option
        raise InvalidTable(f"{cells.name}: found the sigma of arrivals in {' and '.join(told)}, expected one of them")
    if not roles and not option:
        text = (
            "no column gives the one-sigma error of arrivals: say --arrival-sigma-ns, or --column "
            "arrival_sigma_ns=NAME (or _us, _s)"
        )
        trial = {"observed": replace(said, arrival_sigma_s=_TRIAL_SIGMA_S)}
        return nothing, [Question(text, "--arrival-sigma-ns NS", trial)]
    bounds = read_bounds(ArrivalSigma)
    if option:
        sigma_s = np.full(cells.num_rows, said.arrival_sigma_s, dtype=np.float64)
        if not bounds.hold(sigma_s).all():
            raise InvalidTable(
                f"{cells.name}: --arrival-sigma-ns {sigma_s[0] * 1e9:g}, expected {bounds.low * 1e9:g} to "
                f"{bounds.high * 1e9:g} ns"
            )
    else:
        column, unit_s = columns[roles[0]], units[roles[0]]
        sigma_s = cells.numbers(column) * unit_s
        expected = f"the one-sigma error of an arrival, {bounds.low / unit_s:g} to {bounds.high / unit_s:g}"
        cells.refuse(has_arrival & ~bounds.hold(sigma_s), column, expected)
    return np.where(has_arrival, sigma_s, np.nan), []


def _read_bearings(
    cells: Cells, columns: dict[str, str], said: ObservedClaim
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Question]]:
    """Return bearings from true north and their sigmas in degrees, each (R,), NaN where none is, and questions."""
    nothing = np.full(cells.num_rows, np.nan)
    if "bearing" not in columns:
        return nothing, nothing.copy(), []
    column = columns["bearing"]
    bearing_deg, questions = cells.numbers(column), []
    if said.bearings_in == "radians":
        cells.refuse(bearing_deg > _FULL_TURN, column, "a bearing from 0 to 2 pi radians")
        bearing_deg = np.degrees(bearing_deg)
    known = ~np.isnan(bearing_deg)
    if said.bearings_in is None and known.sum() >= _MIN_BEARINGS and (bearing_deg[known] <= _FULL_TURN).all():
        text = f"all bearings ({column:.40}) lie within 0 to 6.2832: say --bearings-in degrees, or radians"
        questions.append(Question(text, "--bearings-in UNIT", {"observed": replace(said, bearings_in="degrees")}))
    cells.refuse(known & ~read_bounds(Bearing).hold(bearing_deg), column, "a bearing from 0 to 360 degrees")
    if said.north is None:
        text = "bearings may count from either north: say --north true, or magnetic with --declination-deg"
        questions.append(Question(text, "--north NORTH", {"observed": replace(said, north="true")}))
    elif said.declination_deg is not None:
        bearing_deg = (bearing_deg + said.declination_deg) % 360.0
    sigma_column, option = columns.get("bearing_sigma_deg"), said.bearing_sigma_deg
    if sigma_column is not None and option is not None:
        raise InvalidTable(
            f"{cells.name}: found the sigma of bearings in column {sigma_column:.60} and --bearing-sigma-deg, "
            "expected one of them"
        )
    bounds = read_bounds(BearingSigma)
    if option is not None:
        if not bounds.hold(option):
            raise InvalidTable(f"{cells.name}: --bearing-sigma-deg {option:g}, expected {bounds} degrees")
        return bearing_deg, np.where(known, option, np.nan), questions
    if sigma_column is None:
        text = (
            "no column gives the one-sigma error of bearings: say --bearing-sigma-deg, or --column "
            "bearing_sigma_deg=NAME"
        )
        trial = {"observed": replace(said, bearing_sigma_deg=_TRIAL_SIGMA_DEG)}
        questions.append(Question(text, "--bearing-sigma-deg DEG", trial))
        return bearing_deg, nothing, questions
    sigma_deg = cells.numbers(sigma_column)
    cells.refuse(known & ~bounds.hold(sigma_deg), sigma_column, f"the one-sigma error of a bearing, {bounds} degrees")
    return bearing_deg, np.where(known, sigma_deg, np.nan), questions
