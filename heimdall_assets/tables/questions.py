"""Questions about a table: what must be said before it can be believed, each with the option that answers.

Belongs here: how questions are asked, all in one line. Does not belong here: what raises them (``level_table``,
``level_values``, ``observed``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heimdall_assets.errors import UndecidedTable

_MAX_LINE = 440


@dataclass(frozen=True)
class Question:
    """Something that a table leaves open.

    Attributes:
        text: a phrase that says what was found and which options answer.
        option: the answer as it stands in a command, with capital letters for what only the table's owner knows.
        trial: fields of ``TableClaim`` with which whoever only looks may look on; nothing is believed by them.
    """

    text: str
    option: str
    trial: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


def raise_questions(questions: Sequence[Question], name: str) -> None:
    """Check that nothing is left to ask.

    Raises:
        UndecidedTable: something is; all of it stands in the one line.
    """
    if questions:
        told = "; ".join(map(str, questions))
        line = f"{name:.60}: {told if len(told) <= _MAX_LINE else told[:_MAX_LINE] + ' ...'}"
        raise UndecidedTable(line, tuple(questions))
