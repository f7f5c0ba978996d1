"""Rules of serving: shares that are what they say, callers that stay where they are, an order that is told."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import HeimdallError, InvalidIdentifier, InvalidSetting
from heimdall_assets.serving_rules import (
    CANARY,
    CHAMPION,
    FLAG,
    Canary,
    Flag,
    ServingRules,
    choose_model,
    compute_position,
    explain_choice,
)

SALTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(lambda salt: ".." not in salt)
CALLERS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40)
SHARES = st.floats(0.0, 1.0)
NUM_CALLERS = 10_000


def draw_canary(salt: str, share: float) -> set[str]:
    rules = ServingRules(canary=Canary("v2.0.0", share, salt))
    callers = [f"caller {number}" for number in range(NUM_CALLERS)]
    return {caller for caller in callers if choose_model(rules, caller, (), "v1.0.0") == "v2.0.0"}


@settings(max_examples=40, derandomize=True, deadline=None)
@given(salt=SALTS, share=SHARES)
def test_the_share_of_10_000_callers_is_that_of_the_rule_within_2_percent(salt: str, share: float) -> None:
    """Of a binomial, sigma is at most sqrt(0.25 / 10 000) = 0.005, so that 0.02 is four of them at least.

    By Hoeffding one draw leaves it with probability 2 exp(-2 * 10 000 * 0.02**2) = 6.7e-4 at most, and exactly, at a
    share of one half, with 6e-5; the examples are the same at each run.
    """
    assert abs(len(draw_canary(salt, share)) / NUM_CALLERS - share) <= 0.02


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.99])
def test_each_share_is_as_a_binomial_says(share: float) -> None:
    counts = [len(draw_canary(f"salt-{number}", share)) for number in range(20)]
    sigma = math.sqrt(NUM_CALLERS * share * (1 - share))
    assert all(abs(count - NUM_CALLERS * share) <= 5 * sigma for count in counts)
    squares = sum((count - NUM_CALLERS * share) ** 2 for count in counts) / sigma**2
    assert (
        5.9 < squares < 45.4
    )  # chi-square of 20 degrees, one in a thousand on each side: neither too even nor too odd


@given(salt=SALTS, caller=CALLERS, shares=st.lists(SHARES, min_size=2, max_size=5))
def test_a_growing_share_lets_nobody_out(salt: str, caller: str, shares: list[float]) -> None:
    rules = [ServingRules(canary=Canary("v2.0.0", share, salt)) for share in sorted(shares)]
    within = [choose_model(rule, caller, (), "v1.0.0") == "v2.0.0" for rule in rules]
    assert within == sorted(within)


@given(salt=SALTS, caller=CALLERS, share=SHARES, receivers=st.lists(SALTS, max_size=3))
def test_the_same_caller_always_gets_the_same_model(salt: str, caller: str, share: float, receivers: list[str]) -> None:
    rules = ServingRules(canary=Canary("v2.0.0", share, salt))
    again = ServingRules(canary=Canary("v2.0.0", share, salt))
    first = choose_model(rules, caller, (), "v1.0.0")
    assert first == choose_model(again, caller, receivers, "v1.0.0")
    other = choose_model(ServingRules(canary=Canary("v3.0.0", share, salt)), caller, (), "v1.0.0")
    assert (other == "v3.0.0") == (first == "v2.0.0")  # who is within depends on salt and share alone


@given(salt=SALTS, caller=CALLERS)
def test_nobody_is_in_a_share_of_nothing_and_all_are_in_the_whole(salt: str, caller: str) -> None:
    assert choose_model(ServingRules(canary=Canary("v2.0.0", 0, salt)), caller, (), "v1.0.0") == "v1.0.0"
    assert choose_model(ServingRules(canary=Canary("v2.0.0", 1, salt)), caller, (), "v1.0.0") == "v2.0.0"


def test_two_salts_draw_independently() -> None:
    """Of two independent halves a quarter is common, sigma sqrt(10 000 * 3 / 16) = 43.3; held to five of them."""
    halves = [draw_canary(salt, 0.5) for salt in ("v2.0.0", "v2.0.1", "a", "b")]
    for place, half in enumerate(halves):
        for other in halves[place + 1 :]:
            assert abs(len(half & other) - NUM_CALLERS / 4) < 5 * 43.3


def test_positions_are_those_of_another_implementation() -> None:
    """The digests are what ``printf 'SALT\\0CALLER' | b2sum -l 64`` of GNU coreutils prints."""
    for salt, caller, digest in (("v1.0.0", "ada", "7ed60f5ba89d7414"), ("s", "Zoë", "6d77cd36749112e4")):
        assert compute_position(salt, caller) == (int(digest, 16) >> 11) / 2**53


RULES = ServingRules(
    canary=Canary("v4.0.0", 1.0, "all"),
    flags=(
        Flag("v5.0.0", receiver="Torino"),
        Flag("v2.0.0", user="ada"),
        Flag("v3.0.0", receiver="Alba"),
    ),
    shadow="v6.0.0",
)


@pytest.mark.parametrize(
    ("caller", "receivers", "version", "chosen_by", "reason"),
    [
        ("ada", ["Alba"], "v2.0.0", FLAG, "the flag of user ada"),
        ("bob", ["Torino", "Alba"], "v3.0.0", FLAG, "the flag of receiver Alba"),
        (None, ["Torino", "Cuneo"], "v5.0.0", FLAG, "the flag of receiver Torino"),
        ("bob", ["Cuneo"], "v4.0.0", CANARY, "user bob stands at"),
        (None, ["Cuneo"], "v1.0.0", CHAMPION, "the champion: who has no name"),
    ],
)
def test_flags_win_over_the_canary_and_that_of_a_caller_over_those_of_receivers(
    caller: str | None, receivers: list[str], version: str, chosen_by: str, reason: str
) -> None:
    choice = explain_choice(RULES, caller, receivers, "v1.0.0")
    assert (choice.version, choice.chosen_by) == (version, chosen_by)
    assert choice.reason.startswith(reason)
    assert choice.shadow == "v6.0.0"


def test_a_shadow_never_answers_and_does_not_repeat_the_answer() -> None:
    rules = ServingRules(shadow="v2.0.0")
    choices = [explain_choice(rules, f"caller {number}", (), "v1.0.0") for number in range(1000)]
    assert {(choice.version, choice.shadow) for choice in choices} == {("v1.0.0", "v2.0.0")}
    assert explain_choice(rules, "ada", (), "v2.0.0").shadow is None


def test_without_rules_the_champion_answers() -> None:
    choice = explain_choice(ServingRules(), "ada", ["Torino"], "v1.0.0")
    assert (choice.version, choice.chosen_by, choice.shadow) == ("v1.0.0", CHAMPION, None)


@pytest.mark.parametrize("share", [-0.01, 1.01, math.nan, math.inf, True, "0.5", None])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(InvalidSetting, match=r"canary v2.0.0: found share .*, expected a number from 0 to 1"):
        Canary("v2.0.0", share, "salt")  # type: ignore[arg-type]


@pytest.mark.parametrize("user", ["", " ", "ada ", "a\nb", "\x00", "\ud800", "a" * 201])
def test_a_caller_that_is_none_is_refused(user: str) -> None:
    with pytest.raises(InvalidIdentifier, match="expected 1 to 200 printable characters"):
        Flag("v2.0.0", user=user)
    with pytest.raises(InvalidIdentifier, match="expected 1 to 200 printable characters"):
        choose_model(ServingRules(), user, (), "v1.0.0")


@pytest.mark.parametrize("make", [
    lambda: Flag("v2.0.0"),
    lambda: Flag("v2.0.0", user="ada", receiver="Torino"),
    lambda: Flag("v2.0.0", receiver="../Torino"),
    lambda: Canary("v2.0.0", 0.5, ""),
    lambda: ServingRules(flags=(Flag("v2.0.0", user="ada"), Flag("v3.0.0", user="ada"))),
])  # fmt: skip
def test_what_is_no_rule_is_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(HeimdallError) as refused:
        make()
    assert "expected" in str(refused.value)
    assert "\n" not in str(refused.value)
