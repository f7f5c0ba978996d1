"""When to retrain: a pure decision, each rule alone and against the others."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.pipeline.retraining.policy import (
    MAX_REASONS,
    Change,
    RunState,
    Watch,
    compare_approved,
    plan_retraining,
)
from heimdall_assets.specs import RetrainPolicy

POLICY = RetrainPolicy(
    min_changed_sessions=10, min_changed_fraction=0.05, max_wait_s=1000, quiet_period_s=60, max_attempts=3
)
SETS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3))


def plan(change, **facts):
    defaults = {
        "now_s": 500.0,
        "changed_first_s": 0.0,
        "changed_last_s": 0.0,
        "state": RunState.NONE,
        "attempts": 0,
        "other_run_active": False,
    }
    return plan_retraining(change, POLICY, **{**defaults, **facts})


def change(added=0, withdrawn=0, revised=0, num_before=1000) -> Change:
    return Change(added, withdrawn, revised, num_before)


@given(SETS, SETS)
@settings(max_examples=100, deadline=None)
def test_changes_are_counted_once_each(before, now):
    found = compare_approved(before, now)
    assert found.total == sum(before.get(name) != now.get(name) for name in before.keys() | now.keys())
    assert compare_approved(now, now).total == 0


def test_where_nothing_is_left_no_run_is_wasted():
    found = plan(change(withdrawn=20, num_before=20))
    assert not found.request
    assert "no session is approved" in found.reason


def test_the_cursor_survives_and_a_broken_one_is_as_none():
    watch = Watch("d1", "f1", 10.0, 20.0)
    assert Watch.decode(watch.encode()) == watch
    noted = watch.note("waiting", 30.0)
    assert Watch.decode(noted.encode()) == noted
    for broken in (
        None,
        "",
        "{",
        "[]",
        '{"reasons": 3}',
        '{"reasons": [[1]]}',
        '{"reasons": [["soon", "x"]]}',
        '{"unknown": 1}',
        '{"fingerprint": 3}',
        '{"changed_last_s": "soon"}',
        "null",
    ):
        assert Watch.decode(broken) == Watch()


def test_the_last_reasons_are_remembered_and_a_countdown_is_one_of_them():
    watch = Watch()
    for time_s, reason in enumerate(
        ("quiet for 5 s of 60 s (3 added)", "quiet for 20 s of 60 s (3 added)", "nothing changed")
    ):
        watch = watch.note(reason, float(time_s))
    assert watch.reasons == ((0.0, "quiet for 5 s of 60 s (3 added)"), (2.0, "nothing changed"))
    assert watch.see("f", True, 9.0).reasons == watch.reasons
    for count in range(50):
        watch = watch.note(f"{count} added {'x' * 500}", 10.0 + count)
    assert len(watch.reasons) == MAX_REASONS
    assert len(watch.encode()) < 1200  # a cursor is written at each tick


def test_waits_begin_with_the_first_change_and_quiet_with_the_last():
    seen = Watch().see("a", True, 5.0)
    assert seen.changed_first_s is None
    seen = seen.see("b", False, 10.0).see("b", False, 15.0).see("c", False, 20.0).see("c", False, 25.0)
    assert (seen.changed_first_s, seen.changed_last_s) == (10.0, 20.0)
    # What is released may move while the set stands still: the wait begins then.
    assert seen.see("c", True, 30.0).see("c", False, 35.0).changed_first_s == 35.0


def test_nothing_changed_asks_for_nothing():
    found = plan(change())
    assert not found.request
    assert "nothing changed" in found.reason


@pytest.mark.parametrize("many", [change(added=10), change(withdrawn=10), change(added=4, withdrawn=3, revised=3)])
def test_enough_sessions_ask_whichever_way_they_changed(many):
    found = plan(many)
    assert found.request
    assert found.attempt == 1
    assert "at least 10 sessions" in found.reason


def test_a_small_change_waits_for_the_longest_wait():
    assert not plan(change(added=1), now_s=999.0).request
    late = plan(change(added=1), now_s=1000.0)
    assert late.request
    assert "waited" in late.reason


def test_a_withdrawal_does_not_wait_for_others():
    assert "do not wait" in plan(change(withdrawn=1, num_before=100_000)).reason
    patient = POLICY.model_copy(update={"min_withdrawn_sessions": 2})
    facts = {"now_s": 500.0, "changed_first_s": 0.0, "changed_last_s": 0.0, "attempts": 0, "other_run_active": False}
    assert not plan_retraining(change(withdrawn=1), patient, state=RunState.NONE, **facts).request


def test_a_share_of_a_small_set_is_enough():
    assert plan(change(added=2, num_before=40)).request
    assert not plan(change(added=1, num_before=40)).request


def test_the_first_release_needs_enough_sessions_too():
    assert not plan(change(added=9, num_before=0)).request
    assert plan(change(added=10, num_before=0)).request


def test_no_run_while_approvals_come_in():
    assert not plan(change(added=100), now_s=59.0).request
    assert plan(change(added=100), now_s=60.0).request


def test_one_run_at_a_time():
    assert not plan(change(added=100), state=RunState.ACTIVE, attempts=1).request
    assert not plan(change(added=100), other_run_active=True).request


def test_a_failed_run_is_asked_for_again_but_not_for_ever():
    second = plan(change(added=1), state=RunState.FAILED, attempts=1)
    assert second.request
    assert second.attempt == 2
    third = plan(change(added=1), state=RunState.FAILED, attempts=3)
    assert not third.request
    assert "gave up" in third.reason


def test_a_succeeded_run_is_not_repeated():
    assert not plan(change(added=100), state=RunState.SUCCEEDED, attempts=1).request


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from(list(RunState)), st.integers(0, 5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_every_plan_says_why_and_never_exceeds_its_attempts(added, withdrawn, state, attempts, active):
    found = plan(change(added, withdrawn), state=state, attempts=attempts, other_run_active=active)
    assert found.reason
    assert not found.request or (found.attempt == attempts + 1 <= POLICY.max_attempts and not active)
