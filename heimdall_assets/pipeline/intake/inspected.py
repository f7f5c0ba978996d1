"""Inspected: what was found out about one file, whatever it is.

Belongs here: the one answer of every inspection. Does not belong here: finding it out (``inspection``,
``table_inspection``).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heimdall_assets.physical import Recording


@dataclass(frozen=True)
class Inspection:
    """What was found out about one file.

    Attributes:
        path: the file.
        title: what it is.
        facts: what it holds, name -> value, for people.
        missing: what is not known and must be said, each a line.
        command: what imports it, with capital letters for what only its owner knows; None: nothing does.
        problem: why it cannot be used; None: it can.
        recording: its samples; None: they could not be read, or it holds none.
    """

    path: Path
    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    command: str | None = None
    problem: str | None = None
    recording: Recording | None = None
