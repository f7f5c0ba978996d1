"""Signed notes: the specification's own example is read, ours is read back, and no other text or key will do."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heimdall_assets.lineage.notes import judge_note, sign_note
from heimdall_assets.merkle import Checkpoint, decode_checkpoint
from heimdall_assets.stores.keys import SigningKey, make_key

TEXT = Checkpoint("ab" * 16, 7, "cd" * 32).encode()

# golang.org/x/mod/sumdb/note, whose format C2SP signed-note took over: its documented verifier key, text and signature.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return make_key(tmp_path / "key.pem")


def test_a_note_is_signed_and_read_back(key: SigningKey, tmp_path: Path):
    note = sign_note(TEXT, key.public_pem, key.sign_bytes)
    assert note.startswith(TEXT + "\n\u2014 heimdall-assets/log/")
    assert decode_checkpoint(note) == decode_checkpoint(TEXT)
    other = make_key(tmp_path / "other.pem")
    assert judge_note(note, {key.id: key.public_pem, other.id: other.public_pem}) == ([key.id], [])
    assert judge_note(note, {other.id: other.public_pem}) == ([], [])  # a stranger's line says nothing
    assert judge_note(TEXT, {key.id: key.public_pem}) == ([], [])


def test_a_signature_is_what_the_specification_says(key: SigningKey):
    """By the specification's example: the bytes that tell keys apart, and what is signed."""
    name, tag, encoded = PETER.split("+")
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
    text, _, line = NOTE.partition("\n\n")
    data = base64.b64decode(line.split()[2])
    assert data[:4].hex() == tag
    public.verify(data[4:], f"{text}\n".encode())
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    made = sign_note(f"{name}\nmore\n", pem, lambda _: bytes(64))
    assert base64.b64decode(made.splitlines()[-1].split()[2])[:4].hex() == tag


@pytest.mark.parametrize("change", [("7", "8"), ("heimdall-assets/log/ab", "heimdall-assets/log/ac")])
def test_a_signature_on_another_text_does_not_hold(key: SigningKey, change: tuple[str, str]):
    note = sign_note(TEXT, key.public_pem, key.sign_bytes)
    assert judge_note(note.replace(*change, 1), {key.id: key.public_pem})[0] == []
    if change[0] == "7":
        assert judge_note(note.replace(*change, 1), {key.id: key.public_pem}) == ([], [key.id])


@pytest.mark.parametrize("line", ["", "\u2014 x y", "\u2014 heimdall-assets/log/" + "ab" * 16 + " A", "garbage"])
def test_what_is_no_line_of_a_signature_says_nothing(key: SigningKey, line: str):
    assert judge_note(f"{TEXT}\n{line}\n", {key.id: key.public_pem}) == ([], [])


def test_a_key_of_another_kind_is_refused():
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    public = X25519PrivateKey.generate().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(ValueError, match="expected Ed25519"):
        sign_note(TEXT, pem, Ed25519PrivateKey.generate().sign)
