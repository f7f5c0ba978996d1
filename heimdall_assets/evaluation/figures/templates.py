"""Templates: the pages of this room as Jinja reads them, each once.

Belongs here: loading them. Does not belong here: what they are filled with (``results_page``, ``training_page``).
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def load_template(name: str) -> "Template":
    """Return the template called ``name``; what it is filled with is escaped, and what is missing is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("heimdall_assets.evaluation.figures", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
