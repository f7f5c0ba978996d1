"""Signed decisions: one signature for all that were decided at once, by who decides, which holds for these alone."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import Refused
from heimdall_assets.manifests import decode_canonical_json, encode_canonical_json
from heimdall_assets.merkle import hash_leaf
from heimdall_assets.people import name_people
from heimdall_assets.stores.database.keys import add_key, retire_key
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.keys import SigningKey, make_key
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.test_log import read_bodies, run_sql
from heimdall_assets_tests.stores.test_measurements import ids

APPROVED, REJECTED = ApprovalStatus.APPROVED, ApprovalStatus.REJECTED


@pytest.fixture
def key(store: MeasurementStore, tmp_path: Path) -> SigningKey:
    """Ada's key, which counts."""
    return register(store, make_key(tmp_path / "ada.pem"), "ada")


def register(store: MeasurementStore, key: SigningKey, owner: str) -> SigningKey:
    with store.database.writing() as connection:
        add_key(connection, key.id, key.public_pem, owner, owner)
    return key


def test_all_that_was_decided_at_once_is_signed_once(store: MeasurementStore, key: SigningKey):
    batch = make_batch(num_sessions=3)
    store.add(batch)
    first, *others = ids(batch)
    store.decide(others, APPROVED, "ada", "heard clearly", key=key)
    store.decide([first], APPROVED, "bob", "heard too")
    store.decide([others[0]], REJECTED, "ada", "it moved", key=key)
    assert store.decide([others[0]], REJECTED, "ada", "it moved", key=key) == 0  # nothing to sign
    names = store.read_names()
    assert {number: names[one] for number, one in store.list_signers().items()} == {1: "ada", 2: "ada", 4: "ada"}
    assert store.check_ledger() == []
    assert sum('"kind":"signature"' in body for body in read_bodies(store)) == 2


def test_only_who_decides_signs_and_with_a_key_that_counts(store: MeasurementStore, key: SigningKey, tmp_path: Path):
    batch = make_batch()
    store.add(batch)
    with pytest.raises(Refused, match=r"found it to be ada's, expected that of bob, who decides"):
        store.decide(ids(batch), APPROVED, "bob", "heard", key=key)
    with pytest.raises(Refused, match="found one that nobody knows"):
        store.decide(ids(batch), APPROVED, "ada", "heard", key=make_key(tmp_path / "other.pem"))
    store.decide(ids(batch)[:1], APPROVED, "ada", "heard", key=key)
    with store.database.writing() as connection:
        retire_key(connection, key.id, "ada", "lost")
    with pytest.raises(Refused, match="found one that was retired at"):
        store.decide(ids(batch), REJECTED, "ada", "moved", key=key)
    assert name_people([*store.list_signers().values()], store.read_names) == ["ada"]  # it still counts
    assert len(store.list_approval_events()) == 1


def rewrite(store: MeasurementStore, kind: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the first entry of a kind, its leaf with it, as a forger without the key would."""
    bodies = enumerate(read_bodies(store))
    number, body = next((number, body) for number, body in bodies if f'"kind":"{kind}"' in body)
    entry = decode_canonical_json(body)
    change(entry)
    encoded = encode_canonical_json(entry)
    values = {"body": encoded.decode(), "leaf": hash_leaf(encoded).hex(), "id": number}
    run_sql(store, "UPDATE {p}log_entries SET body = :body, leaf = :leaf WHERE id = :id", **values)


def put_payload(entry: dict[str, Any], **change: object) -> None:
    envelope = entry["envelope"]
    said = {**decode_canonical_json(base64.b64decode(envelope["payload"])), **change}
    envelope["payload"] = base64.b64encode(encode_canonical_json(said)).decode()


@pytest.mark.parametrize(
    ("kind", "change", "found"),
    [
        ("approval", lambda entry: entry.update(reason="because"), "it is of other entries than 2 to 3"),
        ("signature", lambda entry: put_payload(entry, last=2), "the signature of key"),
        ("signature", lambda entry: entry["envelope"].update(payloadType="text/plain"), "found payload type"),
        ("signature", lambda entry: entry["envelope"].update(signatures=[]), "found no signature"),
        ("signature", lambda entry: entry["envelope"]["signatures"][0].update(keyid="0" * 64), "which nobody knows"),
        ("signature", lambda entry: entry.pop("envelope"), "envelope"),
    ],
)
def test_a_signature_that_does_not_hold_is_named_and_counts_for_nothing(
    store: MeasurementStore, key: SigningKey, kind: str, change: Callable[[dict[str, Any]], object], found: str
):
    batch = make_batch(num_sessions=2)
    store.add(batch)
    store.decide(ids(batch), APPROVED, "ada", "heard clearly", key=key)
    rewrite(store, kind, change)
    problems = [line for line in store.check_ledger() if "found a signature on decisions that does not hold" in line]
    assert len(problems) == 1
    assert problems[0].startswith("log_entries 4: ")
    assert found in problems[0]
    assert store.list_signers() == {}


def test_a_signature_with_a_key_that_came_later_counts_for_nothing(
    store: MeasurementStore, key: SigningKey, tmp_path: Path
):
    """As where the log was written anew with the forger's own key in it."""
    batch = make_batch(num_sessions=1)
    store.add(batch)
    store.decide(ids(batch), APPROVED, "ada", "heard clearly", key=key)
    other = register(store, make_key(tmp_path / "later.pem"), "ada")

    def sign_again(entry: dict[str, Any]) -> None:
        payload = base64.b64decode(entry["envelope"]["payload"])
        entry["envelope"] = other.sign(payload, entry["envelope"]["payloadType"])

    rewrite(store, "signature", sign_again)
    (problem,) = [line for line in store.check_ledger() if "signature" in line]
    assert "did not count then" in problem
