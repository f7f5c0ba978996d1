"""Signed decisions: an entry of the log in which somebody signs the entries just before it, and whether that holds.

Belongs here: writing and judging these entries. Does not belong here: private keys (``stores.keys``), which keys count
(``keys``).

What is signed is the numbers of the first and the last entry and the Merkle root over their leaves, in a DSSE envelope:
one signature for as many sessions as were decided at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from heimdall_assets.envelopes import Signer, find_signers, open_envelope, read_statement
from heimdall_assets.errors import CorruptObject, Refused
from heimdall_assets.manifests import encode_canonical_json
from heimdall_assets.merkle import compute_root
from heimdall_assets.stores.database.keys import KnownKey, read_keys
from heimdall_assets.stores.database.log import append_entries, find_entries, read_entries
from heimdall_assets.stores.database.people import find_pseudonym, read_names
from heimdall_assets.stores.database.schema import log_entries

SIGNATURE = "signature"
"""Kind of these entries."""

PAYLOAD_TYPE = "application/vnd.heimdall-assets.decisions+json"


def check_signer(connection: Connection, key: Signer, by: str) -> None:
    """Check that a key may sign what somebody decides.

    Raises:
        Refused: nobody knows it, it was retired, or it is another's.
    """
    known = read_keys(connection).get(key.id)
    if known is None or known.retired_entry is not None:
        found = "nobody knows" if known is None else f"was retired at {known.retired_at}"
        raise Refused(f"key {key.id}: found one that {found}, expected one that counts (heimdall keys add)")
    if known.owner not in (by, find_pseudonym(connection, by)):
        owner = read_names(connection).get(known.owner, known.owner)
        raise Refused(f"key {key.id}: found it to be {owner}'s, expected that of {by}, who decides")


def sign_entries(connection: Connection, rows: Sequence[Mapping[str, Any]], key: Signer) -> None:
    """Write the entry that signs ``rows``, the last ones of the log; the caller's transaction holds the write lock."""
    payload = encode_canonical_json(_describe(rows[0]["id"], rows[-1]["id"], [row["leaf"] for row in rows]))
    append_entries(connection, [{"kind": SIGNATURE, "envelope": key.sign(payload, PAYLOAD_TYPE)}])


def read_signers(connection: Connection) -> dict[int, str]:
    """Return number of an entry -> whose signature on it holds; what is not there, nobody signed.

    Raises:
        CorruptObject: the entry of a signature is none.
    """
    return _judge(connection, find_entries(connection, SIGNATURE))[0]


def check_signatures(connection: Connection) -> list[str]:
    """Return which signatures on decisions do not hold, one line each."""
    try:
        return _judge(connection, read_entries(connection, SIGNATURE))[1]
    except CorruptObject as error:
        return [str(error)]


def _judge(connection: Connection, entries: Mapping[int, Mapping[str, Any]]) -> tuple[dict[int, str], list[str]]:
    if not entries:
        return {}, []
    keys, signers, problems = read_keys(connection), {}, []
    rows = connection.execute(select(log_entries.c.id, log_entries.c.leaf).order_by(log_entries.c.id))
    leaves = {row.id: row.leaf for row in rows}
    for number, entry in entries.items():
        try:
            first, last, owner = _open(number, entry, keys, leaves)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problems.append(f"log_entries {number}: found a signature on decisions that does not hold ({error!s:.200})")
            continue
        signers.update(dict.fromkeys(range(first, last + 1), owner))
    return signers, problems


def _open(
    number: int, entry: Mapping[str, Any], keys: Mapping[str, KnownKey], leaves: Mapping[int, str]
) -> tuple[int, int, str]:
    """Return the first and the last entry that one signs, and whose key it is; raises ``ValueError`` and its like."""
    opened = open_envelope(entry["envelope"], PAYLOAD_TYPE)
    names, said = find_signers(opened, {name: key.public_pem for name, key in keys.items()}), read_statement(opened)
    first, last = int(said["first"]), int(said["last"])
    if not 0 < first <= last < number or said != _describe(first, last, [leaves[n] for n in range(first, last + 1)]):
        raise ValueError(f"it is of other entries than {first} to {last}")
    (name,) = names
    known = keys[name]
    if known.entry > number or (known.retired_entry is not None and known.retired_entry < number):
        raise ValueError(f"key {name} did not count then")
    return first, last, known.owner


def _describe(first: int, last: int, leaves: Sequence[str]) -> dict[str, Any]:
    return {"first": first, "last": last, "root": compute_root([bytes.fromhex(leaf) for leaf in leaves]).hex()}
