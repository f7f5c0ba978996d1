"""Envelopes: what somebody signed, with the signatures beside it (DSSE 1.0), opened and judged.

Belongs here: whether signatures hold. Does not belong here: signing (``stores.keys``), which keys count
(``stores.database.keys``), what is signed (``lineage.attestations``, ``lineage.receipts``,
``stores.database.decision_signatures``).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from heimdall_assets.manifests import compute_digest, decode_canonical_json

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope


class Signer(Protocol):
    """Who signs with a private key (``stores.keys.SigningKey``): ``id`` is the SHA-256 of the public one in DER."""

    @property
    def id(self) -> str: ...

    def sign(self, payload: bytes, payload_type: str) -> dict[str, Any]:
        """Return the DSSE envelope of ``payload``, JSON values; the same bytes each time."""


def open_envelope(envelope: Mapping[str, Any], payload_type: str) -> "Envelope":
    """Return an envelope with its payload decoded; raises ``ValueError`` and the like where it holds something else."""
    from securesystemslib.dsse import Envelope

    opened = Envelope.from_dict({**envelope, "signatures": [dict(each) for each in envelope["signatures"]]})
    if opened.payload_type != payload_type:
        raise ValueError(f"found payload type {opened.payload_type!r:.80}, expected {payload_type}")
    return opened


def find_signers(opened: "Envelope", keys: Mapping[str, str]) -> set[str]:
    """Return the ids of the keys that signed an envelope; raises ``ValueError`` where a signature does not hold.

    Args:
        opened: what ``open_envelope`` gave.
        keys: id -> public key in PEM.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # as documented

    names = set(opened.signatures)
    if not names:
        raise ValueError("found no signature")
    for name in sorted(names):
        if name not in keys:
            raise ValueError(f"signed by key {name}, which nobody knows")
        loaded = load_pem_public_key(keys[name].encode())
        if compute_digest(loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)) != name:
            raise ValueError(f"signed by key {name}, which the log gives another public key")
        public = SSlibKey.from_crypto(loaded, keyid=name)
        try:
            Envelope(opened.payload, opened.payload_type, {name: opened.signatures[name]}).verify([public], 1)
        except VerificationError:
            raise ValueError(f"the signature of key {name} does not hold") from None
    return names


def read_statement(opened: "Envelope") -> dict[str, Any]:
    """Return the statement in an envelope; raises ``ValueError`` where its payload is none."""
    statement = decode_canonical_json(opened.payload)
    if not isinstance(statement, dict):
        raise ValueError("found a payload that is no statement")
    return statement
