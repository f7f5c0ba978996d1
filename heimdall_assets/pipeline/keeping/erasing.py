"""Erasing: a session's recordings and rows, or a person's name, destroyed; every digest over what is left still holds.

Belongs here: what an erasure takes, and what it leaves because models were made of it. Does not belong here: the entry
of the log that tells of it for ever (``stores.database.keeping``), run tags (``defs``).

Frozen tables keep what they say of a session (ids, times, places, levels), for a table without a row has another
digest; so do weights that learned from it. The entry comes first: what a killed erasure left is removed by the next.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from heimdall_assets.errors import HeimdallError, NotFound, OutOfReach, Refused
from heimdall_assets.kinds import IQ_FILES, SPECTROGRAM_FEATURES
from heimdall_assets.manifests import RESULTS, Manifest, decode_canonical_json
from heimdall_assets.pipeline.keeping.needed import SHA256, Reach
from heimdall_assets.pipeline.tracing.indexing import open_whole_index
from heimdall_assets.pipeline.tracing.uses import find_uses
from heimdall_assets.stores.computing import FACTS, read_facts
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import decode_table
from heimdall_assets.things import SESSION_NAME, SOURCE_NAME, Thing

_FEATURE_TABLES = ("index", "tracks", "pairs")
_ABOUT = ("measurement_id", "first", "second")
"""Columns that name the measurement, or the two, that a row is of."""


@dataclass(frozen=True)
class Erased:
    """What an erasure takes, or took.

    Attributes:
        session: id.
        recordings: digests of recordings that no other session holds.
        shared: digests of recordings that stay, for another session holds them too.
        elsewhere: names of files of others, which are never touched.
        features: digests of the files in which spectrograms, tracks and correlations of it lie, beside those of other
            sessions; taken where that was asked for.
        num_measurements: rows that go.
        releases: versions that used it -> their aliases.
        judged_by: versions that were judged on it before it was trained on; what they said of it is kept.
    """

    session: str
    recordings: list[str]
    shared: list[str]
    elsewhere: list[str]
    features: list[str]
    num_measurements: int
    releases: dict[str, list[str]] = field(default_factory=dict)
    judged_by: list[str] = field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def plan_erasure(stores: Stores, session: str) -> Erased:
    """Return what erasing a session, by id or name, would take.

    Raises:
        NotFound: no such session; the message names sessions whose erasure was interrupted.
        HeimdallError: which releases used it could not be told.
    """
    try:
        found = stores.measurements.find_session(session)
    except NotFound as error:
        raise NotFound(f"{error}{_hint_at_interrupted(stores)}") from error
    session_id = str(found["id"])
    done = [erasure for erasure in stores.measurements.list_erasures() if erasure.session == session_id]
    located = [str(row["iq_data_location"]) for row in found["measurements"] if row["iq_data_location"] is not None]
    mine = {str(row["id"]) for row in found["measurements"]} | {name for one in done for name in one.measurements}
    pinned, others, features = _find_derived(stores, mine)
    digests = pinned | {text.removeprefix(SHA256) for text in located if text.startswith(SHA256)}
    digests |= {digest for one in done for digest in one.objects} - features
    kept = stores.measurements.list_locations(without=session_id)
    alive = stores.measurements.find_measurements({name for digest in digests for name in others.get(digest, ())})
    shared = {digest for digest in digests if SHA256 + digest in kept or others.get(digest, set()) & alive}
    with open_whole_index(stores) as index:
        uses = find_uses(stores, index.edges, session=session_id)["releases"]
    aliases = {str(record["version"]): list(record["aliases"]) for record in stores.releases.list_releases()}
    return Erased(
        session_id,
        sorted(digests - shared),
        sorted(shared),
        sorted(text for text in located if not text.startswith(SHA256)),
        sorted(stores.objects.find_present(features)),
        len(found["measurements"]),
        {str(use["version"]): aliases[str(use["version"])] for use in uses},
        [one.version for one in stores.releases.list_judgements() if session_id in one.sessions],
    )


def erase_session(stores: Stores, planned: Erased, with_features: bool, by: str, reason: str) -> None:
    """Do what was planned: rows and entry of the log first, then the bytes.

    Raises:
        Refused: the session, or what hangs on its recordings, is held, or the database is the field's own; nothing is
            changed.
        StorageError: bytes could not be removed; erasing again goes on.
    """
    digests = [*planned.recordings, *(planned.features if with_features else [])]
    _check_not_held(stores, planned, digests, with_features)
    before = stores.measurements.find_session(planned.session)
    stores.measurements.erase_session(planned.session, digests, by, reason)
    with stores.measurements.hold_writes() as located:  # nobody imports one of them again meanwhile
        for digest in digests:
            if SHA256 + digest not in located:
                stores.objects.remove_object(digest, math.inf)
    if stores.edges.is_writable:
        stores.edges.forget_things(_list_names(before, stores.measurements.find_session(planned.session)))
    stores.measurements.database.compact()


def _check_not_held(stores: Stores, planned: Erased, digests: list[str], with_features: bool) -> None:
    """Raise ``Refused`` where what goes is behind a held result, or beside a held session's features."""
    for hold in stores.measurements.list_holds():
        reach = Reach(stores.objects)
        if hold.what == "object":
            reach.walk_what_is_there([hold.thing], hold.name)
        elif with_features and hold.thing != planned.session:
            rows = stores.measurements.find_session(hold.thing)["measurements"]
            reach.add(_find_derived(stores, {str(row["id"]) for row in rows})[2], hold.name)
        if needed := sorted(set(digests) & reach.why.keys()):
            raise Refused(
                f"session {planned.session}: found object {needed[0]} behind {hold.what} {hold.thing}, which is held "
                f"({hold.name}: {hold.reason}), expected no hold; heimdall hold end ends it"
            )


