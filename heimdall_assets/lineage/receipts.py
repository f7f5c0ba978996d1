"""Receipts: what is stated of a position that was given out, and whether that still agrees with all that it names.

Belongs here: the statement's content, judging one that is shown. Does not belong here: what a prediction used
(``pipeline.prediction.used``), signing (``stores.keys``), where releases, keys and objects lie.

A receipt is one in-toto statement in a DSSE envelope (see ``attestations``), a line of canonical JSON. Its subject is
the answer and every input, by SHA-256; its predicate holds them. ``verify_release.py`` judges the same without this
program, and the tests hold the two to each other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heimdall_assets.envelopes import find_signers, open_envelope, read_statement
from heimdall_assets.errors import CorruptObject, InvalidInput
from heimdall_assets.lineage.attestations import PAYLOAD_TYPE, STATEMENT_TYPE
from heimdall_assets.lineage.crosschecks import compare_logs
from heimdall_assets.lineage.findings import PROVENANCE_FILE, Finding, ObjectReader, SignerKey
from heimdall_assets.manifests import compute_json_digest, decode_canonical_json, encode_canonical_json

RECEIPT_TYPE = "urn:heimdall-assets:receipt:1"
MODEL_FILE = "model.onnx"
ANSWER = "answer"
"""What the subject calls the answer; inputs are called by two words or more."""

_UNFIT = (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidInput)
"""What a file of somebody else provokes in whoever takes it for a receipt."""


@dataclass(frozen=True)
class Shown:
    """A receipt that somebody shows, and how to find here what it names.

    Attributes:
        name: of its file.
        data: its bytes.
        find_release: version -> ``version``, and file -> SHA-256 of its model and provenance as they lie; None: no such
            release is here.
        find_log: size -> the checkpoint of today's log over as many entries; None: it has fewer.
        keys: id -> public key that counts or did.
        objects: the store.
    """

    name: str
    data: bytes
    find_release: Callable[[str], Mapping[str, str] | None]
    find_log: Callable[[int], Mapping[str, Any] | None]
    keys: Mapping[str, SignerKey]
    objects: ObjectReader


@dataclass(frozen=True)
class Judged:
    """What a receipt says, by whom it is signed, and what disagrees.

    Attributes:
        said: the predicate; empty: the file holds none.
        signers: whose signatures hold, by keys that counted; empty: it is not signed, or one of them does not hold.
        is_signed: whether there are signatures, holding or not.
        num_held: how many of the digests that it names have their bytes in the store, whole.
        num_named: how many it names; a file handed in and the recording that it is have one.
        findings: every disagreement.
    """

    said: Mapping[str, Any]
    signers: list[str]
    is_signed: bool
    num_held: int
    num_named: int
    findings: list[Finding]


def build_receipt(
    release: Mapping[str, str],
    inputs: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    answer: Any,
    made: Mapping[str, Any],
) -> bytes:
    """Return the payload to be signed, canonical JSON; the same bytes for the same arguments.

    Args:
        release: ``version``, and file -> SHA-256 of model and provenance.
        inputs: each its ``name`` and either ``sha256``, of bytes, or ``values``, JSON values.
        settings: spec -> fields.
        answer: all that was answered, JSON values.
        made: ``time`` in UTC, ``program`` with its version, ``log``: the checkpoint of that moment.

    Raises:
        ValueError: a value has no canonical form.
    """
    predicate = {"release": release, "inputs": inputs, "settings": settings, ANSWER: answer, **made}
    subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in _digest_subject(predicate).items()]
    return encode_canonical_json(
        {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": RECEIPT_TYPE, "predicate": predicate}
    )


def _digest_subject(said: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> SHA-256 of the answer and of each input, as a predicate says them."""
    digests = {ANSWER: compute_json_digest(said[ANSWER])}
    for each in said["inputs"]:
        digests[each["name"]] = compute_json_digest(each["values"]) if "values" in each else each["sha256"]
    return digests


