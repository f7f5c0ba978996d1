"""Walk: from a manifest back to the database, parent by parent.

Belongs here: which manifests a result was computed from. Does not belong here: what they say (``provenance``), whether
their bytes still agree (``audit``).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from heimdall_assets.errors import CorruptObject
from heimdall_assets.kinds import HYPERPARAMETER_SEARCH, MEASUREMENT_DATABASE, ONNX_MODEL, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest

ReadBytes = Callable[[str], bytes]
"""Digest -> verified bytes; raises a ``HeimdallError`` where there are none."""

OUTSIDE = frozenset({MEASUREMENT_DATABASE})
"""Parents whose version is a fingerprint of something outside, not the digest of a manifest."""


FOUND_BY, START_FROM, JUDGED_MODEL = "found_by", "start_from", "judged_model"
"""Names in ``Manifest.content`` of manifests beside the parents: the search whose settings a training took, the
checkpoint whose weights it started from, and the exported model that was judged on sessions it never saw."""

BESIDE: Mapping[str, str] = {
    START_FROM: TRAINED_CHECKPOINT,
    FOUND_BY: HYPERPARAMETER_SEARCH,
    JUDGED_MODEL: ONNX_MODEL,
}
"""Name in ``Manifest.content`` -> kind of the manifest whose digest stands there: not a parent, for of each kind one
alone stands behind a result."""


@dataclass(frozen=True)
class Node:
    """A manifest on the way back; ``depth`` counts the longest way from a root."""

    digest: str
    manifest: Manifest
    depth: int

    def describe(self) -> dict[str, Any]:
        """Return the manifest's fields and its digest, JSON values."""
        return {"digest": self.digest, **self.manifest.model_dump(mode="json")}


def walk_manifests(roots: str | Iterable[str], read_bytes: ReadBytes) -> list[Node]:
    """Return every manifest that the roots were computed from, the roots too, each once, parents before children.

    Raises:
        CorruptObject: bytes that should be a manifest are none, or a manifest is its own ancestor.
        HeimdallError: ``read_bytes`` found one missing or damaged.
    """
    manifests: dict[str, Manifest] = {}
    pending = [roots] if isinstance(roots, str) else list(roots)
    starts = list(pending)
    while pending:
        digest = pending.pop()
        if digest not in manifests:
            manifests[digest] = decode_manifest(digest, read_bytes(digest))
            pending.extend(list_parents(manifests[digest]).values())
    depths = _compute_depths(starts, manifests)
    return sorted(
        (Node(digest, manifest, depths[digest]) for digest, manifest in manifests.items()),
        key=lambda node: (-node.depth, node.manifest.kind, node.digest),
    )


def decode_manifest(digest: str, data: bytes) -> Manifest:
    """Return the manifest of ``data``.

    Raises:
        CorruptObject: the bytes are no manifest, or not in its one encoding.
    """
    try:
        manifest = Manifest.decode(data)
    except ValueError as error:
        raise CorruptObject(f"manifest {digest}: found bytes that are no manifest, expected one") from error
    if manifest.encode() != data:
        raise CorruptObject(f"manifest {digest}: found another encoding than the canonical one")
    return manifest


def list_parents(manifest: Manifest) -> dict[str, str]:
    """Return the parents that are manifests, asset name -> digest."""
    return {name: digest for name, digest in manifest.parents.items() if name not in OUTSIDE}


def find_beside(manifest: Manifest) -> dict[str, str]:
    """Return name (``BESIDE``) -> digest of the manifests beside its parents that a result came from."""
    return {name: manifest.content[name] for name in BESIDE if name in manifest.content}


def list_followed(manifest: Manifest) -> list[str]:
    """Return the digests of all manifests that a result came from: its parents, and what stands beside them."""
    return [*list_parents(manifest).values(), *find_beside(manifest).values()]


def _compute_depths(starts: Iterable[str], manifests: Mapping[str, Manifest]) -> dict[str, int]:
    """Return the longest way from a start to each manifest, in steps."""
    depths = dict.fromkeys(starts, 0)
    level = set(depths)
    for depth in range(1, len(manifests) + 2):
        level = {parent for digest in level for parent in list_parents(manifests[digest]).values()}
        if not level:
            return depths
        depths.update(dict.fromkeys(level, depth))
    raise CorruptObject(f"manifest {sorted(level)[0]}: found itself among its own ancestors")
