"""Keys of callers: shown once, kept as a hash, counting until they expire, are revoked or are nobody's."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.errors import HeimdallError, InvalidInput, NotFound, Refused
from heimdall_assets.stores.database import service_keys
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.releases.store import ReleaseStore
from heimdall_assets_tests.stores.releasing import open_at
from heimdall_assets_tests.stores.test_log import read_bodies, run_sql


@pytest.fixture
def releases(store: MeasurementStore, quick_path: Path) -> ReleaseStore:
    return open_at(str(quick_path / "models"), store)


def test_a_key_lets_its_owner_in_and_nothing_at_rest_does(
    store: MeasurementStore, releases: ReleaseStore, quick_path: Path
) -> None:
    key, shown = releases.make_service_key("Ada Lovelace", 30, "bob", "her station")
    assert re.fullmatch(rf"hk_{key.id}_[A-Za-z0-9_-]{{43}}", shown)
    found = releases.find_service_key(shown)
    assert found is not None
    assert (found.id, found.owner, found.state, found.counts) == (key.id, "Ada Lovelace", "counts", True)
    assert store.read_names()[key.made_by] == "bob"
    secret = shown.rpartition(key.id + "_")[2]
    (entry,) = [body for body in read_bodies(store) if '"kind":"service_key"' in body]
    assert json.loads(entry)["secret_sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert "Lovelace" not in entry
    everything = [*read_bodies(store), repr(releases.list_service_keys())]
    everything += [str(path.read_bytes()) for path in quick_path.rglob("*") if path.is_file()]
    assert not any(secret in text for text in everything)
    assert releases.check_ledger() == []


def test_keys_of_one_owner_differ_and_each_ends_alone(releases: ReleaseStore) -> None:
    made = [releases.make_service_key("ada", 30, "bob", "her station") for _ in range(5)]
    assert len({key.id for key, _ in made}) == len({shown[20:] for _, shown in made}) == 5
    releases.revoke_service_key(made[2][0].id, "bob", "lost")
    assert [releases.find_service_key(shown) is not None for _, shown in made] == [True, True, False, True, True]
    revoked = releases.list_service_keys()[made[2][0].id]
    assert (revoked.state, revoked.revoked_reason) == ("revoked", "lost")
    for again in (made[2][0].id, "0" * 16, ""):
        with pytest.raises(NotFound, match="found none of this id that is not revoked"):
            releases.revoke_service_key(again, "bob", "lost")
    assert releases.check_ledger() == []


def test_what_is_no_key_lets_nobody_in(releases: ReleaseStore) -> None:
    assert releases.find_service_key("hk_" + "0" * 16 + "_" + "a" * 43) is None  # before there is any
    (one, first), (_, second) = [releases.make_service_key(name, 30, "bob", "why") for name in ("ada", "eve")]
    secret = second[20:]
    digest = hashlib.sha256(first[20:].encode()).hexdigest()
    wrong = ["", first[:-1], first + "a", first.upper(), f" {first}", f"{first}\n", first[:20] + secret, first[3:]]
    wrong += [f"hk_{one.id}_{digest}", f"hk_{one.id}_{digest[:43]}", f"hk_{one.id}_", "hk_" * 100_000, "\x00", "ä" * 63]
    assert [shown for shown in wrong if releases.find_service_key(shown) is not None] == []
    assert releases.find_service_key(first) is not None


def test_a_key_counts_until_it_expires(releases: ReleaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    key, shown = releases.make_service_key("ada", 30, "bob", "her station")
    end = datetime.fromisoformat(key.expires_at)
    assert abs(end - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)
    for seconds, counts in ((-1, True), (0, False), (1, False)):
        monkeypatch.setattr(service_keys, "read_clock", lambda shift=seconds: end + timedelta(seconds=shift))
        assert (releases.find_service_key(shown) is not None) == counts
    assert releases.list_service_keys()[key.id].state == "expired"


def test_a_key_of_somebody_who_was_erased_lets_nobody_in(releases: ReleaseStore) -> None:
    key, shown = releases.make_service_key("Ada Lovelace", 30, "bob", "her station")
    pseudonym = releases.erase_person("Ada Lovelace", "bob", "she asked")
    assert releases.find_service_key(shown) is None
    found = releases.list_service_keys()[key.id]
    assert (found.state, found.owner) == ("erased", pseudonym)
    assert releases.check_ledger() == []


def test_the_day_of_the_last_use_is_kept_with_one_write_a_day(store: MeasurementStore, releases: ReleaseStore) -> None:
    key, shown = releases.make_service_key("ada", 30, "bob", "her station")
    assert releases.list_service_keys()[key.id].last_used_on is None
    releases.find_service_key(shown[:-1] + ("a" if shown[-1] != "a" else "b"))
    assert releases.list_service_keys()[key.id].last_used_on is None
    days = {datetime.now(UTC).date().isoformat()}
    for _ in range(3):
        releases.find_service_key(shown)
    days.add(datetime.now(UTC).date().isoformat())
    assert releases.list_service_keys()[key.id].last_used_on in days
    run_sql(store, "UPDATE {p}service_key_uses SET last_used_on = '2020-01-01'")
    releases.find_service_key(shown)
    assert releases.list_service_keys()[key.id].last_used_on in days


@pytest.mark.parametrize(
    ("owner", "days", "by", "error", "line"),
    [
        ("", 30, "bob", InvalidInput, "user '': expected 1 to 200"),
        ("ada", 0, "bob", InvalidInput, "found 0 days, expected 1 to 3650"),
        ("ada", 3651, "bob", InvalidInput, "found 3651 days"),
        ("ada", True, "bob", InvalidInput, "found True days"),
        ("ada", 30, " ", Refused, "expected a text that is not blank"),
    ],
)
def test_what_is_no_key_is_one_line_and_no_event(
    releases: ReleaseStore, owner: str, days: int, by: str, error: type[HeimdallError], line: str
) -> None:
    with pytest.raises(error) as refused:
        releases.make_service_key(owner, days, by, "why")
    assert line in str(refused.value)
    assert releases.list_service_keys() == {}


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE {p}service_key_events SET expires_at = '2099-01-01 00:00:00'", "event 1: found expires_at '2099"),
        ("UPDATE {p}service_key_events SET secret_sha256 = 'ab'", "event 1: found secret_sha256 'ab', expected"),
        ("DELETE FROM {p}service_key_events WHERE id = 2", "event 2: found no row, expected the one of entry"),
    ],
)
def test_a_key_that_nobody_gave_is_found(
    store: MeasurementStore, releases: ReleaseStore, statement: str, problem: str
) -> None:
    key, _ = releases.make_service_key("ada", 30, "bob", "her station")
    releases.revoke_service_key(key.id, "bob", "lost")
    run_sql(store, statement)
    assert [line for line in releases.check_ledger() if problem in line]


def test_the_commands_show_a_key_once_list_and_revoke(tmp_path: Path) -> None:
    def run(*arguments: str, code: int = 0) -> Result:
        environment = {"HEIMDALL_HOME": str(tmp_path / "home"), "HEIMDALL_TRACKING": "off", "COLUMNS": "200"}
        result = CliRunner().invoke(main, ["service-keys", *arguments], env=environment)
        assert result.exit_code == code, result.output
        return result

    from heimdall_assets_tests.homes import make_places

    stores = make_places(tmp_path / "home").open_stores()
    decided = ("--by", "bob", "--reason", "her station")
    made = json.loads(run("make", "ada", *decided, "--days", "7", "--json").stdout)
    shown = run("make", "ada", *decided).stdout.strip()
    assert stores.releases.find_service_key(made["key"]) is not None
    assert stores.releases.find_service_key(shown) is not None
    listed = run("list", "--json").stdout
    assert [row["state"] for row in json.loads(listed)] == ["counts", "counts"]
    assert {row["made_by"] for row in json.loads(listed)} == {"bob"}
    assert shown[20:] not in listed + run("list").stdout
    assert "sha256" not in listed
    assert json.loads(run("revoke", made["id"], *decided, "--json").stdout) == {"revoked": made["id"]}
    assert stores.releases.find_service_key(made["key"]) is None
    assert "found 0 days, expected 1 to 3650" in run("make", "ada", *decided, "--days", "0", code=2).stderr
    assert run("revoke", made["id"], *decided, code=2).stderr.count("\n") == 1
