"""Checks: what must hold of each asset; each stops the run where it does not. What is told alone: ``warning_checks``.

Each reads the manifest that was just materialized (and what it points at), never the code that made it.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import APPROVED_COLUMNS, SNAPSHOT
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    IQ_FILES,
    MODEL_RELEASE,
    ONNX_MODEL,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.manifests import Artifact, Manifest
from heimdall_assets.specs import DelaySpec, FeatureSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

StoresParam = dg.ResourceParam[Stores]

FEWEST_SESSIONS = 1
"""One becomes features; whether they are enough to split and train on, the splits say."""
LARGEST_CORRELATION = 1.001
"""Of normalised signals it is 1; the rest is rounding."""


@dg.asset_check(asset=APPROVED_MEASUREMENTS, blocking=True)
def snapshot_follows_schema(approved_measurements: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Every column of the contract is there with its type, and no measurement stands twice."""
    table = load_table(stores.objects, approved_measurements.artifacts["table"])
    missing = sorted({field.snapshot for field in SNAPSHOT if field.snapshot and not field.since} - set(table.columns))
    found = {name: str(dtype) for name, dtype in table.dtypes.items() if name in APPROVED_COLUMNS}
    mistyped = {str(name): dtype for name, dtype in found.items() if dtype != APPROVED_COLUMNS[str(name)]}
    doubled = 0 if missing else int(table["measurement_id"].duplicated().sum())
    return dg.AssetCheckResult(
        passed=not missing and not mistyped and not doubled,
        metadata={"missing_columns": missing, "mistyped_columns": mistyped, "doubled_measurements": doubled},
    )


@dg.asset_check(asset=APPROVED_MEASUREMENTS, blocking=True)
def snapshot_has_sessions(approved_measurements: Manifest) -> dg.AssetCheckResult:
    """There is a session to take."""
    found = approved_measurements.summary["num_sessions"]
    return dg.AssetCheckResult(
        passed=found >= FEWEST_SESSIONS,
        description=f"found {found} approved, trainable sessions, expected at least {FEWEST_SESSIONS}: approve some",
        metadata={"num_sessions": found},
    )


