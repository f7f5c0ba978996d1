"""Data checks: the tables behind a release beside one another, beside the ledger, and beside today's rows.

Belongs here: one comparison a function, each yielding findings. Does not belong here: bytes at rest (``audit``).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from heimdall_assets.domain import SNAPSHOT
from heimdall_assets.errors import HeimdallError, OutOfReach
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES
from heimdall_assets.lineage.crosschecks import list_pairs
from heimdall_assets.lineage.findings import PROVENANCE_FILE, Evidence, Finding, ObjectReader
from heimdall_assets.lineage.listings import DECISIONS, RECORDINGS, decode_decisions, decode_recordings
from heimdall_assets.lineage.recorded import TABLES, ReadTable, RecordedData, compare_rows, list_rows, read_recorded

DATABASE_COLUMNS = tuple(field.snapshot for field in SNAPSHOT if field.snapshot and field.table != "approval_events")
"""What must not have changed in the database since; of decisions, the ledger tells."""

_DECIDED = ("approved_by", "approved_at", "approval_reason")


def verify_data(
    evidence: Evidence,
    provenance: Mapping[str, Any],
    objects: ObjectReader,
    read_table: ReadTable,
    damaged: Sequence[Finding],
) -> Iterator[Finding]:
    """Yield where the tables behind a release disagree with one another, with the ledger and with today's rows."""
    try:
        data = read_recorded(provenance, read_table)
        decisions = _read_listing(provenance, APPROVED_MEASUREMENTS, DECISIONS, objects)
        recordings = decode_recordings(_read_listing(provenance, IQ_FILES, RECORDINGS, objects))
        decided = decode_decisions(decisions)
    except OutOfReach:
        raise
    except (HeimdallError, KeyError, TypeError, ValueError) as error:
        if not damaged:  # else the damaged one is named already
            label = f"{evidence.version}/{PROVENANCE_FILE}"
            yield Finding("provenance", label, str(error), "tables that can be read", (evidence.version,),
                          f"heimdall reproduce {evidence.version}")  # fmt: skip
        return
    named = [*_compare_listings(data, recordings, decided), *_find_loose_rows(data)]
    for where, what in named:
        yield Finding("object", where, what, "tables that agree with one another", (evidence.version,),
                      f"heimdall reproduce {evidence.version}")  # fmt: skip
    yield from verify_approvals(evidence, decided, data)
    yield from verify_database(evidence, data)


def _read_listing(provenance: Mapping[str, Any], kind: str, name: str, objects: ObjectReader) -> bytes:
    node = next((node for node in provenance["nodes"] if node["kind"] == kind), None)
    return b"" if node is None else objects.read_bytes(node["artifacts"][name]["digest"])


