"""The clock goes back between two decisions, two releases, two promotions: their order is that of their numbers."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database import measurements
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.releases import rows
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.releasing import FILES, RECORD, open_at

APPROVED, REJECTED = ApprovalStatus.APPROVED, ApprovalStatus.REJECTED


def set_clock(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Let the clock of all that is written be so many days from now."""
    for module in (measurements, rows):
        monkeypatch.setattr(module, "read_clock", lambda: datetime.now(UTC) + timedelta(days=days))


def test_the_last_decision_holds_whatever_its_time(store: MeasurementStore, monkeypatch: pytest.MonkeyPatch):
    store.add(make_batch())
    ids = [row["id"] for row in store.list_sessions()]
    prints = []
    for days, decision in ((3, APPROVED), (1, REJECTED), (-2, APPROVED), (-5, REJECTED), (-9, APPROVED)):
        set_clock(monkeypatch, days)
        assert store.decide(ids, decision, "ada", f"{days} days from now") == len(ids)
        assert {row["approval_status"] for row in store.list_sessions()} == {str(decision)}
        prints.append(store.compute_fingerprint(DatasetSpec()))
    events = store.list_approval_events()
    assert [event["id"] for event in events] == list(range(1, 5 * len(ids) + 1))
    assert [event["decided_at"] for event in events] != sorted(event["decided_at"] for event in events)
    assert store.check_ledger() == []
    assert len({prints[0], prints[2], prints[4]}) == 3  # each approval is another one
    assert set(store.read_approved(DatasetSpec()).rows["approval_event_id"]) == {13, 14, 15}


def test_the_newest_release_is_that_of_the_highest_number(
    store: MeasurementStore, monkeypatch: pytest.MonkeyPatch, quick_path: Path
):
    releases = open_at(str(quick_path / "models"), store)
    for number, days in enumerate((3, -2, -9)):
        set_clock(monkeypatch, days)
        version = releases.reserve_version("minor", f"results/{number}")
        releases.publish(version, FILES, RECORD)
        releases.set_alias("champion", version, "ada", f"{days} days from now")
        assert version == f"v1.{number}.0"
        assert releases.resolve("latest") == releases.resolve("champion") == version
    records = releases.list_releases()
    assert [record["version"] for record in records] == ["v1.0.0", "v1.1.0", "v1.2.0"]
    assert [record["created_at"] for record in records] == sorted((r["created_at"] for r in records), reverse=True)
    assert releases.check_ledger() == []
    assert releases.put_right() == []


def test_doctor_tells_that_the_clock_is_behind_what_was_written(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    store = MeasurementStore(database_url)
    store.add(make_batch())
    ids = [row["id"] for row in store.list_sessions()]
    environment = {"HEIMDALL_HOME": str(tmp_path), "HEIMDALL_DATABASE_URL": database_url, "HEIMDALL_TRACKING": "off"}

    def ask() -> str:
        lines = CliRunner().invoke(main, ["doctor"], env=environment).output.splitlines()
        return next(line for line in lines if "HEIMDALL_DATABASE_URL" in line)

    store.decide(ids[:1], APPROVED, "ada", "now")
    assert ask().startswith("ok")
    set_clock(monkeypatch, 1)
    store.decide(ids[1:2], APPROVED, "ada", "a day ahead")
    store.close()
    line = ask()
    assert line.startswith("warning")
    assert "newest decision 86" in line
    assert "set this machine's clock by NTP" in line
