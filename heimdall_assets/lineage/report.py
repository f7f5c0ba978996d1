"""Report: a provenance as a tree of text, or as one page that opens offline.

Belongs here: wording and drawing. The page is one file: styles inside, the map as inline SVG, no script, no address.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from heimdall_assets.counts import say_count
from heimdall_assets.lineage.frozen import index_rows, iterate_rows
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

COMPUTED = "computed"
FIGURES = ("num_sessions", "median_m", "p90_m", "coverage_90", "median_error_over_bound")


def render_tree(provenance: Mapping[str, Any]) -> str:
    """Return the way from the release back to the database as indented text, each manifest told once.

    Below it: who approved what and why, checks, seeds and environment.
    """
    return "\n".join([*_draw_tree(provenance), "", *_list_approvals(provenance), *_list_environment(provenance)]) + "\n"


def _draw_tree(provenance: Mapping[str, Any]) -> list[str]:
    nodes = {node["digest"]: node for node in provenance["nodes"]}
    model = provenance["model"]
    lines = [f"{model['version']}  {_describe_data(provenance)}"]
    told: set[str] = set()
    roots = sorted(model["manifests"].items(), reverse=True)
    for place, (_, digest) in enumerate(roots):
        _draw_branch(lines, nodes, digest, told, "", place == len(roots) - 1)
    return lines


def render_html(provenance: Mapping[str, Any], provenance_digest: str | None = None) -> str:
    """Return one self-contained page: tree, map, sessions with their approvals, settings, environment, figures.

    Everything that comes from outside is escaped. At most ``MAX_TABLE_ROWS`` rows of a table are shown; the page says
    of how many.
    """
    heard = Counter(row["session_id"] for row in iterate_rows(provenance["measurements"]))
    recorded = Counter(row["session_id"] for row in iterate_rows(provenance["measurements"]) if row["iq_digest"])
    sources = index_rows(provenance["sources"], "source_id")
    sessions = [
        {
            **row,
            "source": sources.get(row["source_id"], {}).get("source_name"),
            "num_measurements": heard[row["session_id"]],
            "num_recordings": recorded[row["session_id"]],
        }
        for row in iterate_rows(provenance["sessions"])
    ]
    return _load_template().render(
        provenance=provenance,
        digest=provenance_digest,
        summary=_describe_data(provenance),
        tree="\n".join(_draw_tree(provenance)),
        map=_draw_map(provenance),
        sessions=sessions[:MAX_TABLE_ROWS],
        num_sessions=len(sessions),
        stations=list(iterate_rows(provenance["stations"])),
        left_out=list(iterate_rows(provenance["left_out"]))[:MAX_TABLE_ROWS],
        num_left_out=len(provenance["left_out"]["rows"]),
        recordings=[row for row in iterate_rows(provenance["measurements"]) if row["iq_digest"]][:MAX_TABLE_ROWS],
        num_recordings=sum(recorded.values()),
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


def _list_approvals(provenance: Mapping[str, Any]) -> list[str]:
    """Return one line for each who and why: of how many sessions, first and last time."""
    groups: dict[tuple[Any, Any], list[str]] = {}
    for row in iterate_rows(provenance["sessions"]):
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


def _describe_data(provenance: Mapping[str, Any]) -> str:
    splits = Counter(row["split"] or "unused" for row in iterate_rows(provenance["sessions"]))
    origins = Counter(row["origin"] for row in iterate_rows(provenance["sessions"]))
    people = sorted({str(row["approved_by"]) for row in iterate_rows(provenance["sessions"]) if row["approved_by"]})
    parts = [
        f"{say_count(len(provenance['sessions']['rows']), 'session')} ("
        + ", ".join(f"{count} {name}" for name, count in sorted(splits.items()))
        + ")",
        ", ".join(f"{count} {name}" for name, count in sorted(origins.items())),
        f"{say_count(len(provenance['measurements']['rows']), 'measurement')} of "
        f"{say_count(len(provenance['stations']['rows']), 'station')}",
    ]
    return "; ".join([*parts, f"approved by {', '.join(people)}"] if people else parts)


def _draw_map(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return marks in pixels of the page's map: sources by split, receivers, a scale bar."""
    sources = index_rows(provenance["sources"], "source_id")
    places: dict[tuple[float, float], str | None] = {}
    for row in iterate_rows(provenance["sessions"]):
        source = sources.get(row["source_id"], {})
        if source.get("source_latitude") is not None and source.get("source_longitude") is not None:
            places.setdefault((source["source_latitude"], source["source_longitude"]), row["split"])
    receivers = sorted(
        {
            (row["receiver_latitude"], row["receiver_longitude"])
            for row in iterate_rows(provenance["measurements"])
            if row["receiver_latitude"] is not None and row["receiver_longitude"] is not None
        }
    )
    shown, stations = list(places.items())[:MAX_MAP_POINTS], receivers[:MAX_MAP_POINTS]
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
