"""Levels as they stand in a table to levels in dB: units, and what can be believed; what is in doubt is asked for.

Belongs here: which numbers a receiver can show in which unit, and the questions about those it cannot. Does not belong
here: how a code looks (``level_codes``), cells.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidTable
from heimdall_assets.tables.claim import LevelUnit, TableClaim
from heimdall_assets.tables.level_codes import Code, describe_code, find_codes
from heimdall_assets.tables.questions import Question

MIN_LEVEL_DB, MAX_LEVEL_DB = -250.0, 150.0
"""Levels in dB above whatever that receivers show: a column that holds others holds something else."""

_DBM = (-174.0, 30.0)
"""From the thermal noise of 1 Hz at 290 K (k T = -174 dBm) to what destroys a front end."""

_UNSTATED = (-160.0, -1.0)
"""What can only be dBm, or dB below a full scale: no other unit in use is negative. Below lies no receiver's noise."""

_MAX_STRAY_VALUES = 3
"""Distinct numbers beyond belief up to which they are taken for codes; more of them are another quantity."""

_MAX_NAMED = 4

EITHER = "--NOT-HEARD-OR-LEVEL"
"""Stands in a command where only the table's owner knows which of two options a number needs; none is called so."""


class LevelReader:
    """The N levels of a table, read in its unit.

    Args:
        value: float64 (N,), as they stand; NaN: not heard.
        receiver: int64 (N,), whose each is.
        names: receivers' names, by index.
        claim: what is said of the table.
        unit: of its levels, where the claim or a header says it.
        is_full: there is a number for every receiver and transmission.
    """

    def __init__(
        self,
        value: NDArray[np.float64],
        receiver: NDArray[np.int64],
        names: Sequence[str],
        claim: TableClaim,
        unit: LevelUnit | None,
        is_full: bool = False,
    ) -> None:
        self.value, self.receiver, self.names = value, receiver, names
        self.claim, self.unit = claim, unit
        self.heard = np.isfinite(value)
        self.is_full = is_full and bool(self.heard.all())

    def find_questions(self, name: str) -> list[Question]:
        """Return what must be said before the levels can be believed, a phrase each with the option to type.

        Raises:
            InvalidTable: receivers show what no level in the stated unit is; the message begins with ``name``.
        """
        if not self.heard.any():
            return []
        value, receiver = self.value[self.heard], self.receiver[self.heard]
        real = tuple(self.claim.real_levels)
        level_db = self._convert(value)
        low, high = self._find_range()
        stray = ~((level_db >= low) & (level_db <= high)) & ~np.isin(value, real)
        stray_values = np.unique(value[stray])
        codes: dict[float, Code] = {}
        questions: list[Question] = []
        if len(stray_values) <= _MAX_STRAY_VALUES and not (stray.all() and self.unit is None):
            codes = {float(code): describe_code(float(code), value, receiver) for code in stray_values}
        else:
            found = (
                f"{self._list_receivers(np.unique(receiver[stray]))}: levels of {value[stray].min():g} to "
                f"{value[stray].max():g}"
            )
            if self.unit is not None:
                raise InvalidTable(f"{name}: {found}, expected {low:g} to {high:g} dB by --unit {self.unit}")
            text = (
                f"{found} that may be no dBm: say --unit dbm, db, rssi (with --db-per-unit) or mw, or leave out these "
                "receivers"
            )
            questions.append(Question(text, "--unit UNIT", {"unit": LevelUnit.DB}))
            stray[:] = False
        level_db, value, receiver = level_db[~stray], value[~stray], receiver[~stray]
        real_db = self._convert(np.array(real, dtype=np.float64)).tolist()
        for code in find_codes(level_db, receiver, real_db, self.is_full and not codes):
            as_written = float(value[level_db == code.value][0])
            codes[as_written] = replace(code, value=as_written)
        return questions + [self._ask(code) for code in sorted(codes.values(), key=lambda code: -code.count)]

    def read_level_db(self, name: str) -> NDArray[np.float64]:
        """Return levels in dB, float64 (N,); NaN: not heard.

        Raises:
            InvalidTable: a number was said to be a level, and is none that a database takes.
        """
        level_db = np.full(len(self.value), np.nan)
        level_db[self.heard] = self._convert(self.value[self.heard])
        wrong = self.heard & ~((level_db >= MIN_LEVEL_DB) & (level_db <= MAX_LEVEL_DB))
        if wrong.any():
            raise InvalidTable(
                f"{name}: {self.value[wrong][0]:g} said to be a level, expected {MIN_LEVEL_DB:g} to {MAX_LEVEL_DB:g} dB"
            )
        return level_db

    def describe(self) -> str:
        """Return what the levels were taken for."""
        unit = f"{self.unit}, as said" if self.unit else "dBm, or dB below a full scale"
        silent = f", {', '.join(self.claim.not_heard)} not heard" if self.claim.not_heard else ""
        return f"levels in {unit}{silent}"

    def _find_range(self) -> tuple[float, float]:
        """Return the lowest and the highest level that can be believed, in dB."""
        if self.unit is None:
            return _UNSTATED
        return _DBM if self.unit in (LevelUnit.DBM, LevelUnit.MW) else (MIN_LEVEL_DB, MAX_LEVEL_DB)

    def _convert(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.unit is LevelUnit.RSSI and self.claim.db_per_unit is not None:
            return value * self.claim.db_per_unit
        if self.unit is LevelUnit.MW:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(10.0 * np.log10(value), dtype=np.float64)
        return value

    def _ask(self, code: Code) -> Question:
        share = code.count / max(len(self.value), 1)
        where = self._list_receivers(np.array(code.receivers))
        text = (
            f"{code.value:g} stands in {100.0 * share:.3g} % of cells ({where}): say --not-heard {code.value:g} if it "
            f"means not heard, --level {code.value:g} if it is a level"
        )
        return Question(text, f"{EITHER} {code.value:g}", {"not_heard": (f"{code.value:g}",)})

    def _list_receivers(self, receivers: NDArray[np.int64]) -> str:
        named = ", ".join(f"{self.names[index]:.40}" for index in receivers[:_MAX_NAMED].tolist())
        return named + (f" and {len(receivers) - _MAX_NAMED} more" if len(receivers) > _MAX_NAMED else "")
