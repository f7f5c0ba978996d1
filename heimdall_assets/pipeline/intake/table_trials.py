"""Table trials: a table as it would be understood if every question were answered.

Belongs here: what the inspections of all tables share, and how many bytes they look at. Does not belong here: what a
table looks like (``table_inspection``, ``observed_inspection``), the command (``table_words``).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from heimdall_assets.domain import Position, check_name
from heimdall_assets.errors import InvalidIdentifier, UndecidedTable
from heimdall_assets.tables.claim import TableClaim
from heimdall_assets.tables.column_guesses import read_numbers
from heimdall_assets.tables.level_table import LevelTable
from heimdall_assets.tables.questions import Question
from heimdall_assets.tables.text import TextTable

HEAD_BYTES = 1_000_000
"""Of a longer table only the rows within are looked at, which is said."""

Understand = Callable[[TextTable, Mapping[str, Position | None], TableClaim], LevelTable]


def is_name(text: str) -> bool:
    """Tell whether a receiver can be called so."""
    try:
        check_name(text, "receiver")
    except InvalidIdentifier:
        return False
    return True


def find_middle(table: TextTable, columns: Mapping[str, str]) -> Position:
    """Return a place among the table's own, for receivers that nobody has placed yet: it makes nothing look far away.

    Whole degrees, which may stand for "no position", count only where there is nothing else.

    Args:
        table: that is looked at.
        columns: latitude and longitude -> the column that holds it; one that is not there gives 0.
    """
    middle = []
    for role, limit in (("latitude", 90.0), ("longitude", 180.0)):
        numbers = read_numbers(table.columns.get(columns[role], ()))
        numbers = numbers[np.abs(numbers) <= limit]
        broken = numbers[numbers != np.rint(numbers)]
        middle.append(float(np.median(broken if len(broken) else numbers)) if len(numbers) else 0.0)
    return Position(latitude=middle[0], longitude=middle[1])


def say_rows(table: TextTable, is_cut: bool) -> str | int:
    """Return how many rows there are, of what was looked at."""
    return f"{table.num_rows} (of the first {HEAD_BYTES} bytes)" if is_cut else table.num_rows


def look_on(
    table: TextTable, places: Mapping[str, Position | None], claim: TableClaim, understand: Understand
) -> tuple[LevelTable | None, list[Question]]:
    """Return the table as it would be understood, and every question that is asked on the way there.

    Raises:
        InvalidTable: something in it is wrong, whatever is answered.
    """
    asked: list[Question] = []
    for _ in range(8):  # an answer may lead to another question: a code that hid a code
        try:
            return understand(table, places, claim), asked
        except UndecidedTable as error:
            known = {question.text for question in asked}
            fresh = [found for found in error.questions if isinstance(found, Question) and found.text not in known]
            asked += fresh
            for question in error.questions:
                if isinstance(question, Question):
                    claim = _try(claim, question)
    return None, asked


def _try(claim: TableClaim, question: Question) -> TableClaim:
    """Return the claim with which to look on: what is listed is added, everything else takes its place."""
    trial: dict[str, Any] = {
        name: (*getattr(claim, name), *value) if isinstance(value, tuple) else value
        for name, value in question.trial.items()
    }
    return replace(claim, **trial)
