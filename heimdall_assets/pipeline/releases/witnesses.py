"""Witnesses: the log's checkpoint kept in a second place, and the log compared with what was kept there.

Belongs here: what is kept when, what disagrees. Does not belong here: the places (``stores.witness_places``), who is
told of what could not be kept (``defs.witnessing``), the tree (``merkle``).

One place keeps one log: where it holds checkpoints, a log under another name is one that was put in the first one's
place.
"""

from collections.abc import Iterable, Iterator

from heimdall_assets.counts import say_count
from heimdall_assets.errors import HeimdallError, NotFound, Refused, StorageError
from heimdall_assets.lineage.findings import Finding
from heimdall_assets.lineage.notes import sign_note
from heimdall_assets.manifests import decode_canonical_json
from heimdall_assets.merkle import Checkpoint, decode_checkpoint
from heimdall_assets.pipeline.releases.audit import audit_log
from heimdall_assets.stores.database.ledger import KINDS
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.keys import SigningKey
from heimdall_assets.stores.releases.rows import RELEASE
from heimdall_assets.stores.witness_places import WitnessPlace

COVERED = (RELEASE, KINDS["promotion_events"], KINDS["serving_rule_events"])
"""Kinds of entries after which a checkpoint is kept."""

_KEEP = "heimdall ledger post"


def take_checkpoint(stores: Stores, signer: SigningKey | None = None) -> tuple[Checkpoint, str]:
    """Return the checkpoint of now, and its text, signed where there is a ``signer``.

    Raises:
        NotFound: the log has no entry yet.
        Refused: the key does not count.
    """
    found = stores.releases.read_checkpoint()
    if found is None:
        raise NotFound("log: found no entry, expected one; the first approval or release begins it")
    if signer is None:
        return found, found.encode()
    known = stores.releases.list_keys().get(signer.id)
    if known is None or known.retired_entry is not None:
        raise Refused(f"key {signer.id}: found one that does not count, expected one that does (heimdall keys list)")
    return found, sign_note(found.encode(), signer.public_pem, signer.sign_bytes)


def keep_checkpoint(stores: Stores, place: WitnessPlace, signer: SigningKey | None) -> bool:
    """Have a place keep the checkpoint of now; return whether it did not yet.

    Raises:
        Refused: the log does not begin as the one that the place keeps a checkpoint of: it is not led on there.
        StorageError: the place could not be read or written.
    """
    last = read_last(place)  # before the log: what another process adds meanwhile is no difference
    checkpoint, note = take_checkpoint(stores, signer)
    if last is None:
        place.keep(checkpoint.size, note)
        return True
    if stores.releases.read_checkpoint(last[0].size) != last[0]:
        raise Refused(
            f"found a log that does not begin as the one of {say_count(last[0].size, 'entry')} whose checkpoint is "
            "kept there; heimdall verify latest says more"
        )
    if checkpoint.size <= last[0].size:
        return False
    place.keep(checkpoint.size, note)
    return True


def read_last(place: WitnessPlace) -> tuple[Checkpoint, str] | None:
    """Return the last checkpoint that a place keeps, and its text with signatures; None: it keeps none.

    Raises:
        StorageError: nobody can say, or the file holds none.
    """
    note = place.read_last()
    if note is None:
        return None
    try:
        return decode_checkpoint(note), note
    except ValueError as error:
        raise StorageError(f"{place.shown}: the last checkpoint: {error}") from error


def count_uncovered(stores: Stores, checkpoint: Checkpoint | None) -> int:
    """Return how many releases, promotions and rules of serving were made since a checkpoint, or since ever."""
    kinds = [decode_canonical_json(body)["kind"] for body in stores.releases.read_log()]
    return sum(kind in COVERED for kind in kinds[checkpoint.size if checkpoint is not None else 0 :])


def audit_witnesses(stores: Stores, places: Iterable[WitnessPlace]) -> Iterator[Finding]:
    """Yield where the log is no longer the one that a place keeps a checkpoint of; notices of what cannot be said."""
    for place in places:
        try:
            last = read_last(place)
        except HeimdallError as error:
            yield _notice(place, f"nothing that can be read ({error})", "the log's last checkpoint", "heimdall doctor")
            continue
        if last is not None:
            found = audit_log(stores, *last, f"the checkpoint in {place.shown}")
            yield from found
            if found:
                continue
        try:
            missed = count_uncovered(stores, None if last is None else last[0])
        except (HeimdallError, ValueError, KeyError, TypeError):
            continue  # a finding of the log's own
        if missed or last is None:
            since = "no checkpoint" if last is None else f"a checkpoint of {say_count(last[0].size, 'entry')}"
            found_there = f"{since} and after it {missed} of the log's releases, promotions and rules"
            yield _notice(place, found_there, "one after the last of them", _KEEP)


def _notice(place: WitnessPlace, found: str, expected: str, next_command: str) -> Finding:
    return Finding("witness", place.shown, found, expected, (), next_command, "notice")
