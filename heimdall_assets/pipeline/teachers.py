"""Teachers: the checkpoint whose answers a training learns, found by its manifest and kept with what came of it.

Belongs here: reading a teacher and refusing one that knows too much. Does not belong here: how it teaches
(``learning.teaching``).
A teacher stands on the splits of its student, so that nothing is behind it that is not behind the student too; its
files become artifacts of the student's checkpoint, so that they stay as long as that does.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from heimdall_assets.errors import InvalidSetting, NotFound, Refused
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.manifests import Artifact, Manifest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.stores.objects.interface import ObjectStore

if TYPE_CHECKING:
    from heimdall_assets.learning.teaching import Teacher

TEACHER = "teacher/"
"""What the names of its files among the student's artifacts begin with."""

WEIGHTS, SETTINGS, MANIFEST = "weights.safetensors", "settings.json", "manifest.json"


def find_teacher(objects: ObjectStore, training: TrainingSpec, parents: Mapping[str, str]) -> Manifest | None:
    """Return the manifest of the teacher that a training asks for; None: it asks for none.

    Args:
        objects: where it rests.
        training: whose ``teacher`` is followed.
        parents: kind -> manifest of the splits that the student is trained on.

    Raises:
        InvalidSetting: there is no such checkpoint.
        Refused: it was trained on other splits, and may know what the student is judged on.
    """
    if training.teacher is None:
        return None
    digest = training.teacher.removeprefix("sha256:")
    try:
        manifest = Manifest.decode(objects.read_bytes(digest))
    except (NotFound, ValueError) as error:
        raise InvalidSetting(
            f"TrainingSpec.teacher {digest}: found no manifest, expected one of a checkpoint"
        ) from error
    if manifest.kind != TRAINED_CHECKPOINT:
        raise InvalidSetting(f"TrainingSpec.teacher {digest}: found a {manifest.kind}, expected a {TRAINED_CHECKPOINT}")
    other = sorted(kind for kind, split in parents.items() if manifest.parents.get(kind) != split)
    if other:
        raise Refused(
            f"TrainingSpec.teacher {digest}: trained on another {', '.join(other)}: expected the student's, "
            "for it may know sessions that the student is judged on"
        )
    return manifest


def read_teacher(objects: ObjectStore, manifest: Manifest) -> "Teacher":
    """Return the fitted model behind a teacher's manifest, ready to be asked."""
    from heimdall_assets.learning.fitting.fitted import decode_model
    from heimdall_assets.learning.teaching import Teacher

    fitted = decode_model({name: objects.read_bytes(manifest.artifacts[name].digest) for name in (WEIGHTS, SETTINGS)})
    return Teacher(f"teacher {manifest.digest}", fitted.model.kind, fitted.network, fitted.statistics)


def keep_teacher(objects: ObjectStore, manifest: Manifest) -> dict[str, Artifact]:
    """Return the artifacts that a student's checkpoint keeps of its teacher."""
    kept = {f"{TEACHER}{name}": manifest.artifacts[name] for name in (WEIGHTS, SETTINGS)}
    return {**kept, f"{TEACHER}{MANIFEST}": objects.put_bytes(manifest.encode(), JSON_MEDIA_TYPE)}
