"""Offline: a provenance and its data as one page without a network: styles inside, the map as SVG, no script."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from heimdall_assets.lineage.pages.map import Place, draw_map
from heimdall_assets.lineage.pages.rendering import describe_release, render
from heimdall_assets.lineage.recorded import RecordedData, list_rows
from heimdall_assets.lineage.tree import Decisions, describe_data

MAX_TABLE_ROWS = 10_000
"""Of each table on the page, which a browser opens as a whole; it says how to get the others."""


def render_html(
    provenance: Mapping[str, Any], data: RecordedData, decisions: Decisions, provenance_digest: str | None = None
) -> str:
    """Return one self-contained page: tree, map, sessions with their approvals, settings, environment, figures.

    Everything that comes from outside is escaped. At most ``MAX_TABLE_ROWS`` rows of a table are shown; the page says
    of how many, and which command prints them all.
    """
    recorded = data.measurements[data.measurements["iq_digest"].notna()]
    heard, kept = (table["session_id"].value_counts() for table in (data.measurements, recorded))
    names = data.sources.set_index("source_id")["source_name"]
    sessions = [
        {
            **row,
            "source": names[row["source_id"]],
            "num_measurements": int(heard.get(row["session_id"], 0)),
            "num_recordings": int(kept.get(row["session_id"], 0)),
        }
        for row in list_rows(data.sessions.head(MAX_TABLE_ROWS))
    ]
    people = {str(entry["decided_by"]) for entry in decisions.values()}
    return render(
        "offline",
        **describe_release(provenance),
        digest=provenance_digest,
        summary=describe_data(provenance, people),
        map=draw_map(_list_places(data), _list_receivers(data)),
        sessions=sessions,
        num_sessions=len(data.sessions),
        stations=list(list_rows(data.stations)),
        left_out=list(list_rows(data.left_out.head(MAX_TABLE_ROWS))),
        num_left_out=len(data.left_out),
        recordings=list(list_rows(recorded.head(MAX_TABLE_ROWS))),
        num_recordings=len(recorded),
    )


def _list_places(data: RecordedData) -> list[Place]:
    where = ["source_latitude", "source_longitude"]
    sent = data.sessions[["source_id", "split"]].merge(data.sources[["source_id", *where]], on="source_id")
    first = sent.dropna(subset=where).drop_duplicates(where)
    return [
        (latitude, longitude, None if pd.isna(split) else split)
        for latitude, longitude, split in first[[*where, "split"]].itertuples(index=False)
    ]


def _list_receivers(data: RecordedData) -> list[tuple[float, float]]:
    held = data.measurements[["receiver_latitude", "receiver_longitude"]].dropna().drop_duplicates()
    return sorted(held.itertuples(index=False, name=None))
