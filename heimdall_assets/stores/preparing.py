"""Preparing: from the database to the splits, one function a stage, each found again where it was computed before.

Belongs here: what each of these results is made of. Does not belong here: the loops over recordings (``ingesting``,
``features``), fitting and what follows (``checkpoints``, ``judgements``, ``exports``, ``releasing``).
"""

from dataclasses import dataclass

import pandas as pd

from heimdall_assets.learning.splits import assign_splits
from heimdall_assets.manifests import Manifest
from heimdall_assets.specs import DatasetSpec, DelaySpec, FeatureSpec, RecordingSpec, SplitSpec, TimingSpec
from heimdall_assets.stores.datasets import join_recordings
from heimdall_assets.stores.features import compute_features
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.ingesting import ingest_recordings
from heimdall_assets.stores.objects import ObjectStore
from heimdall_assets.stores.results import Computed, Result, find_or_compute, read_parent
from heimdall_assets.stores.snapshots import ApprovedSnapshot
from heimdall_assets.stores.tables import artifact_of_table, load_table
from heimdall_assets.stores.work_pool import Progress

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Prepared:
    """A result made of many parts, and how many of them were computed now."""

    result: Result
    num_computed: int


def take_snapshot(stores: Stores, dataset: DatasetSpec) -> tuple[Result, ApprovedSnapshot]:
    """Return the frozen snapshot of what is approved now, and what was read for it."""
    snapshot = stores.measurements.read_approved(dataset)
    rows, left_out = snapshot.rows, snapshot.left_out
    # The database is outside: what was read is the input, by content.
    table = artifact_of_table(stores.objects, rows)

    def compute() -> Computed:
        return {"table": table, "left_out": artifact_of_table(stores.objects, left_out)}, {
            "num_sessions": int(rows["session_id"].nunique()),
            "num_measurements": len(rows),
            "num_stations": int(rows["station_id"].nunique()),
            "num_with_iq": int(rows["iq_data_location"].notna().sum()),
            "num_left_out": len(left_out),
            "sessions_by_origin": _count_sessions(rows, "origin"),
            "sessions_by_campaign": _count_sessions(rows, "campaign"),
        }

    parents = {"measurement_database": stores.measurements.compute_fingerprint(dataset)}
    result = find_or_compute(
        stores.objects, "approved_measurements", parents, [dataset], compute, {"rows": table.digest}
    )
    return result, snapshot


def _count_sessions(rows: pd.DataFrame, column: str) -> dict[str, int]:
    counts = rows.groupby(column)["session_id"].nunique()
    return {str(name): int(count) for name, count in counts.items()}


def pin_recordings(objects: ObjectStore, snapshot: Manifest, spec: RecordingSpec, progress: Progress) -> Prepared:
    """Return the snapshot's recordings, each checked and pinned by digest, or refused with its reason."""
    num_computed = 0

    def compute() -> Computed:
        nonlocal num_computed
        found = ingest_recordings(objects, load_table(objects, snapshot.artifacts["table"]), spec, progress)
        num_computed = found.num_computed
        good = found.table["status"] == "ok"
        return {"table": artifact_of_table(objects, found.table)}, {
            "num_recordings": int(good.sum()),
            "num_refused": int((~good).sum()),
            "num_unread": int((found.table["status"] == "unread").sum()),
            "seconds_of_iq": float(found.table.loc[good, "duration_s"].sum()),
        }

    parents = {"approved_measurements": snapshot.digest}
    result = find_or_compute(objects, "iq_files", parents, [spec], compute)
    return Prepared(result, num_computed)


def extract_features(
    objects: ObjectStore, iq_files: Manifest, features: FeatureSpec, delays: DelaySpec, progress: Progress
) -> Prepared:
    """Return spectrograms, arrivals and pairs of the pinned recordings; only what is new is computed."""
    num_computed = 0

    def compute() -> Computed:
        nonlocal num_computed
        approved = load_table(objects, read_parent(objects, iq_files, "approved_measurements").artifacts["table"])
        recordings = load_table(objects, iq_files.artifacts["table"])
        made = compute_features(objects, join_recordings(approved, recordings), features, delays, progress)
        num_computed = made.num_computed
        artifacts = {
            "index": artifact_of_table(objects, made.index),
            "arrivals": artifact_of_table(objects, made.arrivals),
            "pairs": artifact_of_table(objects, made.pairs),
            "refused": artifact_of_table(objects, made.refused),
        }
        return artifacts, {**made.count(), "shards": made.list_shards()}

    parents = {"iq_files": iq_files.digest}
    result = find_or_compute(objects, "spectrogram_features", parents, [features, delays], compute)
    return Prepared(result, num_computed)


def split_sessions(objects: ObjectStore, features: Manifest, split: SplitSpec, timing: TimingSpec) -> dict[str, Result]:
    """Return train, val and test of one decision, by name."""
    approved = load_table(objects, read_parent(objects, features, "approved_measurements").artifacts["table"])
    assigned = assign_splits(approved, split)
    parents = {"spectrogram_features": features.digest}

    def make(name: str) -> Result:
        table = assigned[assigned["split"] == name].reset_index(drop=True)

        def compute() -> Computed:
            return {"table": artifact_of_table(objects, table)}, {
                "num_sessions": len(table),
                "num_sites": int(table["site"].nunique()),
            }

        return find_or_compute(objects, f"{name}_split", parents, [split, timing], compute)

    return {name: make(name) for name in SPLITS}
