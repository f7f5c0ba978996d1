"""Proofs of the log, as files: that an entry is in it, and that a later log begins as an earlier one.

Belongs here: the form of such a file, making it from the log's entries, judging it without them. Does not belong here:
the tree's mathematics (``merkle``), where the log rests, whose keys count.

A proof holds all that judging it takes: the checkpoints, signed or not, and a few hashes. That the log says so to
everybody, and not only to whoever was shown this file, only a checkpoint tells that came another way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heimdall_assets.errors import InvalidInput, NotFound, Refused
from heimdall_assets.lineage.notes import judge_note
from heimdall_assets.manifests import SHA256_PATTERN, decode_canonical_json
from heimdall_assets.merkle import (
    Checkpoint,
    compute_root,
    decode_checkpoint,
    hash_leaf,
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
)

_MAX_INDEX = 2**53 - 1
_Path = Annotated[list[Annotated[str, Field(pattern=SHA256_PATTERN)]], Field(max_length=64)]
"""Hashes, 64 hex digits each; a tree of as many entries as JSON can count needs 54."""


class InclusionProof(BaseModel):
    """That ``entry`` is entry ``index`` of the log under ``checkpoint``; how it is written is in the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["heimdall-log-proof/1"] = "heimdall-log-proof/1"
    proof: Literal["inclusion"] = "inclusion"
    checkpoint: str
    index: int = Field(ge=0, le=_MAX_INDEX)
    entry: str
    path: _Path


