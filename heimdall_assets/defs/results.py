"""Results as Dagster sees them: a manifest's digest is the data version, its summary is the metadata.

The page keeps the order of metadata, and draws each number as a curve over materializations: what is worth looking at
comes first, and a number that does not change from run to run stands in a table.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from heimdall_assets.defs.tables import render_facts
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    CHAMPION_ON_NEW_DATA,
    EVALUATION_METRICS,
    IQ_FILES,
    PRODUCTION_MONITORING,
    SPECTROGRAM_FEATURES,
    SPLIT_KINDS,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import Result

CURVES: dict[str, tuple[str, ...]] = {
    APPROVED_MEASUREMENTS: ("num_sessions", "num_measurements", "num_left_out"),
    CHAMPION_ON_NEW_DATA: ("num_sessions", "median_m", "coverage_90", "refused_share", "baseline_median_m"),
    PRODUCTION_MONITORING: ("num_alerts", "num_new", "median_m", "coverage_90", "refused_share"),
    IQ_FILES: ("num_recordings", "num_refused", "num_unread"),
    SPECTROGRAM_FEATURES: ("num_features", "num_arrivals", "num_refused"),
    **{kind: ("num_sessions",) for kind in SPLIT_KINDS.values()},
    TRAINED_CHECKPOINT: ("best_val_loss", "num_train_sessions"),
    EVALUATION_METRICS: ("median_m", "p90_m", "coverage_90", "median_error_over_bound"),
}
"""Kind -> numbers whose course from run to run says something."""

DIGEST_LENGTH = 12
"""Characters of a digest that are shown: enough to find it."""


def materialize(
    result: Result, shown: Mapping[str, Any] | None = None, asset_key: str | None = None
) -> dg.MaterializeResult[Any]:
    """Return the materialization of ``result``, marked where it was found rather than computed.

    Args:
        result: what was found or computed.
        shown: metadata that people come for, most important first.
        asset_key: where one step makes several assets, which.
    """
    manifest = result.manifest
    curves = [name for name in CURVES.get(manifest.kind, ()) if manifest.summary.get(name) is not None]
    told = {*curves, *(shown or {}), "size_bytes"}
    facts = {name: value for name, value in manifest.summary.items() if name not in told and _is_plain(value)}
    size_mb = sum(part.size for part in manifest.artifacts.values()) / 1e6
    return dg.MaterializeResult(
        asset_key=asset_key,
        value=manifest,
        data_version=dg.DataVersion(manifest.digest),
        metadata={
            **(shown or {}),
            **{name: _round(manifest.summary[name]) for name in curves},
            "facts": render_facts({**facts, "size in MB": float(f"{size_mb:.3g}")}),
            "made_from": link_parents(manifest),
            "reused": result.reused,
            "manifest": manifest.digest,
        },
    )


def link_parents(manifest: Manifest) -> dg.MarkdownMetadataValue:
    """Return what a result was made from: each asset, as a link within Dagster's own page, and its data version."""
    lines = [
        f"[{kind}](/assets/{kind}) `{digest[:DIGEST_LENGTH]}`" for kind, digest in sorted(manifest.parents.items())
    ]
    return dg.MetadataValue.md("  \n".join(lines) or "nothing")


def _round(value: float) -> float:
    """Return a number with as many figures as a person reads; the result itself holds all of them."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, int | float | str)
