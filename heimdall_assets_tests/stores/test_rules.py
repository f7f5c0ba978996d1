"""Rules of serving at rest: each change an event with who, when and why; two who decide at once; what is no rule."""

import json
import math
from pathlib import Path

import pytest
from sqlalchemy import text

from heimdall_assets.errors import HeimdallError, InvalidInput, NotFound, Refused
from heimdall_assets.serving_rules import Canary, Flag
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.rules import RuleChange, SaidRule, list_standing
from heimdall_assets.stores.releases.store import ReleaseStore
from heimdall_assets_tests.stores.processes import run_at_once
from heimdall_assets_tests.stores.releasing import open_at, publish
from heimdall_assets_tests.stores.test_log import read_bodies, run_sql

CANARY = SaidRule("canary", "v1.0.0", share=0.05, salt="v1.0.0")
FLAG = SaidRule("flag", "v1.0.0", user="Ada Lovelace")
SHADOW = SaidRule("shadow", "v1.0.0")


@pytest.fixture
def releases(store: MeasurementStore, quick_path: Path) -> ReleaseStore:
    opened = open_at(str(quick_path / "models"), store)
    publish(opened)
    return opened


def list_rules(releases: ReleaseStore) -> list[SaidRule]:
    return [change.said for change in list_standing(releases.list_rule_changes())]


def test_each_change_is_an_event_and_the_last_of_each_place_stands(
    store: MeasurementStore, releases: ReleaseStore
) -> None:
    assert releases.list_rule_changes() == []
    by_receiver = SaidRule("flag", "v1.0.0", receiver="Torino")
    said = [CANARY, FLAG, by_receiver, SHADOW, SaidRule("canary", "v1.0.0", share=0.1, salt="v1.0.0")]
    said += [SaidRule("flag", None, user="Ada Lovelace"), SaidRule("shadow", None)]
    given = [releases.change_rule(one, number, "bob", f"reason {number}") for number, one in enumerate(said)]
    found = releases.list_rule_changes()
    assert found == given
    assert [(change.id, change.said, change.reason) for change in found] == [
        (number + 1, one, f"reason {number}") for number, one in enumerate(said)
    ]
    assert {store.read_names()[change.decided_by] for change in found} == {"bob"}
    assert list_rules(releases) == [by_receiver, said[4]]
    assert [rule.make_rule() for rule in list_rules(releases)] == [
        Flag("v1.0.0", receiver="Torino"),
        Canary("v1.0.0", 0.1, "v1.0.0"),
    ]
    assert releases.check_ledger() == store.check_ledger() == []


def test_the_log_holds_each_change_and_no_name(store: MeasurementStore, releases: ReleaseStore) -> None:
    before = len(read_bodies(store))
    change = releases.change_rule(FLAG, 0, "bob", "she asked")
    (body,) = read_bodies(store)[before:]
    entry = json.loads(body)
    assert (entry["kind"], entry["id"], entry["rule"], entry["version"]) == ("rule", 1, "flag", "v1.0.0")
    assert (entry["decided_at"][:19], entry["reason"]) == (change.decided_at[:19], "she asked")
    assert "Lovelace" not in body
    assert "bob" not in body
    assert store.read_names()[entry["user"]] == "Ada Lovelace"


def test_who_is_erased_has_no_flag_any_more_and_comes_back_as_somebody_new(releases: ReleaseStore) -> None:
    releases.change_rule(FLAG, 0, "bob", "she asked")
    pseudonym = releases.erase_person("Ada Lovelace", "bob", "she asked for that too")
    (change,) = releases.list_rule_changes()
    assert (change.said.user, change.is_of_nobody) == (pseudonym, True)
    releases.change_rule(FLAG, 1, "bob", "she is back")
    assert [one.is_of_nobody for one in list_standing(releases.list_rule_changes())] == [True, False]
    releases.change_rule(SaidRule("flag", None, user=pseudonym), 2, "bob", "nobody's")
    assert list_rules(releases) == [FLAG]
    assert releases.check_ledger() == []


def test_said_again_in_the_same_words_it_is_one_change(releases: ReleaseStore) -> None:
    first = releases.change_rule(CANARY, 0, "bob", "try it")
    assert releases.change_rule(CANARY, 0, "bob", "try it") == first  # killed, and said again
    assert releases.change_rule(CANARY, None, "bob", " try it ") == first
    assert releases.change_rule(CANARY, 1, "ada", "try it").id == 2
    off = releases.change_rule(SaidRule("canary", None), 2, "ada", "enough")
    assert releases.change_rule(SaidRule("canary", None), 3, "ada", "enough") == off
    assert len(releases.list_rule_changes()) == 3


def test_said_again_after_a_promotion_it_is_a_change_of_its_own(releases: ReleaseStore) -> None:
    releases.change_rule(CANARY, 0, "bob", "try it")
    releases.set_alias("champion", "v1.0.0", "ada", "good")
    assert [releases.change_rule(CANARY, 1, "bob", "try it").num_promotions for _ in range(2)] == [1, 1]
    assert [change.num_promotions for change in releases.list_rule_changes()] == [0, 1]


