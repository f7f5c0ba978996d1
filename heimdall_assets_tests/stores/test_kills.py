"""Deciding processes killed at random: the ledger stays whole, and says exactly what each snapshot holds."""

import random
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.processes import start_process
from heimdall_assets_tests.stores.test_measurements import ids

DECISIONS = (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED, ApprovalStatus.PENDING)


def decide_for_ever(url: str, told: Path, seed: int) -> None:
    """Decide at random; write down each decision that the store said is kept."""
    dice, store = random.Random(seed), MeasurementStore(url)
    sessions = [row["id"] for row in store.list_sessions()]
    with open(told, "a", buffering=1) as notes:
        for number in range(10**6):
            chosen, decision = dice.sample(sessions, dice.randint(1, 5)), dice.choice(DECISIONS)
            reason = f"{seed}-{number}"
            changed = store.decide(chosen, decision, "ada", reason)
            notes.write(f"{reason} {changed}\n")


@pytest.mark.parametrize("round_number", range(2))
def test_killed_deciders_lose_nothing(
    store: MeasurementStore, database_url: str, quick_path: Path, round_number: int
) -> None:
    batch = make_batch(num_sessions=12)
    store.add(batch)
    dice = random.Random(round_number)
    told = [quick_path / f"told-{number}" for number in range(3)]
    for number, notes in enumerate(told):
        notes.touch()
        process = start_process(decide_for_ever, database_url, notes, 100 * round_number + number)
        deadline = time.monotonic() + 60
        while notes.stat().st_size < 40 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(dice.uniform(0.0, 0.05))
        process.kill()
        process.join(30)
        process.close()

        # An independent reading of the ledger alone says what is approved ...
        last: dict[str, str] = {}
        for event in store.list_approval_events():
            last[event["recording_session_id"]] = event["decision"]
        approved = {session for session, decision in last.items() if decision == "approved"}
        snapshot = store.read_approved(DatasetSpec())
        assert set(snapshot.rows["session_id"]) == approved
        assert len(snapshot.rows) == 2 * len(approved)
        assert store.check_ledger() == []
    # ... every decision that was reported is in it, whole ...
    counts: dict[str, int] = {}
    for event in store.list_approval_events():
        counts[event["reason"]] = counts.get(event["reason"], 0) + 1
    for notes in told:
        reported = dict(line.split() for line in notes.read_text().splitlines() if line.endswith(tuple("0123456789")))
        assert reported
        for reason, changed in reported.items():
            assert counts.get(reason, 0) == int(changed)
    # ... and the next one works.
    assert store.decide(ids(batch), ApprovalStatus.APPROVED, "ada", "after all") >= 0
    assert len(store.read_approved(DatasetSpec()).rows) == 24
    if database_url.startswith("sqlite"):
        with store.engine.connect() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
