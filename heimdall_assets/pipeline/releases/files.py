"""Files of a model to take away: the variant of a release, or of a checkpoint that was never released.

Belongs here: finding a variant that was made, making one that was not. Does not belong here: how it is made
(``learning.export``), whether it is good enough (``pipeline.stages.variants``): what was not judged is said to be so.
"""

import re
from dataclasses import dataclass
from typing import Any

from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.kinds import ONNX_MODEL, TRAIN_SPLIT, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.onnx_model import RELEASED, export_sources, name_artifact
from heimdall_assets.specs import ExportSpec
from heimdall_assets.stores.home import Stores

DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")

BASE = "fp32"


@dataclass(frozen=True)
class ExportedFile:
    """One ONNX file.

    Attributes:
        data: its bytes.
        variant: which it is.
        manifest: digest of the manifest that it comes from.
        version: of the release that it was taken from; None: of none.
        judged: its figures on the test split and what keeps it from being released; None: nobody judged it.
    """

    data: bytes
    variant: str
    manifest: str
    version: str | None
    judged: dict[str, Any] | None


def is_digest(name: str) -> bool:
    """Return whether a name is the digest of a manifest and not that of a release."""
    return DIGEST.fullmatch(name) is not None


def export_file(stores: Stores, version: str, variant: str | None) -> ExportedFile:
    """Return a variant of a release: as published, as stored with its export, or made now.

    Args:
        stores: where it rests.
        version: of the release.
        variant: None: the one that was released.

    Raises:
        InvalidSetting: the model holds nothing that this variant would change.
    """
    onnx = Manifest.decode(stores.objects.read_bytes(stores.releases.find_record(version)["manifest"]))
    chosen = str(onnx.summary.get("variant", BASE))  # what was released before there were variants is one
    asked = variant or chosen
    if asked == chosen:
        data = stores.releases.read_file(version, RELEASED)
    elif name_artifact(asked) in onnx.artifacts:
        data = stores.objects.read_bytes(onnx.artifacts[name_artifact(asked)].digest)
    else:
        checkpoint = read_parent(stores.objects, onnx, TRAINED_CHECKPOINT)
        data = _make(stores, checkpoint, asked, ExportSpec(**onnx.specs[ExportSpec.__name__]))
    return ExportedFile(data, asked, onnx.digest, version, onnx.summary.get("variants", {}).get(asked))


def export_stored(stores: Stores, named: str, variant: str | None) -> ExportedFile:
    """Return a variant of a stored checkpoint, by the digest of its manifest.

    Raises:
        NotFound: there is nothing under this digest.
        InvalidSetting: it is no checkpoint, or the model holds nothing that this variant would change.
        CorruptObject: a file of the checkpoint is damaged.
    """
    found = DIGEST.fullmatch(named)
    if found is None:
        raise InvalidSetting(f"{named!r:.80}: expected the SHA-256 of a manifest, 64 hexadecimal digits")
    digest = found[1]
    try:
        manifest = Manifest.decode(stores.objects.read_bytes(digest))
    except ValueError as error:
        raise InvalidSetting(f"{digest}: found no manifest, expected that of a {TRAINED_CHECKPOINT}") from error
    if manifest.kind == ONNX_MODEL:
        manifest = read_parent(stores.objects, manifest, TRAINED_CHECKPOINT)
    if manifest.kind != TRAINED_CHECKPOINT:
        raise InvalidSetting(f"{digest}: found a manifest of {manifest.kind}, expected that of a {TRAINED_CHECKPOINT}")
    asked = variant or BASE
    return ExportedFile(_make(stores, manifest, asked, ExportSpec()), asked, manifest.digest, None, None)


def _make(stores: Stores, checkpoint: Manifest, variant: str, spec: ExportSpec) -> bytes:
    from heimdall_assets.learning.export.variants import make_variant

    sources = export_sources(
        stores.objects,
        checkpoint,
        spec,
        lambda: load_sessions(stores.objects, read_parent(stores.objects, checkpoint, TRAIN_SPLIT)),
    )
    try:
        return make_variant(variant, sources).data
    except InvalidInput as error:
        raise InvalidSetting(str(error)) from error
