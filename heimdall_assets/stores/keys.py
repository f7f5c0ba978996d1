"""Keys: Ed25519 private keys in files that their owners keep, and signing with one.

Belongs here: making a key, reading one, envelopes around what it signs. Does not belong here: which keys count and
whose they are (``database.keys``), what is signed (``lineage.attestations``).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import InvalidSetting, Refused
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects.files import describe
from heimdall_assets.stores.objects.regular_files import check_regular_file
from heimdall_assets.stores.plain_files import write_private_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

VARIABLE = "HEIMDALL_SIGNING_KEY"
_EXPECTED = "expected an Ed25519 private key in PEM without a passphrase, as heimdall keys make writes it"


@dataclass(frozen=True)
class SigningKey:
    """A private key, and what may be known of it.

    Attributes:
        id: SHA-256 of the public key in DER (SubjectPublicKeyInfo), 64 hex digits.
        public_pem: the public key in PEM.
    """

    id: str
    public_pem: str
    _private: Any

    def sign_bytes(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature on ``data``."""
        signature: bytes = self._private.sign(data)
        return signature

    def sign(self, payload: bytes, payload_type: str) -> dict[str, Any]:
        """Return the DSSE envelope of ``payload``, JSON values; the same bytes each time."""
        from securesystemslib.dsse import Envelope
        from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # as documented

        public = SSlibKey.from_crypto(self._private.public_key(), keyid=self.id)
        envelope = Envelope(payload, payload_type, {})
        envelope.sign(CryptoSigner(self._private, public))
        told: dict[str, Any] = envelope.to_dict()
        return told


def make_key(path: Path) -> SigningKey:
    """Return a new key, stored as ``path``, which its owner alone may read.

    Raises:
        Refused: something is there already: a key that signed must not be lost.
        StorageError: it could not be stored.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if path.exists() or path.is_symlink():
        raise Refused(f"{path}: found a file already, expected none: a key that signed must not be lost")
    private = Ed25519PrivateKey.generate()
    write_private_file(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return _describe(private)


def read_key(path: Path, what: str = VARIABLE) -> SigningKey:
    """Return the key that a file holds; ``what`` names the setting or argument in errors, which show nothing of it.

    Raises:
        InvalidSetting: there is no such file, or it holds no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    check_regular_file(path, what, InvalidSetting)
    try:
        private = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise InvalidSetting(f"{what}: {path} could not be read ({describe(error)}), {_EXPECTED}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidSetting(f"{what}: found something else in {path}, {_EXPECTED}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidSetting(f"{what}: found a key of another kind in {path}, {_EXPECTED}")
    return _describe(private)


def read_public_key(path: Path, what: str) -> tuple[str, str]:
    """Return id and PEM of the public key that a file holds; ``what`` names the argument in errors.

    Raises:
        InvalidSetting: there is no such file, or it holds no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    expected = "expected an Ed25519 public key in PEM, as heimdall keys list --json shows it"
    check_regular_file(path, what, InvalidSetting)
    try:
        public = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise InvalidSetting(f"{what}: {path} could not be read ({describe(error)}), {expected}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidSetting(f"{what}: found something else in {path}, {expected}") from None
    if not isinstance(public, Ed25519PublicKey):
        raise InvalidSetting(f"{what}: found a key of another kind in {path}, {expected}")
    return _identify(public)


def _describe(private: "Ed25519PrivateKey") -> SigningKey:
    return SigningKey(*_identify(private.public_key()), private)


def _identify(public: "Ed25519PublicKey") -> tuple[str, str]:
    """Return the id of a public key, and itself in PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return compute_digest(der), public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
