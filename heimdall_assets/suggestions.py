"""Suggestions: which of our names somebody meant who typed another one.

Belongs here: comparing names. Does not belong here: the names themselves, which stand beside what they name.
"""

from collections.abc import Mapping
from difflib import get_close_matches

ALIKE = 0.7
"""Share of letters in common from which two names are taken for spellings of one: below, chance finds partners too."""


def normalize_name(name: str) -> str:
    """Return ``name`` without what spellings differ in: case, and hyphens for underscores.

    >>> normalize_name("Batch-Size")
    'batch_size'
    """
    return name.lower().replace("-", "_")


def suggest_name(typed: str, names: Mapping[str, str], alike: float = ALIKE) -> str | None:
    """Return the name that ``typed`` most likely stands for; None: it is like none of them.

    Args:
        typed: what somebody typed.
        names: every spelling -> the name it stands for.
        alike: 0 to 1, how much of a spelling must agree; 0: the nearest one, however far.

    >>> suggest_name("n_mel", {"n_mels": "num_mels", "hop_length": "hop"})
    'num_mels'
    >>> suggest_name("colour", {"n_mels": "num_mels", "hop_length": "hop"}) is None
    True
    """
    spelled = {normalize_name(spelling): name for spelling, name in names.items()}
    found = get_close_matches(normalize_name(typed), spelled, n=1, cutoff=alike)
    return spelled[found[0]] if found else None
