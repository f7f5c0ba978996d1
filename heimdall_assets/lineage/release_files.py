"""Release files: what lies in every release beside the model, so that a stranger can check it without this program.

Belongs here: the specification of the format, its schema, the script that verifies, the sums over all files. Does not
belong here: what is said of one model (``provenance``), where files lie (``stores.releases``).
"""

import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files

from heimdall_assets.errors import CorruptObject

SUMS_FILE = "SHA256SUMS"
_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
SAME_IN_ALL = ("FORMAT.md", "provenance.schema.json", "verify_release.py")


def read_format_files() -> dict[str, bytes]:
    """Return the files that every release of this version of the format has, by name."""
    return {name: files("heimdall_assets.lineage").joinpath(name).read_bytes() for name in SAME_IN_ALL}


def encode_sums(parts: Mapping[str, bytes]) -> bytes:
    """Return the SHA-256 of each file, as ``sha256sum`` writes and checks them."""
    return "".join(f"{hashlib.sha256(parts[name]).hexdigest()}  {name}\n" for name in sorted(parts)).encode()


def parse_sums(data: bytes) -> dict[str, str]:
    """Return file name -> SHA-256 of what ``encode_sums`` gave ``data`` for.

    Raises:
        CorruptObject: a line is none of its.
    """
    found = {}
    for line in data.decode("utf-8", errors="replace").splitlines():
        parts = _SUM.fullmatch(line)
        if parts is None:
            raise CorruptObject(f"{SUMS_FILE}: found {line!r:.80}, expected a SHA-256 and the name of a file")
        found[parts[2]] = parts[1]
    return found
