"""Store: numbered, whole, never changed, each with a model and all that belongs to it; names for them.

Belongs here: who gets which number (the database decides), the order in which files and rows are written, aliases and
who set them. Does not belong here: where files lie (``folder``, ``bucket``), what they say (``stages.model_release``),
how numbers are written (``version_numbers``), whatever changes nothing (``reading``).

A release exists when the database says it is published; its files were there, whole and durable, before.
"""

import json
from collections.abc import Mapping
from typing import Any, get_args

from heimdall_assets.domain import check_name
from heimdall_assets.errors import CorruptObject, InvalidIdentifier, InvalidInput, NotFound, Refused
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.database.keys import add_key, retire_key
from heimdall_assets.stores.database.ledger import check_words
from heimdall_assets.stores.database.log import append_entries, plain, read_clock
from heimdall_assets.stores.database.people import erase_person, name_person
from heimdall_assets.stores.database.rules import RuleChange, SaidRule, change_rule
from heimdall_assets.stores.database.service_keys import (
    ServiceKey,
    find_service_key,
    make_service_key,
    note_use,
    revoke_service_key,
)
from heimdall_assets.stores.releases.contents import check_file, encode_record
from heimdall_assets.stores.releases.interface import LATEST_FILE
from heimdall_assets.stores.releases.reading import LATEST, ReleaseReader
from heimdall_assets.stores.releases.rows import (
    announce_files,
    check_releases,
    describe_latest,
    find_reserved,
    list_numbers,
    list_unpublished,
    mark_published,
    promote,
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

COLLECTION = "collection"
"""Kind of entries of the log."""


class ReleaseStore(ReleaseReader):
    """Released models, and how they come to be."""

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
        with self._ledger.writing() as connection:
            found = find_reserved(connection, result)
            if found is not None:
                return found
            # A new database never gives a number again under which files lie already.
            lie = [numbers for version in self.files.list_versions() if (numbers := parse_version(version))]
            numbers = compute_next_version(max([*list_numbers(connection), *lie], default=None), kind)
            reserve(connection, numbers, result)
        return format_version(numbers)

    def publish(self, version: str, files: Mapping[str, bytes], record: Mapping[str, Any]) -> None:
        """Store ``files`` as a release, whole and durable; publishing the same again changes nothing.

        The order is files, row, ``latest.json``: what a killed process leaves is finished, or replaced, by the next
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
        listed = {check_file(name): {"sha256": compute_digest(data), "size": len(data)} for name, data in files.items()}
        if not listed:
            raise InvalidInput(f"release {version}: found no files, expected at least one")
        said = encode_record(version, record)
        self._announce(version, listed)
        self._commit(version, files, listed, said)
        self.point_at_latest()

    def restore_file(self, version: str, name: str, data: bytes) -> None:
        """Store a file of a published release again that is damaged or gone.

        Raises:
            NotFound: the release is not published, or has no such file.
            Refused: ``data`` is not what was published: a release never changes.
            StorageError: it could not be stored.
        """
        record = self.find_record(version)
        if name not in record["files"]:
            raise NotFound(f"release {version}: found no file {name!r:.140}, expected one of {sorted(record['files'])}")
        found, expected = compute_digest(data), record["files"][name]["sha256"]
        if found != expected:
            raise Refused(f"release {version}: file {name} was published with SHA-256 {expected}, found {found}")
        self.files.write_file(record["version"], name, data)

    def name_person(self, name: str) -> str:
        """Return the pseudonym of a person, given now where they had none.

        Raises:
            Refused: the ledger is opened read-only.
        """
        known = self.find_pseudonym(name)
        if known is not None:
            return known
        with self._ledger.writing() as connection:
            return name_person(connection, name)

    def erase_person(self, name: str, by: str, reason: str) -> str:
        """Destroy a person's name, given by name or pseudonym; return the pseudonym that is left.

        Raises:
            NotFound: nobody of this name decided or started anything, or it is gone already.
            Refused: ``by`` or ``reason`` is blank, or the ledger is opened read-only.
        """
        with self._ledger.writing() as connection:
            pseudonym = erase_person(connection, name, by, reason)
        self._ledger.compact()
        return pseudonym

    def note_collection(self, num_objects: int, num_bytes: int, by: str) -> None:
        """Have the log say that objects were removed which nobody needed."""
        told = {"kind": COLLECTION, "num_objects": num_objects, "num_bytes": num_bytes}
        with self._ledger.writing() as connection:
            person = name_person(connection, by)
            append_entries(connection, [{**told, "decided_by": person, "decided_at": plain(read_clock())}])

    def point_at_latest(self) -> bool:
        """Have ``latest.json`` name the newest published release; return whether it named another one.

        Raises:
            StorageError: it could not be stored.
        """
        with self._ledger.writing() as connection:  # two that publish at once write it one after the other
            text = describe_latest(connection)
            if text is None or self.files.read_latest() == text:
                return False
            self.files.write_latest(text)
        return True

    def put_right(self) -> list[str]:
        """Remove what killed processes left half made, and have ``latest.json`` say what is so; a line for each.

        Raises:
            StorageError: files could not be listed, read or changed.
        """
        if not self._ledger.is_writable:
            return []
        with self._ledger.reading() as connection:
            unpublished, text = list_unpublished(connection), describe_latest(connection)
        lie = self.files.list_versions() if unpublished else set()
        lines = [line for version in unpublished if version in lie and (line := self._remove_half_made(version))]
        if text is not None and self.files.read_latest() != text and self.point_at_latest():
            lines.append(f"{LATEST_FILE}: named another release than the newest; written again")
        return lines

    def find_strangers(self) -> dict[str, str]:
        """Return what lies among the releases and no row says: thing -> what was found; empty: nothing.

        What a killed process left of a version that was reserved is none: the next one that publishes removes it.

        Raises:
            StorageError: files could not be listed or read.
        """
        with self._ledger.reading() as connection:
            known = list_numbers(connection)
            # Where the rows are not what the log says, ``check_ledger`` names them: they do not judge a file.
            expected = None if check_releases(connection) else describe_latest(connection)
        lie = self.files.list_versions() - {format_version(numbers) for numbers in known}
        found = dict.fromkeys(sorted(lie), "files of a version that was never reserved")
        latest = self.files.read_latest()
        if latest != expected and expected is not None:
            found[LATEST_FILE] = "nothing" if latest is None else f"{latest[:80]!r}"
        return found

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
        with self._ledger.writing() as connection:
            promote(connection, alias, version, (by, reason))

    def change_rule(self, said: SaidRule, expected: int | None, by: str, reason: str) -> RuleChange:
        """Have a rule of serving stand, or end; who and why is kept for ever.

        Args:
            said: the rule; its model by version.
            expected: number of the last change that was seen; None: whatever it is.
            by: who decides.
            reason: why.

        Raises:
            NotFound: its model is not published, or there is no rule to end.
            Refused: its model is rejected, a rule was changed since, or ``by`` or ``reason`` is blank.
            InvalidInput: it is no rule.
        """
        if said.version is not None:
            record = self.find_record(said.version)
            if is_rejected(record):
                raise Refused(f"{said.place}: found release {record['version']}, which is rejected and given to nobody")
        with self._ledger.writing() as connection:
            return change_rule(connection, said, expected, (by, reason))

    def make_service_key(self, owner: str, days: int, by: str, reason: str) -> tuple[ServiceKey, str]:
        """Make a key for a caller of the service and return it, and what they show, which is kept nowhere.

        Raises:
            InvalidInput: ``owner`` is no name, or ``days`` are not 1 to 3650.
            Refused: ``by`` or ``reason`` is blank, or the ledger is opened read-only.
        """
        with self._ledger.writing() as connection:
            return make_service_key(connection, owner, days, by, reason)

    def revoke_service_key(self, key_id: str, by: str, reason: str) -> None:
        """Have a key of a caller let nobody in any more.

        Raises:
            NotFound: there is none of this id, or it was revoked.
            Refused: ``by`` or ``reason`` is blank, or the ledger is opened read-only.
        """
        with self._ledger.writing() as connection:
            revoke_service_key(connection, key_id, by, reason)

    def find_service_key(self, shown: str) -> ServiceKey | None:
        """Return the key that a caller shows, where it counts; None: it does not.

        The day of its last use is kept, with one write a day; where the ledger may only be read, it is not.
        """
        if not self._ledger.exists:
            return None
        with self._ledger.reading() as connection:
            found = find_service_key(connection, shown)
        today = read_clock().date()
        if found is not None and found.last_used_on != today.isoformat() and self._ledger.is_writable:
            with self._ledger.writing() as connection:
                note_use(connection, found.id, today)
        return found

    def add_key(self, key_id: str, public_pem: str, owner: str, by: str) -> None:
        """Have a public key count from now on.

        Raises:
            Refused: it counts already, or was retired; ``owner`` is blank; the ledger is opened read-only.
        """
        with self._ledger.writing() as connection:
            add_key(connection, key_id, public_pem, owner, by)

    def retire_key(self, key_id: str, by: str, reason: str) -> None:
        """Have a public key count no more; what it signed before still does.

        Raises:
            NotFound: no such key counts.
            Refused: ``by`` or ``reason`` is blank.
        """
        with self._ledger.writing() as connection:
            retire_key(connection, key_id, by, reason)

    def _remove_half_made(self, version: str) -> str | None:
        with self._ledger.writing() as connection:  # whoever makes it now is waited for
            row = select_row(connection, version)
            if row is None or row["published_at"] is not None:
                return None
            try:
                if not self._remove_announced(version, row):
                    return None
            except Refused:
                return None  # somebody else's: whoever wants the number is told
        return f"release {version}: was half made by a process that is gone; removed, the same run makes it again"

    def _announce(self, version: str, listed: Mapping[str, Any]) -> None:
        """Say in the row which files are going to lie there: whatever else is found is not ours to remove."""
        with self._ledger.writing() as connection:
            row = select_row(connection, version)
            if row is None:
                raise Refused(f"release {version}: was never reserved; take a number from the database first")
            if row["published_at"] is not None:
                return
            self._remove_announced(version, row)  # of one that was killed: its times and runs are old
            announce_files(connection, version, listed)

    def _commit(self, version: str, files: Mapping[str, bytes], listed: Mapping[str, Any], said: str) -> None:
        """Write the files, then the row that says they are there, while nobody else can."""
        with self._ledger.writing() as connection:
            row = select_row(connection, version)
            assert row is not None
            is_published = row["published_at"] is not None
            if json.loads(row["files"]) != listed:
                raise Refused(
                    f"release {version}: is published with other files and never changes; take a new version"
                    if is_published
                    else f"release {version}: another process publishes it at this moment; try again"
                )
            missing = set(listed) - self._find_announced(version, listed)
            if is_published and len(missing) < len(listed):
                for name in sorted(missing):
                    self.files.write_file(version, name, files[name])
            else:
                self.files.write(version, files)
            if not is_published:
                mark_published(connection, row, said)

    def _remove_announced(self, version: str, row: Mapping[str, Any]) -> bool:
        """Return whether announced files lay there and were removed; raises ``Refused`` where others do."""
        found = self._find_announced(version, json.loads(row["files"] or "{}"))
        if found:
            self.files.remove(version, sorted(found))
        return bool(found)

    def _find_announced(self, version: str, listed: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """Return which announced files lie there, as announced; in a bucket, a kill leaves some of them.

        Raises:
            Refused: anything else does: somebody else's.
        """
        found = self.files.list_files(version)
        for name in found:
            try:
                ours = name in listed and compute_digest(self.files.read(version, name)) == listed[name]["sha256"]
            except (NotFound, CorruptObject):
                ours = False
            if not ours:
                raise Refused(
                    f"release {version}: found other files in {self.files.locate(version)}, which never change; "
                    "take a new version"
                )
        return set(found)
