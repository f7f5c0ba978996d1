"""Versions: which number of a release rises, from what changed since the one before."""

from collections.abc import Mapping
from typing import Any, Literal

Rise = Literal["major", "minor", "patch"]

ARCHITECTURE = ("ModelSpec",)


def plan_version(previous: Mapping[str, Any] | None, current: Mapping[str, Any]) -> Rise:
    """Return what rises: major for another architecture, minor for other features or settings, patch for other data.

    Args:
        previous: spec name -> fields of the latest release; None: there is none.
        current: spec name -> fields of the model to be released.
    """
    if previous is None or any(previous.get(name) != current.get(name) for name in ARCHITECTURE):
        return "major"
    return "patch" if dict(previous) == dict(current) else "minor"
