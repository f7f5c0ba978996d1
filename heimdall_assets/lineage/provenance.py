"""Provenance: everything a model came from, frozen in one self-contained JSON file beside it.

Belongs here: building and checking the file. Its format is ``provenance.schema.json``. It needs no store, database or
event log to be read; those are compared with it (``audit``), not the other way round.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pandas as pd

from heimdall_assets.domain import SNAPSHOT
from heimdall_assets.errors import CorruptObject, Refused
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, EVALUATION_METRICS, IQ_FILES, SPLIT_KINDS
from heimdall_assets.lineage.frozen import FrozenTable, freeze_rows, freeze_table, index_rows, iterate_rows
from heimdall_assets.lineage.walk import OUTSIDE, Node, ReadBytes, list_parents, walk_manifests
from heimdall_assets.manifests import Manifest, compute_json_digest, decode_canonical_json

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

FORMAT = "heimdall-provenance/2"

DecodeTable = Callable[[bytes], pd.DataFrame]
"""Parquet bytes -> table."""

Facts = Mapping[str, Any]
"""Who or what computed something, why, when, how long, by which run, in which ``environment``."""

TABLES = ("sessions", "sources", "stations", "measurements", "left_out")

_FROZEN_AS = {
    "recording_sessions": "sessions",
    "known_sources": "sources",
    "websdr_stations": "stations",
    "measurements": "measurements",
}
"""Table of the database -> the frozen table that holds its columns."""


def build_provenance(
    *,
    version: str,
    roots: Mapping[str, str],
    read_bytes: ReadBytes,
    decode_table: DecodeTable,
    approval_events: Iterable[Mapping[str, Any]],
    read_facts: Callable[[str], Facts | None],
    released: Facts,
    log: Mapping[str, Any] | None = None,
    checks: Sequence[Mapping[str, Any]] = (),
    dagster_events: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the provenance of a release, JSON values, valid by ``provenance.schema.json``.

    Args:
        version: of the release.
        roots: asset name -> digest of the manifests it is made of (``onnx_model``, ``evaluation_metrics``).
        read_bytes: digest -> verified bytes.
        decode_table: reads the tables that manifests point at.
        approval_events: rows of the ledger; those of the sessions in the snapshot are kept.
        read_facts: manifest digest -> facts of the computation that gave it; None: nobody kept them.
        released: facts of the release itself.
        log: checkpoint of the log of decisions and releases: ``log``, ``size``, ``root``; None: there is none.
        checks: asset, name, passed, severity, description of each asset check that was evaluated.
        dagster_events: manifest digest -> asset, storage_id, run_id of the materialization; None: made without Dagster.

    Raises:
        Refused: the roots come from more than one snapshot: a model and its figures that do not belong together.
        CorruptObject: something on the way is damaged.
        NotFound: something on the way is missing.
    """
    nodes = walk_manifests(roots.values(), read_bytes)
    tables = freeze_tables(nodes, read_bytes, decode_table)
    sessions = index_rows(tables["sessions"], "session_id")
    kept = sorted((event for event in approval_events if event["recording_session_id"] in sessions), key=_event_number)
    specs: dict[str, Any] = {}
    for node in nodes:
        specs.update(node.manifest.specs)
    events = dagster_events or {}
    environments: dict[str, Any] = {}
    facts = {node.digest: _share_environment(read_facts(node.digest), environments) for node in nodes}
    provenance: dict[str, Any] = {
        "format": FORMAT,
        "model": {"version": version, "manifests": dict(roots), "artifacts": _list_root_artifacts(nodes, roots)},
        "database": _describe_database(nodes),
        "nodes": [
            {**node.describe(), "facts": facts[node.digest], "event": _pick_event(events.get(node.digest))}
            for node in nodes
        ],
        **tables,
        "approvals": freeze_rows(kept, list_columns("approvals")),
        "specs": specs,
        "seeds": _collect_seeds(specs),
        "log": None if log is None else dict(log),
        "released": _share_environment(released, environments),
        "environments": environments,
        "checks": [dict(check) for check in checks],
        "metrics": _read_metrics(nodes, read_bytes),
    }
    check_format(provenance)
    return provenance