def test_who_decides_on_an_older_state_is_told_in_one_line(releases: ReleaseStore) -> None:
    releases.change_rule(CANARY, 0, "bob", "try it")
    with pytest.raises(Refused) as refused:
        releases.change_rule(SHADOW, 0, "ada", "beside it")
    assert str(refused.value) == (
        "rules: found change 1 (canary, by bob: try it), expected 0 as the last one; look at heimdall models rules "
        "and decide again"
    )
    with pytest.raises(Refused, match="found 1 as the number of their last change, expected 7"):
        releases.change_rule(SHADOW, 7, "ada", "beside it")
    assert list_rules(releases) == [CANARY]


def say_at_once(database_url: str, models: str, share: float) -> RuleChange | str:
    releases = open_at(models, MeasurementStore(database_url))
    try:
        return releases.change_rule(SaidRule("canary", "v1.0.0", share, "s"), 0, f"operator {share}", "mine")
    except HeimdallError as error:
        return f"{type(error).__name__}: {error}"


def test_of_operators_at_once_one_wins_and_the_others_get_one_line(
    store: MeasurementStore, database_url: str, quick_path: Path
) -> None:
    models = str(quick_path / "models")
    releases = open_at(models, store)
    publish(releases)
    answers = run_at_once(say_at_once, *[(database_url, models, number / 10) for number in range(1, 5)])
    won = [answer for answer in answers if isinstance(answer, RuleChange)]
    lost = [answer for answer in answers if isinstance(answer, str)]
    assert (len(won), len(lost)) == (1, 3)
    assert releases.list_rule_changes() == won
    winner = f"operator {won[0].said.share}"
    assert all(line.startswith(f"Refused: rules: found change 1 (canary, by {winner}: mine)") for line in lost)
    assert releases.check_ledger() == []


@pytest.mark.parametrize(
    ("said", "error", "line"),
    [
        (SaidRule("shadow", "v9.0.0"), NotFound, "release v9.0.0: found no published release"),
        (SaidRule("canary", "v1.0.0", 1.5, "s"), InvalidInput, "found share 1.5, expected a number from 0 to 1"),
        (SaidRule("canary", "v1.0.0", math.nan, "s"), InvalidInput, "found share nan"),
        (SaidRule("canary", "v1.0.0", None, "s"), InvalidInput, "found share None"),
        (SaidRule("flag", "v1.0.0", user=""), InvalidInput, "user '': expected 1 to 200 printable characters"),
        (SaidRule("flag", "v1.0.0", receiver="a/b"), InvalidInput, "receiver name 'a/b': expected"),
        (SaidRule("flag", "v1.0.0"), InvalidInput, "expected one of them"),
        (SaidRule("flag", None, user=" "), InvalidInput, "user ' ': expected"),
        (SaidRule("flag", None, user="ada"), NotFound, "flag of user ada: found no rule that stands"),
        (SaidRule("canary", None), NotFound, "canary: found no rule that stands"),
    ],
)
def test_what_is_no_rule_is_one_line_and_no_event(
    releases: ReleaseStore, said: SaidRule, error: type[HeimdallError], line: str
) -> None:
    with pytest.raises(error) as refused:
        releases.change_rule(said, 0, "bob", "try it")
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert releases.list_rule_changes() == []
    for by, reason in ((" ", "why"), ("bob", "")):
        with pytest.raises(Refused, match="expected a text that is not blank"):
            releases.change_rule(CANARY, 0, by, reason)


def test_a_rejected_release_answers_nobody(releases: ReleaseStore) -> None:
    version = releases.reserve_version("minor", "results/rejected")
    releases.publish(version, {"README.md": b"#"}, {"status": "rejected", "rejected": ["too wide"]})
    with pytest.raises(Refused, match=f"canary: found release {version}, which is rejected and given to nobody"):
        releases.change_rule(SaidRule("canary", version, 0.1, "s"), 0, "bob", "try it")


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE {p}serving_rule_events SET share = 0.5", "event 1: found share 0.5, expected share 0.05"),
        ("UPDATE {p}serving_rule_events SET reason = 'no'", "event 1: found reason 'no', expected reason 'try it'"),
        ("DELETE FROM {p}serving_rule_events", "event 1: found no row, expected the one of entry"),
        (
            'INSERT INTO {p}serving_rule_events SELECT 2, rule, version, 1.0, salt, "user", receiver, '
            "num_promotions, decided_by, decided_at, reason FROM {p}serving_rule_events",
            "event 2: found no entry of it in the log",
        ),
    ],
)
def test_a_change_that_nobody_decided_is_found(
    store: MeasurementStore, releases: ReleaseStore, statement: str, problem: str
) -> None:
    releases.change_rule(CANARY, 0, "bob", "try it")
    run_sql(store, statement)
    assert [line for line in releases.check_ledger() if problem in line]


def test_a_database_that_knows_no_rules_yet_has_none(store: MeasurementStore, releases: ReleaseStore) -> None:
    prefix = "heimdall." if store.engine.dialect.name == "postgresql" else ""
    with store.engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {prefix}serving_rule_events"))
    assert releases.list_rule_changes() == []
    assert releases.check_ledger() == []
