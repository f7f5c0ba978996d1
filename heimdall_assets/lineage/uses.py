"""Uses: the digest of every object that a release hangs on, as its provenance lists them."""

from collections.abc import Iterable, Mapping
from typing import Any


def list_digests(provenance: Mapping[str, Any], recordings: Iterable[str]) -> set[str]:
    """Return the digest of every object that a release hangs on: manifests, what they hold, shards, recordings."""
    return {*recordings, *(digest for node in provenance["nodes"] for digest in _list_held(node))}


def _list_held(node: Mapping[str, Any]) -> set[str]:
    held = {artifact["digest"] for artifact in node["artifacts"].values()}
    return {node["digest"], *held, *node["summary"].get("shards", [])}