def freeze_tables(nodes: Sequence[Node], read_bytes: ReadBytes, decode_table: DecodeTable) -> dict[str, FrozenTable]:
    """Return ``TABLES`` as the objects behind the manifests hold them.

    Raises:
        Refused: the nodes come from more than one snapshot.
        CorruptObject: a manifest does not name its table.
    """

    def load(kind: str, name: str) -> pd.DataFrame | None:
        found = [node for node in nodes if node.manifest.kind == kind]
        if len(found) > 1:
            raise Refused(f"{kind}: found {len(found)} of them behind one model, expected one: train and judge again")
        if found and name not in found[0].manifest.artifacts:
            raise CorruptObject(f"{kind} {found[0].digest}: found no artifact {name}, expected the table it stands for")
        return decode_table(read_bytes(found[0].manifest.artifacts[name].digest)) if found else None

    approved = load(APPROVED_MEASUREMENTS, "table")
    if approved is None:
        raise Refused("approved_measurements: found none behind the model, expected one snapshot")
    measurements = _join_recordings(approved, load(IQ_FILES, "table"))
    parts = [load(kind, "table") for kind in SPLIT_KINDS.values()]
    splits = pd.concat([part for part in parts if part is not None], ignore_index=True) if any(
        part is not None for part in parts
    ) else pd.DataFrame({"session_id": pd.Series(dtype="string")})  # fmt: skip
    sessions = approved.drop_duplicates("session_id").merge(
        splits[[name for name in ("session_id", "split", "site") if name in splits]], on="session_id", how="left"
    )
    left_out = load(APPROVED_MEASUREMENTS, "left_out")
    tables = {
        "sessions": sessions,
        "sources": approved.drop_duplicates("source_id").sort_values("source_id"),
        "stations": approved.drop_duplicates("station_id").sort_values("station_id"),
        "measurements": measurements,
        "left_out": pd.DataFrame() if left_out is None else left_out,
    }
    return {name: freeze_table(table, list_columns(name, approved)) for name, table in tables.items()}


def list_columns(table: str, approved: pd.DataFrame | None = None) -> list[str]:
    """Return the columns of a frozen table: those of the format, then those that came later and ``approved`` has."""
    columns = _load_schema()["properties"][table]["properties"]["columns"]["prefixItems"]
    later = [field.snapshot for field in SNAPSHOT if field.since and _FROZEN_AS.get(field.table) == table]
    known = () if approved is None else approved.columns
    return [column["const"] for column in columns] + [name for name in later if name in known]


def decode_provenance(data: bytes) -> dict[str, Any]:
    """Return the provenance that ``data`` holds.

    Raises:
        CorruptObject: the bytes are no JSON, or not of the format.
    """
    try:
        provenance: dict[str, Any] = decode_canonical_json(data)
    except (ValueError, RecursionError) as error:
        raise CorruptObject(f"provenance: found bytes that are no JSON ({error!s:.80}), expected {FORMAT}") from error
    found = provenance.get("format") if isinstance(provenance, dict) else None
    if isinstance(found, str) and found != FORMAT:
        raise CorruptObject(
            f"provenance: found format {found:.60}, expected {FORMAT}; another version made it, and reads it"
        )
    check_format(provenance)
    return provenance


def check_format(provenance: Any) -> None:
    """Check ``provenance`` against ``provenance.schema.json``, and each row against the columns of its table.

    Raises:
        CorruptObject: it does not follow the schema; names the first place where.
    """
    error = next(iter(_load_validator().iter_errors(provenance)), None)
    if error is not None:
        raise CorruptObject(f"provenance: found {error.message:.200} at {error.json_path}, expected {FORMAT}")
    for name in (*TABLES, "approvals"):
        num_columns = len(provenance[name]["columns"])
        for number, row in enumerate(provenance[name]["rows"]):
            if len(row) != num_columns:
                raise CorruptObject(
                    f"provenance: found {len(row)} values at $.{name}.rows[{number}], expected {num_columns}, one for "
                    "each column"
                )


