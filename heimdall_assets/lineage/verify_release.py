#!/usr/bin/env python3
"""Verify a released model without the program that made it: Python 3.11 alone, and for --key `cryptography`.

    python3 verify_release.py v1.2.3 [--key FILE] [--objects FOLDER] [--log FILE] [--checkpoint FILE] [--receipt FILE]

Checks the files of a release against SHA256SUMS and what was signed (--key, public keys in PEM); provenance.json
against itself, from the model back to the database; stored objects, recordings among them, against their names
(--objects, what holds objects/sha256); decisions and release against the log (--log, what `heimdall ledger export`
wrote), and the log against a checkpoint that was kept (--checkpoint); the receipt of a position that was given out
(--receipt) against this release, and against all of these. FORMAT.md beside this file specifies it all.
Exit status 0: all that was given agrees; 1: something does not, named in a line each; 2: there is nothing to check.
"""

import argparse
import base64
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

FORMAT, ORIGIN = "heimdall-provenance/3", "heimdall-assets/log/"
MAX_INTEGER = 2**53 - 1
SUMS, PROVENANCE, BUNDLE = "SHA256SUMS", "provenance.json", "attestations.intoto.jsonl"
MANIFEST = ("kind", "code_version", "parents", "specs", "content", "artifacts", "summary")
OUTSIDE = "measurement_database"
PAYLOAD, RECEIPT = "application/vnd.in-toto+json", "urn:heimdall-assets:receipt:1"
RECORDINGS, DECISIONS = ("iq_files", "recordings.jsonl"), ("approved_measurements", "decisions.jsonl")

Fault = tuple[str, str]  # what is wrong: the thing, and what was found of it
Given = Path | None  # an option
UNFIT = (KeyError, TypeError, ValueError, AttributeError, OSError)


# --- canonical JSON, RFC 8785
def encode(value: Any) -> bytes:
    """Return the one encoding of ``value``; raises ``ValueError`` where it has none."""
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).encode("utf-8")
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"integer {value}: beyond 2^53")
        return str(value).encode()
    if isinstance(value, float):
        return encode_float(value).encode()
    if isinstance(value, list):
        return b"[" + b",".join(map(encode, value)) + b"]"
    names = sorted(value, key=lambda name: name.encode("utf-16-be"))  # as the standard does: by UTF-16 code units
    return b"{" + b",".join(encode(name) + b":" + encode(value[name]) for name in names) + b"}"


def encode_float(value: float) -> str:
    """Return a number as ECMAScript writes it (ECMA-262, Number::toString), which RFC 8785 takes over."""
    if not math.isfinite(value):
        raise ValueError(f"number {value}: JSON has none such")
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value or 0.0)), "f").removesuffix(".0")  # -0.0 is 0
    digits, exponent = repr(value).split("e")  # the shortest digits, as the standard wants them
    return f"{digits}e{int(exponent):+d}"


def decode(data: bytes) -> Any:
    """Return the value of canonical JSON; raises ``ValueError`` where the bytes are none, a key twice among them."""
    try:
        value = json.loads(
            data.decode("utf-8"), parse_int=lambda text: float(text) if abs(float(text)) > MAX_INTEGER else int(text)
        )
        if encode(value) != data:  # a key that stood in it twice is there once now
            raise ValueError("another encoding than the canonical one")
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