@dg.asset_check(asset=APPROVED_MEASUREMENTS, blocking=True)
def values_are_possible(approved_measurements: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Every number is within the bounds of its field, and none that a row must have is missing."""
    table = load_table(stores.objects, approved_measurements.artifacts["table"])
    bad = {}
    for field in SNAPSHOT:
        if field.bounds is not None and field.snapshot in table:
            values = table[field.snapshot].to_numpy(dtype=np.float64, na_value=np.nan)
            # Whatever its station leaves open, a measurement of the snapshot has a place.
            may_be_missing = field.is_optional and not field.is_place
            bad[field.snapshot] = int((~field.bounds.hold(values) & ~(np.isnan(values) & may_be_missing)).sum())
    return dg.AssetCheckResult(passed=not any(bad.values()), metadata=bad)


@dg.asset_check(asset=IQ_FILES, blocking=True)
def recordings_rest_whole(iq_files: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Every recording that features are computed from is in the object store."""
    table = load_table(stores.objects, iq_files.artifacts["table"])
    good = table[table["status"] == "ok"]
    present = stores.objects.find_present({str(digest) for digest in good["digest"]})
    gone = [digest for digest in good["digest"] if str(digest) not in present]
    return dg.AssetCheckResult(passed=not gone, metadata={"num_recordings": len(good), "missing": gone[:20]})


@dg.asset_check(asset=SPECTROGRAM_FEATURES, blocking=True)
def features_are_finite(spectrogram_features: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Every shard has the shape of its spec, and no value is missing or out of its range (dB; correlation)."""
    from heimdall_assets.signals.signal_track import NUM_ROWS, NUM_STEPS  # slow to load, and wanted only here

    artifacts, specs = spectrogram_features.artifacts, spectrogram_features.specs
    spec, num_lags = FeatureSpec(**specs["FeatureSpec"]), DelaySpec(**specs["DelaySpec"]).num_lags
    problems = []
    for shard, images in _load_shards(stores, artifacts["index"]):
        if images.shape[1:] != (3, spec.num_mels, spec.num_frames):
            problems.append(f"{shard}: shape {images.shape}, expected (n, 3, {spec.num_mels}, {spec.num_frames})")
        elif not np.isfinite(images).all() or images.min() < spec.floor_db or images.max() > 0.0:
            problems.append(f"{shard}: found values outside [{spec.floor_db}, 0] dB or not finite")
    for shard, tracks in _load_shards(stores, artifacts["tracks"]):
        if tracks.shape[1:] != (NUM_ROWS, NUM_STEPS):
            problems.append(f"{shard}: shape {tracks.shape}, expected (n, {NUM_ROWS}, {NUM_STEPS})")
        elif not np.isfinite(tracks).all():
            problems.append(f"{shard}: found signal tracks that are not finite")
    for shard, correlations in _load_shards(stores, artifacts["pairs"]):
        if correlations.shape[1:] != (num_lags,):
            problems.append(f"{shard}: shape {correlations.shape}, expected (n, {num_lags})")
        elif not np.abs(correlations).max() < LARGEST_CORRELATION:  # NaN is none either
            problems.append(f"{shard}: found correlations above 1 or not finite")
    return dg.AssetCheckResult(passed=not problems, metadata={"problems": problems})


def _load_shards(stores: Stores, table: Artifact) -> Iterator[tuple[str, NDArray[Any]]]:
    for shard in sorted({str(shard) for shard in load_table(stores.objects, table)["shard"]}):
        yield shard, np.load(stores.objects.local_path(shard), mmap_mode="r", allow_pickle=False)


@dg.asset_check(
    asset=TRAIN_SPLIT,
    blocking=True,
    additional_ins={VAL_SPLIT: dg.AssetIn(VAL_SPLIT), TEST_SPLIT: dg.AssetIn(TEST_SPLIT)},
)
def splits_do_not_leak(
    train_split: Manifest, val_split: Manifest, test_split: Manifest, stores: StoresParam
) -> dg.AssetCheckResult:
    """No session stands in two splits and, where sites decide, no transmitting site does."""
    tables = [load_table(stores.objects, split.artifacts["table"]) for split in (train_split, val_split, test_split)]
    spec = train_split.specs["SplitSpec"]
    columns = ["session_id"] + (["site"] if spec["group_by"] == "site" and spec["column"] is None else [])
    shared = {}
    for column in columns:
        sets = [set(table[column]) for table in tables]
        shared[column] = len(sets[0] & sets[1]) + len(sets[0] & sets[2]) + len(sets[1] & sets[2])
    sizes = {name: len(table) for name, table in zip(("train", "val", "test"), tables, strict=True)}
    return dg.AssetCheckResult(
        passed=not any(shared.values()) and all(sizes.values()),
        metadata={**{f"shared_{name}": count for name, count in shared.items()}, **sizes},
    )


@dg.asset_check(asset=TRAINED_CHECKPOINT, blocking=True)
def weights_are_finite(trained_checkpoint: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """No weight is NaN or infinite."""
    from safetensors.numpy import load

    weights = load(stores.objects.read_bytes(trained_checkpoint.artifacts["weights.safetensors"].digest))
    bad = sorted(name for name, values in weights.items() if not np.isfinite(values).all())
    return dg.AssetCheckResult(passed=not bad, metadata={"num_tensors": len(weights), "not_finite": bad[:20]})


@dg.asset_check(asset=ONNX_MODEL, blocking=True)
def onnx_matches_pytorch(onnx_model: Manifest) -> dg.AssetCheckResult:
    """Every output of the ONNX file on the test split agrees with PyTorch within the stated tolerance."""
    parity = onnx_model.summary["parity"]
    return dg.AssetCheckResult(passed=bool(parity["passed"]), metadata={"parity": parity})


@dg.asset_check(asset=MODEL_RELEASE, blocking=True)
def release_is_whole(model_release: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Every file of the release is there, byte by byte as published."""
    problems = stores.releases.find_problems(model_release.summary["version"])
    return dg.AssetCheckResult(passed=not problems, metadata={"problems": problems})


CHECKS = [
    snapshot_follows_schema,
    snapshot_has_sessions,
    values_are_possible,
    recordings_rest_whole,
    features_are_finite,
    splits_do_not_leak,
    weights_are_finite,
    onnx_matches_pytorch,
    release_is_whole,
]
