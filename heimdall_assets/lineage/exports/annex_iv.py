"""Annex IV: for each item of the technical documentation that the EU asks for, what a release shows, as Markdown.

Belongs here: evidence by file or object with its SHA-256, and what no release can say and a person must write. Does not
belong here: any claim that the regulation applies, or is met.

Source: Regulation (EU) 2024/1689, Annex IV, "Technical documentation referred to in Article 11(1)".
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, EVALUATION_METRICS, TEST_SPLIT
from heimdall_assets.lineage.attestations import BUNDLE_FILE
from heimdall_assets.lineage.exports.released import Released, list_figures, show_number
from heimdall_assets.lineage.findings import PROVENANCE_FILE
from heimdall_assets.lineage.release_files import SUMS_FILE
from heimdall_assets.lineage.tree import describe_approvals

PERSON = "A person must write this"
METRICS_FILE = "metrics.json"

_MACHINE = ("system", "machine", "processor", "cpu_capability", "num_processors", "accelerator", "container")
"""Of an environment: what it was computed on."""

_COMPARED = ("median_m", "p90_m", "coverage_90")
"""Of the figures of each other method: those that are told here."""

_HEAD = """# Annex IV of Regulation (EU) 2024/1689: what model {version} shows

For each item of Annex IV: the evidence that the release holds, with the SHA-256 of the file or object, and what a
person must write. The items are told in short; the words of the regulation count. This is no technical documentation
by itself and claims nothing: whether the regulation applies, and whether it is met, stands in no file of a release.

