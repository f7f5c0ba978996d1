"""Rows of releases: what the database says of each version, from its reservation on.

Belongs here: reading and writing those rows in a transaction that somebody else began. Does not belong here: files,
and the order in which both change (``store``).
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from heimdall_assets.errors import CorruptObject
from heimdall_assets.manifests import compute_digest, decode_canonical_json, encode_canonical_json
from heimdall_assets.stores.database.ledger import append_events
from heimdall_assets.stores.database.log import (
    append_entries,
    find_missing_log,
    plain,
    read_clock,
    read_entries,
)
from heimdall_assets.stores.database.people import name_person
from heimdall_assets.stores.database.schema import model_aliases, model_releases, plain_row, promotion_events
from heimdall_assets.stores.releases.status import is_rejected
from heimdall_assets.stores.releases.version_numbers import format_version

RELEASE = "release"
"""Kind of a release's entry in the log."""

RESULT = "result"
"""In the record, from the reservation on: the name of the result that the release is of."""

NUMBERS = (model_releases.c.major, model_releases.c.minor, model_releases.c.patch)


def select_row(connection: Connection, version: str) -> dict[str, Any] | None:
    """Return the row of a version, or None."""
    row = connection.execute(select(model_releases).where(model_releases.c.version == version)).first()
    return None if row is None else plain_row(row)