def _list_names(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Thing]:
    """Return the names in the index of lineage that were erased."""
    names = [(SESSION_NAME, str(before["session_name"]))] if before["session_name"] != after["session_name"] else []
    then, now = before["source"], after["source"]
    return [*names, *([(SOURCE_NAME, str(then["name"]))] if then and then["name"] != now["name"] else [])]


def _hint_at_interrupted(stores: Stores) -> str:
    """Return what else to say where no session has a name: an erasure that was killed has taken the name already."""
    located = stores.measurements.list_locations()
    for erasure in stores.measurements.list_erasures():
        left = stores.objects.find_present(one for one in erasure.objects if SHA256 + one not in located)
        if left:
            return (
                f"; the erasure of session {erasure.session} was interrupted: heimdall erase session finishes it by id"
            )
    return ""


def count_mentions(stores: Stores, name: str) -> int:
    """Return how many entries of the log and facts of results hold a name in clear: they cannot forget it."""
    entries = [decode_canonical_json(body) for body in stores.releases.read_log()]
    facts = []
    for reference in stores.objects.list_references(FACTS):
        found = read_facts(stores.objects, reference.removeprefix(FACTS))
        facts += [] if found is None else [[found["started_by"], found["reason"]]]
    name = rf"(?<!\w){re.escape(name)}(?!\w)"  # as a word: digests hold short names by chance
    return sum(_holds(value, re.compile(name, re.IGNORECASE)) for value in (*entries, *facts))


def _holds(value: Any, name: re.Pattern[str]) -> bool:
    if isinstance(value, str):
        return name.search(value) is not None
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_holds(part, name) for part in parts)


def _find_derived(stores: Stores, measurements: Collection[str]) -> tuple[set[str], dict[str, set[str]], set[str]]:
    """Return digests that results pinned recordings as, whose else they are, and of the files that features lie in."""
    pinned: set[str] = set()
    others: dict[str, set[str]] = {}
    features: set[str] = set()
    for manifest in _list_results(stores):
        if manifest.kind == IQ_FILES:
            for digest, name in _read_pairs(stores, manifest, "table", "digest", "measurement_id"):
                if name in measurements:
                    pinned.add(digest)
                else:
                    others.setdefault(digest, set()).add(name)
        elif manifest.kind == SPECTROGRAM_FEATURES:
            for table in _FEATURE_TABLES:
                features |= _pick(stores, manifest, table, "shard", measurements)
    return pinned, others, features


def _read_pairs(stores: Stores, manifest: Manifest, table: str, *columns: str) -> list[tuple[str, str]]:
    """Return two columns of a table, row by row; one that is gone or damaged has none."""
    try:
        rows = decode_table(stores.objects.read_bytes(manifest.artifacts[table].digest))[list(columns)].dropna()
    except OutOfReach:
        raise
    except (HeimdallError, KeyError):
        return []
    return [(str(first), str(second)) for first, second in rows.itertuples(index=False, name=None)]


def _pick(stores: Stores, manifest: Manifest, name: str, column: str, measurements: Collection[str]) -> set[str]:
    """Return the values of a column in the rows of measurements; a table that is gone or damaged has none."""
    try:
        table = decode_table(stores.objects.read_bytes(manifest.artifacts[name].digest))
    except OutOfReach:
        raise
    except (HeimdallError, KeyError):
        return set()
    mine = table[[one for one in _ABOUT if one in table]].isin(list(measurements)).any(axis=1)
    return {str(value) for value in table.loc[mine, column].dropna()}


def _list_results(stores: Stores) -> Iterable[Manifest]:
    """Yield every result that can be read: those of releases are among them while gc keeps their references."""
    for name in stores.objects.list_references(RESULTS):
        try:
            digest = stores.objects.read_reference(name)
            if digest is None:
                continue
            manifest = Manifest.decode(stores.objects.read_bytes(digest))
        except OutOfReach:
            raise
        except (HeimdallError, ValueError):
            continue
        yield manifest
