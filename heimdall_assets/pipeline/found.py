"""Found: what a training takes from a search that its settings name: not its parent, yet part of its cache key.

Belongs here: reading the search that ``TrainingSpec.found_by`` names, what a checkpoint keeps of it. Does not belong
here: the search itself (``stages.hyperparameter_search``), taking its settings (``tracing.searches``).

A search may have been made on fewer sessions than are trained on today, and of each kind one result alone stands behind
a model: the checkpoint therefore names the search in its content and holds what it is made of, for as long as it stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from heimdall_assets.errors import NotFound, Refused
from heimdall_assets.kinds import HYPERPARAMETER_SEARCH, TRAIN_SPLIT
from heimdall_assets.lineage.walk import FOUND_BY
from heimdall_assets.manifests import Artifact, Manifest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.specs import Spec, SplitSpec, TrainingSpec
from heimdall_assets.stores.objects.interface import ObjectStore

HELD = "found/"
"""What the names begin with under which a checkpoint holds the artifacts of the search."""

SEARCH_MANIFEST = f"{HELD}manifest.json"


@dataclass(frozen=True)
class Found:
    """A search that a training takes its settings from.

    Attributes:
        manifest: of the search.
        size: of its bytes.
    """

    manifest: Manifest
    size: int

    def list_artifacts(self) -> dict[str, Artifact]:
        """Return what the checkpoint holds of it, the manifest itself too."""
        own = Artifact(digest=self.manifest.digest, media_type=JSON_MEDIA_TYPE, size=self.size)
        return {SEARCH_MANIFEST: own} | {f"{HELD}{name}": one for name, one in self.manifest.artifacts.items()}


def state_found(*specs: Spec) -> dict[str, str]:
    """Return what the search that specs name adds to a result's cache key."""
    named = next((spec.found_by for spec in specs if isinstance(spec, TrainingSpec)), None)
    return {} if named is None else {FOUND_BY: named}


def find_found(objects: ObjectStore, training: TrainingSpec, train_split: Manifest) -> Found | None:
    """Return the search that a training takes its settings from; None: it names none.

    Args:
        objects: where it rests.
        training: names it.
        train_split: of the training.

    Raises:
        NotFound: it is gone, or is something else.
        Refused: it was made on sessions that were split otherwise: those of today's test split may be among them.
        OutOfReach: nobody can say.
    """
    if training.found_by is None:
        return None
    setting = f"TrainingSpec.found_by {training.found_by}"
    if not objects.exists(training.found_by):
        raise NotFound(f"{setting}: found no such result, expected the manifest of a {HYPERPARAMETER_SEARCH}")
    data = objects.read_bytes(training.found_by)
    try:
        manifest = Manifest.decode(data)
    except ValueError:
        raise NotFound(f"{setting}: found no manifest, expected that of a {HYPERPARAMETER_SEARCH}") from None
    if manifest.kind != HYPERPARAMETER_SEARCH:
        raise NotFound(f"{setting}: found {manifest.kind}, expected the manifest of a {HYPERPARAMETER_SEARCH}")
    _check_split(objects, setting, manifest, train_split)
    return Found(manifest, len(data))


def _check_split(objects: ObjectStore, setting: str, search: Manifest, train_split: Manifest) -> None:
    split = Manifest.decode(objects.read_bytes(search.parents[TRAIN_SPLIT]))
    then, now = _read_split(split), _read_split(train_split)
    if then != now:
        name = next(name for name in {**now, **then} if then.get(name) != now.get(name))
        raise Refused(
            f"{setting}: found a search on sessions that were split by SplitSpec.{name} {then.get(name)!r}, expected "
            f"{now.get(name)!r}: it may have seen this test split"
        )


def _read_split(split: Manifest) -> Mapping[str, object]:
    told: Mapping[str, object] = split.specs[SplitSpec.__name__]
    return told
