"""Difference: what lies between two released models: data, settings, code, environment, figures."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.lineage.environments import compare_environments
from heimdall_assets.lineage.frozen import FrozenTable, index_rows
from heimdall_assets.lineage.provenance import find_facts

FIGURES = ("num_sessions", "num_refused", "median_m", "p90_m", "mean_m", "coverage_90", "nll", "ence", "mean_squared_z")


def diff_models(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changed from the first provenance to the second, JSON values; empty parts: nothing.

    Returns:
        ``from``, ``to``: versions; ``data``: for sessions, measurements, sources and stations the ids ``added``,
        ``removed`` and ``changed`` (same id, other content; a session's split and approval are told apart below),
        ``moved`` sessions (id -> [split, split]), ``approved_anew`` (id -> [event, event]); ``settings``:
        ``Spec.field`` -> [value, value]; ``code``: asset -> [versions, versions]; ``environment``: in which they were
        trained; ``metrics``: figure -> first, second, difference.
    """
    sessions = [index_rows(provenance["sessions"], "session_id") for provenance in (first, second)]
    both = [name for name in sessions[0] if name in sessions[1]]
    return {
        "from": first["model"]["version"],
        "to": second["model"]["version"],
        "data": {
            "sessions": _diff_rows(sessions[0], sessions[1], {"split", "site", *_APPROVAL}),
            "measurements": _diff_tables(first["measurements"], second["measurements"], "measurement_id"),
            "sources": _diff_tables(first["sources"], second["sources"], "source_id"),
            "stations": _diff_tables(first["stations"], second["stations"], "station_id"),
            "moved": _diff_column(sessions, both, "split"),
            "approved_anew": _diff_column(sessions, both, "approval_event_id"),
            "dataset": _diff_values(_flatten(first["database"], "dataset"), _flatten(second["database"], "dataset")),
        },
        "settings": _diff_values(_flatten_specs(first), _flatten_specs(second)),
        "code": _diff_values(_list_code(first), _list_code(second)),
        "environment": compare_environments(*(_find_environment(provenance) for provenance in (first, second))),
        "metrics": _diff_metrics(first["metrics"], second["metrics"]),
    }


def render_difference(difference: Mapping[str, Any]) -> str:
    """Return a difference as text, a few lines."""
    lines = [f"{difference['from']} -> {difference['to']}"]
    data = difference["data"]
    for name in ("sessions", "measurements", "sources", "stations"):
        counts = [f"{len(data[name][part])} {part}" for part in ("added", "removed", "changed") if data[name][part]]
        lines.append(f"  {name}: {', '.join(counts) or 'the same'}")
    if data["moved"]:
        ways = Counter(" -> ".join(map(str, way)) for way in data["moved"].values())
        lines.append(
            "  moved: " + ", ".join(f"{say_count(count, 'session')} {way}" for way, count in sorted(ways.items()))
        )
    if data["approved_anew"]:
        lines.append(f"  approved anew: {say_count(len(data['approved_anew']), 'session')}")
    for part in ("settings", "code", "environment"):
        lines += [f"  {part}: {name}: {old} -> {new}" for name, (old, new) in difference[part].items()]
    for name, row in difference["metrics"].items():
        change = "" if row["difference"] is None else f" ({row['difference']:+.4g})"
        lines.append(f"  {name}: {_show(row['first'])} -> {_show(row['second'])}{change}")
    return "\n".join(lines) + "\n"


_APPROVAL = ("approval_event_id", "approved_by", "approved_at", "approval_reason")


def _diff_tables(first: FrozenTable, second: FrozenTable, key: str) -> dict[str, list[Any]]:
    return _diff_rows(index_rows(first, key), index_rows(second, key), set())


def _diff_rows(
    first: Mapping[Any, Mapping[str, Any]], second: Mapping[Any, Mapping[str, Any]], aside: set[str]
) -> dict[str, list[Any]]:
    """Return the keys of rows added, removed and changed; columns in ``aside``, or of one side only, do not count."""

    def differ(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        return any(old[name] != new[name] for name in old if name in new and name not in aside)

    return {
        "added": [key for key in second if key not in first],
        "removed": [key for key in first if key not in second],
        "changed": [key for key in first if key in second and differ(first[key], second[key])],
    }


def _diff_column(sides: list[dict[Any, dict[str, Any]]], keys: list[Any], column: str) -> dict[str, list[Any]]:
    values = {key: [side[key][column] for side in sides] for key in keys}
    return {key: pair for key, pair in values.items() if pair[0] != pair[1]}


def _diff_values(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = sorted({*first, *second})
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}


def _flatten(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return holder.get(name) or {}


def _flatten_specs(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{field}": value for name, fields in provenance["specs"].items() for field, value in fields.items()}


def _find_environment(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    facts = find_facts(provenance, TRAINED_CHECKPOINT)
    return None if facts is None else facts["environment"]


def _list_code(provenance: Mapping[str, Any]) -> dict[str, str]:
    return {node["kind"]: node["code_version"] for node in provenance["nodes"]}


def _diff_metrics(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    rows = {}
    for name in FIGURES:
        old, new = first.get(name), second.get(name)
        if old is not None or new is not None:
            change = new - old if old is not None and new is not None else None
            rows[name] = {"first": old, "second": new, "difference": change}
    return rows


def _show(value: Any) -> str:
    return "-" if value is None else f"{value:.5g}"
