"""Signed notes: a checkpoint's text and, below it, a line for each key that signed it.

Source: C2SP signed-note and tlog-checkpoint. A signature is Ed25519 over the text; its line holds the name of the log's
origin and, in base64, four bytes that tell keys apart and the signature. Lines of keys that nobody here knows are those
of others, and say nothing.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_LINE = re.compile(r"\u2014 (\S+) ([A-Za-z0-9+/]+={0,2})")
_ED25519 = b"\x01"


def sign_note(text: str, public_pem: str, sign: Callable[[bytes], bytes]) -> str:
    """Return a note: ``text``, whose first line names its origin, an empty line, and the line of one signature.

    Args:
        text: ends with a line break.
        public_pem: public key in PEM, Ed25519.
        sign: signs bytes with the private key.
    """
    origin = text.split("\n", 1)[0]
    signature = _tell_apart(origin, public_pem) + sign(text.encode())
    return f"{text}\n\u2014 {origin} {base64.b64encode(signature).decode()}\n"


def judge_note(note: str, keys: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the ids of the keys whose signature on a note holds, and of those whose does not.

    Args:
        note: with signatures or without.
        keys: id -> public key in PEM, Ed25519.
    """
    from cryptography.exceptions import InvalidSignature

    text, _, signatures = note.partition("\n\n")
    text += "\n"
    origin = text.split("\n", 1)[0]
    known = {_tell_apart(origin, pem): name for name, pem in keys.items()}
    good, bad = [], []
    for line in signatures.splitlines():
        found = _LINE.fullmatch(line)
        try:
            data = base64.b64decode(found[2], validate=True) if found is not None and found[1] == origin else b""
        except binascii.Error:
            continue
        name = known.get(data[:4])
        if name is None:
            continue
        try:
            _load(keys[name]).verify(data[4:], text.encode())
        except InvalidSignature:
            bad.append(name)
        else:
            good.append(name)
    return good, bad


def _tell_apart(origin: str, public_pem: str) -> bytes:
    return hashlib.sha256(f"{origin}\n".encode() + _ED25519 + _load(public_pem).public_bytes_raw()).digest()[:4]


def _load(public_pem: str) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    loaded = load_pem_public_key(public_pem.encode())
    if not isinstance(loaded, Ed25519PublicKey):
        raise ValueError("found a public key of another kind, expected Ed25519")
    return loaded
