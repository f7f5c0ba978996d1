"""Reading releases: which there are, what they are called, and their files, each checked against the database.

Belongs here: everything that changes nothing. Does not belong here: numbers, publishing and promotion (``store``).
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from heimdall_assets.domain import check_name
from heimdall_assets.errors import CorruptObject, NotFound, OutOfReach, StorageError
from heimdall_assets.manifests import compute_digest
from heimdall_assets.merkle import Checkpoint
from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.database.keys import KnownKey, read_keys
from heimdall_assets.stores.database.ledger import check_known_ledger, check_promotions
from heimdall_assets.stores.database.log import check_entries, count_entries, read_checkpoint, read_entries, read_log
from heimdall_assets.stores.database.people import check_people, find_pseudonym, read_names
from heimdall_assets.stores.database.schema import (
    plain_row,
    promotion_events,
    service_key_events,
    serving_rule_events,
)
from heimdall_assets.stores.database.serving.rules import RuleChange, read_changes
from heimdall_assets.stores.database.serving.service_keys import ServiceKey, read_service_keys
from heimdall_assets.stores.releases.interface import ReleaseFiles
from heimdall_assets.stores.releases.judgements import Judgement, check_judgements, read_judgements
from heimdall_assets.stores.releases.ledger import ReleaseLedger
from heimdall_assets.stores.releases.rows import (
    RELEASE,
    RESULT,
    check_releases,
    list_published,
    read_aliases,
    read_json,
    select_row,
)
from heimdall_assets.stores.releases.status import is_rejected
from heimdall_assets.stores.releases.version_numbers import check_version, parse_version

LATEST = "latest"


class ReleaseReader:
    """Released models: files in a folder or a bucket; versions and aliases in the database."""

    def __init__(self, files: ReleaseFiles, ledger: ReleaseLedger):
        self.files = files
        self._ledger = ledger

    @property
    def database(self) -> Database:
        """The database of ours that keeps them; where that of the sessions is somebody else's, another one."""
        return self._ledger.database

    def locate(self, version: str) -> str:
        """Return where the files of ``version`` are, for people: a folder, or an address of S3."""
        return self.files.locate(check_version(version))

    def is_published(self, version: str) -> bool:
        """Return whether a reserved version was published."""
        version = check_version(version)
        if not self._ledger.exists:
            return False
        with self._ledger.reading() as connection:
            row = select_row(connection, version)
        return row is not None and row["published_at"] is not None

    def list_releases(self) -> list[dict[str, Any]]:
        """Return the record of every published release, by rising version.

        Each has also ``version``, ``aliases``, ``created_at`` and ``files`` (name -> sha256 and size).
        """
        if not self._ledger.exists:
            return []
        with self._ledger.reading() as connection:
            rows, aliases = list_published(connection), read_aliases(connection)
        return [_describe(row, aliases) for row in rows]

    def find_record(self, version: str) -> dict[str, Any]:
        """Return the record of one published release.

        Raises:
            NotFound: it is not published.
        """
        version = check_version(version)
        for release in self.list_releases():
            if release["version"] == version:
                return release
        raise NotFound(f"release {version}: found no published release of this version")

    def resolve(self, model: str) -> str:
        """Return the version that ``model`` (a version, ``latest`` or an alias) means.

        Raises:
            NotFound: nothing published is called so.
            InvalidIdentifier: ``model`` is no name.
        """
        check_name(model, "model")
        releases = self.list_releases()
        called = check_version(model) if parse_version(model) else None
        passed = [release for release in releases if not is_rejected(release)]
        if model == LATEST and passed:
            return str(passed[-1]["version"])
        for release in releases:
            if model in release["aliases"] or release["version"] == called:
                return str(release["version"])
        known = ", ".join(str(release["version"]) for release in releases[-5:]) or "none yet"
        raise NotFound(f"model {model}: found no such release, expected latest, an alias or a version ({known})")

    def read_file(self, version: str, name: str) -> bytes:
        """Return one file of a release, verified.

        Raises:
            NotFound: the release is not published, or has no such file.
            CorruptObject: the file is not what was published.
            StorageError: it could not be read.
        """
        record = self.find_record(version)
        if name not in record["files"]:
            raise NotFound(f"release {version}: found no file {name!r:.140}, expected one of {sorted(record['files'])}")
        return self._read_listed(record["version"], name, record["files"][name]["sha256"])

    def find_problems(self, version: str) -> list[str]:
        """Return what is wrong with the files of a published release, one line each; empty: all is as published.

        Raises:
            NotFound: the release is not published.
            StorageError: nobody can say which files there are, or (``OutOfReach``) how they are.
        """
        record = self.find_record(version)
        version, listed = record["version"], record["files"]
        problems = []
        for name in sorted(listed):
            try:
                self._read_listed(version, name, listed[name]["sha256"])
            except OutOfReach:
                raise
            except StorageError as error:
                problems.append(str(error))
        for name in sorted(set(self.files.list_files(version)) - set(listed)):
            problems.append(f"release {version}: found file {name} that was not published")
        return problems

    def list_promotion_events(self) -> list[dict[str, Any]]:
        """Return every change of an alias, oldest first."""
        if not self._ledger.exists:
            return []
        with self._ledger.reading() as connection:
            return _list_promotions(connection)

    def read_serving(self) -> tuple[list[RuleChange], list[dict[str, Any]]]:
        """Return every change of a rule of serving and of an alias, oldest first, both of the same moment."""
        if not self._ledger.exists:
            return [], []
        with self._ledger.reading() as connection:
            return read_changes(connection), _list_promotions(connection)

    def list_rule_changes(self) -> list[RuleChange]:
        """Return every change of a rule of serving, oldest first."""
        if not self._ledger.exists:
            return []
        with self._ledger.reading() as connection:
            return read_changes(connection)

    def list_service_keys(self) -> dict[str, ServiceKey]:
        """Return id -> key of a caller of the service, those that count no more too."""
        if not self._ledger.exists:
            return {}
        with self._ledger.reading() as connection:
            return read_service_keys(connection)

    def list_judgements(self) -> list[Judgement]:
        """Return every judgement of a release on sessions that no training had seen, oldest first.

        Raises:
            CorruptObject: an entry of the log is none.
        """
        if not self._ledger.exists:
            return []
        with self._ledger.reading() as connection:
            return read_judgements(connection)

    def check_ledger(self) -> list[str]:
        """Return what is wrong with the log, releases, promotions, rules and keys, one line a problem."""
        if not self._ledger.exists:
            return []
        with self._ledger.reading() as connection:
            found = [*check_entries(connection), *check_promotions(connection), *check_releases(connection)]
            for ledger in (serving_rule_events, service_key_events):
                found += check_known_ledger(connection, ledger)
            found += [*check_judgements(connection), *check_people(connection)]
        return list(dict.fromkeys(found))

    def read_names(self) -> dict[str, str]:
        """Return pseudonym -> name of everybody who promoted, added a key or had something computed."""
        if not self._ledger.exists:
            return {}
        with self._ledger.reading() as connection:
            return read_names(connection)

    def find_pseudonym(self, name: str) -> str | None:
        """Return the pseudonym of a person, by name; None: they have none here."""
        if not self._ledger.exists:
            return None
        with self._ledger.reading() as connection:
            return find_pseudonym(connection, name)

    def read_checkpoint(self, size: int | None = None) -> Checkpoint | None:
        """Return the checkpoint over the first ``size`` entries of the log, or over all; None: there are fewer.

        Raises:
            CorruptObject: the log has no name.
        """
        if not self._ledger.exists:
            return None
        with self._ledger.reading() as connection:
            return read_checkpoint(connection, size)

    def list_keys(self) -> dict[str, KnownKey]:
        """Return id -> public key that signs releases, retired ones too; empty: nobody has one.

        Raises:
            CorruptObject: an entry of the log is none.
        """
        if not self._ledger.exists:
            return {}
        with self._ledger.reading() as connection:
            return read_keys(connection)

    def find_log_entry(self, version: str) -> tuple[int, dict[str, Any]] | None:
        """Return number and content of the entry of the log that is of a release; None: none is.

        Raises:
            CorruptObject: an entry of the log is none.
        """
        if not self._ledger.exists:
            return None
        with self._ledger.reading() as connection:
            entries = read_entries(connection, RELEASE)
        return next((pair for pair in entries.items() if pair[1].get("version") == version), None)

    def count_log_entries(self) -> int:
        """Return how many entries the log has: while it stays the same, nothing was decided; one query."""
        if not self._ledger.exists:
            return 0
        with self._ledger.reading() as connection:
            return count_entries(connection)

    def read_log(self) -> list[str]:
        """Return the entries of the log as they lie, oldest first, each one line of canonical JSON."""
        if not self._ledger.exists:
            return []
        with self._ledger.reading() as connection:
            return read_log(connection)

    def _read_listed(self, version: str, name: str, expected: str) -> bytes:
        try:
            data = self.files.read(version, name)
        except NotFound as error:
            raise CorruptObject(f"release {version}: file {name} is gone from {self.files.locate(version)}") from error
        except StorageError as error:
            raise type(error)(f"release {version}: file {name}: {error}") from error
        found = compute_digest(data)
        if found != expected:
            raise CorruptObject(f"release {version}: file {name} has SHA-256 {found}, expected {expected}")
        return data


def _list_promotions(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(select(promotion_events).order_by(promotion_events.c.id)).all()
    return [{**plain_row(row), "decided_at": row.decided_at.isoformat()} for row in rows]


def _describe(row: Mapping[str, Any], aliases: Mapping[str, list[str]]) -> dict[str, Any]:
    record = read_json(row, "record")
    return {
        **{name: value for name, value in record.items() if name != RESULT},
        "version": row["version"],
        "aliases": aliases.get(row["version"], []),
        "created_at": row["published_at"].isoformat(),
        "files": read_json(row, "files"),
    }
