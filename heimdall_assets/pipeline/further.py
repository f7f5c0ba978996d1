"""Further parents: results that a spec names by digest, which a training is computed from beside its splits.

Belongs here: which settings name such results, and that those are there. Does not belong here: reading them.
A parent is what lineage walks to and what keeping keeps: whoever names a result by a setting gets both from here.
"""

from collections.abc import Mapping

from heimdall_assets.errors import NotFound, Refused
from heimdall_assets.kinds import HYPERPARAMETER_SEARCH, TRAIN_SPLIT
from heimdall_assets.manifests import Manifest
from heimdall_assets.specs import Spec, SplitSpec, TrainingSpec
from heimdall_assets.stores.objects.interface import ObjectStore

NAMED_BY = {HYPERPARAMETER_SEARCH: "TrainingSpec.found_by"}
"""Kind of a further parent -> the setting that names it."""


def name_further(*specs: Spec) -> dict[str, str]:
    """Return the further parents that specs name, kind -> digest of a manifest."""
    found = next((spec.found_by for spec in specs if isinstance(spec, TrainingSpec)), None)
    return {} if found is None else {HYPERPARAMETER_SEARCH: found}


def check_further(objects: ObjectStore, parents: Mapping[str, str], train_split: Manifest) -> None:
    """Return nothing if every further parent is a stored result of its kind that knows nothing of the test split.

    Args:
        objects: where they rest.
        parents: kind -> digest of the manifest.
        train_split: of the training that names them.

    Raises:
        NotFound: one is gone, or is something else.
        Refused: it was made on sessions that were split otherwise: those of this test split may be among them.
        OutOfReach: nobody can say.
    """
    for kind, setting in NAMED_BY.items():
        digest = parents.get(kind)
        if digest is None:
            continue
        if not objects.exists(digest):
            raise NotFound(f"{setting} {digest}: found no such result, expected the manifest of a {kind}")
        manifest = _decode(objects.read_bytes(digest))
        if manifest is None or manifest.kind != kind:
            found = "no manifest" if manifest is None else manifest.kind
            raise NotFound(f"{setting} {digest}: found {found}, expected the manifest of a {kind}")
        split = Manifest.decode(objects.read_bytes(manifest.parents[TRAIN_SPLIT]))
        then, now = (one.specs.get(SplitSpec.__name__) for one in (split, train_split))
        if then != now:
            name = next(name for name in (now or {}) if (then or {}).get(name) != (now or {}).get(name))
            raise Refused(
                f"{setting} {digest[:12]}: found a {kind} on sessions that were split by SplitSpec.{name} "
                f"{(then or {}).get(name)!r}, expected {(now or {}).get(name)!r}: it may have seen this test split"
            )


def _decode(data: bytes) -> Manifest | None:
    try:
        return Manifest.decode(data)
    except ValueError:
        return None
