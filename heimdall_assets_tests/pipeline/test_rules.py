"""Rules of serving in force: which models they may name, and what becomes of them when those are gone or promoted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import InvalidInput, NotFound, Refused
from heimdall_assets.pipeline.releases.promotion import promote_release, roll_back
from heimdall_assets.pipeline.releases.rules import (
    Decider,
    end_rule,
    explain_model,
    read_rules_in_force,
    set_canary,
    set_flag,
    set_shadow,
)
from heimdall_assets.pipeline.releases.standing_rules import read_standing_rules
from heimdall_assets.specs import PromotionSpec, SimulationSpec, TrainingSpec
from heimdall_assets.stores.database.serving.rules import SaidRule
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets_tests.homes import fill_home, make_places, release

FEW = PromotionSpec(min_sessions=1, num_bootstrap=100)
BOB = Decider("bob", "try it")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three releases, of which the first is champion."""
    simulation = SimulationSpec(num_sessions=20, min_receivers=4, max_receivers=4, duration_s=0.8)
    places = fill_home(tmp_path_factory.mktemp("rules") / "home", simulation)
    for epochs in (1, 2, 3):
        release(places, TrainingSpec(max_epochs=epochs, num_threads=1), FEW)
    promote_release(places.open_stores(), "v1.0.0", "ada", "the first")
    return places.home


@pytest.fixture
def home(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "home", symlinks=True))


@pytest.fixture
def stores(home: Path) -> Stores:
    return make_places(home).open_stores()


@pytest.fixture
def heimdall(home: Path) -> Callable[..., Result]:
    def run(*arguments: str, code: int = 0) -> Result:
        environment = {"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off", "COLUMNS": "200"}
        result = CliRunner().invoke(main, list(arguments), env=environment)
        assert result.exit_code == code, result.output
        return result

    return run


def list_problems(stores: Stores) -> dict[str, str | None]:
    return {one.change.said.place: one.problem for one in read_rules_in_force(stores).judged}


def answer(stores: Stores, caller: str | None, *receivers: str) -> str:
    return explain_model(stores, caller, receivers)[0].version


def test_rules_decide_who_answers_and_a_share_that_grows_lets_nobody_out(stores: Stores) -> None:
    assert answer(stores, "ada") == "v1.0.0"
    change = set_canary(stores, "v1.1.0", 0.3, BOB)
    assert (change.said.salt, change.said.share) == ("v1.1.0", 0.3)
    rules = read_rules_in_force(stores)
    callers = [f"caller {number}" for number in range(200)]
    within = {caller for caller in callers if rules.choose(caller, ()).version == "v1.1.0"}
    assert 30 < len(within) < 90
    set_canary(stores, "v1.1.0", 0.6, BOB)
    grown = read_rules_in_force(stores)
    assert within < {caller for caller in callers if grown.choose(caller, ()).version == "v1.1.0"}
    (outside, *_) = sorted(set(callers) - within)
    set_flag(stores, "v1.2.0", (outside, None), BOB)
    set_flag(stores, "v1.1.0", (None, "Torino"), BOB)
    set_shadow(stores, "v1.2.0", BOB)
    choice, found = explain_model(stores, outside, ["Torino"])
    assert (choice.version, choice.chosen_by, choice.shadow) == ("v1.2.0", "flag", None)
    assert answer(stores, None, "Torino") == "v1.1.0"
    assert (found.number, set(list_problems(stores).values())) == (5, {None})
    assert read_standing_rules(stores) == found
    end_rule(stores, "flag", BOB, (outside, None))
    end_rule(stores, "canary", BOB)
    assert answer(stores, outside) == "v1.0.0"


def test_a_salt_that_was_said_stays_while_its_canary_stands(stores: Stores) -> None:
    set_canary(stores, "v1.1.0", 0.3, BOB, salt="spring")
    assert set_canary(stores, "v1.1.0", 0.4, BOB).said.salt == "spring"
    assert set_canary(stores, "v1.2.0", 0.4, BOB).said.salt == "v1.2.0"
    assert set_canary(stores, "v1.1.0", 0.4, BOB).said.salt == "v1.1.0"


def test_a_canary_that_was_promoted_is_over_and_does_not_come_back_with_a_later_champion(stores: Stores) -> None:
    set_canary(stores, "v1.1.0", 1.0, BOB)
    set_shadow(stores, "v1.1.0", BOB)
    set_flag(stores, "v1.0.0", ("ada", None), BOB)
    promote_release(stores, "v1.1.0", "ada", "good")
    assert list_problems(stores) == {
        "canary": "release v1.1.0: became champion since, the canary is over",
        "shadow": "release v1.1.0: became champion since, the shadow is over",
        "flag of user ada": None,
    }
    assert answer(stores, "ada") == "v1.0.0"  # pinned to what she knows
    promote_release(stores, "v1.2.0", "ada", "better")
    assert answer(stores, "bob") == "v1.2.0"
    assert set(list_problems(stores).values()) != {None}
    with pytest.raises(Refused, match=r"canary: found release v1.2.0, which is champion and answers anyway"):
        set_canary(stores, "v1.2.0", 0.1, BOB)
    with pytest.raises(Refused, match=r"shadow: found release v1.2.0, which is champion"):
        set_shadow(stores, "champion", BOB)
    set_canary(stores, "v1.1.0", 1.0, BOB)  # said again, knowing it
    assert answer(stores, "bob") == "v1.1.0"


