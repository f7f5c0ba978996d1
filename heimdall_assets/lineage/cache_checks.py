"""Cache checks: do the cumulative tables that parts of a result were taken from still say what the result says?

Belongs here: comparing them. Does not belong here: which tables they were (the facts of a node, ``provenance``), how
parts are found again (``pipeline``). Such a table may be gone: what was taken from it stands in the result.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from heimdall_assets.errors import HeimdallError, OutOfReach
from heimdall_assets.kinds import SPECTROGRAM_FEATURES
from heimdall_assets.lineage.findings import Finding, ObjectReader
from heimdall_assets.lineage.recorded import ReadTable, list_rows

TAKEN = {"features": "index", "tracks": "tracks", "delays": "arrivals", "pairs": "pairs"}
"""What a table's reference begins with -> the artifact of ``spectrogram_features`` whose rows with the same ``key`` are
the same. Rows of recordings have no key in their result: of that table the digest alone is checked."""


def verify_caches(provenance: Mapping[str, Any], objects: ObjectReader, read_table: ReadTable) -> Iterator[Finding]:
    """Yield tables that are there and damaged, and rows that say something else than the result that took them."""
    again = f"heimdall reproduce {provenance['model']['version']}"
    for node in provenance["nodes"]:
        for name, digest in ((node["facts"] or {}).get("caches") or {}).items():
            label = f"{node['kind']} took from {name} {digest}"
            try:
                if not objects.exists(digest):
                    continue
                cache = read_table(digest)  # hashed where it is read
                wrong = _find_different(node, name, cache, read_table, objects)
            except OutOfReach:
                raise
            except (HeimdallError, KeyError) as error:
                yield Finding("object", label, str(error), f"SHA-256 {digest}", (), again)
                continue
            for key in wrong:
                taken = f"{node['kind']} took key {key} from {name} {digest}"
                yield Finding("object", taken, "other rows in the result", "the rows that the table has", (), again)


def _find_different(
    node: Mapping[str, Any], name: str, cache: pd.DataFrame, read_table: ReadTable, objects: ObjectReader
) -> list[str]:
    """Return the keys whose rows in the result are not those of the table."""
    part = TAKEN.get(name.split("/")[0])
    if node["kind"] != SPECTROGRAM_FEATURES or part is None:
        return []
    result = read_table(node["artifacts"][part]["digest"])
    columns = [str(column) for column in cache.columns if column in result]
    held, taken = _group(cache[cache["key"].isin(result["key"])], columns), _group(result, columns)
    return [key for key, rows in held.items() if taken[key] != rows and _is_whole(rows, objects)]


def _is_whole(rows: list[dict[str, Any]], objects: ObjectReader) -> bool:
    """Whether every shard of some rows is there; rows that lost theirs were computed again, not taken."""
    return all(objects.exists(str(row["shard"])) for row in rows if "shard" in row)


def _group(table: pd.DataFrame, columns: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the different rows of each key, in one order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in list_rows(table[columns]):
        if row not in found.setdefault(str(row["key"]), []):
            found[str(row["key"])].append(row)
    return {key: sorted(rows, key=repr) for key, rows in found.items()}