# --- Merkle trees, RFC 6962
def compute_root(leaves: list[bytes]) -> bytes:
    """Return the root over leaves, the hashes of entries."""
    while len(leaves) > 1:
        pairs = [leaves[place : place + 2] for place in range(0, len(leaves), 2)]
        leaves = [hashlib.sha256(b"\x01" + pair[0] + pair[1]).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return leaves[0] if leaves else hashlib.sha256(b"").digest()


# --- the files of a release
def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums(folder: Path) -> dict[str, str]:
    """Return file -> SHA-256, as SHA256SUMS says; raises ``ValueError`` where it is not of its format."""
    found = {}
    for number, line in enumerate((folder / SUMS).read_text("utf-8").splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)", line)
        if match is None or match[2] in found:
            raise ValueError(f"line {number} is none of a digest, two blanks and a name, each name once")
        found[match[2]] = match[1]
    return found


def check_files(folder: Path) -> Iterator[Fault]:
    """Yield files that are missing, changed, or too many."""
    try:
        sums = read_sums(folder)
    except (OSError, ValueError) as error:
        yield SUMS, f"cannot be read ({error})"
        return
    for name, digest in sorted(sums.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            yield name, "is missing, or no plain file"
        elif (found := hash_file(path)) != digest:
            yield name, f"has SHA-256 {found}, expected {digest}"
    for path in sorted(folder.iterdir()):
        if path.name not in sums and path.name != SUMS:
            yield path.name, f"does not stand in {SUMS}"
    if PROVENANCE not in sums or "model.onnx" not in sums:
        yield SUMS, f"names no {PROVENANCE} or no model.onnx"


def open_envelope(line: bytes) -> tuple[dict[str, Any], bytes, list[dict[str, str]]]:
    """Return the statement in an envelope, the bytes that were signed, and the signatures."""
    envelope = decode(line)
    payload, kind = base64.b64decode(envelope["payload"], validate=True), envelope["payloadType"].encode()
    if kind != PAYLOAD.encode():
        raise ValueError(f"payload type {envelope['payloadType']}, expected {PAYLOAD}")
    return decode(payload), b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload), envelope["signatures"]


def is_signed(keys: list[Path], message: bytes, signatures: list[dict[str, str]]) -> bool:
    """Return whether there are signatures, and each is that of one of the public keys in PEM, Ed25519."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    known: dict[str, Any] = {}
    for public in [load_pem_public_key(key.read_bytes()) for key in keys]:
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        known[hashlib.sha256(der).hexdigest()] = public
    try:
        for each in signatures:  # a key of another kind asks for more
            known[each["keyid"]].verify(base64.b64decode(each["sig"], validate=True), message)
    except (InvalidSignature, KeyError):
        return False
    return bool(signatures)


def list_differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the names of which one says otherwise than the other."""
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def check_signatures(folder: Path, keys: list[Path]) -> Iterator[Fault]:
    """Yield statements that are of other files, and such as none of the keys has signed."""
    lines = (folder / BUNDLE).read_bytes().splitlines() if (folder / BUNDLE).is_file() else []
    if keys and not lines:
        yield BUNDLE, "is missing or empty: the release is not signed"
    lie = {path.name: hash_file(path) for path in folder.iterdir() if path.name not in (SUMS, BUNDLE)}
    for line in lines:
        statement, message, signatures = open_envelope(line)
        said = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
        if wrong := list_differing(lie, said):
            yield BUNDLE, f"states otherwise of {', '.join(wrong)}"
        if keys and not is_signed(keys, message, signatures):
            yield BUNDLE, "holds a statement that none of the keys has signed"


# --- provenance.json against itself and the files beside it
def check_chain(provenance: dict[str, Any]) -> Iterator[Fault]:
    """Yield manifests that are not what their digests say, and what hangs on nothing."""
    digests = {node["digest"] for node in provenance["nodes"]}
    kinds = {node["kind"]: node for node in provenance["nodes"]}
    for node in provenance["nodes"]:
        label = f"node {node['kind']} {node['digest']}"
        found = hashlib.sha256(encode({name: node[name] for name in MANIFEST})).hexdigest()
        if found != node["digest"]:
            yield label, f"its fields have digest {found}"
        for name, parent in node["parents"].items():
            if name != OUTSIDE and (parent not in digests or kinds.get(name, {}).get("digest") != parent):
                yield label, f"its parent {name} {parent} is no node of that kind"
        if node["facts"] is not None and node["facts"]["environment"] not in provenance["environments"]:
            yield label, "its environment is not there"
    for digest, environment in provenance["environments"].items():
        if hashlib.sha256(encode(environment)).hexdigest() != digest:
            yield f"environment {digest}", "its fields have another digest"
    for name, digest in provenance["model"]["manifests"].items():
        if kinds.get(name, {}).get("digest") != digest:
            yield f"model {name} {digest}", "is no node of that kind"
    if not {"onnx_model", "evaluation_metrics", "approved_measurements"} <= set(kinds):
        yield "nodes", f"found {', '.join(sorted(kinds))}: no way from a model to its measurements"


def check_model(folder: Path, provenance: dict[str, Any], data: bytes) -> Iterator[Fault]:
    """Yield where model and figures are not those that provenance.json is of."""
    digest, version, name = hashlib.sha256(data).hexdigest(), provenance["model"]["version"], folder.resolve().name
    if re.fullmatch(r"v\d+\.\d+\.\d+", name) and name != version:
        yield f"release {version}", f"lies in a folder named {name}"
    model = folder / "model.onnx"
    if model.is_file() and digest.encode() not in model.read_bytes():
        yield "model.onnx", f"does not name {PROVENANCE} {digest} in its metadata"
    metrics, expected = folder / "metrics.json", provenance["model"]["artifacts"].get("metrics.json")
    if metrics.is_file() and hash_file(metrics) != expected:
        yield "metrics.json", f"is not the artifact {expected} of evaluation_metrics"
    elif metrics.is_file() and decode(metrics.read_bytes()) != provenance["metrics"]:
        yield PROVENANCE, "its metrics are not those of metrics.json"


def read_lines(folder: Path, provenance: dict[str, Any], kind: str, name: str) -> list[bytes]:
    """Return the lines of a list among the stored objects; empty where it is damaged or gone, or there is none."""
    held = [node["artifacts"][name]["digest"] for node in provenance["nodes"] if node["kind"] == kind]
    whole = [path for digest in held if (path := find_object(folder, digest)).is_file() and hash_file(path) == digest]
    return [line for path in whole for line in path.read_bytes().splitlines()]


def find_object(folder: Path, digest: str) -> Path:
    """Return where an object lies; raises ``ValueError`` where that is no digest."""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"{digest} is no SHA-256")
    return folder / "objects" / "sha256" / digest[:2] / digest