def find_contradictions(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the file says against itself, (where, what); empty: it is whole.

    Every node's digest is computed anew from its own fields, so none can be changed and stay in place.
    """
    found: list[tuple[str, str]] = []
    digests = {node["digest"] for node in provenance["nodes"]}
    for node in provenance["nodes"]:
        manifest = Manifest.model_validate({name: node[name] for name in Manifest.model_fields})
        where = f"node {manifest.kind} {node['digest']}"
        if manifest.digest != node["digest"]:
            found.append((where, f"its fields have digest {manifest.digest}"))
        found += [(where, f"its parent {name} {parent} is no node") for name, parent in list_parents(manifest).items()
                  if parent not in digests]  # fmt: skip
        found += [(where, what) for what in _find_loose_facts(node["facts"], provenance["environments"])]
        if node["event"] is not None and node["event"]["asset"] != manifest.kind:
            found.append((where, f"its Dagster event is of {node['event']['asset']}"))
    for name, digest in provenance["model"]["manifests"].items():
        if digest not in digests:
            found.append((f"model {name} {digest}", "is no node"))
    for digest, environment in provenance["environments"].items():
        if compute_json_digest(environment) != digest:
            found.append((f"environment {digest}", f"its fields have digest {compute_json_digest(environment)}"))
    found += [("release", what) for what in _find_loose_facts(provenance["released"], provenance["environments"])]
    return found + _find_loose_rows(provenance)


def _find_loose_facts(facts: Facts | None, environments: Mapping[str, Any]) -> list[str]:
    if facts is None or facts["environment"] in environments:
        return []
    return [f"its environment {facts['environment']} is not there"]


def find_facts(provenance: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """Return the facts of the node of a kind, ``environment`` in full; None: nobody kept them."""
    told = next((node["facts"] for node in provenance["nodes"] if node["kind"] == kind), None)
    return None if told is None else {**told, "environment": provenance["environments"][told["environment"]]}


def _find_loose_rows(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return rows that point at nothing."""
    keys = {
        "session_id": set(index_rows(provenance["sessions"], "session_id")),
        "station_id": set(index_rows(provenance["stations"], "station_id")),
        "source_id": set(index_rows(provenance["sources"], "source_id")),
    }
    found = []
    for table, key, targets in (
        ("sessions", "session_id", ["source_id"]),
        ("measurements", "measurement_id", ["session_id", "station_id"]),
    ):
        for row in iterate_rows(provenance[table]):
            found += [
                (f"{table} {row[key]}", f"its {target} {row[target]} has no row")
                for target in targets
                if row[target] not in keys[target]
            ]
    approved = {(row["recording_session_id"], row["id"]) for row in iterate_rows(provenance["approvals"])}
    for row in iterate_rows(provenance["sessions"]):
        # A database of the field keeps no ledger: its sessions carry no event.
        if row["approval_event_id"] is not None and (row["session_id"], row["approval_event_id"]) not in approved:
            found.append((f"sessions {row['session_id']}", f"its approval {row['approval_event_id']} has no row"))
    return found


def _join_recordings(approved: pd.DataFrame, recordings: pd.DataFrame | None) -> pd.DataFrame:
    if recordings is None:
        return approved
    checked = recordings[["measurement_id", "status", "reason", "digest"]].rename(
        columns={"status": "iq_status", "reason": "iq_reason", "digest": "iq_digest"}
    )
    return approved.merge(checked, on="measurement_id", how="left", validate="one_to_one")


def _describe_database(nodes: Sequence[Node]) -> dict[str, Any]:
    snapshot = next(node.manifest for node in nodes if node.manifest.kind == APPROVED_MEASUREMENTS)
    return {
        "snapshot": snapshot.digest,
        "fingerprint": next((snapshot.parents[name] for name in OUTSIDE if name in snapshot.parents), None),
        "dataset": snapshot.specs.get("DatasetSpec"),
    }


def _list_root_artifacts(nodes: Sequence[Node], roots: Mapping[str, str]) -> dict[str, str]:
    chosen = [node for node in nodes if node.digest in set(roots.values())]
    return {name: artifact.digest for node in chosen for name, artifact in node.manifest.artifacts.items()}


def _collect_seeds(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return every number that chance hung on, ``Spec.field`` -> value."""
    return {
        f"{name}.{field}": value
        for name, fields in specs.items()
        for field, value in fields.items()
        if field in {"seed", "salt"}
    }


def _share_environment(facts: Facts | None, environments: dict[str, Any]) -> dict[str, Any] | None:
    """Return facts that name their environment by its digest, under which it is added to the others."""
    if facts is None:
        return None
    digest = compute_json_digest(facts["environment"])
    environments[digest] = dict(facts["environment"])
    return {**facts, "environment": digest}


def _read_metrics(nodes: Sequence[Node], read_bytes: ReadBytes) -> dict[str, Any]:
    for node in nodes:
        if node.manifest.kind == EVALUATION_METRICS and "metrics.json" in node.manifest.artifacts:
            metrics: dict[str, Any] = decode_canonical_json(read_bytes(node.manifest.artifacts["metrics.json"].digest))
            return metrics
    return {}


def _pick_event(event: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if event is None else {name: event[name] for name in ("asset", "storage_id", "run_id")}


def _event_number(event: Mapping[str, Any]) -> int:
    return int(event["id"])


@cache
def _load_schema() -> dict[str, Any]:
    text = files("heimdall_assets.lineage").joinpath("provenance.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _load_validator() -> "Validator":
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(_load_schema())
    return Draft202012Validator(_load_schema())
