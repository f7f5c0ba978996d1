"""What a training starts from other than seeds: a stored checkpoint's weights, or a shorter training's last state.

Belongs here: which bytes that is, their part in the cache key, and in the result, so that it can be made again. Does
not belong here: pretrained backbones (``pretrained``), what a checkpoint holds (``learning.fitting``).

A model started from stands in ``Manifest.content`` by the digest of its manifest: it is no parent, for a result has one
of each kind. Its files are artifacts of the new checkpoint too: the same objects, which therefore stay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import HeimdallError, InvalidInput, NotFound, OutOfReach, Refused
from heimdall_assets.kinds import TRAIN_SPLIT, TRAINED_CHECKPOINT
from heimdall_assets.learning.fitting.continuing import is_exact
from heimdall_assets.lineage.walk import START_FROM
from heimdall_assets.manifests import Artifact, Manifest, compute_digest, compute_json_digest
from heimdall_assets.media_types import JSON_MEDIA_TYPE, SAFETENSORS_MEDIA_TYPE
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.tables import load_table

if TYPE_CHECKING:
    from heimdall_assets.learning.fitting.checkpoints import CheckpointFiles
    from heimdall_assets.learning.fitting.fitted import FittedModel

SHA256 = "sha256:"
FILES = ("weights.safetensors", "settings.json")
STARTED = "started_from/"
RESUMED = "resumed_from/"
"""What names of artifacts begin with that hold what a training started from, or went on from."""

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True)
class Start:
    """A stored model whose weights are the first ones of a training; ``digest`` is that of its manifest."""

    digest: str
    artifacts: Mapping[str, Artifact]

    @property
    def content(self) -> dict[str, str]:
        """What it adds to the cache key."""
        return {START_FROM: self.digest}

    def decode(self, objects: ObjectStore) -> "FittedModel":
        """Return the model itself."""
        from heimdall_assets.learning.fitting.fitted import decode_model

        return decode_model({name: objects.read_bytes(self.artifacts[name].digest) for name in FILES})

    def list_artifacts(self) -> dict[str, Artifact]:
        """Return what the new checkpoint holds of it."""
        return {f"{STARTED}{name}": self.artifacts[name] for name in FILES}


def find_started(objects: ObjectStore, training: TrainingSpec) -> Start | None:
    """Return the model that a training starts from; None: it starts from seeds.

    Raises:
        InvalidInput: ``start_from`` is the digest of something else.
        NotFound: there is nothing of that digest.
    """
    if training.start_from is None:
        return None
    digest = training.start_from.removeprefix(SHA256)
    manifest = _read_checkpoint(objects, digest)
    return Start(digest, {name: manifest.artifacts[name] for name in FILES})


def read_kept_start(checkpoint: Manifest) -> Start | None:
    """Return what a checkpoint started from as it holds it itself, though the other's manifest were gone."""
    digest = checkpoint.content.get(START_FROM)
    if digest is None:
        return None
    return Start(digest, {name: checkpoint.artifacts[f"{STARTED}{name}"] for name in FILES})


def check_not_seen(objects: ObjectStore, start: Start, split: Manifest) -> None:
    """Return nothing if no session of ``split`` was trained on by the model that a training starts from.

    Raises:
        Refused: one was: it would be judged by what it has learned.
    """
    judged = set(load_table(objects, split.artifacts["table"])["session_id"].astype(str))
    digest: str | None = start.digest
    while digest is not None:
        try:
            manifest = _read_checkpoint(objects, digest)
            seen = Manifest.decode(objects.read_bytes(manifest.parents[TRAIN_SPLIT]))
            trained = set(load_table(objects, seen.artifacts["table"])["session_id"].astype(str))
        except OutOfReach:
            raise
        except (HeimdallError, ValueError) as error:
            raise NotFound(
                f"TrainingSpec.start_from {digest}: what it was trained on cannot be read: {error}"
            ) from error
        if both := sorted(judged & trained):
            raise Refused(
                f"TrainingSpec.start_from {digest[:12]}: session {both[0]} was trained on by that model and is in the "
                f"{split.kind} now ({len(both)} are): expected none; split with the salt that it was split with"
            )
        digest = manifest.content.get(START_FROM)


def _read_checkpoint(objects: ObjectStore, digest: str) -> Manifest:
    try:
        manifest = Manifest.decode(objects.read_bytes(digest))
    except ValueError as error:
        raise InvalidInput(f"TrainingSpec.start_from {digest}: found bytes that are no manifest") from error
    if manifest.kind != TRAINED_CHECKPOINT:
        raise InvalidInput(f"TrainingSpec.start_from {digest}: found a {manifest.kind}, expected {TRAINED_CHECKPOINT}")
    return manifest


@dataclass(frozen=True)
class Continued:
    """A shorter training that a longer one goes on from.

    Attributes:
        files: name -> bytes of its last state and its best epochs, as they were kept.
        epoch: that were done.
        is_exact: the longer one comes out as if it had never been shorter, and is found as that; where the schedule
            depends on the length it is another result, and says what it went on from.
    """

    files: dict[str, bytes]
    epoch: int
    is_exact: bool
    content: dict[str, str] = field(default_factory=dict)

    def write(self, checkpoints: "CheckpointFiles") -> None:
        """Write it to where a fit resumes from."""
        from heimdall_assets.learning.fitting.kept import REST, decode_kept, write_to_resume

        names = sorted(name.removesuffix(REST) for name in self.files if name.endswith(REST))
        for name in sorted(names, key=lambda name: name == "last"):  # last: what is there to resume is whole
            write_to_resume(decode_kept(name, self.files.__getitem__), f"{name}.ckpt", checkpoints)

    def list_artifacts(self, objects: ObjectStore) -> dict[str, Artifact]:
        """Return what the new checkpoint holds of it, so that it can be made again; nothing where that needs none."""
        if self.is_exact:
            return {}
        types = {".json": JSON_MEDIA_TYPE, ".safetensors": SAFETENSORS_MEDIA_TYPE}
        return {
            f"{RESUMED}{name}": objects.put_bytes(data, types[name[name.rindex(".") :]])
            for name, data in self.files.items()
        }

    def describe(self) -> dict[str, Any]:
        """Return what the facts of the new checkpoint say."""
        if self.is_exact:
            return {}
        return {"resumed_from": {"epoch": self.epoch, "sha256": self.content["resumed_from"], "exact": False}}


def read_continued(earlier: ReadFile | None, asked: Mapping[str, Any]) -> Continued | None:
    """Return what a training goes on from; None: nothing.

    Args:
        earlier: reads the kept checkpoints of a shorter training by name.
        asked: ``model``, ``training``, ``augmentation`` (as dumped) and ``parents`` (digests) of the longer one.

    Raises:
        NotFound: a checkpoint that it needs is not there.
        CorruptObject: one is damaged.
        InvalidInput: they are of another training, or it has no more epochs.
    """
    if earlier is None:
        return None
    from heimdall_assets.learning.fitting.kept import REST, TENSORS, check_continues, decode_kept, list_needed_to_go_on

    last = decode_kept("last", earlier)
    check_continues(last, asked)
    names = ["last", *list_needed_to_go_on(last)]
    for name in names[1:]:
        decode_kept(name, earlier)
    files = {f"{name}{ending}": earlier(f"{name}{ending}") for name in names for ending in (TENSORS, REST)}
    if is_exact(last.about["training"], asked["training"]):
        return Continued(files, last.epoch, is_exact=True)
    digest = compute_json_digest({name: compute_digest(data) for name, data in files.items()})
    return Continued(files, last.epoch, is_exact=False, content={"resumed_from": digest})
