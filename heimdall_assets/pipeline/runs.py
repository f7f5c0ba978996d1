"""Runs: trainings as they went, under way or over, from their folders and from what is kept beside their checkpoints.

Belongs here: which training a name means, what is kept of a folder with the result that it led to. Does not belong
here: folders (``stores.runs``), judging a training (``evaluation.assessment``).

A folder lies where the training ran: in the home, or on a machine that others do not see, as a pod's. So that it can be
looked at from anywhere, its tables and metadata are stored as one object when the training ends, under the reference
``runs/DIGEST`` of its checkpoint, with which it lives.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heimdall_assets.errors import HeimdallError, NotFound, OutOfReach
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.runs.folders import DAMAGED
from heimdall_assets.suggestions import suggest_name
from heimdall_assets.training_tables import (
    EPOCHS,
    SIGNALS,
    TABLES,
    Row,
    decode_rows,
    encode_head,
    encode_row,
    name_file,
    take,
    take_numbers,
)

TRAININGS = "runs/"
"""What references begin with that lead to the tables of a training; the digest of its checkpoint follows."""

LATEST = "latest"
MIN_PREFIX = 3
"""Letters of an id that say which one is meant."""


@dataclass(frozen=True)
class TrainingRun:
    """A training as it went.

    Attributes:
        told: its metadata.
        releases: versions that came from its checkpoint.
        is_here: whether its folder lies in this home; else it is told from what is kept with its checkpoint.
    """

    told: Mapping[str, Any]
    releases: tuple[str, ...]
    is_here: bool

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.told["id"])


def keep_tables(stores: Stores, run_id: str, checkpoint: str) -> None:
    """Keep what the folder of a training says beside its checkpoint, whose manifest has this digest.

    Raises:
        HeimdallError: the folder cannot be read, or the object not be stored.
    """
    if stores.runs is None:
        return
    tables = {
        name_file(table): (encode_head(table) + b"".join(encode_row(table, row) for row in rows)).decode()
        for table, rows in stores.runs.read_tables(run_id).items()
    }
    text = json.dumps({"metadata": stores.runs.read(run_id), "tables": tables}, ensure_ascii=False, sort_keys=True)
    stores.objects.write_reference(
        TRAININGS + checkpoint, stores.objects.put_bytes(text.encode(), JSON_MEDIA_TYPE).digest
    )


def list_trainings(stores: Stores) -> list[TrainingRun]:
    """Return all trainings that are known, the newest first.

    Raises:
        OutOfReach: nobody can say which there are.
        StorageError: the disk refused.
    """
    found = {} if stores.runs is None else {str(told["id"]): (told, True) for told in stores.runs.list_runs()}
    known = {told.get("checkpoint") for told, _ in found.values()}
    for name in stores.objects.list_references(TRAININGS):
        if name.removeprefix(TRAININGS) in known:
            continue
        told = _read_kept(stores.objects, name).get("metadata", {})
        if "id" in told:
            found.setdefault(str(told["id"]), (told, False))
    released = _find_released(stores)
    runs = [
        TrainingRun(told, tuple(released.get(str(told.get("checkpoint")), [])), is_here)
        for told, is_here in found.values()
    ]
    return sorted(runs, key=lambda run: str(run.told.get("started", "")), reverse=True)


def find_training(stores: Stores, name: str) -> TrainingRun:
    """Return the training that ``name`` means: an id or its beginning, a release, ``latest``.

    Raises:
        NotFound: it means none, or several; the message says what could be meant.
    """
    runs = list_trainings(stores)
    if not runs:
        raise NotFound(f"training {name:.60}: found none in this home yet; heimdall train makes one")
    if name == LATEST:
        return runs[0]
    meant = [run for run in runs if name == run.id or name in run.releases]
    if not meant and len(name) >= MIN_PREFIX:
        meant = [run for run in runs if run.id.startswith(name.lower())]
    if len(meant) == 1 or (meant and name in meant[0].releases):
        return meant[0]
    if meant:
        raise NotFound(f"training {name:.60}: found {', '.join(run.id for run in meant)}, expected one of them")
    names = {one: one for run in runs for one in (run.id, *run.releases)} | {LATEST: LATEST}
    hint = suggest_name(name, names, 0.5)
    said = f"did you mean {hint}?" if hint else f"expected the id of one such as {runs[0].id}, a release, or {LATEST}"
    raise NotFound(f"training {name:.60}: found no such one, {said}")


def read_training_tables(stores: Stores, run: TrainingRun) -> dict[str, list[Row]]:
    """Return table -> rows of a training, as far as it went.

    Raises:
        HeimdallError: they cannot be read.
    """
    if run.is_here and stores.runs is not None and run.told["status"] != DAMAGED:
        return stores.runs.read_tables(run.id)
    kept = _read_kept(stores.objects, TRAININGS + str(run.told.get("checkpoint")))
    tables = kept.get("tables", {})
    return {table: decode_rows(table, str(tables.get(name_file(table), "")).encode()) for table in TABLES}


def _read_kept(objects: ObjectStore, name: str) -> dict[str, Any]:
    """Return what is kept under a reference; nothing where it is damaged: a training stands without it."""
    try:
        digest = objects.read_reference(name)
        return {} if digest is None else dict(json.loads(objects.read_bytes(digest)))
    except OutOfReach:
        raise
    except (HeimdallError, ValueError, TypeError):
        return {}


def _find_released(stores: Stores) -> dict[str, list[str]]:
    """Return checkpoint -> the releases that came from it, the newest first."""
    found: dict[str, list[str]] = {}
    for record in reversed(stores.releases.list_releases()):
        try:
            onnx = Manifest.decode(stores.objects.read_bytes(str(record["manifest"])))
        except OutOfReach:
            raise
        except (HeimdallError, ValueError, LookupError):
            continue  # a release that is not whole says nothing of trainings
        if TRAINED_CHECKPOINT in onnx.parents:
            found.setdefault(onnx.parents[TRAINED_CHECKPOINT], []).append(str(record["version"]))
    return found


def summarize_training(told: Mapping[str, Any], tables: Mapping[str, list[Row]]) -> dict[str, Any]:
    """Return the figures of a training as far as it went: of positions, where it fits other parts too.

    ``best_epoch`` counts from 0; what is not known is None.
    """
    rows = take(tables.get(EPOCHS, []))
    losses = [(value, row) for row in rows if isinstance(value := row["val_loss"], int | float) and value == value]
    loss, best = min(losses, key=lambda pair: pair[0]) if losses else (None, {})
    heard = take(tables.get(EPOCHS, []), SIGNALS)
    times = take_numbers(rows, "epoch_time")
    return {
        "epochs": len(rows),
        "max_epochs": told.get("settings", {}).get("TrainingSpec", {}).get("max_epochs"),
        "best_epoch": best.get("epoch"),
        "val_loss": loss,
        "train_loss": best.get("train_loss"),
        "val_error_m": best.get("val_error_m"),
        "span_f1": max(take_numbers(heard, "span_f1"), default=None),
        "epoch_s": sum(times) / len(times) if times else None,
        "samples_per_s": max(take_numbers(rows, "samples_per_s"), default=None),
    }


def list_setting_differences(runs: Sequence[TrainingRun]) -> dict[str, list[Any]]:
    """Return ``Spec.field`` -> its value in each training, of the settings that are not the same in all."""
    flat = [
        {
            f"{spec}.{name}": value
            for spec, fields in run.told.get("settings", {}).items()
            for name, value in fields.items()
        }
        for run in runs
    ]
    names = sorted({name for one in flat for name in one})
    values = {name: [one.get(name) for one in flat] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}
