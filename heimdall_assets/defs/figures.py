"""Figures and tables as metadata that Dagster's page shows inline: Markdown, and SVG as data addresses."""

import base64
from typing import Any

import dagster as dg

from heimdall_assets.manifests import SVG_MEDIA_TYPE, Manifest
from heimdall_assets.stores.objects.folder import ObjectStore


def show_tables(metrics: dict[str, Any]) -> dict[str, dg.MarkdownMetadataValue]:
    """Return the comparison of model, baselines and bound as a table, and, where there are any, the signal tasks'."""
    from heimdall_assets.evaluation.model_card import render_metrics_table, render_signals_table

    tables = {"comparison": render_metrics_table(metrics), "signals": render_signals_table(metrics)}
    return {name: dg.MetadataValue.md(table) for name, table in tables.items() if table}


def show_figures(objects: ObjectStore, manifest: Manifest) -> dict[str, dg.MarkdownMetadataValue]:
    """Return each SVG artifact of ``manifest`` as an inline picture."""
    shown = {}
    for name, artifact in manifest.artifacts.items():
        if artifact.media_type == SVG_MEDIA_TYPE:
            data = base64.b64encode(objects.read_bytes(artifact.digest)).decode()
            title = name.removesuffix(".svg").replace("_", " ")
            shown[name.removesuffix(".svg")] = dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{data})")
    return shown