def list_objects(folder: Path, provenance: dict[str, Any]) -> dict[str, str]:
    """Return digest -> what it is, of every object that the model hangs on."""
    rows = [decode(line) for line in read_lines(folder, provenance, *RECORDINGS)]
    found = {row["digest"]: f"recording of {row['measurement_id']}" for row in rows}
    for node in provenance["nodes"]:
        found |= {digest: f"{node['kind']} shard" for digest in node["summary"].get("shards", [])}
        found |= {part["digest"]: f"{node['kind']}/{name}" for name, part in node["artifacts"].items()}
        found[node["digest"]] = f"manifest {node['kind']}"
    return found


def check_objects(folder: Path, provenance: dict[str, Any], log: list[bytes] | None) -> Iterator[Fault]:
    """Yield stored objects that are changed, or missing although the log does not say that they were erased."""
    told = [entry for line in log or [] if b'"kind":"erasure"' in line and "session" in (entry := decode(line))]
    gone = {(f"recording of {name}", one) for each in told for one in each["objects"] for name in each["measurements"]}
    gone |= {("spectrogram_features shard", one) for entry in told for one in entry["objects"]}
    for digest, label in sorted(list_objects(folder, provenance).items()):
        path = find_object(folder, digest)
        found = hash_file(path) if path.is_file() else None
        if found != digest and (found or (label, digest) not in gone):
            yield f"object {label} {digest}", f"has SHA-256 {found}" if found else "is missing"


def check_decisions(folder: Path, provenance: dict[str, Any], log: list[bytes] | None) -> Iterator[Fault]:
    """Yield sessions that were approved twice, or by nothing that the log knows, and too few of them."""
    lines = read_lines(folder, provenance, *DECISIONS)
    known, sessions = set(log or []), set()
    for line in lines:  # a damaged list is found among the objects
        entry = decode(line)
        session, label = entry["recording_session_id"], f"session {entry['recording_session_id']}"
        if entry["decision"] != "approved" or session in sessions:
            yield label, f"its decision {entry['id']} is {entry['decision']}, or one of several"
        if log is not None and line not in known:
            yield label, f"no entry of the log is its decision {entry['id']}, by {entry['decided_by']}"
        sessions.add(session)
    expected = [node["summary"]["num_sessions"] for node in provenance["nodes"] if node["kind"] == DECISIONS[0]]
    if lines and [len(sessions)] != expected:
        yield DECISIONS[1], f"holds decisions of {len(sessions)} sessions, expected {expected}"


