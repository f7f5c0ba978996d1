"""Proofs of the log as files: each holds, no change of one does, and a stranger's script says the same."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidInput, NotFound, Refused
from heimdall_assets.lineage.log_proofs import decode_proof, judge_proof, prove_entry, prove_growth
from heimdall_assets.lineage.notes import sign_note
from heimdall_assets.merkle import Checkpoint, compute_root, hash_leaf
from heimdall_assets.stores.keys import make_key
from heimdall_assets_tests.package_names import ROOT

LOG = "ab" * 16
ENTRIES = [json.dumps({"kind": "log", "log": LOG}), *(json.dumps({"kind": "é", "n": n}) for n in range(1, 70))]


def checkpoint(size: int, entries: list[str] = ENTRIES, log: str = LOG) -> Checkpoint:
    return Checkpoint(log, size, compute_root([hash_leaf(entry.encode()) for entry in entries[:size]]).hex())


def note(size: int) -> str:
    return checkpoint(size).encode()


def encode(proof: dict[str, Any]) -> bytes:
    return json.dumps(proof, ensure_ascii=False).encode()


def judge(proof: dict[str, Any], **given: Any) -> list[str]:
    return judge_proof(decode_proof(encode(proof), "proof.json"), **given).problems


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script of the reference, as it stands there."""
    text = (ROOT / "docs" / "reference" / "log-proofs.md").read_text()
    path = tmp_path_factory.mktemp("stranger") / "check.py"
    path.write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    return path


def ask_stranger(script: Path, proof: dict[str, Any]) -> tuple[int, str]:
    file = script.with_name("proof.json")
    file.write_bytes(encode(proof))
    command = [sys.executable, "-I", "-S", "-W", "ignore", str(script), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env={"PYTHONUTF8": "1"})
    return done.returncode, done.stdout + done.stderr


@given(st.integers(1, 70), st.data())
@settings(max_examples=150, deadline=None)
def test_every_entry_and_every_growth_is_proved(size: int, data: st.DataObject):
    index = data.draw(st.integers(0, size - 1))
    told = prove_entry(ENTRIES, index, note(size)).model_dump()
    assert judge(told) == []
    assert judge(told, kept=checkpoint(size)) == []
    grown = prove_growth(ENTRIES, note(index + 1), note(size)).model_dump()
    assert judge(grown) == judge(grown, kept=checkpoint(index + 1)) == judge(grown, kept=checkpoint(size)) == []
    changed = {**told, "entry": told["entry"] + " "}
    assert judge(changed) == [f"found a path that does not lead from entry {index} to the root"]
    if size > 1:
        assert judge({**told, "index": (index + 1) % size}) != []
        assert judge({**told, "path": told["path"][1:]}) != []


@pytest.mark.parametrize(("old", "size"), [(1, 1), (1, 2), (3, 7), (4, 7), (6, 8), (8, 64), (37, 70)])
def test_a_stranger_comes_to_the_same_with_the_standard_library(script: Path, old: int, size: int):
    told = prove_entry(ENTRIES, old - 1, note(size)).model_dump()
    grown = prove_growth(ENTRIES, note(old), note(size)).model_dump()
    root = checkpoint(size).root
    assert ask_stranger(script, told) == (
        0, f"entry {old - 1} of heimdall-assets/log/{LOG}, {size} entries, root {root}: {ENTRIES[old - 1]}\n"
    )  # fmt: skip
    said = f"heimdall-assets/log/{LOG}: {size} entries, root {root}, begin with the {old} of root "
    assert ask_stranger(script, grown) == (0, f"{said}{checkpoint(old).root}\n")
    forged = {**told, "entry": "{}"}, {**grown, "old_checkpoint": Checkpoint(LOG, old, "00" * 32).encode()}
    longer = {**told, "path": [*told["path"], "00" * 32]}, {**grown, "path": [*grown["path"], "00" * 32]}
    for proof in (*forged, *longer):
        assert judge(proof) != []
        assert ask_stranger(script, proof)[0] == 1


