"""Report: a provenance and its data as a tree of text, or as one page that opens offline.

Belongs here: wording and drawing. The page is one file: styles inside, the map as inline SVG, no script, no address.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heimdall_assets.counts import say_count
from heimdall_assets.lineage.recorded import RecordedData, list_rows
from heimdall_assets.lineage.walk import OUTSIDE
from heimdall_assets.signals.geodesy import LocalFrame

if TYPE_CHECKING:
    from jinja2 import Template

MAX_TABLE_ROWS = 5000
MAX_MAP_POINTS = 2000
MAP_WIDTH, MAP_HEIGHT = 760.0, 460.0
SPLIT_COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#D55E00", None: "#666666"}
SHOWN = (
    "git_sha",
    "git_dirty",
    "code_sha256",
    "lock_sha256",
    "python",
    "system",
    "processor",
    "cpu_capability",
    "threads",
    "instruction_limits",
    "accelerator",
    "container",
)
"""Of an environment, in this order; packages and the processor's flags stand in the file."""

COLUMNS = ("source_id", "origin", "approved_by", "approved_at", "approval_reason")
"""Of the snapshot, besides its keys, what the tree tells."""

COMPUTED = "computed"
FIGURES = ("num_sessions", "median_m", "p90_m", "coverage_90", "median_error_over_bound")


def render_tree(provenance: Mapping[str, Any], data: RecordedData) -> str:
    """Return the way from the release back to the database as indented text, each manifest told once.

    Below it: who approved what and why, checks, seeds and environment.

    Args:
        provenance: of the release.
        data: with at least ``COLUMNS``.
    """
    told = [*_draw_tree(provenance, data), "", *_list_approvals(data), *_list_environment(provenance)]
    return "\n".join(told) + "\n"


def _draw_tree(provenance: Mapping[str, Any], data: RecordedData) -> list[str]:
    nodes = {node["digest"]: node for node in provenance["nodes"]}
    model = provenance["model"]
    lines = [f"{model['version']}  {_describe_data(data)}"]
    told: set[str] = set()
    roots = sorted(model["manifests"].items(), reverse=True)
    for place, (_, digest) in enumerate(roots):
        _draw_branch(lines, nodes, digest, told, "", place == len(roots) - 1)
    return lines


def render_html(provenance: Mapping[str, Any], data: RecordedData, provenance_digest: str | None = None) -> str:
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
        summary=_describe_data(data),
        tree="\n".join(_draw_tree(provenance, data)),
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


def _draw_branch(
    lines: list[str], nodes: Mapping[str, Mapping[str, Any]], digest: str, told: set[str], indent: str, is_last: bool
) -> None:
    node = nodes[digest]
    text = f"{indent}{'`-- ' if is_last else '|-- '}{node['kind']} {digest[:12]}"
    if digest in told:
        lines.append(f"{text} (above)")
        return
    told.add(digest)
    facts = [f"code {node['code_version']}", *_pick_counts(node["summary"])]
    facts += describe_facts(node["facts"])
    if node["event"] is not None:
        facts.append(f"Dagster event {node['event']['storage_id']}, run {node['event']['run_id'][:8]}")
    lines.append(f"{text}  ({', '.join(facts)})")
    deeper = indent + ("    " if is_last else "|   ")
    parents = sorted(node["parents"].items())
    for place, (name, parent) in enumerate(parents):
        last = place == len(parents) - 1
        if name in OUTSIDE:
            lines.append(f"{deeper}{'`-- ' if last else '|-- '}{name} {parent[:12]}  (fingerprint of the approved set)")
        else:
            _draw_branch(lines, nodes, parent, told, deeper, last)


def _list_approvals(data: RecordedData) -> list[str]:
    """Return one line for each who and why: of how many sessions, first and last time."""
    groups: dict[tuple[Any, Any], list[str]] = {}
    for row in list_rows(data.sessions[["approved_by", "approval_reason", "approved_at"]]):
        if row["approved_by"] is not None:
            groups.setdefault((row["approved_by"], row["approval_reason"]), []).append(str(row["approved_at"]))
    return [
        f"approved by {by}, {' to '.join(sorted({min(times), max(times)}))}: {say_count(len(times), 'session')}: {why}"
        for (by, why), times in groups.items()
    ]


def describe_facts(facts: Mapping[str, Any] | None, done: str = COMPUTED) -> list[str]:
    """Return when, by whom or what, why and under which environment something was computed; empty: not known."""
    if facts is None:
        return []
    took = f" in {facts['duration_s']:.1f} s" if done == COMPUTED else ""  # a release says so while it is made
    told = [f"{done} {facts['started_at'][:19]}Z{took}", f"by {facts['started_by']}"]
    told += [f"because {facts['reason']}"] if facts["reason"] else []
    return [*told, f"environment {facts['environment'][:12]}"]


def describe_environment(environment: Mapping[str, Any]) -> str:
    """Return in one line what somebody asks first of an environment; the packages are counted."""
    known = {name: value for name, value in environment.items() if name in SHOWN and value not in (None, {}, [])}
    parts = [f"{name} {_show(known[name])}" for name in SHOWN if name in known]
    return ", ".join([*parts, say_count(len(environment["packages"]), "package")])


def _list_environment(provenance: Mapping[str, Any]) -> list[str]:
    """Return checks, seeds, the release's facts and every environment, one line each."""
    failed = [f"{check['asset']} {check['name']}" for check in provenance["checks"] if not check["passed"]]
    parts = {
        "checks": f"{len(provenance['checks'])} evaluated, {', '.join(failed) or 'none'} failed",
        "seeds": ", ".join(f"{name} {value}" for name, value in provenance["seeds"].items()),
    }
    environments = [
        f"environment {digest[:12]}: {describe_environment(environment)}"
        for digest, environment in sorted(provenance["environments"].items())
    ]
    released = ", ".join(describe_facts(provenance["released"], "released"))
    return [*(f"{name}: {text}" for name, text in parts.items() if text), released, *environments]


def _pick_counts(summary: Mapping[str, Any]) -> list[str]:
    """Return what a stage counted, as ``num_sessions`` and the like name it; one of them is no plural."""
    counts = [(name, value) for name, value in sorted(summary.items()) if name.startswith("num_")]
    words = {name: name.removeprefix("num_").split("_") for name, _ in counts}
    return [
        f"{value} {' '.join(word.removesuffix('s') if value == 1 else word for word in words[name])}"
        for name, value in counts
        if isinstance(value, int)
    ]


def _describe_data(data: RecordedData) -> str:
    splits, origins = (Counter(data.sessions[name].fillna(stand_in)) for name, stand_in in
                       (("split", "unused"), ("origin", "unknown")))  # fmt: skip
    people = sorted(data.sessions["approved_by"].dropna().unique())
    parts = [
        f"{say_count(len(data.sessions), 'session')} ("
        + ", ".join(f"{count} {name}" for name, count in sorted(splits.items()))
        + ")",
        ", ".join(f"{count} {name}" for name, count in sorted(origins.items())),
        f"{say_count(len(data.measurements), 'measurement')} of {say_count(len(data.stations), 'station')}",
    ]
    return "; ".join([*parts, f"approved by {', '.join(people)}"] if people else parts)


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
    environment.filters["show"] = _show
    environment.filters["facts"] = lambda facts: ", ".join(describe_facts(facts)) or "-"
    return environment.get_template("report.html.jinja")


def _show(value: Any) -> str:
    """Return a value fit for a cell."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={inner}" for name, inner in value.items()) or "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
