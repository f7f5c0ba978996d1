"""Environments: what two computations ran under, told apart down to the single package.

Belongs here: comparing what facts tell. Does not belong here: reading it off (``stores.machine``,
``stores.installation``).
"""

from collections.abc import Mapping
from typing import Any

PACKAGES = "packages"


def compare_environments(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> dict[str, list[Any]]:
    """Return name -> [first, second] of what differs; None: not there, not known, or no facts were kept.

    Packages are compared one by one, as ``package NAME``; so is what else has parts, as ``threads torch``.
    """
    sides = [_flatten(side or {}) for side in (first, second)]
    names = sorted({*sides[0], *sides[1]})
    return {name: [side.get(name) for side in sides] for name in names if sides[0].get(name) != sides[1].get(name)}


def _flatten(environment: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in environment.items():
        if name == PACKAGES:
            flat |= {f"package {package}": version for package, _, version in (item.partition("==") for item in value)}
        elif isinstance(value, Mapping):
            flat |= {f"{name} {part}": inner for part, inner in value.items()}
        else:
            flat[name] = value
    return flat
