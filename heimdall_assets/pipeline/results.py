"""Results at rest, found again by cache key: what the same inputs, code and numbers gave is not computed again.

Belongs here: the lookup by ``Manifest.reference`` and walking to a result's parents. Not what is computed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from heimdall_assets.errors import NotFound, OutOfReach, Refused, StorageError
from heimdall_assets.lineage.walk import OUTSIDE
from heimdall_assets.manifests import Artifact, Manifest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.specs import Spec
from heimdall_assets.stores.computing import Computation, keep_facts
from heimdall_assets.stores.objects.folder import ObjectStore

Computed = tuple[dict[str, Artifact], dict[str, Any]]
"""What a computation gives: artifacts by name, and the manifest's summary."""


@dataclass(frozen=True)
class Result:
    """A manifest at rest, and whether it was found rather than computed."""

    manifest: Manifest
    reused: bool


def name_result(
    kind: str, parents: Mapping[str, str], specs: Sequence[Spec], content: Mapping[str, str] | None = None
) -> str:
    """Return the reference under which the result of these parents, today's code and these specs is found."""
    dumped = {spec.pure_class().__name__: spec.dump() for spec in specs}
    code_version = STAGES[kind].code_version
    return Manifest(
        kind=kind, code_version=code_version, parents=dict(parents), specs=dumped, content=dict(content or {})
    ).reference


def find_or_compute(
    objects: ObjectStore,
    kind: str,
    parents: Mapping[str, str],
    specs: Sequence[Spec],
    compute: Callable[[], Computed],
    content: Mapping[str, str] | None = None,
) -> Result:
    """Return the stored result of the same inputs, code and numbers, or compute and store it.

    Args:
        kind: one of ``STAGES``.
        parents: kind -> digest of the manifest it is computed from.
        specs: every number that decides the result.
        content: digests of inputs that are no manifests.

    Raises:
        Refused: parents or specs are not those that ``STAGES`` declares: a result would be found for the wrong reason.
    """
    stage = STAGES[kind]
    found_specs = {spec.pure_class() for spec in specs}
    if set(parents) != set(stage.parents) or found_specs != set(stage.specs):
        raise Refused(
            f"{kind}: found parents {sorted(parents)} and specs {sorted(spec.__name__ for spec in found_specs)}, "
            f"expected {sorted(stage.parents)} and {sorted(spec.__name__ for spec in stage.specs)}"
        )
    name = name_result(kind, parents, specs, content)
    found = read_result(objects, name)
    if found is not None:
        return Result(found, reused=True)
    computation = Computation()
    with computation.hear_notes():
        artifacts, summary = compute()
    manifest = Manifest(
        kind=kind,
        code_version=stage.code_version,
        parents=dict(parents),
        specs={spec.pure_class().__name__: spec.dump() for spec in specs},
        content=dict(content or {}),
        artifacts=artifacts,
        summary=summary,
    )
    digest = objects.put_bytes(manifest.encode(), JSON_MEDIA_TYPE).digest
    keep_facts(objects, digest, computation.describe())
    _tell_result(digest, manifest)
    objects.write_reference(name, digest)  # last: what is found has its facts
    return Result(manifest, reused=False)


Listener = Callable[[str, Manifest], None]
"""Digest and manifest of a result that is stored and not found by others yet."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def tell_results(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` of each result that is computed inside, before it can be found."""
    before = _listener.get()
    _listener.set(listener)
    try:
        yield
    finally:
        _listener.set(before)  # no token: Dagster may end a step's resources in another context


def _tell_result(digest: str, manifest: Manifest) -> None:
    listener = _listener.get()
    if listener is not None:
        listener(digest, manifest)


def read_result(objects: ObjectStore, name: str) -> Manifest | None:
    """Return the manifest behind reference ``name`` if it and all that it points at are still there, else None.

    One that lacks something whose bytes could not be had then (``num_unread``) is none either: they may be back.

    Raises:
        OutOfReach: nobody can say whether there is one; it is not made a second time for that.
    """
    try:
        digest = objects.read_reference(name)
        if digest is None:
            return None
        manifest = Manifest.decode(objects.read_bytes(digest))
    except OutOfReach:
        raise
    except (StorageError, NotFound, ValueError):
        return None  # damaged or gone at rest: computing it again heals it
    if manifest.reference != name:
        return None  # another's: whoever wrote the reference so meant it to be taken for this one
    if manifest.summary.get("num_unread"):
        return None
    if not objects.renew_reference(name):
        return None  # removed just now; from here on, what hangs on it stays
    held = {artifact.digest for artifact in manifest.artifacts.values()} | set(manifest.summary.get("shards", []))
    return manifest if objects.find_present(held) == held else None


def read_parent(objects: ObjectStore, manifest: Manifest, kind: str) -> Manifest:
    """Return the ``kind`` that ``manifest`` was computed from, however many steps back and on whichever branch.

    Raises:
        NotFound: no ancestor is of this kind.
    """
    pending, seen = [manifest], set()
    while pending:
        current = pending.pop(0)
        if kind in current.parents:
            return Manifest.decode(objects.read_bytes(current.parents[kind]))
        for name, digest in current.parents.items():
            # Outside assets have a fingerprint for a version, not a manifest.
            if digest not in seen and name not in OUTSIDE:
                seen.add(digest)
                pending.append(Manifest.decode(objects.read_bytes(digest)))
    raise NotFound(f"{manifest.kind} {manifest.digest}: found no ancestor {kind}")


@dataclass(frozen=True)
class Prepared:
    """A result made of many parts, and how many of them were computed now."""

    result: Result
    num_computed: int