def test_a_canary_said_while_its_model_was_being_promoted_is_over_at_once(stores: Stores) -> None:
    stores.releases.set_alias("champion", "v1.1.0", "ada", "good")  # between the look at the champion and the change
    stores.releases.change_rule(SaidRule("canary", "v1.1.0", 1.0, "s"), 0, "bob", "try it")
    stores.releases.set_alias("champion", "v1.2.0", "ada", "better")
    assert list_problems(stores) == {"canary": "release v1.1.0: became champion since, the canary is over"}
    assert answer(stores, "bob") == "v1.2.0"


def test_rules_of_a_model_from_which_the_champion_went_back_wait_until_they_are_said_again(stores: Stores) -> None:
    promote_release(stores, "v1.1.0", "ada", "good")
    set_flag(stores, "v1.1.0", ("ada", None), BOB)
    set_flag(stores, "v1.2.0", ("carl", None), BOB)
    assert roll_back(stores, "ada", "it misses") == "v1.0.0"
    said = "release v1.1.0: the champion went back from it to v1.0.0 since; say the rule again"
    assert list_problems(stores) == {"flag of user ada": said, "flag of user carl": None}
    assert [answer(stores, caller) for caller in ("ada", "carl")] == ["v1.0.0", "v1.2.0"]
    set_flag(stores, "v1.1.0", ("ada", None), Decider("bob", "she wants it all the same"))
    assert answer(stores, "ada") == "v1.1.0"


def test_a_model_that_learned_from_what_is_withdrawn_answers_by_no_rule(stores: Stores) -> None:
    set_canary(stores, "v1.1.0", 1.0, BOB)
    released = stores.releases.find_record("v1.1.0")
    assert released["status"] == "released"
    withdraw(stores, "v1.1.0")
    said = "release v1.1.0: learned from 1 session withdrawn since"
    assert list_problems(stores) == {"canary": said}
    assert answer(stores, "ada") == "v1.0.0"
    with pytest.raises(Refused, match=f"flag: {said}; expected a model that could answer"):
        set_flag(stores, "v1.1.0", ("ada", None), BOB)
    assert read_standing_rules(stores).judged[0].problem is None  # the ledger alone says nothing


def withdraw(stores: Stores, version: str) -> None:
    from heimdall_assets.pipeline.prediction.released import read_released
    from heimdall_assets.pipeline.results import read_parent

    split = read_parent(stores.objects, read_released(stores, version).manifest, "train_split")
    learned = str(load_table(stores.objects, split.artifacts["table"])["session_id"].iloc[0])
    stores.measurements.decide([learned], ApprovalStatus.REJECTED, "bob", "moved while it was recorded")


def test_a_model_whose_files_are_gone_answers_by_no_rule(stores: Stores, home: Path) -> None:
    set_canary(stores, "v1.1.0", 1.0, BOB)
    (file,) = Path(stores.releases.locate("v1.1.0")).glob("*.onnx")
    file.chmod(0o600)
    file.unlink()
    problem = list_problems(stores)["canary"]
    assert problem is not None
    assert problem.startswith(f"release v1.1.0: file {file.name} is gone")
    assert answer(stores, "ada") == "v1.0.0"
    with pytest.raises(Refused, match=r"shadow: release v1.1.0: file .* is gone"):
        set_shadow(stores, "v1.1.0", BOB)


def test_a_user_who_was_erased_has_no_rule(stores: Stores) -> None:
    set_flag(stores, "v1.1.0", ("Ada Lovelace", None), BOB)
    pseudonym = stores.releases.erase_person("Ada Lovelace", "bob", "she asked")
    place = f"flag of user {pseudonym}"
    assert list_problems(stores) == {place: f"{place}: whose name was erased"}
    assert answer(stores, "Ada Lovelace") == "v1.0.0"


def test_what_names_no_model_is_one_line(stores: Stores) -> None:
    asked: list[Callable[[], object]] = [
        lambda: set_canary(stores, "v9.0.0", 0.1, BOB),
        lambda: set_flag(stores, "nobody", ("ada", None), BOB),
        lambda: set_shadow(stores, "v9.0.0", BOB),
        lambda: end_rule(stores, "shadow", BOB),
    ]
    for ask in asked:
        with pytest.raises(NotFound, match="found no"):
            ask()
    with pytest.raises(InvalidInput, match=r"found share 2.0, expected a number from 0 to 1"):
        set_canary(stores, "v1.1.0", 2.0, BOB)
    with pytest.raises(InvalidInput, match="user '': expected"):
        set_flag(stores, "v1.1.0", ("", None), BOB)
    assert stores.releases.list_rule_changes() == []