def judge_receipt(shown: Shown) -> Judged:
    """Return what a receipt says and where it disagrees with itself, its release, the log, the keys and the store."""
    label, intact = shown.name, "a receipt as heimdall predict --receipt wrote it"
    try:
        envelope = _decode_canonical(shown.data.removesuffix(b"\n"))
        opened = open_envelope(envelope, PAYLOAD_TYPE)
        statement = read_statement(opened)
        _decode_canonical(opened.payload)
        found = (statement["_type"], statement["predicateType"])
        if found != (STATEMENT_TYPE, RECEIPT_TYPE):
            raise ValueError(f"statement of type {found[1]!s:.80}, expected {RECEIPT_TYPE}")
        said = statement["predicate"]
        signers, findings = _judge_signatures(shown, opened, said)
        findings += [*_compare_release(shown, said), *_compare_subject(statement)]
        findings += compare_logs(said["log"], shown.find_log(said["log"]["size"]), "the receipt", ())
        held, num_named, damaged = _look_for_objects(shown, said)
    except _UNFIT as error:
        return Judged({}, [], False, 0, 0, [_find(label, f"{type(error).__name__}: {error!s:.200}", intact)])
    return Judged(said, signers, bool(opened.signatures), held, num_named, findings + damaged)


def _decode_canonical(data: bytes) -> Any:
    value = decode_canonical_json(data)
    if encode_canonical_json(value) != data:
        raise ValueError("another encoding than the canonical one")
    return value


def _find(name: str, found: str, expected: str, version: str | None = None, severity: str = "error") -> Finding:
    what = "ask whoever gave it out for the receipt as it was written"
    return Finding("receipt", name, found, expected, () if version is None else (version,), what, severity)


def _judge_signatures(shown: Shown, opened: Any, said: Mapping[str, Any]) -> tuple[list[str], list[Finding]]:
    """Return whose signatures hold, and what is wrong with them; nothing is wrong where there are none."""
    if not opened.signatures:
        return [], []
    try:
        names = sorted(find_signers(opened, {name: key.public_pem for name, key in shown.keys.items()}))
    except _UNFIT as error:
        return [], [_find("signature", f"{error!s:.200}", "signatures by known keys on these bytes")]
    findings = []
    for name in names:
        ended = shown.keys[name].retired_entry
        if ended is None:
            continue
        if ended < said["log"]["size"]:
            found = f"signed by key {name} after entry {ended} of the log had retired it"
            findings.append(_find("signature", found, "a key that counted then"))
        else:
            found = f"key {name}, which entry {ended} of the log retired since"
            expected = "a key that counts: that it was signed before says nothing but itself"
            findings.append(_find("signature", found, expected, severity="notice"))
    is_whole = all(finding.severity != "error" for finding in findings)
    return [f"{shown.keys[name].owner} (key {name[:16]})" for name in names] if is_whole else [], findings


def _compare_release(shown: Shown, said: Mapping[str, Any]) -> Iterator[Finding]:
    release = said["release"]
    lie = shown.find_release(str(release["version"]))
    if lie is None:
        yield _find("version", f"{release['version']!s:.80}", "a release of this home")
        return
    for name in sorted({*release, *lie, MODEL_FILE, PROVENANCE_FILE}):
        if name not in lie or release.get(name) != lie[name]:
            expected = f"{lie.get(name, 'no such file')}, as release {lie['version']} has it"
            yield _find(name, f"{release.get(name)!s:.80}", expected, lie["version"])


def _compare_subject(statement: Mapping[str, Any]) -> Iterator[Finding]:
    said, named = statement["predicate"], statement["subject"]
    stated = {each["name"]: each["digest"]["sha256"] for each in named}
    expected = _digest_subject(said)
    for name in sorted({*stated, *expected}):
        if stated.get(name) != expected.get(name):
            yield _find(name, f"subject {stated.get(name)!s:.80}", f"{expected.get(name)!s:.80}, of what it says")
    if not len(named) == len(stated) == len(said["inputs"]) + 1:
        yield _find("subject", "a thing that is named twice", "each once")


def _look_for_objects(shown: Shown, said: Mapping[str, Any]) -> tuple[int, int, list[Finding]]:
    """Return how many digests that a receipt names lie in the store whole, how many it names, and damaged objects."""
    named: dict[str, list[str]] = {}
    for each in said["inputs"]:
        if "values" not in each:
            named.setdefault(each["sha256"], []).append(each["name"])
    held, findings = 0, []
    for digest, names in named.items():
        if not shown.objects.exists(digest):
            continue
        try:
            shown.objects.read_bytes(digest)
            held += 1
        except CorruptObject as error:
            cure = "heimdall verify MODEL --repair, or import it again"
            called = [f"{name} {digest}" for name in names]
            findings += [Finding("object", name, str(error), "these bytes", (), cure) for name in called]
    return held, len(named), findings