def read_json(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    """Return ``files`` or ``record`` of a row; empty: nothing stands there yet.

    Raises:
        CorruptObject: it is no JSON object.
    """
    try:
        value = decode_canonical_json(row[column] or "{}")
    except (ValueError, RecursionError, TypeError):
        value = None
    if not isinstance(value, dict):
        raise CorruptObject(
            f"model_releases {row['version']}: found {column} {row[column]!r:.60}, expected a JSON object; restore the "
            "database from its backup"
        )
    return value


def list_numbers(connection: Connection) -> list[tuple[int, int, int]]:
    """Return major, minor and patch of every version that was ever reserved, in order."""
    return [(row[0], row[1], row[2]) for row in connection.execute(select(*NUMBERS).order_by(*NUMBERS))]


def list_published(connection: Connection) -> list[dict[str, Any]]:
    """Return the row of every published version, in order."""
    query = select(model_releases).where(model_releases.c.published_at.is_not(None)).order_by(*NUMBERS)
    return [plain_row(row) for row in connection.execute(query)]


def list_unpublished(connection: Connection) -> list[str]:
    """Return every version that was reserved and is not published, in order."""
    unpublished = select(model_releases.c.version).where(model_releases.c.published_at.is_(None))
    return [str(row.version) for row in connection.execute(unpublished.order_by(*NUMBERS))]


def find_reserved(connection: Connection, result: str) -> str | None:
    """Return the version of a result: the one it was published under, else the one it may still be published under.

    A number below the newest published one is not taken up again: it would never be the latest.
    """
    rows = [plain_row(row) for row in connection.execute(select(model_releases).order_by(*NUMBERS))]
    newest = max((_read_numbers(row) for row in rows if row["published_at"] is not None), default=(0, 0, 0))
    for row in rows:
        mine = read_json(row, "record").get(RESULT) == result
        if mine and (row["published_at"] is not None or _read_numbers(row) > newest):
            return str(row["version"])
    return None


def reserve(connection: Connection, numbers: tuple[int, int, int], result: str) -> None:
    """Give a version to a result, once and for ever."""
    major, minor, patch = numbers
    row = {"version": format_version(numbers), "major": major, "minor": minor, "patch": patch}
    said = encode_canonical_json({RESULT: result}).decode()
    connection.execute(insert(model_releases), [{**row, "allocated_at": read_clock(), "record": said}])


def announce_files(connection: Connection, version: str, listed: Mapping[str, Any]) -> None:
    """Say which files are going to lie under a version."""
    values = {"files": encode_canonical_json(dict(listed)).decode()}
    connection.execute(update(model_releases).where(model_releases.c.version == version).values(values))


def mark_published(connection: Connection, row: Mapping[str, Any], said: str) -> None:
    """Say that a version is published; its record still says which result it is of, as the reservation did."""
    reserved = {name: value for name, value in decode_canonical_json(row["record"] or "{}").items() if name == RESULT}
    record = encode_canonical_json({**decode_canonical_json(said), **reserved}).decode()
    values = {"published_at": read_clock(), "record": record}
    append_entries(connection, [_describe({**row, **values})])
    connection.execute(update(model_releases).where(model_releases.c.version == row["version"]).values(values))


def check_releases(connection: Connection) -> list[str]:
    """Return where the rows of published releases and the log differ, one line a problem."""
    if missing := find_missing_log(connection):
        return missing
    rows = {str(row["version"]): row for row in list_published(connection)}
    problems: list[str] = []
    try:
        entries = read_entries(connection, RELEASE)
    except CorruptObject as error:
        return [str(error)]
    for version, numbers in ((version, _read_numbers(row)) for version, row in rows.items()):
        if version != format_version(numbers):
            problems.append(f"model_releases {version}: found numbers {numbers}, expected those of its name")
    for number, entry in entries.items():
        row = rows.pop(str(entry.get("version")), None)
        if row is None:
            problems.append(
                f"model_releases {entry.get('version')}: found no published row, or a second release of this version, "
                f"expected the one of entry {number} of the log"
            )
            continue
        try:
            said = _describe(row)
        except (ValueError, TypeError, AttributeError, KeyError):
            problems.append(f"model_releases {row['version']}: found a row that cannot be read, expected JSON")
            continue
        if said != entry:
            wrong = sorted(name for name in {*said, *entry} if said.get(name) != entry.get(name))
            problems.append(
                f"model_releases {row['version']}: found {', '.join(wrong)} other than entry {number} of the log says"
            )
    return problems + [f"model_releases {version}: found no entry of it in the log" for version in rows]


def _describe(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the log says of a published release."""
    return {
        "kind": RELEASE,
        "version": row["version"],
        "published_at": plain(row["published_at"]),
        "files": {name: entry["sha256"] for name, entry in json.loads(row["files"]).items()},
        "record_sha256": compute_digest(row["record"].encode()),
    }


def promote(connection: Connection, alias: str, version: str, why: tuple[str, str]) -> None:
    """Let an alias mean a version; who and why is kept for ever, and said again in the same words it is no event."""
    person = name_person(connection, why[0])
    said = {"alias": alias, "version": version, "decided_by": person, "reason": why[1]}
    if _find_last_promotion(connection, alias) != said:
        append_events(connection, promotion_events, [{**said, "decided_at": read_clock()}])
    known = connection.execute(select(model_aliases).where(model_aliases.c.alias == alias)).first()
    if known is None:
        connection.execute(insert(model_aliases), [{"alias": alias, "version": version}])
    else:
        connection.execute(update(model_aliases).where(model_aliases.c.alias == alias).values(version=version))


def read_aliases(connection: Connection) -> dict[str, list[str]]:
    """Return version -> the aliases that mean it, in order."""
    aliases: dict[str, list[str]] = {}
    for row in connection.execute(select(model_aliases).order_by(model_aliases.c.alias)):
        aliases.setdefault(row.version, []).append(row.alias)
    return aliases


def describe_latest(connection: Connection) -> bytes | None:
    """Return what ``latest.json`` must hold; None: nothing is published but what was rejected."""
    rows = [row for row in list_published(connection) if not is_rejected(read_json(row, "record"))]
    if not rows:
        return None
    row = rows[-1]
    latest = {"version": row["version"], "folder": row["version"], "files": read_json(row, "files")}
    return json.dumps(latest, indent=2, sort_keys=True).encode() + b"\n"


def _read_numbers(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return row["major"], row["minor"], row["patch"]


def _find_last_promotion(connection: Connection, alias: str) -> dict[str, Any] | None:
    """Return what was decided last of an alias: alias, version, decided_by and reason; None: nothing yet."""
    events = promotion_events.c
    query = select(events.alias, events.version, events.decided_by, events.reason).where(events.alias == alias)
    row = connection.execute(query.order_by(events.id.desc()).limit(1)).first()
    return None if row is None else dict(row._mapping)
