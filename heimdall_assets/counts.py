"""Counts: a number and what it counts, as people write it.

Belongs here: singular and plural. Does not belong here: figures with a unit, which never change their word.
"""


def say_count(number: int, noun: str) -> str:
    """Return ``number`` with ``noun``, given as for one, in the plural where there is not exactly one.

    >>> say_count(1, "released model"), say_count(0, "session"), say_count(1234, "measurement")
    ('1 released model', '0 sessions', '1234 measurements')
    >>> say_count(2, "entry")
    '2 entries'
    """
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"
