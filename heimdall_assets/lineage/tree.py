"""Tree: a provenance as text, from the release back to the database, and who approved what behind it."""

from collections.abc import Collection, Mapping
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    HYPERPARAMETER_SEARCH,
    ONNX_MODEL,
    SPLIT_KINDS,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.lineage.walk import BESIDE, FOUND_BY, JUDGED_MODEL, OUTSIDE, START_FROM

_BESIDE_SAID = {
    START_FROM: f"started from {TRAINED_CHECKPOINT}",
    FOUND_BY: f"settings found by {HYPERPARAMETER_SEARCH}",
    JUDGED_MODEL: f"judged {ONNX_MODEL}",
}

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

Decisions = Mapping[int, Mapping[str, Any]]
"""Number -> entry of the log, of what approved each session (``listings.decode_decisions``)."""


def render_tree(provenance: Mapping[str, Any], decisions: Decisions) -> str:
    """Return the way from the release back to the database as indented text, each manifest told once.

    Below it: who approved what and why, checks, seeds and environment.
    """
    told = [*draw_branches(provenance), "", *describe_approvals(decisions), *_list_environment(provenance)]
    said = describe_data(provenance, {str(entry["decided_by"]) for entry in decisions.values()})
    return f"{provenance['model']['version']}  {said}\n" + "\n".join(told) + "\n"


def draw_branches(provenance: Mapping[str, Any]) -> list[str]:
    """Return a line for each manifest on the way back, indented, those of the release first."""
    nodes = {node["digest"]: node for node in provenance["nodes"]}
    lines: list[str] = []
    told: set[str] = set()
    roots = sorted(provenance["model"]["manifests"].items(), reverse=True)
    for place, (_, digest) in enumerate(roots):
        _draw_branch(lines, nodes, digest, told, "", place == len(roots) - 1)
    return lines


def describe_data(provenance: Mapping[str, Any], people: Collection[str]) -> str:
    """Return in one line how much a model was made of, as its manifests counted it, and who approved it: ``people``."""
    summaries = {node["kind"]: node["summary"] for node in provenance["nodes"]}
    snapshot = summaries[APPROVED_MEASUREMENTS]
    splits = {name: summaries[kind]["num_sessions"] for name, kind in SPLIT_KINDS.items() if kind in summaries}
    unused = snapshot["num_sessions"] - sum(splits.values())
    splits |= {"unused": unused} if unused else {}
    parts = [
        f"{say_count(snapshot['num_sessions'], 'session')} ({_list_counts(splits)})",
        _list_counts(snapshot["sessions_by_origin"]),
        f"{say_count(snapshot['num_measurements'], 'measurement')} of {say_count(snapshot['num_stations'], 'station')}",
    ]
    return "; ".join([*parts, f"approved by {', '.join(sorted(people))}"] if people else parts)


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


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
    beside = [(name, node["content"][name]) for name in BESIDE if name in node["content"]]
    for place, (name, parent) in enumerate(parents):
        last = place == len(parents) - 1 and not beside
        if name in OUTSIDE:
            lines.append(f"{deeper}{'`-- ' if last else '|-- '}{name} {parent[:12]}  (fingerprint of the approved set)")
        else:
            _draw_branch(lines, nodes, parent, told, deeper, last)
    for place, (name, digest) in enumerate(beside):
        lines.append(f"{deeper}{'`-- ' if place == len(beside) - 1 else '|-- '}{_BESIDE_SAID[name]} {digest}")


def describe_approvals(decisions: Decisions) -> list[str]:
    """Return one line for each who and why: of how many sessions, first and last time."""
    groups: dict[tuple[Any, Any], list[str]] = {}
    for entry in decisions.values():
        groups.setdefault((entry["decided_by"], entry["reason"]), []).append(str(entry["decided_at"]))
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
    told += [f"profile {facts['profile']}"] if "profile" in facts else []
    return [*told, f"environment {facts['environment'][:12]}"]


def describe_environment(environment: Mapping[str, Any]) -> str:
    """Return in one line what somebody asks first of an environment; the packages are counted."""
    known = {name: value for name, value in environment.items() if name in SHOWN and value not in (None, {}, [])}
    parts = [f"{name} {show(known[name])}" for name in SHOWN if name in known]
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


def show(value: Any) -> str:
    """Return a value fit for a cell."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={inner}" for name, inner in value.items()) or "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
