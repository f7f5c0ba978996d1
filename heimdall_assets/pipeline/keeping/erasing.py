"""Erasing: a session's recordings and rows, or a person's name, destroyed; every digest over what is left still holds.

Belongs here: what an erasure takes, and what it leaves because models were made of it. Does not belong here: the entry
of the log that tells of it for ever (``stores.database.keeping``), run tags (``defs``).

Frozen tables keep what they say of a session (ids, times, places, levels), for a table without a row has another
digest; so do weights that learned from it. The entry comes first: what a killed erasure left is removed by the next.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from heimdall_assets.errors import HeimdallError, NotFound, OutOfReach
from heimdall_assets.kinds import IQ_FILES, SPECTROGRAM_FEATURES
from heimdall_assets.manifests import RESULTS, Manifest
from heimdall_assets.pipeline.keeping.needed import SHA256
from heimdall_assets.pipeline.tracing.indexing import open_whole_index
from heimdall_assets.pipeline.tracing.uses import find_uses
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import decode_table

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
        is_done: whether anything was changed.
    """

    session: str
    recordings: list[str]
    shared: list[str]
    elsewhere: list[str]
    features: list[str]
    num_measurements: int
    releases: dict[str, list[str]] = field(default_factory=dict)
    is_done: bool = False

    def dump(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def plan_erasure(stores: Stores, session: str) -> Erased:
    """Return what erasing a session, by id or name, would take.

    Raises:
        NotFound: no such session.
        HeimdallError: which releases used it could not be told.
    """
    found = stores.measurements.find_session(session)
    session_id = str(found["id"])
    located = [str(row["iq_data_location"]) for row in found["measurements"] if row["iq_data_location"] is not None]
    kept = stores.measurements.list_locations(without=session_id)
    pinned, features = _find_derived(stores, [str(row["id"]) for row in found["measurements"]])
    named = {text.removeprefix(SHA256) for text in located if text.startswith(SHA256)}
    before = {digest for erasure in _list_done(stores, session_id) for digest in erasure}
    digests = named | pinned | (before - features)
    shared = {digest for digest in digests if SHA256 + digest in kept}
    with open_whole_index(stores) as index:
        uses = find_uses(stores, index.edges, session=session_id)["releases"]
    aliases = {str(record["version"]): list(record["aliases"]) for record in stores.releases.list_releases()}
    return Erased(
        session_id,
        sorted(stores.objects.find_present(digests - shared)),
        sorted(shared),
        sorted(text for text in located if not text.startswith(SHA256)),
        sorted(stores.objects.find_present(features)),
        len(found["measurements"]),
        {str(use["version"]): aliases[str(use["version"])] for use in uses},
    )


def erase_session(stores: Stores, planned: Erased, with_features: bool, by: str, reason: str) -> None:
    """Do what was planned: rows and entry of the log first, then the bytes.

    Raises:
        Refused: the session is held, or the database is the field's own; nothing is changed.
        StorageError: bytes could not be removed; erasing again goes on.
    """
    digests = [*planned.recordings, *(planned.features if with_features else [])]
    stores.measurements.erase_session(planned.session, digests, by, reason)
    for digest in digests:
        stores.objects.remove_object(digest, math.inf)


def count_mentions(stores: Stores, name: str) -> int:
    """Return how many entries of the log hold a name in clear, in reasons above all: these cannot forget it."""
    return sum(name.casefold() in body.casefold() for body in stores.releases.read_log())


def _list_done(stores: Stores, session_id: str) -> list[tuple[str, ...]]:
    """Return the digests that erasures of the session told of: a killed one may have left some."""
    return [erasure.objects for erasure in stores.measurements.list_erasures() if erasure.session == session_id]


def _find_derived(stores: Stores, measurements: Collection[str]) -> tuple[set[str], set[str]]:
    """Return the digests of recordings as results pinned them, and of the files that features of them lie in."""
    pinned: set[str] = set()
    features: set[str] = set()
    for manifest in _list_results(stores):
        if manifest.kind == IQ_FILES:
            pinned |= _pick(stores, manifest, "table", "digest", measurements)
        elif manifest.kind == SPECTROGRAM_FEATURES:
            for name in _FEATURE_TABLES:
                features |= _pick(stores, manifest, name, "shard", measurements)
    return pinned, features


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
        except (HeimdallError, ValueError, NotFound):
            continue
        yield manifest
