"""Version numbers of released models: ``v1.2.3``.

Belongs here: their grammar and order. Does not belong here: who gets one (``releases.store``), which part changes
(``lineage.versions``).
"""

import re
from typing import Any, Literal

from heimdall_assets.errors import InvalidIdentifier

Change = Literal["major", "minor", "patch"]
_PART = "(0|[1-9][0-9]{0,8})"
_VERSION = re.compile(rf"v?{_PART}\.{_PART}\.{_PART}\Z")


def parse_version(text: Any) -> tuple[int, int, int] | None:
    """Return major, minor and patch of ``v1.2.3`` or ``1.2.3``; None: it is no version."""
    match = _VERSION.match(text) if isinstance(text, str) else None
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def check_version(text: Any) -> str:
    """Return ``text`` as a version such as ``v1.2.3``.

    Raises:
        InvalidIdentifier: it is none.
    """
    numbers = parse_version(text)
    if numbers is None:
        raise InvalidIdentifier(f"version {text!r:.140}: expected one such as v1.2.3")
    return format_version(numbers)


def is_version(text: str) -> bool:
    """Return whether ``text`` is a version as it is written: ``v1.2.3``, and not ``1.2.3``."""
    numbers = parse_version(text)
    return numbers is not None and format_version(numbers) == text


def format_version(numbers: tuple[int, int, int]) -> str:
    """Return the text of major, minor and patch."""
    return "v" + ".".join(str(number) for number in numbers)


def compute_next_version(last: tuple[int, int, int] | None, change: Change) -> tuple[int, int, int]:
    """Return the number that follows ``last`` after such a change; the first is 1, 0, 0."""
    if last is None:
        return 1, 0, 0
    major, minor, patch = last
    if change == "major":
        return major + 1, 0, 0
    return (major, minor + 1, 0) if change == "minor" else (major, minor, patch + 1)
