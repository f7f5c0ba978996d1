"""Measurements: stations, sources, sessions and what was heard, in SQLite or PostgreSQL, and who approved it.

Belongs here: what the rest of the project asks of the database. Does not belong here: connections (``connection``),
columns (``schema``), adding rows (``additions``), the flattened snapshot (``snapshots``).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, select, update

from heimdall_assets.domain import ApprovalStatus, ImportBatch
from heimdall_assets.envelopes import Signer
from heimdall_assets.errors import NotFound
from heimdall_assets.manifests import compute_texts_digest, encode_canonical_json
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.additions import ImportReport, add_batch
from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.database.decision_signatures import (
    check_signatures,
    check_signer,
    read_signers,
    sign_entries,
)
from heimdall_assets.stores.database.held_recordings import check_approved
from heimdall_assets.stores.database.keeping import (
    Erasure,
    Hold,
    check_keeping,
    end_hold,
    erase_session,
    place_hold,
    read_erasures,
    read_holds,
)
from heimdall_assets.stores.database.ledger import append_events, check_events, check_words, describe_event
from heimdall_assets.stores.database.log import read_clock, read_entries
from heimdall_assets.stores.database.marks import check_seen
from heimdall_assets.stores.database.people import check_people, name_person, read_names
from heimdall_assets.stores.database.raw.fetching import fetch_columns
from heimdall_assets.stores.database.raw.one_table import ROW_APPROVED
from heimdall_assets.stores.database.raw.stated_receivers import Statement
from heimdall_assets.stores.database.rows import (
    count_measurements,
    count_nameless,
    count_sessions,
    has_name,
    read_approved_sessions,
    read_by,
    read_events,
    read_standing,
    read_table,
    resolve_session,
    resolve_sessions,
    stands,
)
from heimdall_assets.stores.database.schema import approval_events, measurements, recording_sessions
from heimdall_assets.stores.database.shape import Kind, Shape
from heimdall_assets.stores.database.snapshots import (
    ApprovedSnapshot,
    in_scope,
    read_chosen_sessions,
    read_snapshot,
    read_tables,
)
from heimdall_assets.stores.database.waivers import add_waiver, read_waiver

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ApprovedSnapshot", "ImportReport", "MeasurementStore"]

_NAMED = {
    "session": ("recording_sessions", "session_name"),
    "measurement": ("measurements", "id"),
    "source": ("known_sources", "name"),
    "station": ("websdr_stations", "name"),
}
"""What somebody asks about -> its table, and the column of its name."""

_EVERYTHING = DatasetSpec()
_CHUNK = 10_000  # values in one IN (...); both databases allow 32 766


class MeasurementStore:
    """The database: ours, or, read as it is, the field's own."""

    def __init__(self, url: str, read_only: bool = False, statement: Statement | None = None):
        self.database = Database(url, read_only, statement)

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, for whoever needs plain SQL."""
        return self.database.engine

    def upgrade(self, begin: bool = True) -> None:
        """Make the tables, or bring them to today's schema; a database of the field is left exactly as it is.

        Raises:
            NotFound: it is not there or holds no tables, and without ``begin`` none are made.
        """
        self.database.upgrade(begin)

    def close(self) -> None:
        """Close idle connections."""
        self.database.close()

    def add(self, batch: ImportBatch) -> ImportReport:
        """Return what was added: all of ``batch`` in one transaction, or nothing. Adding it twice adds nothing.

        Raises:
            InvalidInput: a row points at nothing, a session hears one station twice, or a session is not pending.
            Refused: a row with the same id says something else, a session that is already approved would grow, or a
                recording is in another session.
        """
        with self.database.writing() as connection:
            return add_batch(connection, batch)

    def list_sessions(
        self, approval_status: ApprovalStatus | None = None, campaign: str | None = None
    ) -> list[dict[str, Any]]:
        """Return every session, oldest first, with the number of its measurements and of its receivers with IQ.

        Measurements of a database of one table that say no session make none (``count_nameless``).
        """
        with self._reading() as (connection, shape):
            sessions = shape.table("recording_sessions", "s")
            conditions = has_name(shape, sessions)
            if approval_status is not None:
                status = shape.pick(sessions, "recording_sessions", "approval_status")
                conditions.append(status == str(ApprovalStatus(approval_status)))
            if campaign is not None:
                conditions.append(shape.pick(sessions, "recording_sessions", "campaign") == campaign)
            rows = read_table(connection, shape, "recording_sessions", sessions, conditions)
            counts = count_measurements(connection, shape)
        for row in rows:
            row["num_measurements"] = counts.get(row["id"], 0)
        return sorted(rows, key=lambda row: (str(row["session_start"]), str(row["session_name"]), str(row["id"])))

    def list_locations(self, without: str | None = None) -> set[str]:
        """Return where the recordings of all measurements rest, whatever became of their sessions.

        Those of the session ``without`` do not count.
        """
        with self._reading() as (connection, shape):
            heard = shape.table("measurements", "m")
            location = shape.pick(heard, "measurements", "iq_data_location")
            query = select(location).select_from(heard).where(location.is_not(None)).distinct()
            if without is not None:
                query = query.where(shape.pick(heard, "measurements", "recording_session_id") != without)
            return {str(row[0]) for row in connection.execute(query)}

    def list_holds(self) -> list[Hold]:
        """Return what is held against removal, by the name of the hold; none in a database of the field."""
        with self._reading() as (connection, shape):
            return read_holds(connection) if shape.kind is Kind.OURS else []

    def place_hold(self, name: str, thing: tuple[str, str], by: str, reason: str) -> None:
        """Hold ``session`` and its id, or ``object`` and its digest, from now on.

        Raises:
            Refused: a hold of this name stands, or ``by`` or ``reason`` is blank.
        """
        with self.database.writing() as connection:
            place_hold(connection, name, thing, by, reason)

    def end_hold(self, name: str, by: str, reason: str) -> None:
        """Hold something no more.

        Raises:
            NotFound: no such hold stands.
        """
        with self.database.writing() as connection:
            end_hold(connection, name, by, reason)

    def list_erasures(self) -> list[Erasure]:
        """Return what was erased, oldest first; nothing in a database of the field."""
        with self._reading() as (connection, shape):
            return read_erasures(connection) if shape.kind is Kind.OURS else []

    @contextmanager
    def hold_writes(self) -> Iterator[set[str]]:
        """Keep everybody else from writing, and give where the recordings of all measurements rest."""
        with self.database.writing() as connection:
            location = measurements.c.iq_data_location
            query = select(location).where(location.is_not(None)).distinct()
            yield {str(row[0]) for row in connection.execute(query)}

    def find_measurements(self, ids: Collection[str]) -> set[str]:
        """Return those of these ids that a measurement has."""
        wanted, found = sorted(ids), set()
        with self._reading() as (connection, shape):
            for start in range(0, len(wanted), _CHUNK):
                chosen = wanted[start : start + _CHUNK]
                found |= {str(row["id"]) for row in read_by(connection, shape, "measurements", "id", chosen)}
        return found

    def erase_session(self, session_id: str, objects: Sequence[str], by: str, reason: str) -> None:
        """Take a session's rows away; the log tells of it and of the objects that go; see ``database.keeping``.

        Raises:
            NotFound: no such session.
            Refused: it is held, or ``by`` or ``reason`` is blank.
        """
        with self.database.writing() as connection:
            erase_session(connection, session_id, objects, by, reason)

    def count_nameless(self) -> int:
        """Return how many measurements say no session, and so are left out of everything."""
        with self._reading() as (connection, shape):
            return count_nameless(connection, shape)

    def count_sessions(self, dataset: DatasetSpec = _EVERYTHING) -> dict[str, dict[str, int]]:
        """Return campaign -> approval status -> number of sessions, of those in ``dataset`` whatever their approval."""
        with self._reading() as (connection, shape):
            return count_sessions(connection, shape, dataset)

    def resolve_sessions(self, names: Sequence[str]) -> list[str]:
        """Return the ids of sessions given by id or name.

        Raises:
            NotFound: there is no such session.
            InvalidInput: a name belongs to several sessions.
        """
        with self._reading() as (connection, shape):
            return resolve_sessions(connection, shape, names)

    def find_session(self, id_or_name: str) -> dict[str, Any]:
        """Return a session with ``source``, ``measurements``, ``stations`` and ``approval_events``.

        Raises:
            NotFound: there is no such session.
            InvalidInput: the name belongs to several sessions.
        """
        with self._reading() as (connection, shape):
            session_id = resolve_session(connection, shape, id_or_name)
            session = read_by(connection, shape, "recording_sessions", "id", [session_id])[0]
            heard = read_by(connection, shape, "measurements", "recording_session_id", [session_id])
            stations = sorted({row["websdr_station_id"] for row in heard if row["websdr_station_id"]})
            sources = read_by(connection, shape, "known_sources", "id", [session["known_source_id"]])
            return {
                **session,
                "num_measurements": len(heard),
                "source": sources[0] if sources else None,
                "measurements": sorted(heard, key=lambda row: (str(row["websdr_station_id"]), str(row["id"]))),
                "stations": read_by(connection, shape, "websdr_stations", "id", stations),
                "approval_events": read_events(connection, shape, session_id),
            }

    def is_known(self, what: str, name: str) -> bool:
        """Return whether there is a session, measurement, source or station of this id or, save measurements, name."""
        table, column = _NAMED[what]
        with self._reading() as (connection, shape):
            if any(read_by(connection, shape, table, given, [name]) for given in {"id", column}):
                return True
        return False

    def list_stations(self) -> list[dict[str, Any]]:
        """Return every station, by name."""
        return self._list_table("websdr_stations")

    def list_sources(self) -> list[dict[str, Any]]:
        """Return every source, by name."""
        return self._list_table("known_sources")

    def decide(
        self,
        session_ids: Sequence[str],
        decision: ApprovalStatus,
        by: str,
        reason: str,
        waiver: str | None = None,
        key: Signer | None = None,
        seen: Mapping[str, str] | None = None,
    ) -> int:
        """Return how many sessions changed; each change is one new event, all of them in one transaction.

        Rejecting an approved session withdraws it: the next snapshot no longer holds it. An approval takes into the
        ledger why a session's truth is waived: ``waiver``, or what it was imported with. ``key`` signs all of them.
        ``seen`` holds the marks (``marks.read_marks``) of the sessions as whoever decides saw them.

        Raises:
            Refused: a session is not what was ``seen``, ``by``, ``reason`` or ``waiver`` is blank, another approved
                session holds a recording of one that is to be approved, or ``key`` is not one of ``by``'s that counts;
                nothing is decided.
            NotFound: one of the sessions does not exist; nothing is decided.
        """
        decision = ApprovalStatus(decision)
        by, reason = check_words(by, reason)
        waiver = None if waiver is None else check_words(by, waiver)[1]
        with self.database.writing() as connection:
            wanted = list(dict.fromkeys(session_ids))
            if seen is not None:
                check_seen(connection, self.database.shape, seen)
            known = self._read_standing(connection, wanted)
            missing = [name for name in wanted if name not in known]
            if missing:
                raise NotFound(f"session {missing[0]}: found no session with this id ({len(missing)} of {len(wanted)})")
            changed = [name for name in wanted if waiver is not None or not stands(known[name], decision)]
            reasons = dict.fromkeys(changed, reason)
            if decision is ApprovalStatus.APPROVED:
                check_approved(connection, changed)
                waivers = (
                    dict.fromkeys(changed, waiver) if waiver is not None else self._read_waivers(connection, changed)
                )
                reasons = {name: add_waiver(reason, waivers.get(name)) for name in changed}
            person = name_person(connection, by)
            event = {"decision": str(decision), "decided_by": person, "decided_at": read_clock()}
            if key is not None:
                check_signer(connection, key, by)
            events = [{"recording_session_id": name, **event, "reason": reasons[name]} for name in changed]
            written = append_events(connection, approval_events, events)
            if key is not None and written:
                sign_entries(connection, written, key)
            for start in range(0, len(changed), _CHUNK):
                chosen = recording_sessions.c.id.in_(changed[start : start + _CHUNK])
                connection.execute(update(recording_sessions).where(chosen).values(approval_status=str(decision)))
        return len(changed)

    def list_approval_events(self, session_id: str | None = None) -> list[dict[str, Any]]:
        """Return every decision, oldest first, of one session or of all; none in a database of the field."""
        with self._reading() as (connection, shape):
            return read_events(connection, shape, session_id)

    def list_decisions(self, numbers: Collection[int]) -> list[str]:
        """Return the entries of the log of these decisions, canonical JSON, oldest first."""
        wanted = set(numbers)
        rows = [row for row in self.list_approval_events() if row["id"] in wanted]
        return [encode_canonical_json(describe_event(approval_events, row)).decode() for row in rows]

    def list_signers(self) -> dict[int, str]:
        """Return number of a decision -> who signed it; what is not there, nobody did.

        Raises:
            CorruptObject: an entry of the log is none.
        """
        with self._reading() as (connection, shape):
            if shape.kind is not Kind.OURS:
                return {}
            signers = read_signers(connection)
            entries = read_entries(connection, "approval") if signers else {}
        return {entry["id"]: signers[number] for number, entry in entries.items() if number in signers}

    def read_names(self) -> dict[str, str]:
        """Return pseudonym -> name of everybody who decided something; none in a database of the field."""
        with self._reading() as (connection, shape):
            return read_names(connection) if shape.kind is Kind.OURS else {}

    def check_ledger(self) -> list[str]:
        """Return what is wrong with the ledger of approvals, one line a problem; empty: all is as it was written.

        Found are: an event changed, taken out, put in or moved; a signature on some that does not hold; a session's
        status that no event accounts for; a name put in the place of another's.
        Promotions are checked where they are kept (``releases``), which need not be this database.
        """
        with self._reading() as (connection, shape):
            if shape.kind is not Kind.OURS:
                return []
            problems = [*check_events(connection, approval_events), *check_signatures(connection)]
            problems += [*check_people(connection), *check_keeping(connection)]
            for session_id, (status, last) in sorted(read_standing(connection, shape).items()):
                if status != (last or str(ApprovalStatus.PENDING)):
                    problems.append(
                        f"session {session_id}: found approval_status {status}, expected {last or 'pending'} by "
                        "approval_events"
                    )
        return problems

    def compute_fingerprint(self, dataset: DatasetSpec) -> str:
        """Return a digest of the approved set: sessions, their measurements, and the decision that approved each.

        The order in which anything was added does not matter; an approval and a withdrawal each change it.
        """
        with self._reading() as (connection, shape):
            sessions = shape.table("recording_sessions", "s")
            status = shape.pick(sessions, "recording_sessions", "approval_status")
            scope = [status == str(ApprovalStatus.APPROVED), *in_scope(shape, sessions, dataset)]
            approved = read_approved_sessions(connection, shape, sessions, scope)
            heard = shape.table("measurements", "m")
            joined = heard.join(sessions, sessions.c.id == heard.c.recording_session_id)
            own = [] if shape.one_table is None else [heard.c[ROW_APPROVED] == 1]
            # Nobody's event tells of a row of somebody else's table that was corrected: what is read of it counts.
            names = ["id", *([] if shape.one_table is None else ("timestamp", "frequency_hz", "snr_db"))]
            columns = [shape.pick(heard, "measurements", name).label(name) for name in names]
            found = fetch_columns(connection, select(*columns).select_from(joined).where(*scope, *own))
            texts = [map(str, column.list_rows()) for column in found.values()]
            measurements = sorted(map("|".join, zip(*texts, strict=True)))
        stated = {} if shape.one_table is None else {"stated": shape.one_table.digest}
        return compute_texts_digest({"sessions": sorted(approved), "measurements": measurements, **stated})

    def read_approved(self, dataset: DatasetSpec) -> ApprovedSnapshot:
        """Return the trainable rows of approved sessions, and each row left out with its reason."""
        with self._reading() as (connection, shape):
            return read_snapshot(connection, shape, dataset)

    def read_tables(self, dataset: DatasetSpec) -> "dict[str, pd.DataFrame]":
        """Return today's rows behind approved sessions as they are, not judged; see ``snapshots.read_tables``."""
        with self._reading() as (connection, shape):
            return read_tables(connection, shape, dataset)

    def read_session(self, session_id: str) -> ApprovedSnapshot:
        """Return the usable rows of one session, whatever its approval, and each row left out with its reason."""
        with self._reading() as (connection, shape):
            return read_chosen_sessions(connection, shape, [session_id])

    def read_sessions(self, session_ids: Sequence[str]) -> ApprovedSnapshot:
        """Return the usable rows of some sessions, whatever their approval, and each row left out with its reason."""
        with self._reading() as (connection, shape):
            return read_chosen_sessions(connection, shape, session_ids)

    def read_session_rows(self, session_id: str) -> "pd.DataFrame":
        """Return the usable rows of one session, whatever its approval."""
        return self.read_session(session_id).rows

    def _read_standing(self, connection: Connection, session_ids: Sequence[str]) -> dict[str, tuple[str, str | None]]:
        found: dict[str, tuple[str, str | None]] = {}
        for start in range(0, len(session_ids), _CHUNK):
            found |= read_standing(connection, self.database.shape, session_ids[start : start + _CHUNK])
        return found

    def _read_waivers(self, connection: Connection, session_ids: Sequence[str]) -> dict[str, str | None]:
        """Return session id -> why its import waived its truth; None: it did not."""
        found = {}
        for start in range(0, len(session_ids), _CHUNK):
            chosen = recording_sessions.c.id.in_(session_ids[start : start + _CHUNK])
            for row in connection.execute(select(recording_sessions).where(chosen)):
                found[row.id] = read_waiver(row.attributes)
        return found

    def _list_table(self, name: str) -> list[dict[str, Any]]:
        with self._reading() as (connection, shape):
            rows = read_table(connection, shape, name, shape.table(name, "t"), [])
        return sorted(rows, key=lambda row: (str(row["name"]), str(row["id"])))

    @contextmanager
    def _reading(self) -> Iterator[tuple[Connection, Shape]]:
        with self.database.reading() as connection:
            yield connection, self.database.shape
