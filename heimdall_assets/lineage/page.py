"""Page: a provenance and its data as one page that opens offline: styles inside, the map as inline SVG, no script."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heimdall_assets.lineage.recorded import RecordedData, list_rows
from heimdall_assets.lineage.tree import Decisions, describe_data, describe_facts, draw_branches, show
from heimdall_assets.signals.geodesy import LocalFrame

if TYPE_CHECKING:
    from jinja2 import Template

MAX_TABLE_ROWS = 5000
MAX_MAP_POINTS = 2000
MAP_WIDTH, MAP_HEIGHT = 760.0, 460.0
SPLIT_COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#D55E00", None: "#666666"}
FIGURES = ("num_sessions", "median_m", "p90_m", "coverage_90", "median_error_over_bound")


def render_html(
    provenance: Mapping[str, Any], data: RecordedData, decisions: Decisions, provenance_digest: str | None = None
) -> str:
    """Return one self-contained page: tree, map, sessions with their approvals, settings, environment, figures.

    Everything that comes from outside is escaped. At most ``MAX_TABLE_ROWS`` rows of a table are shown; the page says
    of how many.
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
    return _load_template().render(
        provenance=provenance,
        digest=provenance_digest,
        summary=describe_data(provenance, decisions),
        tree="\n".join(draw_branches(provenance)),
        map=_draw_map(data),
        sessions=sessions,
        num_sessions=len(data.sessions),
        stations=list(list_rows(data.stations)),
        left_out=list(list_rows(data.left_out.head(MAX_TABLE_ROWS))),
        num_left_out=len(data.left_out),
        recordings=list(list_rows(recorded.head(MAX_TABLE_ROWS))),
        num_recordings=len(recorded),
        figures={name: provenance["metrics"].get(name) for name in FIGURES},
        baselines=provenance["metrics"].get("baselines", {}),
        released=", ".join(describe_facts(provenance["released"], "released")),
    )


def _draw_map(data: RecordedData) -> dict[str, Any]:
    """Return marks in pixels of the page's map: sources by split, receivers, a scale bar."""
    where = ["source_latitude", "source_longitude"]
    sent = data.sessions[["source_id", "split"]].merge(data.sources[["source_id", *where]], on="source_id")
    first = sent.dropna(subset=where).drop_duplicates(where)
    places = [
        ((latitude, longitude), None if pd.isna(split) else split)
        for latitude, longitude, split in first[[*where, "split"]].itertuples(index=False)
    ]
    held = data.measurements[["receiver_latitude", "receiver_longitude"]].dropna().drop_duplicates()
    receivers = sorted(held.itertuples(index=False, name=None))
    shown, stations = places[:MAX_MAP_POINTS], receivers[:MAX_MAP_POINTS]
    degrees = np.array([place for place, _ in shown] + stations)
    if not len(degrees):
        return {"sources": [], "receivers": [], "width": MAP_WIDTH, "height": MAP_HEIGHT, "total": 0}
    frame = LocalFrame(*(0.5 * (degrees.min(axis=0) + degrees.max(axis=0))))
    east, north, _ = frame.to_local(degrees[:, 0], degrees[:, 1])
    span = max(float(np.ptp(east)) / (MAP_WIDTH - 60), float(np.ptp(north)) / (MAP_HEIGHT - 60), 1e-3)
    x = MAP_WIDTH / 2 + (east - 0.5 * (east.min() + east.max())) / span
    y = MAP_HEIGHT / 2 - (north - 0.5 * (north.min() + north.max())) / span
    step = 10.0 ** np.floor(np.log10(span * 200.0))
    count = len(shown)
    return {
        "sources": [
            {"x": round(float(x[i]), 1), "y": round(float(y[i]), 1), "colour": SPLIT_COLOURS.get(split, "#666666")}
            for i, (_, split) in enumerate(shown)
        ],
        "receivers": [
            {"x": round(float(a), 1), "y": round(float(b), 1)} for a, b in zip(x[count:], y[count:], strict=True)
        ],
        "width": MAP_WIDTH,
        "height": MAP_HEIGHT,
        "total": len(places),
        "bar": round(step / span, 1),
        "bar_label": f"{step / 1000:g} km" if step >= 1000 else f"{step:g} m",
        "colours": {name or "unused": colour for name, colour in SPLIT_COLOURS.items()},
    }


@cache
def _load_template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("heimdall_assets.lineage", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["show"] = show
    environment.filters["facts"] = lambda facts: ", ".join(describe_facts(facts)) or "-"
    return environment.get_template("page.html.jinja")
