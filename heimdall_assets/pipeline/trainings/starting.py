"""Where a training starts from: an earlier one's checkpoint, by what people call it, and the settings that follow.

Belongs here: a name, a digest or a file to a checkpoint's manifest; which settings of it hold. Does not belong here:
loading its weights (``learning.fitting``), a training that goes on (``continuing``), options (``cli``).
"""

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heimdall_assets.errors import CorruptObject, InvalidInput, InvalidSetting, NotFound
from heimdall_assets.kinds import TRAIN_SPLIT, TRAINED_CHECKPOINT, VAL_SPLIT
from heimdall_assets.lineage.walk import OUTSIDE
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import SETTINGS
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.specs import ModelSpec, Spec, TrainingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.regular_files import check_regular_file
from heimdall_assets.stores.objects.verified import hash_file
from heimdall_assets.things import OBJECT

FREE = frozenset({"freeze_backbone", "dropout", "pretrained", "weights_file", "uncertainty_min", "uncertainty_max"})
"""Fields of ``ModelSpec`` that change no weight's name or shape: a start may set them anew."""

_PICKLES = (b"PK\x03\x04", b"\x80")
"""How files of torch.save and Lightning begin, today's and those of before 2020."""

WEIGHTS = "weights.safetensors"
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_ENDINGS = (".safetensors", ".json", ".ckpt", ".pt", ".pth", ".bin", ".pkl")
_LARGEST_HEADER = 100_000_000
"""Bytes; safetensors' own bound."""


@dataclass(frozen=True)
class Started:
    """Settings of a training that starts from another, or goes on.

    Attributes:
        specs: that are set.
        notices: what is to be said of them, a line each.
        resumes: digest of the checkpoint whose training goes on; None: none does.
    """

    specs: list[Spec]
    notices: list[str]
    resumes: str | None = None


def find_checkpoint(stores: Stores, named: str) -> Manifest:
    """Return the manifest of the checkpoint that ``named`` means.

    Args:
        stores: of the home.
        named: a released model (version, ``latest`` or alias), the digest of a checkpoint's manifest, or a file that a
            training of this home left (``TrainingResult.checkpoint_path``, or a copy), also a checkpoint that was kept
            of it, with its JSON beside it: the training is meant, whose best weights are taken.

    Raises:
        NotFound: there is no such model, digest or file, or no training of this home left that file.
        InvalidInput: the digest is another result's; the file is a pickle, truncated, or no safetensors.
    """
    if digest := _DIGEST.fullmatch(named):
        return _read_checkpoint(stores.objects, digest[1], f"checkpoint {named}")
    if names_file(named):
        return _find_file(stores, Path(named))
    version = stores.releases.resolve(named)
    record = stores.releases.find_record(version)
    exported = Manifest.decode(stores.objects.read_bytes(record["manifest"]))
    return read_parent(stores.objects, exported, TRAINED_CHECKPOINT)


def names_file(named: str) -> bool:
    """Return whether ``named`` means a file rather than a model or a digest."""
    return "/" in named or named.endswith(_ENDINGS)


def _read_checkpoint(objects: ObjectStore, digest: str, what: str) -> Manifest:
    try:
        manifest = Manifest.decode(objects.read_bytes(digest))
    except (ValueError, CorruptObject) as error:
        raise InvalidInput(f"{what}: found no manifest, expected that of a {TRAINED_CHECKPOINT}") from error
    if manifest.kind != TRAINED_CHECKPOINT:
        raise InvalidInput(f"{what}: found the manifest of {manifest.kind}, expected that of a {TRAINED_CHECKPOINT}")
    return manifest


def _find_file(stores: Stores, path: Path) -> Manifest:
    """Return the checkpoint that holds the bytes of a file."""
    from heimdall_assets.pipeline.tracing.graph import Graph
    from heimdall_assets.pipeline.tracing.indexing import open_whole_index

    what = f"checkpoint {str(path)!r}"
    check_regular_file(path, what, NotFound)
    if not path.is_file():
        raise NotFound(f"{what}: found no such file, expected weights that a training left")
    check_safetensors(path, what)
    digest, _ = hash_file(path)
    about = _read_about(path)
    graph = Graph()
    with open_whole_index(stores) as whole:
        asked = (OBJECT, digest) if about is None else (TRAIN_SPLIT, str(about["parents"].get(TRAIN_SPLIT)))
        graph.add(whole.edges.find_descendants([asked]))
    names = sorted(graph.name(number) for number in graph.list_of((TRAINED_CHECKPOINT,)))
    made = [_read_checkpoint(stores.objects, name, what) for name in names]
    # one that started from these weights holds them too, under another name
    own = [manifest for manifest in made if _is_left_by(manifest, digest, about)]
    if not own:
        raise NotFound(f"{what}: found weights that no training of this home left, expected some of its own")
    # a training that did not better its start ends with the same weights: the one that made them is meant
    return min(own, key=lambda manifest: manifest.specs["TrainingSpec"].get("start_from") is not None)