class ConsistencyProof(BaseModel):
    """That the log under ``checkpoint`` begins as the one under ``old_checkpoint``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["heimdall-log-proof/1"] = "heimdall-log-proof/1"
    proof: Literal["consistency"] = "consistency"
    old_checkpoint: str
    checkpoint: str
    path: _Path


LogProof = InclusionProof | ConsistencyProof


@dataclass(frozen=True)
class JudgedProof:
    """What a proof says, and whether it holds.

    Attributes:
        says: in words.
        checkpoints: those that it holds, oldest first.
        problems: one line each; empty: it holds.
        signers: ids of the given keys that signed every one of its checkpoints.
    """

    says: str
    checkpoints: tuple[Checkpoint, ...]
    problems: list[str]
    signers: list[str]


def prove_entry(entries: Sequence[str], index: int, note: str) -> InclusionProof:
    """Return the proof that entry ``index`` is in the log under a checkpoint.

    Args:
        entries: of today's log, as they lie, oldest first.
        index: of the entry, from 0 on.
        note: the checkpoint, with its signatures or without.

    Raises:
        NotFound: there is no such entry under the checkpoint.
        Refused: today's log does not begin as the one that the checkpoint was taken of.
    """
    size = _check_begins(entries, decode_checkpoint(note))
    if not 0 <= index < size:
        raise NotFound(f"log entry {index}: found entries 0 to {size - 1} under the checkpoint, expected one of these")
    path = prove_inclusion(_hash_leaves(entries[:size]), index)
    return InclusionProof(checkpoint=note, index=index, entry=entries[index], path=[node.hex() for node in path])


def prove_growth(entries: Sequence[str], old_note: str, note: str) -> ConsistencyProof:
    """Return the proof that the log under one checkpoint begins as the one under an older.

    Args:
        entries: of today's log, as they lie, oldest first.
        old_note, note: the checkpoints, with their signatures or without.

    Raises:
        Refused: today's log does not begin as one of those that they were taken of, or the older one is the longer.
    """
    old_size, size = (_check_begins(entries, decode_checkpoint(each)) for each in (old_note, note))
    if old_size > size:
        raise Refused(f"checkpoints: found {old_size} entries in the older and {size} in the later, expected no fewer")
    path = prove_consistency(_hash_leaves(entries[:size]), old_size)
    return ConsistencyProof(old_checkpoint=old_note, checkpoint=note, path=[node.hex() for node in path])


def decode_proof(data: bytes, name: str) -> LogProof:
    """Return the proof that a file holds.

    Raises:
        InvalidInput: it holds none; ``name`` is the file's.
    """
    expected = "expected a proof of the form heimdall-log-proof/1"
    try:
        found = decode_canonical_json(data.decode())
        kind = found.get("proof") if isinstance(found, dict) else None
        forms: dict[Any, type[LogProof]] = {"inclusion": InclusionProof, "consistency": ConsistencyProof}
        proof = forms[kind].model_validate(found)
        for note in _list_notes(proof):
            decode_checkpoint(note)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{name}: {where}: {first['msg']}; {expected}") from None
    except (KeyError, TypeError):
        raise InvalidInput(f"{name}: found no kind of proof that is known, {expected}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: {error}; {expected}") from None
    return proof


def judge_proof(proof: LogProof, kept: Checkpoint | None = None, keys: Mapping[str, str] | None = None) -> JudgedProof:
    """Return whether a proof holds, by itself and against what somebody has from elsewhere.

    Args:
        proof: what ``decode_proof`` gave.
        kept: a checkpoint that came another way; one of the proof's must be the same.
        keys: id -> public key in PEM, Ed25519; one of them at least must have signed each checkpoint.
    """
    notes = _list_notes(proof)
    checkpoints = tuple(decode_checkpoint(note) for note in notes)
    says, problems = _judge_inclusion(proof) if isinstance(proof, InclusionProof) else _judge_growth(proof)
    if kept is not None and kept not in checkpoints:
        found = " and ".join(f"{each.size} entries with root {each.root}" for each in checkpoints)
        problems.append(
            f"found {found} of log {checkpoints[-1].log}, expected the checkpoint that was kept: {kept.size} entries "
            f"with root {kept.root} of log {kept.log}"
        )
    signers: set[str] = set()
    if keys:
        judged = [judge_note(note, keys) for note in notes]
        signers = set.intersection(*(set(good) for good, _ in judged))
        problems += [f"found a signature of key {name} that does not hold" for _, bad in judged for name in bad]
        if not signers:
            problems.append(f"found no signature of a given key on each checkpoint, expected one of {', '.join(keys)}")
    return JudgedProof(says, checkpoints, problems, sorted(signers))


def _judge_inclusion(proof: InclusionProof) -> tuple[str, list[str]]:
    checkpoint = decode_checkpoint(proof.checkpoint)
    says = f"entry {proof.index} is in log {checkpoint.log} of {checkpoint.size} entries"
    leaf, tree = hash_leaf(proof.entry.encode()), (checkpoint.size, bytes.fromhex(checkpoint.root))
    holds = verify_inclusion(leaf, proof.index, tree, [bytes.fromhex(node) for node in proof.path])
    return says, [] if holds else [f"found a path that does not lead from entry {proof.index} to the root"]


def _judge_growth(proof: ConsistencyProof) -> tuple[str, list[str]]:
    old, new = (decode_checkpoint(note) for note in _list_notes(proof))
    says = f"log {new.log} of {new.size} entries begins as the one of {old.size}"
    if old.log != new.log:
        return says, [f"found checkpoints of logs {old.log} and {new.log}, expected one log"]
    trees = [(each.size, bytes.fromhex(each.root)) for each in (old, new)]
    holds = verify_consistency(trees[0], trees[1], [bytes.fromhex(node) for node in proof.path])
    return says, [] if holds else ["found a path that does not lead from one root to the other"]


def _list_notes(proof: LogProof) -> list[str]:
    return [proof.checkpoint] if isinstance(proof, InclusionProof) else [proof.old_checkpoint, proof.checkpoint]


def _check_begins(entries: Sequence[str], checkpoint: Checkpoint) -> int:
    """Return the checkpoint's size; raises ``Refused`` where ``entries`` do not begin as those it was taken of."""
    size, name = checkpoint.size, _read_name(entries)
    root = compute_root(_hash_leaves(entries[:size])).hex()
    if len(entries) < size or name != checkpoint.log or root != checkpoint.root:
        raise Refused(
            f"log: found log {name} of {len(entries)} entries, root {root} over the first {size}, expected log "
            f"{checkpoint.log} with root {checkpoint.root}, as the checkpoint says: it is another log, or was cut or "
            "written anew since"
        )
    return size


def _read_name(entries: Sequence[str]) -> str | None:
    """Return the name of a log, as its first entry says; None: it says none."""
    try:
        return str(decode_canonical_json(entries[0])["log"])
    except (ValueError, RecursionError, IndexError, KeyError, TypeError):
        return None


def _hash_leaves(entries: Sequence[str]) -> list[bytes]:
    return [hash_leaf(entry.encode()) for entry in entries]