def _compare_listings(
    data: RecordedData, recordings: Sequence[tuple[str, str]], decisions: Mapping[int, Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Yield where the lists beside the tables are not what the tables say."""
    held = data.measurements.loc[data.measurements["iq_digest"].notna(), ["iq_digest", "measurement_id"]]
    if Counter(recordings) != Counter(held.itertuples(index=False, name=None)):
        yield f"{IQ_FILES}/{RECORDINGS}", "other recordings than its table has"
    seen = set()
    for row in list_rows(data.sessions[["session_id", "approval_event_id", *_DECIDED]]):
        if row["approval_event_id"] is None:
            continue  # a database of the field keeps no ledger: its sessions carry no event
        seen.add(row["approval_event_id"])
        entry = decisions.get(row["approval_event_id"], {})
        said = [entry.get("recording_session_id"), entry.get("decision"), entry.get("decided_by"), entry.get("reason")]
        told = [row["session_id"], "approved", row["approved_by"], row["approval_reason"]]
        at = entry.get("decided_at")
        if said != told or at is None or datetime.fromisoformat(at) != datetime.fromisoformat(row["approved_at"]):
            yield f"session {row['session_id']}", f"its decision {row['approval_event_id']} says {[*said, at]}"
    for number in sorted(set(decisions) - seen):
        yield f"{APPROVED_MEASUREMENTS}/{DECISIONS}", f"decision {number}, which approves none of its sessions"


def _find_loose_rows(data: RecordedData) -> Iterator[tuple[str, str]]:
    """Yield what serves two splits, or has two recordings."""
    twice = data.sessions.loc[data.sessions["session_id"].duplicated(), "session_id"]
    for name in sorted(set(twice)):
        yield f"session {name}", "it serves more than one split"
    again = data.measurements.loc[data.measurements["measurement_id"].duplicated(), "measurement_id"]
    for name in sorted(set(again)):
        yield f"measurement {name}", "it has more than one recording"


def verify_approvals(
    evidence: Evidence, decisions: Mapping[int, Mapping[str, Any]], data: RecordedData
) -> Iterator[Finding]:
    """Yield approvals that the ledger no longer holds as they were, and sessions withdrawn since.

    Args:
        evidence: what lies today.
        decisions: number -> the entry of the log then.
        data: what the model was made of.
    """
    own = (evidence.version,)
    restore = f"restore the database from its backup, then heimdall verify {evidence.version}"
    ledger = {row["id"]: row for row in evidence.approval_events}
    for number, then in decisions.items():
        label = f"approval_events {number} of session {then['recording_session_id']}"
        current = ledger.get(number)
        if current is None:
            yield Finding("ledger_row", label, "no such row", "the row as it was frozen", own, restore)
            continue
        now = {name: _comparable(value) for name, value in current.items()}
        wrong = [name for name in now if name in then and now[name] != then[name]]
        if wrong:
            found = ", ".join(f"{name} {now[name]!r:.80}" for name in wrong)
            expected = ", ".join(f"{name} {then[name]!r:.80}" for name in wrong)
            yield Finding("ledger_row", label, found, expected, own, restore)
    for session, event in _find_last_decisions(evidence, data).items():
        if event["decision"] != "approved":
            yield Finding(
                "ledger_row", f"session {session}",
                f"{event['decision']} by {event['decided_by']} at {event['decided_at']} ({event['reason']})",
                "approved, as when the model was released", own, "heimdall train (releases a model without it)",
                severity="notice",
            )  # fmt: skip


def _find_last_decisions(evidence: Evidence, data: RecordedData) -> dict[str, Mapping[str, Any]]:
    """Return session of the model -> the last row of the ledger about it."""
    used = set(data.sessions["session_id"])
    ordered = sorted(evidence.approval_events, key=lambda row: int(row["id"]))
    return {str(row["recording_session_id"]): row for row in ordered if row["recording_session_id"] in used}


def verify_database(evidence: Evidence, data: RecordedData) -> Iterator[Finding]:
    """Yield rows in the database that are gone, or say something else than when they were frozen."""
    if evidence.database_rows is None:
        return
    decided = _find_last_decisions(evidence, data)
    for what, (key, origin) in TABLES.items():
        then, now = getattr(data, what), evidence.database_rows[origin].drop_duplicates(key).set_index(key)
        known = then[key].isin(now.index)
        for row in list_rows(then.loc[~known, [name for name in dict.fromkeys((key, "session_id")) if name in then]]):
            # Of one withdrawn since, the approvals tell; a database that keeps none may have withdrawn it too.
            session = row.get("session_id")
            if session is None or decided.get(session, {}).get("decision") == "approved":
                look = f"heimdall sessions show {session}; " if session is not None else ""
                yield Finding(
                    "database_row", _name_row(key, row), "no such row of an approved, completed session",
                    "the row as it was frozen", (evidence.version,), f"{look}restore the database's backup",
                )  # fmt: skip
        # A column that no row had a value in was not kept then: each of its values is new.
        unkept = dict.fromkeys([name for name in now if name not in then and name in DATABASE_COLUMNS])
        if what == "sources":  # that of an erased session, of which nothing else is recorded, has no place any more
            known &= ~then[key].isin(_list_emptied(evidence, data, now))
        before = then[known].reset_index(drop=True).assign(**unkept)
        after = now.loc[before[key]].reset_index()
        different = compare_rows(before, after, DATABASE_COLUMNS)
        rows = different.any(axis=1)
        for old, new, wrong in zip(
            list_rows(before[rows]), list_rows(after[rows]), list_rows(different[rows]), strict=True
        ):
            names = [name for name in wrong if wrong[name]]
            yield Finding(
                "database_row", _name_row(key, old), list_pairs(new, names), list_pairs(old, names),
                (evidence.version,), "heimdall train (releases a model of today's rows)",
            )  # fmt: skip


def _list_emptied(evidence: Evidence, data: RecordedData, now: pd.DataFrame) -> set[str]:
    """Return the sources all of whose sessions were erased, and whose rows say so and nothing else."""
    erased = data.sessions["session_id"].isin([one.session for one in evidence.erased])
    bare = now[now["source_latitude"].isna() & now["source_longitude"].isna()]
    emptied = {str(name) for name, called in bare["source_name"].items() if called == f"erased {name}"}
    return emptied - set(data.sessions.loc[~erased, "source_id"])


def _name_row(key: str, row: Mapping[str, Any]) -> str:
    named = f"{key.removesuffix('_id')} {row[key]}"
    return f"{named} of session {row['session_id']}" if key == "measurement_id" else named


def _comparable(value: Any) -> Any:
    """Return a value of a row as the log writes it."""
    return value.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(value, datetime) else value
