"""Queries: what stands after the question mark of an address, read strictly: a page has few parameters, each once.

Belongs here: from bytes to texts, or a refusal. Does not belong here: what a parameter means (``release_pages``).
"""

import re
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from heimdall_assets.errors import NotFound

LONGEST = 2000
"""Bytes of a query: more than any that a page of ours leads to."""
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")


def parse_query(query: str, known: Collection[str]) -> dict[str, str]:
    """Return name -> value of the parameters of an address, as a browser writes those of a form.

    Args:
        query: after the question mark, as it was written; empty: there is none.
        known: parameters that the page has.

    Raises:
        NotFound: there is another parameter, one of them twice, or something that no browser writes.

    Examples:
        >>> parse_query("q=night+3&page=2", ("q", "page"))
        {'q': 'night 3', 'page': '2'}
    """
    if len(query) > LONGEST:
        raise NotFound(f"query: found {len(query)} characters, expected at most {LONGEST}")
    found: dict[str, str] = {}
    for part in query.split("&") if query else []:
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            expected = ", ".join(f"{one}=..." for one in known) or "none"
            raise NotFound(f"query: found {part!r:.60}, expected {expected}")
        if name in found:
            raise NotFound(f"query: found {name} twice, expected it once")
        found[name] = _decode(name, value)
    return found


def parse_page(value: str) -> int:
    """Return the number of a page, from 1.

    Raises:
        NotFound: it is none.
    """
    if not _NUMBER.fullmatch(value):
        raise NotFound(f"query: found page {value!r:.60}, expected a number from 1")
    return int(value)


def _decode(name: str, value: str) -> str:
    try:
        if not _ESCAPES.fullmatch(value):
            raise ValueError
        text = unquote_to_bytes(value.replace("+", " ")).decode("utf-8")
        if not text.isprintable():
            raise ValueError
    except ValueError:
        raise NotFound(f"query: found {name}={value!r:.60}, expected printable text in UTF-8") from None
    return text
