"""Settings and data of a run: every spec of the chain behind it, and what the sessions were."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    VAL_SPLIT,
)
from heimdall_assets.lineage.walk import walk_manifests
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.specs import Spec
from heimdall_assets.stores.experiment_entries import SETTINGS_FOLDER, Data, Entries
from heimdall_assets.stores.objects.interface import ObjectStore

CONTEXTS = {TRAIN_SPLIT: "training", VAL_SPLIT: "validation", TEST_SPLIT: "testing"}
"""Split -> what MLflow calls its use."""


def describe_settings(objects: ObjectStore, manifests: Iterable[Manifest], specs: Iterable[Spec] = ()) -> Entries:
    """Return every setting behind some results, and all of them in one file.

    Args:
        objects: where the results rest.
        manifests: the results.
        specs: settings that stand in no manifest yet.
    """
    chosen: dict[str, Mapping[str, Any]] = {}
    for node in walk_manifests([manifest.digest for manifest in manifests], objects.read_bytes):
        chosen.update(node.manifest.specs)
    chosen |= {spec.pure_class().__name__: spec.dump() for spec in specs}
    return Entries(params=name_settings(chosen), files=encode_settings("settings", chosen))


def describe_spec(spec: Spec, name: str) -> Entries:
    """Return the settings of one later step, and the file ``name`` of them."""
    chosen = {spec.pure_class().__name__: spec.dump()}
    return Entries(params=name_settings(chosen), files=encode_settings(name, chosen))


def name_settings(chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return settings by ``Spec.field``."""
    return {f"{name}.{field}": value for name, fields in chosen.items() for field, value in fields.items()}


def encode_settings(name: str, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the one file that holds settings whole, as ``--settings`` reads them."""
    told = {spec: dict(fields) for spec, fields in chosen.items()}
    return {f"{SETTINGS_FOLDER}{name}.yaml": yaml.safe_dump(told, sort_keys=True).encode()}


def describe_splits(objects: ObjectStore, train_split: Manifest, val_split: Manifest) -> Entries:
    """Return what a training learns from: digests, counts, the shares that the splits really have, where it is from."""
    snapshot = read_parent(objects, train_split, APPROVED_MEASUREMENTS)
    counts = {split.kind: int(split.summary["num_sessions"]) for split in (train_split, val_split)}
    total = int(snapshot.summary["num_sessions"])
    counts[TEST_SPLIT] = total - sum(counts.values())  # not an input of the training: what is left of the snapshot
    shares = {f"data.share.{kind}": f"{count / total:.4f}" for kind, count in counts.items()}
    facts = {
        "data.snapshot": snapshot.digest,
        "data.preprocessing": train_split.parents[SPECTROGRAM_FEATURES],
        "data.num_sessions": total,
        **{f"data.num_sessions.{kind}": count for kind, count in counts.items()},
        **shares,
        "data.origins": dict(snapshot.summary["sessions_by_origin"]),
        "data.campaigns": dict(snapshot.summary["sessions_by_campaign"]),
    }
    return Entries(params=facts, data=[describe_split(split) for split in (train_split, val_split)])


def describe_split(split: Manifest) -> Data:
    """Return a split as the data that went into a run."""
    profile = {name: split.summary[name] for name in ("num_sessions", "num_sites")}
    return Data(split.kind, CONTEXTS[split.kind], split.digest, profile)
