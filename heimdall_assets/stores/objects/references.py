"""References at rest: the few bytes behind a small name that points at an object, and their check.

Belongs here: how they are written and read back. Does not belong here: where they rest (``folder``, ``s3``), what a
name may be (``locations``).
"""

from heimdall_assets.errors import CorruptObject, NotFound
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects.locations import check_digest, split_reference_name

SUFFIX = "@"
"""No part of a reference name ends so: a reference never stands where another needs a folder."""


def name_file(name: str) -> str:
    """Return the name of the file of reference ``name``, below all references.

    Raises:
        InvalidIdentifier: ``name`` is no reference name.
    """
    return "/".join(split_reference_name(name)) + SUFFIX


def encode_reference(name: str, digest: str) -> bytes:
    """Return the bytes at rest; their check makes a flipped bit, and a file moved to another name, visible."""
    return f"sha256:{digest} {compute_digest(f'{name} {digest}'.encode())[:16]}\n".encode()


def decode_reference(name: str, data: bytes) -> str:
    """Return the digest that reference ``name`` points at.

    Raises:
        CorruptObject: what rests there is damaged or belongs to another name.
    """
    digest = data[7:71].decode("ascii", "replace")
    if data != encode_reference(name, digest):
        raise CorruptObject(
            f"reference {name}: found {data[:80]!r}, expected a digest and its check; computing the result "
            "again writes it anew"
        )
    return check_digest(digest)


def describe_missing_object(name: str, digest: str) -> NotFound:
    """Return the error of a reference that would come before its object."""
    return NotFound(f"reference {name}: found no object {digest}, expected it stored before its reference")
