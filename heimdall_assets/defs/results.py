"""Results as Dagster sees them: a manifest's digest is the data version, its summary is the metadata."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from heimdall_assets.pipeline.results import Result


def materialize(
    result: Result, metadata: Mapping[str, Any] | None = None, asset_key: str | None = None
) -> dg.MaterializeResult[Any]:
    """Return the materialization of ``result``, marked where it was found rather than computed."""
    counts = {name: value for name, value in result.manifest.summary.items() if isinstance(value, int | float | str)}
    return dg.MaterializeResult(
        asset_key=asset_key,
        value=result.manifest,
        data_version=dg.DataVersion(result.manifest.digest),
        metadata={**counts, **(metadata or {}), "reused": result.reused, "manifest": result.manifest.digest},
    )
