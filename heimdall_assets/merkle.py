"""Merkle trees of an append-only log, as RFC 6962 (section 2.1) and RFC 9162 define them, over SHA-256.

Belongs here: roots and proofs from leaves in memory, and the three lines that keep a root. Does not belong here: what a
leaf says, where it rests, the files that proofs travel in (``lineage.log_proofs``).

A root is over every leaf and their order: who kept one of size n can tell, from a proof of a few hashes and without the
log, that a leaf is under it, and that a later log still begins with these n leaves.
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


def prove_inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return RFC 6962's PATH (2.1.1): with it, leaf ``index`` gives the root; the other side of each pair, upwards.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index}: found {len(leaves)} of them")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*prove_inclusion(leaves[:split], index), compute_root(leaves[split:])]
    return [*prove_inclusion(leaves[split:], index - split), compute_root(leaves[:split])]


def verify_inclusion(leaf: bytes, index: int, tree: tuple[int, bytes], proof: Sequence[bytes]) -> bool:
    """Return whether ``proof`` shows that ``leaf`` is leaf ``index`` of a tree (RFC 9162, 2.1.3.2).

    Args:
        leaf: 32 bytes.
        index: from 0 on.
        tree: its size and its root.
        proof: what ``prove_inclusion`` gives.
    """
    size, root = tree
    if not 0 <= index < size:
        return False
    node, last = leaf, size - 1
    for other in proof:
        if last == 0:
            return False
        if index & 1 or index == last:
            node = _hash_pair(other, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = _hash_pair(node, other)
        index, last = index >> 1, last >> 1
    return last == 0 and node == root


def prove_consistency(leaves: Sequence[bytes], size: int) -> list[bytes]:
    """Return RFC 6962's PROOF (2.1.2): what shows that the tree over ``leaves`` begins with its first ``size``.

    Raises:
        IndexError: there are fewer, or ``size`` is below 1.
    """
    if not 0 < size <= len(leaves):
        raise IndexError(f"size {size}: found {len(leaves)} of them")
    return _prove_part(leaves, size, True)


def verify_consistency(old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]) -> bool:
    """Return whether ``proof`` shows that the tree ``new`` begins with the tree ``old`` (RFC 9162, 2.1.4.2).

    Args:
        old, new: size and root of each.
        proof: what ``prove_consistency`` gives.
    """
    (old_size, old_root), (size, root) = old, new
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == root
    # A complete old tree is itself the first node of the proof.
    nodes = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not nodes:
        return False
    place, last = old_size - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_node = node = nodes[0]
    for other in nodes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old_node, node = _hash_pair(other, old_node), _hash_pair(other, node)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            node = _hash_pair(node, other)
        place, last = place >> 1, last >> 1
    return last == 0 and old_node == old_root and node == root


def _prove_part(leaves: Sequence[bytes], size: int, is_known: bool) -> list[bytes]:
    """Return RFC 6962's SUBPROOF; ``is_known``: whoever asks has the root of the first ``size`` leaves."""
    if size == len(leaves):
        return [] if is_known else [compute_root(leaves)]
    split = _split(len(leaves))
    if size <= split:
        return [*_prove_part(leaves[:split], size, is_known), compute_root(leaves[split:])]
    return [*_prove_part(leaves[split:], size - split, False), compute_root(leaves[:split])]


def _split(count: int) -> int:
    """Return the greatest power of two below ``count``, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1


def _hash_pair(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
