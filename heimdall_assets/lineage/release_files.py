"""Release files: what lies in every release beside the model, so that a stranger can check it without this program.

Belongs here: the specification of the format, its schema, the script that verifies, the sums over all files. Does not
belong here: what is said of one model (``provenance``), where files lie (``stores.releases``).
"""

from collections.abc import Mapping
from importlib.resources import files

from heimdall_assets.manifests import compute_digest

SUMS_FILE = "SHA256SUMS"
SAME_IN_ALL = ("FORMAT.md", "provenance.schema.json", "verify_release.py")


def read_format_files() -> dict[str, bytes]:
    """Return the files that every release of this version of the format has, by name."""
    return {name: files("heimdall_assets.lineage").joinpath(name).read_bytes() for name in SAME_IN_ALL}


def encode_sums(parts: Mapping[str, bytes]) -> bytes:
    """Return the SHA-256 of each file, as ``sha256sum`` writes and checks them."""
    return "".join(f"{compute_digest(parts[name])}  {name}\n" for name in sorted(parts)).encode()
