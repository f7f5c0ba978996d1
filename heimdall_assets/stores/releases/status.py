"""Status of a release: whether its model passed the gates that it was made with.

Belongs here: what its record says of it. Does not belong here: the gates themselves (``pipeline.stages.gates``).
"""

from collections.abc import Mapping
from typing import Any

RELEASED, REJECTED = "released", "rejected"


def read_status(record: Mapping[str, Any]) -> str:
    """Return what the record of a release says; those made before there were gates passed."""
    return str(record.get("status", RELEASED))


def is_rejected(record: Mapping[str, Any]) -> bool:
    """Return whether a release is kept and given to nobody."""
    return read_status(record) == REJECTED
