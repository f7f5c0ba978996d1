"""Difference: what lies between two released models: data, settings, code, environment, figures."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from heimdall_assets.counts import say_count
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.lineage.environments import compare_environments
from heimdall_assets.lineage.provenance import find_facts
from heimdall_assets.lineage.recorded import RecordedData, compare_rows, list_rows

if TYPE_CHECKING:
    import pandas as pd

FIGURES = ("num_sessions", "num_refused", "median_m", "p90_m", "mean_m", "coverage_90", "nll", "ence", "mean_squared_z")


def diff_models(
    first: Mapping[str, Any], second: Mapping[str, Any], data: tuple[RecordedData, RecordedData]
) -> dict[str, Any]:
    """Return what changed from the first provenance to the second, JSON values; empty parts: nothing.

    Args:
        first, second: provenances.
        data: what each of them was made of.

    Returns:
        ``from``, ``to``: versions; ``data``: for sessions, measurements, sources and stations the ids ``added``,
        ``removed`` and ``changed`` (same id, other content; a session's split and approval are told apart below),
        ``moved`` sessions (id -> [split, split]), ``approved_anew`` (id -> [event, event]); ``settings``:
        ``Spec.field`` -> [value, value]; ``code``: asset -> [versions, versions]; ``environment``: in which they were
        trained; ``metrics``: figure -> first, second, difference.
    """
    old, new = data
    told = diff_provenances(first, second)
    return {
        "from": first["model"]["version"],
        "to": second["model"]["version"],
        "data": {
            "sessions": _diff_tables(old.sessions, new.sessions, "session_id", {"split", "site", *_APPROVAL}),
            "measurements": _diff_tables(old.measurements, new.measurements, "measurement_id"),
            "sources": _diff_tables(old.sources, new.sources, "source_id"),
            "stations": _diff_tables(old.stations, new.stations, "station_id"),
            "moved": _diff_column(old.sessions, new.sessions, "split"),
            "approved_anew": _diff_column(old.sessions, new.sessions, "approval_event_id"),
            "dataset": told.pop("dataset"),
        },
        **told,
    }


def diff_provenances(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changed beside the rows: ``dataset``, ``settings``, ``code``, ``environment``, ``metrics``."""
    return {
        "dataset": _diff_values(_flatten(first["database"], "dataset"), _flatten(second["database"], "dataset")),
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


def _diff_tables(
    first: "pd.DataFrame", second: "pd.DataFrame", key: str, aside: Collection[str] = ()
) -> dict[str, list[Any]]:
    """Return the keys of rows added, removed and changed; columns in ``aside``, or of one side only, do not count."""
    old, new = _align(first, second, key)
    changed = compare_rows(old, new, [str(name) for name in old if name not in aside]).any(axis=1)
    return {
        "added": second.loc[~second[key].isin(first[key]), key].tolist(),
        "removed": first.loc[~first[key].isin(second[key]), key].tolist(),
        "changed": old.index[changed].tolist(),
    }


def _diff_column(first: "pd.DataFrame", second: "pd.DataFrame", column: str) -> dict[str, list[Any]]:
    """Return session -> [then, now] of those whose value of a column is another."""
    old, new = _align(first, second, "session_id")
    changed = compare_rows(old, new, [column])[column]
    pairs = [list(list_rows(side.loc[changed, [column]])) for side in (old, new)]
    return {str(key): [then[column], now[column]] for key, then, now in zip(old.index[changed], *pairs, strict=True)}


def _align(first: "pd.DataFrame", second: "pd.DataFrame", key: str) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Return the rows whose key both have, in the order of the first, by key."""
    old = first[first[key].isin(second[key])].set_index(key)
    return old, second.set_index(key).loc[old.index]


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
