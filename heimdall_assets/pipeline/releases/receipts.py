"""Receipts read again: what they name, found in this home, and handed to the lineage floor to judge.

Belongs here: finding releases, keys, log and objects. Does not belong here: any comparison (``lineage.receipts``),
writing receipts (``pipeline.prediction.receipts``).
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from heimdall_assets.errors import InvalidInput, NotFound
from heimdall_assets.lineage.findings import PROVENANCE_FILE
from heimdall_assets.lineage.receipts import MODEL_FILE, Judged, Shown, judge_receipt
from heimdall_assets.manifests import compute_digest
from heimdall_assets.pipeline.releases.reading import find_record, read_as_it_lies
from heimdall_assets.stores.home import Stores


def audit_receipt(stores: Stores, data: bytes, name: str) -> Judged:
    """Return what a receipt says, whose it is, and where it disagrees with what lies in this home.

    Args:
        stores: of this home.
        data: the bytes of the receipt.
        name: how messages call it.

    Raises:
        CorruptObject: the log cannot be read, so that nobody can say which keys count.
        OutOfReach: a service that holds releases or objects cannot be asked.
    """

    def find_release(version: str) -> dict[str, str] | None:
        try:
            record = find_record(stores, version)
        except (NotFound, InvalidInput):
            return None
        read = {part: read_as_it_lies(stores, record, part) for part in (MODEL_FILE, PROVENANCE_FILE)}
        found = {part: compute_digest(data) for part, data in read.items() if data is not None}
        return {"version": str(record["version"]), **found}

    def find_log(size: int) -> Mapping[str, Any] | None:
        checkpoint = stores.releases.read_checkpoint(size)
        return None if checkpoint is None else asdict(checkpoint)

    return judge_receipt(
        Shown(name, data, find_release, find_log, stores.releases.list_keys(), stores.objects.at_rest())
    )
