"""Released: what every export is made of, and what several of them say in the same way.

Belongs here: the frozen evidence, and reading numbers, times, packages and names off it. Does not belong here: a format
(each has a module of its own), reading files and objects (``pipeline.releases.reading``).
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES, SPLIT_KINDS
from heimdall_assets.lineage.tree import Decisions

URN = "urn:heimdall-assets"
"""What names begin with that nobody else gives."""

DATA_KINDS = (APPROVED_MEASUREMENTS, IQ_FILES, *SPLIT_KINDS.values())
"""Kinds of results whose tables and listings are the data behind a model."""


@dataclass(frozen=True)
class Released:
    """The frozen evidence of one release.

    Attributes:
        provenance: ``provenance.json``.
        files: name of each of its files -> SHA-256.
        decisions: what approved each session behind it.
        tables: digest of each table that a manifest names -> its columns -> their type in Arrow's words.
    """

    provenance: Mapping[str, Any]
    files: Mapping[str, str]
    decisions: Decisions
    tables: Mapping[str, Mapping[str, str]]

    @property
    def version(self) -> str:
        """The number of the release."""
        return str(self.provenance["model"]["version"])

    @property
    def nodes(self) -> dict[str, Mapping[str, Any]]:
        """Kind -> the node of that kind: each stands behind a model once."""
        return {node["kind"]: node for node in self.provenance["nodes"]}

    def list_data(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Return kind, name and artifact of each table and listing of the data behind the model."""
        nodes = self.nodes
        return [
            (kind, name, artifact)
            for kind in DATA_KINDS
            if kind in nodes
            for name, artifact in nodes[kind]["artifacts"].items()
        ]

    def find_environment(self, facts: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return what a computation ran under; empty: nobody kept its facts."""
        found: Mapping[str, Any] = {} if facts is None else self.provenance["environments"][facts["environment"]]
        return found


def encode_document(value: Any) -> bytes:
    """Return indented JSON of ASCII alone, so that a terminal and a file get the same bytes."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def make_uuid(*parts: str) -> str:
    """Return the UUID that these names always have (RFC 9562, version 5)."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, ":".join([URN, *parts])))


def compute_end(facts: Mapping[str, Any]) -> datetime:
    """Return when a computation was done: its start and its duration."""
    return datetime.fromisoformat(facts["started_at"]) + timedelta(seconds=facts["duration_s"])


def split_packages(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and version of each package of an environment."""
    for package in environment.get("packages", ()):
        name, _, version = package.partition("==")
        yield name, version


def list_figures(metrics: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield each number of ``metrics.json`` with the keys that lead to it; lists hold curves, and are left out.

    Examples:
        >>> list(list_figures({"median_m": 3.5, "baselines": {"centre": {"num_sessions": 2}}, "worse_than": []}))
        [(('median_m',), 3.5), (('baselines', 'centre', 'num_sessions'), 2)]
    """
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from (((name, *keys), number) for keys, number in list_figures(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (name,), value


def show_number(value: Any) -> str:
    """Return a number, or another setting, as JSON writes it: nothing is rounded."""
    return value if isinstance(value, str) else json.dumps(value)
