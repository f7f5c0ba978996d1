"""Finding: what one place answered, in one line, and what to type where it is wrong.

Belongs here: the record, and clocks compared. Does not belong here: asking (its neighbours).
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

MAX_SKEW_S = 30.0
"""S3 refuses requests from clocks that are 15 minutes off; approvals and runs are put in order by times long before."""


class State(StrEnum):
    """How a place is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What one place answered.

    Attributes:
        place: the variable that names it.
        state: whether it can be used.
        told: what was found, in one line, without passwords and keys.
        advice: what to do or type; empty where nothing is to be done.
    """

    place: str
    state: State
    told: str
    advice: str = ""

    def describe(self) -> str:
        """Return the line that people read."""
        return f"{self.told}; {self.advice}" if self.advice else self.told

    def as_json(self) -> dict[str, Any]:
        """Return the record for programs."""
        return asdict(self)


def compare_clocks(theirs: datetime) -> tuple[float, str]:
    """Return how far another clock is ahead of ours in s, and the words for it."""
    skew_s = (theirs - datetime.now(UTC)).total_seconds()
    return skew_s, f"clock {skew_s:+.1f} s"


def judge_clock(place: str, told: list[str], skew_s: float) -> Finding:
    """Return the finding of a place that answers: usable, with a warning where its clock and ours differ."""
    if abs(skew_s) > MAX_SKEW_S:
        return Finding(place, State.WARNING, ", ".join(told), "set this machine's clock, or the other's, by NTP")
    return Finding(place, State.OK, ", ".join(told))
