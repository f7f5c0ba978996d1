"""Keys: Ed25519 private keys in files that their owners keep, or in the environment, and signing with one.

Belongs here: making a key, reading one, envelopes around what it signs. Does not belong here: which keys count and
whose they are (``database.keys``), what is signed (``lineage.attestations``).

A key and its passphrase are in memory alone: no error, log, representation or other process is given either.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from heimdall_assets.errors import InvalidSetting, Refused
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects.files import describe
from heimdall_assets.stores.objects.regular_files import check_regular_file
from heimdall_assets.stores.plain_files import write_private_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

VARIABLE = "HEIMDALL_SIGNING_KEY"
PEM_VARIABLE = "HEIMDALL_SIGNING_KEY_PEM"
PASSPHRASE_VARIABLE = "HEIMDALL_SIGNING_KEY_PASSPHRASE"

_EXPECTED = "expected an Ed25519 private key in PEM, as heimdall keys make writes it"
_ENCRYPTED = b"ENCRYPTED"
"""Stands in the first lines of a PEM file that a passphrase opens, whichever of its forms it has."""


@dataclass(frozen=True)
class SigningKey:
    """A private key, and what may be known of it.

    Attributes:
        id: SHA-256 of the public key in DER (SubjectPublicKeyInfo), 64 hex digits.
        public_pem: the public key in PEM.
    """

    id: str
    public_pem: str
    _private: Any = field(repr=False)

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


@dataclass(frozen=True)
class KeySource:
    """Where the key that signs comes from, read when something is to be signed.

    Attributes:
        path: file that holds it; None: ``pem`` does.
        pem: itself, in PEM; where it has no line breaks, as in a file of variables, ``\\n`` stands for one.
        passphrase: opens it where it is encrypted; empty: none is known.
    """

    path: Path | None = None
    pem: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)

    @property
    def variable(self) -> str:
        """The variable that names or holds the key."""
        return PEM_VARIABLE if self.path is None else VARIABLE

    def read(self) -> SigningKey:
        """Return the key.

        Raises:
            InvalidSetting: there is none, or the passphrase does not open it.
        """
        if self.path is not None:
            return read_key(self.path, VARIABLE, self.passphrase)
        pem = self.pem if "\n" in self.pem.strip() else self.pem.replace("\\n", "\n")
        return _load(pem.encode(), PEM_VARIABLE, self.passphrase)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key that signs is handed to no other process")


def make_key(path: Path, passphrase: str = "") -> SigningKey:
    """Return a new key, stored as ``path``, which its owner alone may read; encrypted where there is a passphrase.

    Raises:
        Refused: something is there already: a key that signed must not be lost.
        StorageError: it could not be stored.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if path.exists() or path.is_symlink():
        raise Refused(f"{path}: found a file already, expected none: a key that signed must not be lost")
    private = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    write_private_file(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return _describe(private)


def read_key(path: Path, what: str = VARIABLE, passphrase: str = "") -> SigningKey:
    """Return the key that a file holds.

    Args:
        path: of the file.
        what: names the setting or argument in errors, which show nothing of the key.
        passphrase: opens it where it is encrypted.

    Raises:
        InvalidSetting: there is no such file, it holds no such key, or the passphrase does not open it.
    """
    check_regular_file(path, what, InvalidSetting)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidSetting(f"{what}: {path} could not be read ({describe(error)}), {_EXPECTED}") from error
    return _load(data, what, passphrase, f" in {path}")


def _load(data: bytes, what: str, passphrase: str, where: str = "") -> SigningKey:
    """Return the key in PEM; the library's own errors, which are cut off here, may quote it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    is_encrypted = _ENCRYPTED in data
    if is_encrypted and not passphrase:
        raise InvalidSetting(f"{what}: found an encrypted key{where}, expected its passphrase in {PASSPHRASE_VARIABLE}")
    try:
        private = load_pem_private_key(data, passphrase.encode() if is_encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        found = f"a key{where} that {PASSPHRASE_VARIABLE} does not open" if is_encrypted else f"something else{where}"
        raise InvalidSetting(f"{what}: found {found}, {_EXPECTED}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidSetting(f"{what}: found a key of another kind{where}, {_EXPECTED}")
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
