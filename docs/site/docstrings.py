"""What the reference makes of docstrings: ``latitude, longitude: degrees`` describes two arguments, not one."""

import re
from typing import Any

import griffe

SEVERAL = re.compile(r"^    ((?:\w+, )+\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def describe_each(text: str) -> str:
    """Return a docstring in which each name of an entry stands by itself."""
    return SEVERAL.sub(lambda entry: "\n".join(f"    {name}: {entry[2]}" for name in entry[1].split(", ")), text)


class EachName(griffe.Extension):
    """Gives each of several names its own entry."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of whatever was found."""
        if obj.docstring is not None:
            obj.docstring.value = describe_each(obj.docstring.value)
