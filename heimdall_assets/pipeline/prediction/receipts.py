"""Receipts written: what a released model answered, from what, as one signed statement.

Belongs here: gathering what a receipt says from the stores, and signing it. Does not belong here: what stands where in
it (``lineage.receipts``), reading one again (``pipeline.releases.receipts``).
"""

import base64
from dataclasses import asdict
from typing import Any

from heimdall_assets.errors import Refused
from heimdall_assets.lineage.attestations import PAYLOAD_TYPE, encode_bundle
from heimdall_assets.lineage.findings import PROVENANCE_FILE
from heimdall_assets.lineage.receipts import MODEL_FILE, build_receipt
from heimdall_assets.pipeline.prediction.used import Used
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.installation import read_version
from heimdall_assets.stores.keys import SigningKey

PROGRAM = "heimdall-assets"


def make_receipt(
    stores: Stores, version: str, answer: Any, used: Used, time: str, key: SigningKey | None = None
) -> bytes:
    """Return the receipt of an answer, a line of canonical JSON; the same bytes for the same arguments and log.

    Args:
        stores: of the home that holds the release.
        version: of the release that answered.
        answer: all of it, JSON values.
        used: what the prediction told of its inputs and settings.
        time: when it was given out, ISO 8601 in UTC.
        key: signs it (see ``model_release.find_signing_key``); None: the receipt has no signature.

    Raises:
        NotFound: there is no such release.
        Refused: there is no log, or a value has no canonical form: nobody could check it.
    """
    files = stores.releases.find_record(version)["files"]
    checkpoint = stores.releases.read_checkpoint()
    if checkpoint is None:
        raise Refused("receipt: found no log of decisions, expected the one that holds the release")
    release = {"version": version, **{name: str(files[name]["sha256"]) for name in (MODEL_FILE, PROVENANCE_FILE)}}
    made = {"time": time, "program": f"{PROGRAM} {read_version()}", "log": asdict(checkpoint)}
    try:
        payload = build_receipt(release, used.inputs, used.settings, answer, made)
    except ValueError as error:
        raise Refused(f"receipt: found a value without a canonical form ({error}), expected JSON values") from error
    unsigned = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": []}
    return encode_bundle([unsigned if key is None else key.sign(payload, PAYLOAD_TYPE)])