def check_log(lines: list[bytes], folder: Path, provenance: dict[str, Any]) -> Iterator[Fault]:
    """Yield where the log is not the one that the release was made under, or says otherwise than the release."""
    entries, version = [decode(line) for line in lines], provenance["model"]["version"]
    yield from compare_checkpoint(lines, provenance["log"], f"that of {PROVENANCE}")
    releases = [entry for entry in entries if entry["kind"] == "release" and entry["version"] == version]
    lie = {path.name: hash_file(path) for path in folder.iterdir() if path.is_file()}
    if len(releases) != 1:
        yield f"release {version}", f"has {len(releases)} entries in the log, expected one"
    elif wrong := list_differing(lie, releases[0]["files"]):
        yield f"release {version}", f"the log says otherwise: {', '.join(wrong)}"


def compare_checkpoint(lines: list[bytes], kept: dict[str, Any] | None, whose: str) -> Iterator[Fault]:
    """Yield that a log does not begin as it did when a checkpoint was taken; None: none was."""
    if kept is None:
        return
    name, size, root = decode(lines[0]).get("log") if lines else None, kept["size"], kept["root"]
    if name != kept["log"]:
        yield "log", f"is {name}, expected {kept['log']}, {whose}"
    elif len(lines) < size:
        yield "log", f"has {len(lines)} entries, expected at least {size}, {whose}: its end was cut"
    elif (found := compute_root([hashlib.sha256(b"\x00" + line).digest() for line in lines[:size]]).hex()) != root:
        yield "log", f"has root {found} over {size} entries, expected {root}, {whose}: it was written anew"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return log, size and root of a checkpoint; raises ``ValueError`` where the file holds none."""
    lines = path.read_text("utf-8").splitlines()
    if len(lines) < 3 or not lines[0].startswith(ORIGIN) or not lines[1].isdecimal():
        raise ValueError(f"expected {ORIGIN}NAME, a size and a root, a line each")
    root = base64.b64decode(lines[2], validate=True).hex()
    return {"log": lines[0].removeprefix(ORIGIN), "size": int(lines[1]), "root": root}


def check_receipt(file: Path, folder: Path, keys: list[Path], store: Path, log: list[bytes] | None) -> Iterator[Fault]:
    """Yield where a receipt is of another release, not of the keys, or disagrees with its subject, store or log."""
    statement, message, signatures = open_envelope(file.read_bytes().removesuffix(b"\n"))
    said, named = statement["predicate"], statement["subject"]
    if statement["predicateType"] != RECEIPT:
        raise ValueError(f"statement of type {statement['predicateType']}, expected {RECEIPT}")
    if keys and not is_signed(keys, message, signatures):
        yield "receipt signature", "is of none of the keys" if signatures else "is missing: the receipt is not signed"
    release = {name: hash_file(folder / name) for name in ("model.onnx", PROVENANCE)}
    release["version"] = decode((folder / PROVENANCE).read_bytes())["model"]["version"]
    made = {"answer": said["answer"]} | {each["name"]: each["values"] for each in said["inputs"] if "values" in each}
    digests = {each["name"]: each["sha256"] for each in said["inputs"] if "values" not in each}
    digests |= {name: hashlib.sha256(encode(value)).hexdigest() for name, value in made.items()}
    subject = {each["name"]: each["digest"]["sha256"] for each in named}
    for found, expected in ((said["release"], release), (subject, digests)):
        for name in list_differing(found, expected):
            yield f"receipt {name}", f"is {found.get(name)}, expected {expected.get(name)}"
    if not len(named) == len(subject) == len(said["inputs"]) + 1:
        yield "receipt subject", "names a thing twice"
    for name, digest in digests.items():
        path = find_object(store, digest)
        if path.is_file() and hash_file(path) != digest:
            yield f"object {name} {digest}", f"has SHA-256 {hash_file(path)}"
    if log is not None:
        yield from compare_checkpoint(log, said["log"], "that of the receipt")
        retired = {decode(line)["key_id"] for line in log[: said["log"]["size"]] if b'"action":"retired"' in line}
        for name in sorted(retired & {each["keyid"] for each in signatures}):
            yield "receipt signature", f"is of key {name}, which the log had retired by then"


def verify(
    folder: Path, objects: Given, log: Given, checkpoint: Given, keys: list[Path], receipt: Given = None
) -> tuple[list[Fault], list[str]]:
    """Return what is wrong, and what was checked or left, in words."""
    faults, told = list(check_files(folder)), [f"files of {folder}"]

    def run(check: Callable[[], Iterator[Fault]], what: str) -> None:
        try:
            faults.extend(check())
        except UNFIT as error:
            faults.append((what, f"cannot be checked ({type(error).__name__}: {error})"))
        told.append(what)

    try:
        data = (folder / PROVENANCE).read_bytes()
        provenance = decode(data)
        if provenance["format"] != FORMAT:
            raise ValueError(f"format {provenance['format']}, expected {FORMAT}")
    except UNFIT as error:
        return [*faults, (PROVENANCE, f"cannot be read ({error})")], told
    run(lambda: check_signatures(folder, keys), BUNDLE if (folder / BUNDLE).exists() else "NO signature is there")
    run(lambda: check_chain(provenance), f"manifests: {len(provenance['nodes'])}")
    run(lambda: check_model(folder, provenance, data), "model and figures")
    lines = None if log is None else log.read_bytes().split(b"\n")[:-1]
    is_bare = receipt is not None and receipt.is_file() and b'"signatures":[]' in receipt.read_bytes()
    if receipt is not None:
        run(lambda: check_receipt(receipt, folder, keys, objects or folder, lines), "receipt")
    told += ["NO signature is on the receipt"] if is_bare else []
    left = {
        "the signatures (--key)": keys or not (folder / BUNDLE).exists(),
        "the signature of the receipt (--key)": keys or receipt is None or is_bare,
        "the stored objects (--objects)": objects,
        "the log (--log)": log,
    }
    told += [f"NOT {what}" for what, is_checked in left.items() if not is_checked]
    if objects is not None:
        run(lambda: check_objects(objects, provenance, lines), "objects")
        run(lambda: check_decisions(objects, provenance, lines), "decisions")
    if lines is not None:
        run(lambda: check_log(lines, folder, provenance), f"entries of the log: {len(lines)}")
        if checkpoint is not None:
            run(lambda: compare_checkpoint(lines, read_checkpoint(checkpoint), str(checkpoint)), str(checkpoint))
    return faults, told


def main(arguments: list[str] | None = None) -> int:
    """Print what is wrong, a line each, and what was checked; return the exit status."""
    parser = argparse.ArgumentParser(description="Verify a released model without the program that made it.")
    parser.add_argument("folder", type=Path, help="of one release, such as heimdall-models/v1.2.3")
    parser.add_argument("--key", type=Path, action="append", default=[], help="public key whose signature counts")
    parser.add_argument("--objects", type=Path, help="folder that holds objects/sha256")
    parser.add_argument("--log", type=Path, help="what `heimdall ledger export` wrote")
    parser.add_argument("--checkpoint", type=Path, help="what `heimdall ledger checkpoint` printed; needs --log")
    parser.add_argument("--receipt", type=Path, help="what `heimdall predict --receipt` wrote")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir() or (given.checkpoint and not given.log):
        parser.error(f"{given.folder} is no folder" if not given.folder.is_dir() else "--checkpoint needs --log")
    faults, told = verify(given.folder, given.objects, given.log, given.checkpoint, given.key, given.receipt)
    if given.json:
        print(json.dumps({"ok": not faults, "faults": [list(fault) for fault in faults], "checked": told}, indent=2))
    else:
        for name, what in faults:
            print(ascii(f"FAULT {name}: {what}")[1:-1])
        print(f"{given.folder}: {f'{len(faults)} FAULTS' if faults else 'all agrees'}; checked: {', '.join(told)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
