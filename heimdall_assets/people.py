"""People: the pseudonym that stands for a person wherever bytes are kept for ever, and names shown in its place.

Belongs here: making pseudonyms, showing names in their place. Does not belong here: who is who
(``stores.database.people``), the one place where a name stands beside its pseudonym, and can be erased from.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

ITSELF = "heimdall"
"""Who decides where no person does; no pseudonym stands for it."""

_PREFIX = "person:"
_PSEUDONYM = re.compile(rf"\b{_PREFIX}[0-9a-f]{{32}}\b")


def make_pseudonym(secret: bytes, name: str) -> str:
    """Return the pseudonym of ``name`` under a secret of its own: the first 128 bits of HMAC-SHA-256 (RFC 2104).

    Whoever has both can prove that it is this name's; without the secret nobody can tell whose it was.

    Examples:
        >>> make_pseudonym(b"k" * 32, "Ada")
        'person:5664d0a0c71951c14e4947bf5156f58a'
    """
    return _PREFIX + hmac.new(secret, name.encode(), hashlib.sha256).hexdigest()[:32]


def is_pseudonym(text: str) -> bool:
    """Return whether ``text`` is a pseudonym, whole."""
    return _PSEUDONYM.fullmatch(text) is not None


def name_people(value: Any, read_names: Callable[[], Mapping[str, str]]) -> Any:
    """Return JSON values with names in place of pseudonyms; one that nobody knows the name of stays.

    Args:
        value: texts, and lists and objects that hold some.
        read_names: gives pseudonym -> name; called only where a pseudonym is found.
    """
    if isinstance(value, str):
        return _PSEUDONYM.sub(lambda found: read_names().get(found[0], found[0]), value) if _PREFIX in value else value
    if isinstance(value, Mapping):
        return {name_people(name, read_names): name_people(item, read_names) for name, item in value.items()}
    return [name_people(item, read_names) for item in value] if isinstance(value, list | tuple) else value


def name_people_in_html(page: str, read_names: Callable[[], Mapping[str, str]]) -> str:
    """Return a page with names in place of pseudonyms, escaped."""
    named: str = name_people(page, lambda: {key: escape(name) for key, name in read_names().items()})
    return named
