"""What a publisher hands over, checked: plain file names, and a record that is JSON and has no field of the store's.

Belongs here: refusing it before anything is written. Does not belong here: writing (``store``).
"""

import re
from collections.abc import Mapping
from typing import Any

from heimdall_assets.errors import InvalidIdentifier, InvalidInput
from heimdall_assets.manifests import encode_canonical_json
from heimdall_assets.stores.releases.rows import RESULT

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_OURS = {"version", "aliases", "created_at", "files", RESULT}


def check_file(name: str) -> str:
    """Return ``name`` unchanged if it is a plain file name.

    Raises:
        InvalidIdentifier: it is not.
    """
    if not isinstance(name, str) or not _FILE.match(name):
        raise InvalidIdentifier(f"release file {name!r:.140}: expected a plain file name")
    return name


def encode_record(version: str, record: Mapping[str, Any]) -> str:
    """Return the record of a release as canonical JSON.

    Raises:
        InvalidInput: it is none, or holds a field that the store itself fills.
    """
    taken = sorted(_OURS & set(record))
    if taken:
        raise InvalidInput(
            f"release {version}: found {taken} in the record, expected no field that the store itself fills"
        )
    try:
        return encode_canonical_json(dict(record)).decode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"release {version}: found a record that is no JSON ({error})") from error
