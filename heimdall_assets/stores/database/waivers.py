"""Waivers: why a session is learned from although who heard it contradicts its stated place, kept in the ledger.

Belongs here: how the reason of an approval holds a waiver, and how it is found there again. Does not belong here: what
contradicts a place (``locating.reach``).
"""

import json
from typing import Any

WAIVED = "truth_waived"
"""Attribute of a session whose import waived its truth; the decision that approves it takes it into the ledger."""

_MARK = " [truth waived: "


def add_waiver(reason: str, waiver: str | None) -> str:
    """Return the reason of an approval with ``waiver`` in it, for the ledger; without one, ``reason`` as it is.

    Examples:
        >>> add_waiver("positions by GPS", "sporadic E, 3 July")
        'positions by GPS [truth waived: sporadic E, 3 July]'
    """
    return reason if waiver is None else f"{reason}{_MARK}{waiver}]"


def find_waiver(reason: Any) -> str | None:
    """Return the waiver that the reason of an approval holds; None: none.

    Examples:
        >>> find_waiver(add_waiver("positions by GPS", "sporadic E")), find_waiver("positions by GPS")
        ('sporadic E', None)
    """
    if not isinstance(reason, str) or _MARK not in reason or not reason.endswith("]"):
        return None
    return reason.rpartition(_MARK)[2][:-1]


def read_waiver(attributes: Any) -> str | None:
    """Return the waiver that a session was imported with, from its attributes; None: none, or they are unreadable."""
    if isinstance(attributes, str):
        try:
            attributes = json.loads(attributes)
        except ValueError:
            return None
    found = attributes.get(WAIVED) if isinstance(attributes, dict) else None
    return found if isinstance(found, str) else None