Files lie in the release, objects in the store under their SHA-256; `heimdall verify {version}` hashes them again.
"""


def encode_annex_iv(released: Released) -> bytes:
    """Return the dossier, Markdown in UTF-8."""
    parts = [_HEAD.format(version=_escape(released.version))]
    for number, (asked, find, missing) in ITEMS.items():
        if number in _SECTIONS:
            parts.append(f"## {_SECTIONS[number]}\n")
        found = [] if find is None else find(released)
        said = f"{PERSON}: {missing}." if found else f"{PERSON}: the release holds no evidence of it."
        parts.append("\n".join([f"### {number} {asked}\n", *found, *([""] if found else []), f"{said}\n"]))
    return "\n".join(parts).encode()


def _show_version(released: Released) -> list[str]:
    return [_file(released, PROVENANCE_FILE, f"version {released.version}"), *_show_log(released)]


def _show_log(released: Released) -> list[str]:
    log = released.provenance["log"]
    told = (
        "no log was kept" if log is None else f"the log of decisions and releases before it has {log['size']} entries"
    )
    return [_file(released, PROVENANCE_FILE, told)]


def _show_software(released: Released) -> list[str]:
    lines = []
    for kinds, environment in _list_environments(released):
        known = [f"{name} {environment.get(name) or 'not kept'}" for name in ("python", "git_sha")]
        packages = f"{say_count(len(environment['packages']), 'package')} by name and version"
        lines.append(_file(released, PROVENANCE_FILE, f"{kinds}: {', '.join([*known, packages])}"))
    return lines


def _show_machines(released: Released) -> list[str]:
    lines = []
    for kinds, environment in _list_environments(released):
        known = {name: environment.get(name) for name in _MACHINE}
        told = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
        lines.append(_file(released, PROVENANCE_FILE, f"{kinds}: {told or 'nothing was kept'}"))
    return lines


def _show_forms(released: Released) -> list[str]:
    return [_file(released, "model.onnx", "the model, an ONNX file")]


def _show_card(released: Released) -> list[str]:
    return [_file(released, "README.md", "the model card")]


def _show_steps(released: Released) -> list[str]:
    lines = []
    for node in released.provenance["nodes"]:
        told = f"code version {node['code_version']}, from {' and '.join(node['parents'])}"
        facts = node["facts"]
        if facts is not None:
            told += f", computed {facts['started_at']} in {facts['duration_s']} s, started by {facts['started_by']}"
        lines.append(_manifest(node, told))
    return lines


def _show_settings(released: Released) -> list[str]:
    config = "config.yaml"
    lines = [_file(released, config, "every setting")] if config in released.files else []
    seeds = ", ".join(f"{name} {value}" for name, value in released.provenance["seeds"].items())
    return [*lines, _file(released, PROVENANCE_FILE, f"every setting under specs; seeds: {seeds or 'none'}")]


def _show_data(released: Released) -> list[str]:
    snapshot = released.nodes[APPROVED_MEASUREMENTS]
    counts = [f"{name} {value}" for name, value in snapshot["summary"].items() if isinstance(value, int)]
    lines = [_manifest(snapshot, ", ".join(counts))]
    lines += [_object(f"{kind}/{name}", artifact["digest"], artifact["media_type"])
              for kind, name, artifact in released.list_data()]  # fmt: skip
    return [*lines, *(f"- {_escape(line)}" for line in describe_approvals(released.decisions))]


def _show_tests(released: Released) -> list[str]:
    nodes = released.nodes
    lines = [
        _object(f"{kind}/{name}", artifact["digest"], artifact["media_type"])
        for kind in (TEST_SPLIT, EVALUATION_METRICS)
        if kind in nodes
        for name, artifact in nodes[kind]["artifacts"].items()
    ]
    checks = released.provenance["checks"]
    failed = [f"{check['asset']} {check['name']}" for check in checks if not check["passed"]]
    told = f"{say_count(len(checks), 'check')} evaluated; failed: {', '.join(failed) or 'none'}"
    return [*lines, _file(released, PROVENANCE_FILE, told), *_show_signatures(released)]


def _show_signatures(released: Released) -> list[str]:
    if BUNDLE_FILE not in released.files:
        return ["- the release is not signed"]
    return [_file(released, BUNDLE_FILE, "signatures over the files of the release")]


def _show_integrity(released: Released) -> list[str]:
    return [_file(released, SUMS_FILE, "SHA-256 of every other file"), *_show_signatures(released)]


def _show_figures(released: Released) -> list[str]:
    rows = [
        f"| {_escape(' '.join(keys))} | {show_number(number)} |"
        for keys, number in list_figures(released.provenance["metrics"])
        if len(keys) == 1 or (keys[0] in ("baselines", "bound") and keys[-1] in _COMPARED)
    ]
    told = "figures on the test split, m in metres; the table holds some of them"
    return [_file(released, METRICS_FILE, told), "", "| figure | value |", "|---|---|", *rows]


def _show_metrics(released: Released) -> list[str]:
    return [_file(released, METRICS_FILE, "the figures that were computed, the table under 3 among them")]


def _list_environments(released: Released) -> list[tuple[str, Mapping[str, Any]]]:
    """Return each environment with the kinds of results that were computed under it."""
    kinds: dict[str, list[str]] = {}
    for node in released.provenance["nodes"]:
        if node["facts"] is not None:
            kinds.setdefault(node["facts"]["environment"], []).append(node["kind"])
    return [(", ".join(names), released.provenance["environments"][digest]) for digest, names in kinds.items()]


def _file(released: Released, name: str, told: str) -> str:
    return f"- file `{name}`, SHA-256 `{released.files[name]}`: {_escape(told)}"


def _manifest(node: Mapping[str, Any], told: str) -> str:
    return _object(f"manifest of {node['kind']}", node["digest"], told)


def _object(name: str, digest: str, told: str) -> str:
    return f"- object `{name}`, SHA-256 `{digest}`: {_escape(told)}"


def _escape(text: str) -> str:
    """Return ``text`` as Markdown that shows it as it is; what no printer prints stands as Python writes it."""
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", shown)


_SECTIONS = {
    "1 (a)": "1. General description",
    "2 (a)": "2. Elements and development",
    "3": "3. Monitoring, functioning and control",
    "4": "4. to 9. Metrics, risks, changes, standards, declaration, monitoring after release",
}
"""Item -> the heading before it."""

ITEMS: dict[str, tuple[str, Callable[[Released], list[str]] | None, str]] = {
    "1 (a)": (
        "Intended purpose, provider, version and its relation to earlier ones", _show_version,
        "the intended purpose, the name of the provider, how this version relates to earlier ones",
    ),
    "1 (b)": ("Interaction with hardware, software and other AI systems", None, ""),
    "1 (c)": (
        "Versions of software and firmware, requirements of updates", _show_software,
        "what is needed where it runs, and what updates require",
    ),
    "1 (d)": (
        "Forms in which it is placed on the market or put into service", _show_forms,
        "in which of these forms, and others, it is supplied",
    ),
    "1 (e)": ("Hardware on which it is intended to run", None, ""),
    "1 (f)": ("Photographs or illustrations of the products it is part of", None, ""),
    "1 (g)": ("User interface provided to the deployer", None, ""),
    "1 (h)": (
        "Instructions for use for the deployer", _show_card,
        "the instructions for use, where the card is not enough",
    ),
    "2 (a)": (
        "Methods and steps of development, pre-trained systems and tools of others", _show_steps,
        "why these steps, and how what others trained or made was used",
    ),
    "2 (b)": (
        "Design specifications: logic, choices, what is optimised, expected output, trade-offs", _show_settings,
        "the logic, the reasons of each choice, its assumptions and trade-offs",
    ),
    "2 (c)": (
        "Architecture, and computational resources of development, training and testing", _show_machines,
        "how its parts work together",
    ),
    "2 (d)": (
        "Data: origin, scope, characteristics, selection, labelling, cleaning", _show_data,
        "how the data were obtained, labelled and cleaned, and what they do not cover",
    ),
    "2 (e)": ("Human oversight: measures needed by Article 14", None, ""),
    "2 (f)": ("Pre-determined changes to the system and its performance", None, ""),
    "2 (g)": (
        "Validation and testing: data, metrics, logs, dated and signed reports", _show_tests,
        "the procedures, potentially discriminatory impacts, and reports that are dated and signed",
    ),
    "2 (h)": ("Cybersecurity measures", _show_integrity, "every measure besides: these show changes of files alone"),
    "3": (
        "Capabilities and limits, accuracy, unintended outcomes, oversight, input data", _show_figures,
        "what these figures mean for the intended purpose, limits, risks, oversight, what input is needed",
    ),
    "4": ("Why the metrics are appropriate", _show_metrics, "why they fit the intended purpose"),
    "5": ("Risk management system of Article 9", None, ""),
    "6": ("Relevant changes through the lifecycle", _show_log, "which changes were relevant, and why"),
    "7": ("Harmonised standards applied, or other solutions", None, ""),
    "8": ("Copy of the EU declaration of conformity", None, ""),
    "9": ("System that evaluates performance after release, and its plan (Article 72)", None, ""),
}  # fmt: skip
"""Item of Annex IV -> what it asks for in short, what the release shows of it, and what that leaves to a person."""
