"""JSON from strangers: no duplicate keys, no NaN or infinity, no depth that exhausts the parser.

Belongs here: the one parser of foreign JSON. Does not belong here: what the values mean.
"""

import json
import math
import re
from typing import Any, NoReturn

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def parse_strict_json(raw: bytes, *, max_bytes: int = 4_000_000, max_depth: int = 32) -> Any:
    """Return the value that ``raw`` (UTF-8) holds.

    Raises:
        ValueError: it is too long or too deep, no JSON, has a key twice, or a number that is NaN or infinite. The
            message is a phrase for the middle of an error line.
    """
    if len(raw) > max_bytes:
        raise ValueError(f"{len(raw)} bytes of JSON, at most {max_bytes} allowed")
    depth = 0
    for bracket in _BRACKETS.finditer(_STRING.sub(b"", raw)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > max_depth:
            raise ValueError(f"JSON nested deeper than {max_depth}")
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_refuse_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_parse_finite,
        )
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("JSON that is not UTF-8") from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {key!r:.60}")
        found[key] = value
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _parse_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is not finite")
    return value
