"""Cross-checks: the frozen provenance beside what may have changed since: ledger, release record, events, database.

Belongs here: one comparison a function, each yielding findings. Does not belong here: bytes at rest (``audit``).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.domain import SNAPSHOT
from heimdall_assets.kinds import EVALUATION_METRICS, ONNX_MODEL
from heimdall_assets.lineage.findings import PROVENANCE_FILE, Evidence, Finding
from heimdall_assets.lineage.frozen import freeze_table, index_rows, iterate_rows
from heimdall_assets.lineage.provenance import list_columns
from heimdall_assets.manifests import show_value

_KEYS = ("measurement_id", "session_id", "station_id")

DATABASE_COLUMNS = tuple(
    field.snapshot
    for field in SNAPSHOT
    if field.snapshot and field.snapshot not in _KEYS and field.table != "approval_events"
)
"""What of a measurement must not have changed in the database since; of decisions, the ledger tells."""


def verify_chain(evidence: Evidence) -> Iterator[Finding]:
    """Yield what log and ledgers show by themselves."""
    for problem in evidence.ledger_problems:
        yield Finding(
            "ledger_row", problem.split(":")[0], problem.partition(": ")[2] or problem, "the row as it was written",
            (evidence.version,), f"restore the database from its backup, then heimdall verify {evidence.version}",
        )  # fmt: skip


def verify_log(evidence: Evidence, provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield that the log is no longer the one, or no longer begins as the one, that the release was made under."""
    if provenance["log"] is not None:
        yield from compare_logs(provenance["log"], evidence.log, evidence.version, (evidence.version,))


def compare_logs(
    then: Mapping[str, Any], now: Mapping[str, Any] | None, kept_by: str, releases: tuple[str, ...]
) -> Iterator[Finding]:
    """Yield that the log of today does not begin as it did.

    Args:
        then: checkpoint that was kept: ``log``, ``size``, ``root``.
        now: that of today's log over as many entries; None: it has fewer, or no name.
        kept_by: what kept it.
        releases: that hang on it.
    """
    if now == then:
        return
    found = _describe_log(now) if now is not None else f"fewer than {then['size']} entries, or none"
    yield Finding(
        "ledger_row", f"log up to {kept_by}, its first {then['size']} entries", found, _describe_log(then), releases,
        "restore the database from its backup, then run heimdall verify again",
    )  # fmt: skip


def _describe_log(checkpoint: Mapping[str, Any]) -> str:
    return f"log {checkpoint['log']} with root {checkpoint['root']}"


