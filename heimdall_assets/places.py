"""Places: where rows, bytes, releases and histories rest, read from the environment when asked and not before.

Belongs here: asking for them. Does not belong here: what each variable means (``variables``, which is slow to load:
whoever asks for help waits for no reader of settings).
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heimdall_assets.variables import Places


def read_places(environ: Mapping[str, str] | None = None) -> "Places":
    """Return the places that the environment names, each with its embedded default below ``HEIMDALL_HOME``.

    Raises:
        InvalidSetting: a variable of ours that is none, or a value that is not of its variable's kind.
    """
    from heimdall_assets.variables import Places

    return Places.read(os.environ if environ is None else environ)
