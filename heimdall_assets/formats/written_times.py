"""Times as files and people write them: ISO 8601 to nanoseconds, and how well a writing that short can know them.

Belongs here: one parser for every time that a recording is placed by. Does not belong here: times of tables
(``tables.times``), GNSS stamps (``time_axis``).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

_WRITTEN = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{8})[T ](?P<clock>\d\d:\d\d(?::\d\d)?|\d{4}(?:\d\d)?)"
    r"(?:[.,](?P<fraction>\d{1,18}))?(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?"
)
_LAST_UNIX_S = (2**63 - 2**60) // 10**9


@dataclass(frozen=True)
class WrittenTime:
    """A time, and what the number of its digits says of it.

    Attributes:
        unix_ns: the time as written, ns since 1970-01-01 UTC.
        step_ns: the distance to the next time that could be written with as many digits.
    """

    unix_ns: int
    step_ns: int

    @property
    def middle_unix_ns(self) -> int:
        """The middle of the step that begins as written: what shortens a time cuts its digits off.

        Python's ``isoformat(timespec=...)``, Qt's ``zzz`` and C's integer division all do; none of them rounds.
        """
        return self.unix_ns + self.step_ns // 2

    @property
    def sigma_s(self) -> float:
        """One sigma of the middle, in s: an even spread over a step has step / sqrt(12)."""
        return self.step_ns * 1e-9 / 12**0.5


def parse_time(text: str) -> WrittenTime:
    """Return the time that ``text`` writes in ISO 8601, with a zone.

    Raises:
        ValueError: it writes none from 1970 to 2225, or has no zone (``no time zone``).

    Examples:
        >>> parse_time("2026-11-20T10:00:00.250Z").sigma_s  # 1 ms / sqrt(12)
        0.0002886751345948129
        >>> parse_time("2026-11-20T10:00:00.123456789+01:00").unix_ns % 10**9
        123456789
    """
    written = _WRITTEN.fullmatch(text.strip())
    if written is None:
        raise ValueError(f"{text!r:.60} is no ISO 8601 time")
    clock, fraction = written["clock"].replace(":", ""), written["fraction"] or ""
    if fraction and len(clock) == 4:
        raise ValueError(f"{text!r:.60} has a fraction of a minute")
    if written["zone"] is None:
        raise ValueError("no time zone")
    zone = "+0000" if written["zone"] == "Z" else written["zone"].replace(":", "").ljust(5, "0")
    plain = written["date"].replace("-", "") + clock.ljust(6, "0") + zone
    seconds = int(datetime.strptime(plain, "%Y%m%d%H%M%S%z").astimezone(UTC).timestamp())
    if not 0 <= seconds < _LAST_UNIX_S:
        raise ValueError(f"{text!r:.60} is not of 1970 to 2225")
    step_ns = 60 * 10**9 if len(clock) == 4 else max(10 ** (9 - len(fraction)), 1) if len(fraction) <= 9 else 1
    return WrittenTime(seconds * 10**9 + int(fraction[:9].ljust(9, "0")), step_ns)
