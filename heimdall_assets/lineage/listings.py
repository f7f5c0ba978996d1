"""Listings: recordings and decisions behind a snapshot as lines of JSON, for readers that open no Parquet.

Each is an artifact beside the table that it is made of, and says nothing that the table, or the log, does not say.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import CorruptObject
from heimdall_assets.manifests import decode_canonical_json

if TYPE_CHECKING:
    import pandas as pd

RECORDINGS = "recordings.jsonl"
"""Artifact of ``iq_files``: measurement and digest of each recording, in the order of the table."""
DECISIONS = "decisions.jsonl"
"""Artifact of ``approved_measurements``: of each session the entry of the log that approved it, by rising number."""


def encode_recordings(table: "pd.DataFrame") -> bytes:
    """Return a line of canonical JSON for each row of ``iq_files`` that has a recording: ``digest, measurement_id``."""
    held = table[table["digest"].notna()]
    lines = [
        # Two texts are canonical as Python writes them; RFC 8785's own encoder takes ten times as long.
        f'{{"digest":{json.dumps(digest)},"measurement_id":{json.dumps(name, ensure_ascii=False)}}}\n'
        for digest, name in zip(held["digest"].astype(str), held["measurement_id"].astype(str), strict=True)
    ]
    return "".join(lines).encode()


def decode_recordings(data: bytes) -> list[tuple[str, str]]:
    """Return digest and measurement of each recording, in their order.

    Raises:
        CorruptObject: a line is of another form.
    """
    try:
        rows = json.loads(b"[" + b",".join(data.splitlines()) + b"]")  # at once: a tenth of the time of line by line
        return [(str(row["digest"]), str(row["measurement_id"])) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptObject(f"{RECORDINGS}: found a line that is none ({error!s:.80}), expected JSON") from error


def encode_decisions(entries: Iterable[str]) -> bytes:
    """Return entries of the log, canonical JSON, a line each."""
    return "".join(f"{entry}\n" for entry in entries).encode()


def decode_decisions(data: bytes) -> dict[int, Mapping[str, Any]]:
    """Return number of the decision -> the entry of the log.

    Raises:
        CorruptObject: a line is no entry of a decision.
    """
    try:
        entries = [decode_canonical_json(line) for line in data.splitlines()]
        return {int(entry["id"]): entry for entry in entries if entry["recording_session_id"]}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptObject(f"{DECISIONS}: found a line that is none ({error!s:.80}), expected JSON") from error