def test_without_a_champion_nothing_answers(stores: Stores, tmp_path: Path) -> None:
    empty = make_places(tmp_path / "empty").open_stores()
    with pytest.raises(NotFound, match="champion: found none"):
        explain_model(empty, "ada", ())


def test_the_commands_say_change_list_and_end_rules(heimdall: Callable[..., Result]) -> None:
    decided = ("--by", "bob", "--reason", "try it")
    made: dict[str, Any] = json.loads(heimdall("models", "canary", "v1.1.0", "--share", "1", *decided, "--json").stdout)
    assert (made["id"], made["rule"], made["version"], made["share"]) == (1, "canary", "v1.1.0", 1.0)
    assert heimdall("models", "flag", "v1.2.0", "--user", "ada", *decided).stdout == (
        "flag of user ada: v1.2.0 (change 2)\n"
    )
    assert heimdall("models", "flag", "v1.2.0", "--receiver", "Torino", *decided).stderr == ""
    heimdall("models", "shadow", "latest", *decided)
    told = json.loads(heimdall("models", "which", "--user", "ada", "--json").stdout)
    assert (told["version"], told["reason"], told["number"]) == ("v1.2.0", "the flag of user ada", 4)
    assert "user bob stands at" in heimdall("models", "which", "--user", "bob").stdout
    assert json.loads(heimdall("models", "which", "--receiver", "Torino", "--json").stdout)["chosen_by"] == "flag"
    rows = {row["version"]: row["rules"] for row in json.loads(heimdall("models", "list", "--json").stdout)}
    assert rows == {
        "v1.0.0": [],
        "v1.1.0": ["canary 1"],
        "v1.2.0": ["flag of user ada", "flag of receiver Torino", "shadow"],
    }
    late = heimdall("models", "canary", "--off", "--expect", "1", *decided, code=2).stderr
    assert late.count("\n") == 1
    assert "found change 4 (shadow, by bob: try it), expected 1 as the last one" in late
    assert heimdall("models", "canary", "--off", "--expect", "4", *decided).stdout == "canary: off (change 5)\n"
    heimdall("models", "flag", "--off", "--user", "ada", *decided)
    listed = json.loads(heimdall("models", "rules", "--json").stdout)
    assert (listed["number"], listed["champion"]) == (6, "v1.0.0")
    assert [(rule["place"], rule["in_force"]) for rule in listed["rules"]] == [
        ("flag of receiver Torino", True),
        ("shadow", True),
    ]
    assert [change["version"] for change in listed["changes"]][-2:] == [None, None]
    assert {change["decided_by"] for change in listed["changes"]} == {"bob"}
    told = heimdall("models", "flag", "v1.2.0", "--receiver", "Atlantis", *decided).stderr
    assert told == "receiver Atlantis: no station of this home is called so; the flag waits for its data\n"
    shown = heimdall("models", "rules").stdout
    assert "flag of receiver Torino" in shown
    assert json.loads(heimdall("verify", "v1.0.0", "--json").stdout)["ok"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("canary", "v1.1.0"), "canary: found --share none, expected one"),
        (("canary", "--off", "--share", "0.1"), "canary: found --share 0.1, expected one, or --off without"),
        (("canary", "v1.1.0", "--share", "nan"), "found share nan, expected a number from 0 to 1"),
        (("canary", "v1.1.0", "--share", "-1"), "found share -1.0, expected a number from 0 to 1"),
        (("canary", "v1.1.0", "--share", "0.1", "--salt", ""), "salt name ''"),
        (("canary", "v9.0.0", "--share", "0.1"), "found no such release"),
        (("canary", "champion", "--share", "0.1"), "which is champion and answers anyway"),
        (("canary",), "model: found none, expected a MODEL, or --off without one"),
        (("flag", "v1.1.0", "--off", "--user", "ada"), "model: found v1.1.0, expected a MODEL, or --off without one"),
        (("flag", "v1.1.0"), "flag: found none, expected --user or --receiver"),
        (("flag", "v1.1.0", "--user", "a", "--receiver", "b"), "flag: found both, expected --user or --receiver"),
        (("flag", "v1.1.0", "--user", ""), "user '': expected 1 to 200 printable"),
        (("flag", "--off", "--user", "ada"), "flag of user ada: found no rule that stands"),
        (("shadow", "--off"), "shadow: found no rule that stands"),
    ],
)
def test_what_is_no_rule_is_one_line_and_exit_2(
    heimdall: Callable[..., Result], arguments: tuple[str, ...], line: str
) -> None:
    said = heimdall("models", *arguments, "--by", "bob", "--reason", "try it", code=2).stderr
    assert line in said
    assert said.count("\n") == 1