def verify_approvals(evidence: Evidence, provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield approvals that the ledger no longer holds as they were, and sessions withdrawn since."""
    own = (evidence.version,)
    restore = f"restore the database from its backup, then heimdall verify {evidence.version}"
    columns = list_columns("approvals")
    ledger = {row["id"]: {name: _comparable(row.get(name)) for name in columns} for row in evidence.approval_events}
    for number, frozen in index_rows(provenance["approvals"], "id").items():
        label = f"approval_events {number} of session {frozen['recording_session_id']}"
        current = ledger.get(number)
        if current is None:
            yield Finding("ledger_row", label, "no such row", "the row as it was frozen", own, restore)
            continue
        wrong = [name for name in columns if current[name] != _comparable(frozen[name])]
        if wrong:
            found = ", ".join(f"{name} {current[name]!r:.80}" for name in wrong)
            expected = ", ".join(f"{name} {frozen[name]!r:.80}" for name in wrong)
            yield Finding("ledger_row", label, found, expected, own, restore)
    last = _find_last_decisions(evidence)
    for row in iterate_rows(provenance["sessions"]):
        decision = last.get(row["session_id"], {}).get("decision", "approved")
        if decision != "approved":
            event = last[row["session_id"]]
            yield Finding(
                "ledger_row", f"session {row['session_id']}",
                f"{decision} by {event['decided_by']} at {event['decided_at']} ({event['reason']})",
                "approved, as when the model was released", own, "heimdall train (releases a model without it)",
                severity="notice",
            )  # fmt: skip


def _find_last_decisions(evidence: Evidence) -> dict[str, Mapping[str, Any]]:
    """Return session -> the last row of the ledger about it."""
    ordered = sorted(evidence.approval_events, key=lambda row: int(row["id"]))
    return {str(row["recording_session_id"]): row for row in ordered}


def verify_record(evidence: Evidence, provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the ledger's row of the release says otherwise than its provenance."""
    manifests = provenance["model"]["manifests"]
    expected = {
        "manifest": manifests.get(ONNX_MODEL),
        "evaluation": manifests.get(EVALUATION_METRICS),
        "provenance": evidence.release["files"].get(PROVENANCE_FILE, {}).get("sha256"),
        "specs": provenance["specs"],
        **{name: value for name, value in provenance["metrics"].items() if isinstance(value, int | float)},
    }
    for name, value in sorted(evidence.release.items()):
        if expected.get(name) is not None and value != expected[name]:
            yield Finding(
                "ledger_row",
                f"model_releases {evidence.version} {name}",
                f"{value!r:.120}",
                f"{expected[name]!r:.120}",
                (evidence.version,),
                f"restore the database from its backup, then heimdall verify {evidence.version}",
            )


def verify_events(evidence: Evidence, provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield Dagster events that say otherwise than the frozen file; deleted ones are a notice."""
    if evidence.dagster_events is None:
        return
    own = (evidence.version,)
    look = f"heimdall lineage {evidence.version} (the frozen file holds what the events said)"
    gone = []
    for node in provenance["nodes"]:
        frozen = node["event"]
        if frozen is None:
            continue
        event = evidence.dagster_events.get(frozen["storage_id"])
        if event is None:
            gone.append(f"{frozen['asset']} {frozen['storage_id']}")
            continue
        expected = {"asset": frozen["asset"], "run_id": frozen["run_id"], "data_version": node["digest"]}
        wrong = {name: event[name] for name, value in expected.items() if name in event and event[name] != value}
        for asset, version in (event.get("inputs") or {}).items():
            if asset in node["parents"] and version is not None and version != node["parents"][asset]:
                wrong[f"input {asset}"], expected[f"input {asset}"] = version, node["parents"][asset]
        if wrong:
            yield Finding(
                "dagster_event",
                f"{frozen['asset']} event {frozen['storage_id']}",
                _list_pairs(wrong),
                _list_pairs({name: expected[name] for name in wrong}),
                own,
                look,
            )
    if gone:
        name = f"{say_count(len(gone), 'event')} ({', '.join(gone)})"
        yield Finding("dagster_event", name, "none of them", "as Dagster recorded them", own, look, "notice")


def verify_database(evidence: Evidence, provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield measurements whose rows in the database say something else than when they were frozen."""
    if evidence.database_rows is None:
        return
    decided = _find_last_decisions(evidence)
    today = freeze_table(evidence.database_rows, ("measurement_id", *DATABASE_COLUMNS))
    sessions = index_rows(provenance["sessions"], "session_id")
    sources = index_rows(provenance["sources"], "source_id")
    stations = index_rows(provenance["stations"], "station_id")
    current = index_rows(today, "measurement_id")
    for row in iterate_rows(provenance["measurements"]):
        now = current.get(row["measurement_id"])
        label = f"measurement {row['measurement_id']} of session {row['session_id']}"
        if now is None:
            # Of one withdrawn since, the approvals tell; a database that keeps none may have withdrawn it too.
            if decided.get(row["session_id"], {}).get("decision") == "approved":
                yield Finding(
                    "database_row", label, "no row that could be used", "the frozen row of an approved session",
                    (evidence.version,), f"heimdall sessions show {row['session_id']}; restore the database's backup",
                )  # fmt: skip
            continue
        session = sessions.get(row["session_id"], {})
        source, station = sources.get(session.get("source_id"), {}), stations.get(row["station_id"], {})
        then = {**source, **station, **session, **row}
        # A row that points at nothing is a contradiction of the frozen file, found there.
        wrong = [name for name in DATABASE_COLUMNS if name in then and now[name] != then[name]]
        if wrong:
            yield Finding(
                "database_row", label,
                _list_pairs({name: now[name] for name in wrong}), _list_pairs({name: then[name] for name in wrong}),
                (evidence.version,), "heimdall train (releases a model of today's rows)",
            )  # fmt: skip


def _list_pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {show_value(value):.80}" for name, value in values.items())


def _comparable(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