def test_a_proof_of_another_checkpoint_than_the_one_kept_is_told():
    told = prove_entry(ENTRIES, 3, note(7)).model_dump()
    (problem,) = judge(told, kept=checkpoint(8))
    assert problem.startswith(f"found 7 entries with root {checkpoint(7).root} of log {LOG}, expected the checkpoint")
    forged = checkpoint(7, [*ENTRIES[:6], "{}"])
    assert judge(told, kept=forged) != []


def test_signatures_are_asked_for_where_a_key_is_given(tmp_path: Path):
    key, other = make_key(tmp_path / "key.pem"), make_key(tmp_path / "other.pem")
    signed = [sign_note(note(size), key.public_pem, key.sign_bytes) for size in (3, 7)]
    grown = prove_growth(ENTRIES, *signed)
    known = {key.id: key.public_pem}
    assert judge_proof(grown, keys=known).signers == [key.id]
    assert judge_proof(grown, keys={**known, other.id: other.public_pem}).problems == []
    expected = [f"found no signature of a given key on each checkpoint, expected one of {other.id}"]
    assert judge_proof(grown, keys={other.id: other.public_pem}).problems == expected
    half = grown.model_copy(update={"old_checkpoint": note(3)})
    assert judge_proof(half, keys=known).problems == [expected[0].replace(other.id, key.id)]
    moved = grown.model_copy(update={"checkpoint": note(7) + signed[0].removeprefix(note(3))})
    assert f"found a signature of key {key.id} that does not hold" in judge_proof(moved, keys=known).problems


def test_checkpoints_of_two_logs_are_no_growth():
    grown = prove_growth(ENTRIES, note(3), note(7)).model_dump()
    other = {**grown, "old_checkpoint": Checkpoint("cd" * 16, 3, checkpoint(3).root).encode()}
    assert judge(other) == [f"found checkpoints of logs {'cd' * 16} and {LOG}, expected one log"]


def test_a_log_that_was_cut_or_rewritten_or_is_another_proves_nothing():
    for entries in (ENTRIES[:5], [*ENTRIES[:6], "{}", *ENTRIES[7:]], []):
        with pytest.raises(Refused, match="it is another log, or was cut or written anew since"):
            prove_entry(entries, 2, note(7))
    with pytest.raises(Refused, match=f"found log {LOG} of 70 entries"):
        prove_growth(ENTRIES, Checkpoint("cd" * 16, 3, checkpoint(3).root).encode(), note(7))
    with pytest.raises(Refused, match="found 9 entries in the older and 7 in the later"):
        prove_growth(ENTRIES, note(9), note(7))
    with pytest.raises(NotFound, match="log entry 7: found entries 0 to 6"):
        prove_entry(ENTRIES, 7, note(7))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "heimdall-log-proof/2"}, "format: Input should be 'heimdall-log-proof/1'"),
        ({"proof": "belief"}, "found no kind of proof that is known"),
        ({"proof": ["inclusion"]}, "found no kind of proof that is known"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"index": -1}, "index: Input should be greater than or equal to 0"),
        ({"index": "1"}, "index: Input should be a valid integer"),
        ({"path": ["AB" * 32]}, "path.0: String should match pattern"),
        ({"path": ["ab" * 32] * 65}, "path: List should have at most 64 items"),
        ({"checkpoint": "heimdall"}, "expected heimdall-assets/log/NAME, a size and a root in base64"),
        ({"entry": None}, "entry: Input should be a valid string"),
    ],
)  # fmt: skip
def test_what_is_no_proof_is_refused_in_one_line(change: dict[str, Any], said: str):
    told = {**prove_entry(ENTRIES, 2, note(7)).model_dump(), **change}
    with pytest.raises(InvalidInput, match=re.escape(said)) as caught:
        decode_proof(encode(told), "proof.json")
    assert str(caught.value).startswith("proof.json: ")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200) | st.sampled_from([b"[" * 100_000, b'{"proof":1,"proof":1}', b"null", b"[]", b"1e999"]))
@settings(max_examples=100, deadline=None)
def test_any_other_bytes_are_refused(data: bytes):
    with pytest.raises(InvalidInput, match="expected a proof of the form heimdall-log-proof/1"):
        decode_proof(data, "proof.json")