def _is_left_by(checkpoint: Manifest, digest: str, about: dict[str, Any] | None) -> bool:
    """Return whether a training left weights: as its result, or as a checkpoint that was kept of it."""
    if about is None:
        return checkpoint.artifacts[WEIGHTS].digest == digest
    told = {"ModelSpec": "model", "TrainingSpec": "training", "AugmentationSpec": "augmentation"}
    same = all(checkpoint.specs[spec] == about.get(name) for spec, name in told.items())
    return same and {kind: checkpoint.parents[kind] for kind in (TRAIN_SPLIT, VAL_SPLIT)} == about["parents"]


def _read_about(path: Path) -> dict[str, Any] | None:
    """Return what the JSON beside a kept checkpoint says of its training; None: there is none, so it is a result."""
    beside = path.with_suffix(".json")
    try:
        if path.suffix != ".safetensors" or not 0 < beside.stat().st_size < _LARGEST_HEADER:
            return None
        about = json.loads(beside.read_bytes())["about"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return about if isinstance(about, dict) and isinstance(about.get("parents"), dict) else None


def check_safetensors(path: Path, what: str) -> None:
    """Return nothing where a file is whole safetensors; its tensors are not loaded.

    Raises:
        InvalidInput: it is a pickle, which is never loaded, or truncated, or another file.
    """
    size = path.stat().st_size
    with path.open("rb") as opened:
        start = opened.read(8)
        if start.startswith(_PICKLES):
            raise InvalidInput(f"{what}: found a pickle, which is never loaded, expected safetensors")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size + 1
        if length > min(size - 8, _LARGEST_HEADER):
            raise InvalidInput(f"{what}: found {size} bytes that are no whole safetensors, expected weights")
        try:
            header = json.loads(opened.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise InvalidInput(f"{what}: found {size} bytes that are no safetensors, expected weights") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise InvalidInput(f"{what}: found {size} bytes, expected {expected}: it is truncated or has a tail")


def start_from(named: str, checkpoint: Manifest, specs: Sequence[Spec]) -> Started:
    """Return settings with which a training starts from the weights of ``checkpoint``.

    The architecture is the checkpoint's, and so is what else of ``ModelSpec`` nobody set; what was set must be it.

    Args:
        named: what people call the checkpoint.
        checkpoint: its manifest.
        specs: what somebody set.

    Raises:
        InvalidSetting: another architecture was asked for, or another start beside this one.
    """
    own = ModelSpec.model_validate(checkpoint.specs["ModelSpec"])
    chosen = {type(spec): spec for spec in specs}
    asked = _list_set(chosen.get(ModelSpec))
    for field, value in asked.items():
        if field not in FREE and value != getattr(own, field):
            raise InvalidSetting(f"ModelSpec.{field}: found {value}, expected {getattr(own, field)} as {named} has it")
    if asked.get("pretrained") or asked.get("weights_file"):
        raise InvalidSetting(f"ModelSpec.pretrained: found a start beside {named}, expected one of them")
    model = own.dump() | {"pretrained": False, "weights_file": None} | asked
    if model["freeze_backbone"] and model["kind"] == "network" and not model["use_spectrograms"]:
        raise InvalidSetting(f"ModelSpec.freeze_backbone: {named} sees no spectrograms and has no backbone to freeze")
    training = _list_set(chosen.get(TrainingSpec))
    start = f"sha256:{checkpoint.digest}"
    if training.get("start_from") not in (None, start):
        raise InvalidSetting(f"TrainingSpec.start_from: found a start beside {named}, expected one of them")
    chosen[ModelSpec] = ModelSpec.model_validate(model)
    chosen[TrainingSpec] = TrainingSpec.model_validate(training | {"start_from": start})
    said = "its backbone stays as it is" if model["freeze_backbone"] else "all of its weights are trained"
    return Started(list(chosen.values()), [f"Starts from {named}: {model['kind']}, {said}"])


def recall_specs(objects: ObjectStore, checkpoint: Manifest) -> list[Spec]:
    """Return every setting that decided a checkpoint, from its manifest and those of its ancestors."""
    found: dict[str, dict[str, Any]] = {}
    pending, seen = [checkpoint], set[str]()
    while pending:
        manifest = pending.pop()
        found |= {name: fields for name, fields in manifest.specs.items() if name not in found}
        for kind, digest in manifest.parents.items():
            # a model that this one started from has settings of its own
            if kind not in OUTSIDE and kind != TRAINED_CHECKPOINT and digest not in seen:
                seen.add(digest)
                pending.append(Manifest.decode(objects.read_bytes(digest)))
    return [SETTINGS[name].model_validate(fields) for name, fields in found.items() if name in SETTINGS]


def lay_over(below: Sequence[Spec], above: Sequence[Spec]) -> list[Spec]:
    """Return specs of which those fields that ``above`` sets by name win over ``below``."""
    merged = {type(spec): spec for spec in below}
    for spec in above:
        fields = _list_set(merged.get(type(spec))) | _list_set(spec)
        merged[type(spec)] = type(spec).model_validate(fields)
    return list(merged.values())


def _list_set(spec: Spec | None) -> dict[str, Any]:
    """Return the fields that somebody set by name."""
    return {} if spec is None else {name: value for name, value in spec.dump().items() if name in spec.model_fields_set}
