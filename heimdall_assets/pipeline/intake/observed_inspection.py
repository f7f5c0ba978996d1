"""Observed inspection: what a table of arrival times or bearings is, and what is missing to import it.

Belongs here: from such a table to the command that imports it; nothing is believed that its owner does not type. Does
not belong here: tables of levels (``table_inspection``), reading (``tables.observed``).
"""

from pathlib import Path
from typing import Any

import numpy as np

from heimdall_assets.errors import InvalidTable
from heimdall_assets.pipeline.intake.inspected import Inspection
from heimdall_assets.pipeline.intake.table_trials import find_middle, is_name, look_on, say_rows
from heimdall_assets.pipeline.intake.table_words import SHOWN, CommandWords, say_receivers
from heimdall_assets.tables.claim import OBSERVED_ROLES, ObservedClaim, TableClaim, find_columns
from heimdall_assets.tables.column_guesses import ColumnGuess
from heimdall_assets.tables.level_table import LevelTable
from heimdall_assets.tables.levels import understand_observed
from heimdall_assets.tables.text import TextTable

_WHAT = ("arrival", "bearing")
_NEEDED = ("session", "receiver", "latitude", "longitude")


def holds_observed(table: TextTable, guess: ColumnGuess) -> bool:
    """Return whether a column is called as arrivals are, or as bearings that receivers took.

    A bearing without a receiver is the course of whoever carried the transmitter.
    """
    arrivals, bearings = ([column for column in OBSERVED_ROLES[role] if column in table.columns] for role in _WHAT)
    return bool(arrivals) or (bool(bearings) and "receiver" in guess.roles)


def inspect_observed(path: Path, table: TextTable, is_cut: bool) -> Inspection:
    """Return what a table of arrivals or bearings is and lacks.

    Args:
        path: of the file, for the command.
        table: what was looked at of it.
        is_cut: whether there is more.
    """
    title = f"table of arrivals or bearings, {table.kind}"
    facts: dict[str, Any] = {
        "bytes": path.stat().st_size, "rows": say_rows(table, is_cut), "columns": len(table.columns),
    }  # fmt: skip
    claim, said = TableClaim(observed=ObservedClaim()), CommandWords()
    try:
        columns = find_columns(list(table.columns), claim, table.name)
        facts["understood"] = ", ".join(f"{role}={column}" for role, column in columns.items())
        needed = (*_NEEDED, *(() if "arrival" in columns else ("time",)))
        lacking = [role for role in needed if role not in columns]
        for role in lacking:
            listed = ", ".join(table.columns)
            said.say(f"--column {role}=COLUMN", f"which column is the {role}: --column {role}=ONE of {listed:.200}")
        receivers = sorted({cell for cell in table.columns.get(columns.get("receiver", ""), ()) if is_name(cell)})
        facts["receivers"] = f"{len(receivers)}: {', '.join(receivers[:SHOWN])}"
        if not {"receiver_latitude", "receiver_longitude"} <= columns.keys():
            say_receivers(receivers, [], said)
        if not lacking:
            places = dict.fromkeys(receivers, find_middle(table, columns)) if said.wants_receivers else {}
            found, questions = look_on(table, places, claim, understand_observed)
            facts |= _count(found)
            for question in questions:
                said.say(question.option, question.text)
    except InvalidTable as error:
        return Inspection(path, title, facts, problem=str(error))
    return Inspection(path, title, facts, said.missing, said.write("observations", path))


def _count(found: LevelTable | None) -> dict[str, Any]:
    if found is None or found.observed is None:
        return {}
    left_out = ", ".join(f"{number} ({reason})" for reason, number in found.left_out.items())
    return {
        "sessions": len(found),
        "arrivals": int(found.observed.has_arrival.sum()),
        "bearings": int(np.isfinite(found.observed.bearing_deg).sum()),
        "rows_left_out": left_out or None,
    }
