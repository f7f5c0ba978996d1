"""Table inspection: what a table of levels is, how its columns are understood, and what is missing to import it.

Belongs here: from a table to the command that imports it. Nothing is believed: what looks like something is said in the
command, which its owner types. Does not belong here: guesses about columns (``tables.column_guesses``), arrivals
and bearings (``observed_inspection``), importing (``level_files``).
"""

from pathlib import Path
from typing import Any

from heimdall_assets.errors import InvalidTable
from heimdall_assets.pipeline.intake.inspected import Inspection
from heimdall_assets.pipeline.intake.observed_inspection import holds_observed, inspect_observed
from heimdall_assets.pipeline.intake.table_trials import find_middle, is_name, look_on, say_rows
from heimdall_assets.pipeline.intake.table_words import (
    NEEDED,
    SHOWN,
    CommandWords,
    say_columns,
    say_receivers,
    say_times,
    say_words,
)
from heimdall_assets.tables.claim import TableClaim
from heimdall_assets.tables.column_guesses import ColumnGuess, guess_columns, looks_like_levels
from heimdall_assets.tables.level_table import LevelTable
from heimdall_assets.tables.levels import understand_levels
from heimdall_assets.tables.questions import Question
from heimdall_assets.tables.text import TextTable, decode_text_table


def inspect_table(path: Path, data: bytes, is_cut: bool) -> Inspection | None:
    """Return what a table of levels is and lacks; None: it does not look like one.

    Args:
        path: of the file, for the command.
        data: the file, or its first ``HEAD_BYTES``.
        is_cut: whether there is more.
    """
    if is_cut and not data.startswith(b"PAR1"):
        data = data[: data.rfind(b"\n") + 1]
    try:
        table = decode_text_table(data, path.name)
    except InvalidTable as error:
        return _refuse_if_table(path, data, error)
    guess = guess_columns(table)
    if holds_observed(table, guess):
        return inspect_observed(path, table, is_cut)
    if not looks_like_levels(guess):
        return _refuse_if_table(path, data, InvalidTable(_say_no_levels(table)))
    return _describe(path, table, guess, is_cut)


def _refuse_if_table(path: Path, data: bytes, error: InvalidTable) -> Inspection | None:
    """Return why a file that is meant to be a table is none that is read; None: nothing says that it is one."""
    is_meant = path.name.lower().endswith((".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"))
    if not (is_meant or data.startswith(b"PAR1")):
        return None
    return Inspection(path, "table, but none that is read", {"bytes": path.stat().st_size}, problem=str(error))


def _say_no_levels(table: TextTable) -> str:
    listed = ", ".join(table.columns)
    return (
        f"{table.name:.60}: none of its columns ({listed:.160}) looks like received levels, expected columns receiver "
        "and level, or a column for each receiver; say which (heimdall import rss-table --column WHAT=COLUMN)"
    )


def _describe(path: Path, table: TextTable, guess: ColumnGuess, is_cut: bool) -> Inspection:
    said = CommandWords()
    claim = say_columns(table, guess, said)
    is_long = {"receiver", "level"} <= guess.roles.keys()
    receivers = _list_receivers(table, guess, claim)
    among = find_middle(
        table, {role: claim.columns.get(role) or guess.roles.get(role, [""])[0] for role in ("latitude", "longitude")}
    )
    places = {name: None if name in guess.moving else among for name in receivers}
    if not is_long or not {"receiver_latitude", "receiver_longitude"} <= guess.roles.keys():
        say_receivers(receivers, guess.moving, said)
    claim = say_times(table, claim, said)
    claim = say_words(table, guess, claim, is_long, said)
    found: LevelTable | None = None
    questions: list[Question] = []
    if all(role in guess.roles for role in NEEDED):
        try:
            found, questions = look_on(table, places if said.wants_receivers else {}, claim, understand_levels)
        except InvalidTable as error:
            facts = _list_facts(path, table, guess, is_long, receivers, is_cut)
            return Inspection(path, _name_form(table), facts, problem=str(error))
        for question in questions:
            said.say(question.option, question.text)
    else:
        said.say("--frequency-hz HZ", "the frequency, where no column says it: --frequency-hz HZ")
    in_doubt = any("not_heard" in question.trial for question in questions)
    facts = _list_facts(path, table, guess, is_long, receivers, is_cut) | _count(found, in_doubt)
    return Inspection(path, _name_form(table), facts, said.missing, said.write("rss-table", path))


def _list_receivers(table: TextTable, guess: ColumnGuess, claim: TableClaim) -> list[str]:
    if not {"receiver", "level"} <= guess.roles.keys():
        return [name for name in guess.receivers if is_name(name)]
    column = claim.columns.get("receiver", guess.roles["receiver"][0])
    return sorted({cell for cell in table.columns[column] if is_name(cell)})


def _name_form(table: TextTable) -> str:
    return f"table of received levels, {table.kind}"


def _list_facts(
    path: Path, table: TextTable, guess: ColumnGuess, is_long: bool, receivers: list[str], is_cut: bool
) -> dict[str, Any]:
    understood = [f"{role}={columns[0]}" for role, columns in guess.roles.items() if len(columns) == 1]
    more = f" and {len(receivers) - SHOWN} more" if len(receivers) > SHOWN else ""
    return {
        "bytes": path.stat().st_size,
        "form": "a row a receiver and transmission" if is_long else "a row a transmission, a column a receiver",
        "rows": say_rows(table, is_cut),
        "columns": len(table.columns),
        "understood": ", ".join(understood),
        "receivers": f"{len(receivers)}: {', '.join(receivers[:SHOWN])}{more}",
    }


def _count(found: LevelTable | None, in_doubt: bool) -> dict[str, Any]:
    """Return how much the table gives once its questions are answered; numbers in question are not counted."""
    if found is None:
        return {}
    left_out = ", ".join(f"{number} ({reason})" for reason, number in found.left_out.items())
    levels = f"{len(found.level_db)}{' beside those in question' if in_doubt else ''}"
    facts = {"sessions": len(found), "levels": levels, "rows_left_out": left_out or None}
    kept = [phrase for phrase in found.taken_as if phrase.startswith("columns kept")]
    return facts | {"kept": kept[0] if kept else None}
