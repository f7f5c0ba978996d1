"""Table words: what is said of a table in the command that imports it, and what only its owner can say.

Belongs here: the options, one for each thing that the table leaves open. Does not belong here: what importing would
ask itself (``tables.questions``), what the table holds (``table_inspection``).
"""

import shlex
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from heimdall_assets.tables.cells import MISSING, parse_number
from heimdall_assets.tables.claim import ROLES, TableClaim
from heimdall_assets.tables.column_guesses import ColumnGuess
from heimdall_assets.tables.text import TextTable

NEEDED = ("time", "latitude", "longitude")
_TIME_FORMATS = tuple(
    f"{day} {hour}"
    for hour in ("%H:%M:%S", "%H:%M:%S.%f", "%H:%M", "%I:%M:%S %p")
    for day in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y")
)
_LOOKED_AT = 500
_MAX_WORDS = 4
SHOWN = 8
RECEIVERS = "--receivers RECEIVERS.json"


@dataclass
class CommandWords:
    """The options of the command so far, and what only the owner of the table can say, a line each."""

    words: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def say(self, option: str, line: str = "") -> None:
        """Add an option, with the line that tells why it is asked for; empty: it is not."""
        self.words.append(option)
        if line:
            self.missing.append(line)

    @property
    def wants_receivers(self) -> bool:
        """Whether the receivers' places must be listed."""
        return RECEIVERS in self.words

    def write(self, command: str, path: Path) -> str:
        """Return the command as it is to be typed."""
        return " ".join([f"heimdall import {command}", "--campaign NAME", *self.words, shlex.quote(str(path))])


def say_columns(table: TextTable, guess: ColumnGuess, said: CommandWords) -> TableClaim:
    """Return what is said of the columns, in the command too; a column that could be several is asked about."""
    told = dict(guess.told)
    for role, column in guess.told.items():
        said.say(f"--column {shlex.quote(f'{role}={column}')}")
    for role in ROLES:
        columns = guess.roles.get(role, [])
        if not columns and role in NEEDED:
            listed = ", ".join(table.columns)
            said.say(f"--column {role}=COLUMN", f"which column is the {role}: --column {role}=ONE of {listed:.200}")
        elif len(columns) > 1 and (role in NEEDED or all(column in ROLES[role] for column in columns)):
            listed = " and ".join(columns)
            said.say(f"--column {role}=COLUMN", f"columns {listed:.200} may each be the {role}: --column {role}=ONE")
            told[role] = columns[0]
    return TableClaim(columns=told)


def say_receivers(receivers: list[str], moving: list[str], said: CommandWords) -> None:
    """Ask for the list of receivers, whose names the table gives."""
    listed = ", ".join(receivers[:SHOWN]) + (f" and {len(receivers) - SHOWN} more" if len(receivers) > SHOWN else "")
    still = next((name for name in receivers if name not in moving), "NAME")
    null = f', "{moving[0]}": null where it moves' if moving else ""
    said.say(
        RECEIVERS,
        f"where its receivers stand ({listed:.300}): --receivers RECEIVERS.json, which says "
        f'{{"{still}": {{"latitude": LAT, "longitude": LON}}{null}, ...}}',
    )


def say_times(table: TextTable, claim: TableClaim, said: CommandWords) -> TableClaim:
    """Return the claim with how times are written, where they are in none of the forms that are read unasked."""
    column = claim.columns.get("time") or next((known for known in ROLES["time"] if known in table.columns), None)
    if column is None:
        return claim
    cells = [cell.strip() for cell in table.columns[column][:_LOOKED_AT]]
    if all(_reads(cell, None) for cell in cells) or np.isfinite([parse_number(cells[0].replace(",", "."))]).all():
        return claim
    fitting = [form for form in _TIME_FORMATS if all(_reads(cell, form) for cell in cells)]
    if len(fitting) == 1:
        said.say(f"--time-format {shlex.quote(fitting[0])}")
        return replace(claim, time_format=fitting[0])
    could = " or ".join(repr(form) for form in fitting) or "such as '%d.%m.%Y %H:%M:%S'"
    said.say("--time-format FORM", f"how times are written ({cells[0]!r:.40}): --time-format {could}")
    return replace(claim, time_format=fitting[0]) if fitting else claim


def _reads(cell: str, form: str | None) -> bool:
    try:
        _ = datetime.fromisoformat(cell) if form is None else datetime.strptime(cell, form)
    except ValueError:
        return False
    return True


def say_words(table: TextTable, guess: ColumnGuess, claim: TableClaim, is_long: bool, said: CommandWords) -> TableClaim:
    """Return the claim with words that stand among levels: they can only mean that nothing was heard."""
    level = claim.columns.get("level", guess.roles.get("level", [""])[0])
    moving = {f"{name}_rss" for name in guess.moving}
    columns = [level] if is_long else [name for name in table.columns if name in guess.receivers or name in moving]
    words: dict[str, int] = {}
    for column in columns:
        for cell in table.columns[column]:
            text = cell.strip()
            if text not in MISSING and not np.isfinite(parse_number(text.replace(",", "."))):
                words[text] = words.get(text, 0) + 1
    if not words or len(words) > _MAX_WORDS:
        return claim
    for word, count in sorted(words.items()):
        said.say(
            f"--not-heard {shlex.quote(word)}",
            f"{word!r:.40} stands in {count} cells among levels: right as it is in the command if it means not heard",
        )
    return replace(claim, not_heard=tuple(sorted(words)))
