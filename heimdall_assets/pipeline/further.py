"""Further parents: results that a spec names by digest, which a training is computed from beside its splits.

Belongs here: which settings name such results, and that those are there. Does not belong here: reading them.
A parent is what lineage walks to and what keeping keeps: whoever names a result by a setting gets both from here.
"""

from collections.abc import Mapping

from heimdall_assets.errors import NotFound
from heimdall_assets.kinds import HYPERPARAMETER_SEARCH
from heimdall_assets.manifests import Manifest
from heimdall_assets.specs import Spec, TrainingSpec
from heimdall_assets.stores.objects.interface import ObjectStore

NAMED_BY = {HYPERPARAMETER_SEARCH: "TrainingSpec.found_by"}
"""Kind of a further parent -> the setting that names it."""


def name_further(*specs: Spec) -> dict[str, str]:
    """Return the further parents that specs name, kind -> digest of a manifest."""
    found = next((spec.found_by for spec in specs if isinstance(spec, TrainingSpec)), None)
    return {} if found is None else {HYPERPARAMETER_SEARCH: found}


def check_further(objects: ObjectStore, parents: Mapping[str, str]) -> None:
    """Return nothing if every further parent is a stored result of its kind.

    Raises:
        NotFound: one is gone, or is something else.
        OutOfReach: nobody can say.
    """
    for kind, setting in NAMED_BY.items():
        digest = parents.get(kind)
        if digest is None:
            continue
        if not objects.exists(digest):
            raise NotFound(f"{setting} {digest}: found no such result, expected the manifest of a {kind}")
        try:
            found = Manifest.decode(objects.read_bytes(digest)).kind
        except ValueError:
            found = "no manifest"
        if found != kind:
            raise NotFound(f"{setting} {digest}: found {found}, expected the manifest of a {kind}")
