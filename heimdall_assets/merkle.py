"""Merkle trees of an append-only log, as RFC 6962 (section 2.1) and RFC 9162 define them, over SHA-256.

Belongs here: roots over leaves in memory, and the three lines that keep one. Does not belong here: what a leaf says,
where it rests.

A root is over every leaf and their order: who kept one of size n can tell whether a log still begins with these n.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

EMPTY_ROOT = hashlib.sha256(b"").digest()

ORIGIN = "heimdall-assets/log/"
"""Begins the first line of a checkpoint; the name of the log follows."""

_CHECKPOINT = re.compile(rf"{ORIGIN}([0-9a-f]{{32}})\n([1-9][0-9]{{0,15}})\n([A-Za-z0-9+/]{{43}}=)\n")


@dataclass(frozen=True)
class Checkpoint:
    """What a log holds at one moment: whoever keeps it can tell a later log that was cut or written anew.

    Attributes:
        log: name of the log, 32 hex digits.
        size: how many entries it has.
        root: of the Merkle tree over them, 64 hex digits.
    """

    log: str
    size: int
    root: str

    def encode(self) -> str:
        """Return it as three lines, the body of a checkpoint as transparency logs write it (C2SP tlog-checkpoint)."""
        return f"{ORIGIN}{self.log}\n{self.size}\n{base64.b64encode(bytes.fromhex(self.root)).decode()}\n"


def decode_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint that ``text`` begins with; what follows after an empty line are signatures.

    Raises:
        ValueError: it begins with none.
    """
    found = _CHECKPOINT.match(text)
    if found is None or text[found.end() :][:1] not in ("", "\n"):
        raise ValueError(f"found {text!r:.60}, expected {ORIGIN}NAME, a size and a root in base64, a line each")
    return Checkpoint(found[1], int(found[2]), base64.b64decode(found[3]).hex())


def hash_leaf(data: bytes) -> bytes:
    """Return the 32 bytes that stand for an entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def compute_root(leaves: Sequence[bytes]) -> bytes:
    """Return the 32 bytes of the root over ``leaves``, what ``hash_leaf`` gave of each entry in order.

    Examples:
        >>> compute_root([]).hex()[:8]  # SHA-256 of nothing
        'e3b0c442'
    """
    whole: list[bytes] = []  # roots of complete subtrees, greatest first: one for each bit of the count
    for number, leaf in enumerate(leaves):
        node = leaf
        while number & 1:
            node = _hash_pair(whole.pop(), node)
            number >>= 1
        whole.append(node)
    if not whole:
        return EMPTY_ROOT
    root = whole.pop()
    while whole:
        root = _hash_pair(whole.pop(), root)
    return root


def _hash_pair(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
