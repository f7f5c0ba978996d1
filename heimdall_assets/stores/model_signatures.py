"""Model signatures: the files of a release signed and checked as OpenSSF's model-signing does, with its own library.

Belongs here: its format, which readers of models besides this program know: one signature, over the SHA-256 of every
file, in a Sigstore bundle. Does not belong here: our own statements (``lineage.attestations``), which keys count.

Its library signs with elliptic curves that Sigstore knows (P-256, P-384, P-521), not with Ed25519; with a key it asks
nobody and reaches no network.

Source: https://github.com/ossf/model-signing-spec, version 1.0.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from heimdall_assets.errors import InvalidSetting, MissingDependency
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects.files import describe
from heimdall_assets.stores.objects.regular_files import check_regular_file
from heimdall_assets.stores.plain_files import make_plain_folder, write_named_file
from heimdall_assets.stores.releases.contents import check_file
from heimdall_assets.stores.scratch import lend_folder

_OTHER_FILES = "Signature mismatch"
"""Begins what the library says where a signature holds and the files are others."""

_EXPECTED = "of a curve P-256, P-384 or P-521 in PEM, as openssl ecparam -name prime256v1 -genkey makes one"


def sign_files(scratch: Path, name: str, files: Mapping[str, bytes], key: tuple[Path, str]) -> bytes:
    """Return the signature on files, a Sigstore bundle in JSON.

    Args:
        scratch: folder for work in progress.
        name: what the model is called in it.
        files: name -> bytes.
        key: file of the private key, and its passphrase; empty: it has none.

    Raises:
        MissingDependency: model-signing is not installed.
        InvalidSetting: the file holds no such key, or the passphrase does not open it.
    """
    signing, _ = _load_library()
    path, passphrase = key
    data = _read_key(path)
    if b"ENCRYPTED" in data and not passphrase:
        raise InvalidSetting(f"--key: found an encrypted key in {path}, expected its passphrase in the environment")
    password = passphrase.encode() if b"ENCRYPTED" in data else None
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=path, password=password)
    except (ValueError, TypeError, AttributeError):  # its words may quote the key
        raise InvalidSetting(f"--key: found something else in {path}, expected a private key {_EXPECTED}") from None
    with _laid_out(scratch, name, files) as folder:
        config.sign(folder, folder.parent / "signature")
        return (folder.parent / "signature").read_bytes()


def check_files(scratch: Path, files: Mapping[str, bytes], signature: Path, public_key: Path) -> str | None:
    """Return why a signature does not hold for files as they are; None: it does.

    Args:
        scratch: folder for work in progress.
        files: name -> bytes.
        signature: file of the bundle.
        public_key: file of the public key.

    Raises:
        MissingDependency: model-signing is not installed.
        InvalidSetting: the file holds no such key, or there is no signature.
    """
    from cryptography.exceptions import InvalidSignature

    _, verifying = _load_library()
    _read_key(public_key)
    check_regular_file(signature, "signature", InvalidSetting)
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (ValueError, TypeError, AttributeError):
        raise InvalidSetting(
            f"--key: found something else in {public_key}, expected a public key {_EXPECTED}"
        ) from None
    with _laid_out(scratch, "model", files) as folder:
        try:
            config.verify(folder, signature)
        except InvalidSignature:
            return "found a signature that is not of this key"
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
            if str(error).startswith(_OTHER_FILES):  # the signature holds; its own words print digests as raw bytes
                return _compare_files(files, signature)
            return " ".join(f"found {error}".replace(str(folder), "the release").split())
    return None


def _compare_files(files: Mapping[str, bytes], signature: Path) -> str:
    """Return which files are not those that were signed, by the statement in a signature that holds."""
    payload = json.loads(base64.b64decode(json.loads(signature.read_bytes())["dsseEnvelope"]["payload"]))
    signed = {each["name"]: each["digest"] for each in payload["predicate"]["resources"]}
    found = {
        "missing": sorted(signed.keys() - files.keys()),
        "not signed": sorted(files.keys() - signed.keys()),
        "changed": sorted(name for name in signed.keys() & files.keys() if compute_digest(files[name]) != signed[name]),
    }
    told = [f"{', '.join(names)} {what}" for what, names in found.items() if names]
    return f"found {'; '.join(told) or 'other files'}, expected the files that were signed"


def _load_library() -> tuple[ModuleType, ModuleType]:
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise MissingDependency("found no package model-signing; install heimdall-assets[model-signing]") from error
    return signing, verifying


def _read_key(path: Path) -> bytes:
    check_regular_file(path, "--key", InvalidSetting)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSetting(
            f"--key: {path} could not be read ({describe(error)}), expected one {_EXPECTED}"
        ) from error


@contextmanager
def _laid_out(scratch: Path, name: str, files: Mapping[str, bytes]) -> Iterator[Path]:
    """Yield a folder that holds files and goes away: the library reads folders, and releases may lie in a bucket."""
    with lend_folder(scratch) as lent:
        folder = lent / name
        make_plain_folder(folder)
        for file, data in files.items():
            write_named_file(folder / check_file(file), data)
        yield folder
