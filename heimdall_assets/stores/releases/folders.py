"""Folders of releases: numbered, whole, read-only, each with a model and all that belongs to it; names for them.

Belongs here: who gets which number (the database decides), folders (written whole), aliases and who set them. Does not
belong here: what the files say (``stages.model_release``), how numbers are written (``version_numbers``).

A release exists when the database says it is published; its files were there, whole and durable, before.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from sqlalchemy import Connection, insert, select, update

from heimdall_assets.domain import check_name
from heimdall_assets.errors import CorruptObject, InvalidIdentifier, InvalidInput, NotFound, Refused, StorageError
from heimdall_assets.manifests import compute_digest, encode_canonical_json
from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.database.ledger import append_events, check_promotions, check_words, read_clock
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.schema import model_aliases, model_releases, plain_row, promotion_events
from heimdall_assets.stores.objects.files import FileSystem, FileWriter, describe, read_regular_file
from heimdall_assets.stores.releases.rows import (
    NUMBERS,
    RESULT,
    announce_files,
    describe_latest,
    find_last_promotion,
    find_reserved,
    list_numbers,
    list_unpublished,
    mark_published,
    reserve,
    select_row,
)
from heimdall_assets.stores.releases.status import is_rejected
from heimdall_assets.stores.releases.version_numbers import (
    Change,
    check_version,
    compute_next_version,
    format_version,
    parse_version,
)

LATEST = "latest"
LATEST_FILE = "latest.json"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class ReleaseStore:
    """Released models below ``root``; versions and aliases in the database, next to the approvals."""

    def __init__(self, root: Path, store: MeasurementStore, files: FileSystem | None = None):
        self.root = Path(root).absolute()
        self._store = store
        self._own_database: Database | None = None
        self._writer = FileWriter(self.root, files)

    def reserve_version(self, kind: Change, result: str) -> str:
        """Return the version, such as ``v1.2.3``, of the release of ``result``; nobody else has or ever gets it.

        Asked again for the same result, it gives the same version, published or not: a killed release goes on. Where a
        later one was published meanwhile, the number of one that never was is left and the next one taken.

        Args:
            kind: which part of the number rises; the first of all is ``v1.0.0``.
            result: the name under which the released result is found again.

        Raises:
            InvalidInput: ``kind`` is not major, minor or patch.
        """
        if kind not in get_args(Change):
            raise InvalidInput(f"change {kind!r}: expected one of {', '.join(get_args(Change))}")
        with self._database().writing() as connection:
            found = find_reserved(connection, result)
            if found is not None:
                return found
            taken = [*list_numbers(connection), *self._list_folders()]
            numbers = compute_next_version(max(taken, default=None), kind)
            reserve(connection, numbers, result)
        return format_version(numbers)

    def is_published(self, version: str) -> bool:
        """Return whether a reserved version was published."""
        row = self._find_row(check_version(version))
        return row is not None and row["published_at"] is not None

    def publish(self, version: str, files: Mapping[str, bytes], record: Mapping[str, Any]) -> Path:
        """Return the folder that holds ``files``, whole and durable; publishing the same again changes nothing.

        The order is folder, row, ``latest.json``: what a killed process leaves is finished, or replaced, by the next
        call, and ``put_right`` removes it where no call comes.

        Args:
            version: what ``reserve_version`` gave.
            files: name -> bytes.
            record: JSON values that ``find_record`` and ``list_releases`` give back.

        Raises:
            Refused: the version was never reserved, or is published with other files: a release never changes.
            StorageError: it could not be stored; nothing of it shows, and trying again heals.
        """
        version = check_version(version)
        listed = {
            _check_file(name): {"sha256": compute_digest(data), "size": len(data)} for name, data in files.items()
        }
        if not listed:
            raise InvalidInput(f"release {version}: found no files, expected at least one")
        said = _encode_record(version, record)
        self._announce(version, listed)
        self._commit(version, files, listed, said)
        self.point_at_latest()
        return self.folder(version)

    def point_at_latest(self) -> bool:
        """Have ``latest.json`` name the newest published release; return whether it named another one.

        Raises:
            StorageError: it could not be stored.
        """
        path = self.root / LATEST_FILE
        with self._database().writing() as connection:  # two that publish at once write it one after the other
            text = describe_latest(connection)
            if text is None or (path.is_file() and path.read_bytes() == text):
                return False
            self._writer.write_file(path, [text])
        return True

    def put_right(self) -> list[str]:
        """Remove what killed processes left half made, and have ``latest.json`` say what is so; a line for each.

        Raises:
            StorageError: the disk refused.
        """
        if not self._has_database() or not self._database().is_writable:
            return []
        lines = [line for version in self._list_half_made() if (line := self._remove_half_made(version))]
        with self._database().reading() as connection:
            text = describe_latest(connection)
        path = self.root / LATEST_FILE
        if text is not None and (not path.is_file() or path.read_bytes() != text) and self.point_at_latest():
            lines.append(f"{LATEST_FILE}: named another release than the newest; written again")
        return lines

    def folder(self, version: str) -> Path:
        """Return where the files of ``version`` are."""
        return self.root / check_version(version)

    def list_releases(self) -> list[dict[str, Any]]:
        """Return the record of every published release, by rising version.

        Each has also ``version``, ``aliases``, ``created_at`` and ``files`` (name -> sha256 and size).
        """
        if not self._has_database():
            return []
        with self._database().reading() as connection:
            query = select(model_releases).where(model_releases.c.published_at.is_not(None)).order_by(*NUMBERS)
            rows = [plain_row(row) for row in connection.execute(query)]
            aliases = _read_aliases(connection)
        return [self._describe(row, aliases) for row in rows]

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
        """
        record = self.find_record(version)
        if name not in record["files"]:
            raise NotFound(f"release {version}: found no file {name!r:.140}, expected one of {sorted(record['files'])}")
        path = self.folder(version) / name
        try:
            data = read_regular_file(path)
        except FileNotFoundError as error:
            raise CorruptObject(f"release {version}: file {name} is gone from {path.parent}") from error
        except OSError as error:
            raise StorageError(f"release {version}: file {name} could not be read ({describe(error)})") from error
        found, expected = compute_digest(data), record["files"][name]["sha256"]
        if found != expected:
            raise CorruptObject(f"release {version}: file {name} has SHA-256 {found}, expected {expected}")
        return data

    def find_problems(self, version: str) -> list[str]:
        """Return what is wrong with the files of a published release, one line each; empty: all is as published."""
        record = self.find_record(version)
        problems = []
        for name in sorted(record["files"]):
            try:
                self.read_file(record["version"], name)
            except StorageError as error:
                problems.append(str(error))
        folder = self.folder(version)
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        for name in sorted(names - set(record["files"])):
            problems.append(f"release {record['version']}: found file {name} that was not published")
        return problems

    def set_alias(self, alias: str, version: str, by: str, reason: str) -> None:
        """Let ``alias`` mean the published ``version``; who and why is kept for ever.

        Said again in the same words, it is no second event: whoever was killed while saying it may repeat it.

        Raises:
            InvalidIdentifier: ``alias`` is no name, or could be taken for a version.
            NotFound: the version is not published.
            Refused: ``by`` or ``reason`` is blank.
        """
        if check_name(alias, "alias") == LATEST or parse_version(alias):
            raise InvalidIdentifier(f"alias {alias}: expected a name that is neither a version nor {LATEST}")
        by, reason = check_words(by, reason)
        version = str(self.find_record(version)["version"])
        with self._database().writing() as connection:
            said = {"alias": alias, "version": version, "decided_by": by, "reason": reason}
            if find_last_promotion(connection, alias) != said:
                append_events(connection, promotion_events, [{**said, "decided_at": read_clock()}])
            known = connection.execute(select(model_aliases).where(model_aliases.c.alias == alias)).first()
            if known is None:
                connection.execute(insert(model_aliases), [{"alias": alias, "version": version}])
            else:
                connection.execute(update(model_aliases).where(model_aliases.c.alias == alias).values(version=version))

    def list_promotion_events(self) -> list[dict[str, Any]]:
        """Return every change of an alias, oldest first."""
        if not self._has_database():
            return []
        with self._database().reading() as connection:
            rows = connection.execute(select(promotion_events).order_by(promotion_events.c.id)).all()
        return [{**plain_row(row), "decided_at": row.decided_at.isoformat()} for row in rows]

    def check_ledger(self) -> list[str]:
        """Return what is wrong with the promotions, one line a problem; empty: all is as it was written."""
        if not self._has_database():
            return []
        with self._database().reading() as connection:
            return check_promotions(connection)

    def _database(self) -> Database:
        """Return the database of versions: that of the approvals, or one beside the releases where that is not ours."""
        if self._store.database.is_ours:
            return self._store.database
        if self._own_database is None:
            self._own_database = Database(f"sqlite:///{self.root / 'releases.db'}")
            self._own_database.upgrade()
        return self._own_database

    def _has_database(self) -> bool:
        return self._store.database.is_ours or (self.root / "releases.db").exists()

    def _find_row(self, version: str) -> dict[str, Any] | None:
        with self._database().reading() as connection:
            return select_row(connection, version)

    def _list_half_made(self) -> list[str]:
        with self._database().reading() as connection:
            return [version for version in list_unpublished(connection) if self.folder(version).exists()]

    def _remove_half_made(self, version: str) -> str | None:
        with self._database().writing() as connection:  # whoever makes it now is waited for
            row = select_row(connection, version)
            if row is None or row["published_at"] is not None or not self.folder(version).exists():
                return None
            try:
                self._check_folder(version, json.loads(row["files"] or "null"))
            except Refused:
                return None  # somebody else's: whoever wants the number is told
            self._writer.remove_folder(self.folder(version))
        return f"release {version}: was half made by a process that is gone; removed, the same run makes it again"

    def _announce(self, version: str, listed: Mapping[str, Any]) -> None:
        """Say in the row which files will be in the folder: whatever else is found there is not ours to remove."""
        with self._database().writing() as connection:
            row = select_row(connection, version)
            if row is None:
                raise Refused(f"release {version}: was never reserved; take a number from the database first")
            if row["published_at"] is not None:
                return
            if self.folder(version).exists():
                self._check_folder(version, json.loads(row["files"] or "null"))
                self._writer.remove_folder(self.folder(version))  # of one that was killed: its times and runs are old
            announce_files(connection, version, listed)

    def _commit(self, version: str, files: Mapping[str, bytes], listed: Mapping[str, Any], said: str) -> None:
        """Write the folder, then the row that says it is there, while nobody else can."""
        with self._database().writing() as connection:
            row = select_row(connection, version)
            assert row is not None
            if json.loads(row["files"]) != listed:
                raise Refused(
                    f"release {version}: is published with other files and never changes; take a new version"
                    if row["published_at"] is not None
                    else f"release {version}: another process publishes it at this moment; try again"
                )
            if row["published_at"] is not None and self.folder(version).exists():
                self._check_folder(version, listed)
                return
            self._writer.write_folder(self.folder(version), files)
            if row["published_at"] is None:
                mark_published(connection, row, said)

    def _list_folders(self) -> list[tuple[int, int, int]]:
        """Return the versions of folders, so that a new database never gives an old folder's number again."""
        numbers = (parse_version(path.name) for path in self.root.glob("v*.*.*"))
        return [number for number in numbers if number is not None]

    def _describe(self, row: dict[str, Any], aliases: Mapping[str, list[str]]) -> dict[str, Any]:
        record = json.loads(row["record"] or "{}")
        return {
            **{name: value for name, value in record.items() if name != RESULT},
            "version": row["version"],
            "aliases": aliases.get(row["version"], []),
            "created_at": row["published_at"].isoformat(),
            "files": json.loads(row["files"]),
        }

    def _check_folder(self, version: str, listed: Mapping[str, Mapping[str, Any]] | None) -> None:
        folder = self.folder(version)
        try:
            found = {path.name: compute_digest(read_regular_file(path)) for path in folder.iterdir()}
        except OSError as error:
            raise StorageError(f"release {version}: {folder} could not be read ({describe(error)})") from error
        if listed is None or found != {name: facts["sha256"] for name, facts in listed.items()}:
            raise Refused(f"release {version}: found other files in {folder}, which never change; take a new version")


_OURS = {"version", "aliases", "created_at", "files", RESULT}


def _check_file(name: str) -> str:
    if not isinstance(name, str) or not _FILE.match(name):
        raise InvalidIdentifier(f"release file {name!r:.140}: expected a plain file name")
    return name


def _encode_record(version: str, record: Mapping[str, Any]) -> str:
    taken = sorted(_OURS & set(record))
    if taken:
        raise InvalidInput(
            f"release {version}: found {taken} in the record, expected no field that the store itself fills"
        )
    try:
        return encode_canonical_json(dict(record)).decode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"release {version}: found a record that is no JSON ({error})") from error


def _read_aliases(connection: Connection) -> dict[str, list[str]]:
    aliases: dict[str, list[str]] = {}
    for row in connection.execute(select(model_aliases).order_by(model_aliases.c.alias)):
        aliases.setdefault(row.version, []).append(row.alias)
    return aliases
