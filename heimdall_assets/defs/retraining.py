"""Retraining: when approved data has changed enough. Pure: a decision from facts, nothing asked and nothing started."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from heimdall_assets.specs import RetrainPolicy


class RunState(StrEnum):
    """How the last run asked for the current approved set stands."""

    NONE = "none"
    ACTIVE = "active"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True)
class Change:
    """How two approved sets differ, in sessions."""

    added: int
    withdrawn: int
    revised: int  # in both, but decided anew
    num_before: int

    @property
    def total(self) -> int:
        return self.added + self.withdrawn + self.revised

    def __str__(self) -> str:
        return f"{self.added} added, {self.withdrawn} withdrawn, {self.revised} decided anew of {self.num_before}"


@dataclass(frozen=True)
class RetrainPlan:
    """Whether to ask for a run now, which attempt it is, and why."""

    request: bool
    attempt: int
    reason: str


def compare_approved(before: Mapping[str, int], now: Mapping[str, int]) -> Change:
    """Return how two approved sets differ; each maps session id to the number of the decision that approved it."""
    both = before.keys() & now.keys()
    return Change(
        added=len(now.keys() - before.keys()),
        withdrawn=len(before.keys() - now.keys()),
        revised=sum(before[session] != now[session] for session in both),
        num_before=len(before),
    )


def plan_retraining(
    change: Change,
    policy: RetrainPolicy,
    *,
    now_s: float,
    changed_first_s: float,
    changed_last_s: float,
    state: RunState,
    attempts: int,
    other_run_active: bool,
) -> RetrainPlan:
    """Return whether to retrain now.

    Args:
        change: from the data of the latest release to what is approved now.
        changed_first_s, changed_last_s: when the approved set was first and last seen to differ, seconds.
        state: of the last run asked for exactly this approved set.
        attempts: runs already asked for it.
        other_run_active: another retraining is under way.
    """

    def wait(reason: str) -> RetrainPlan:
        return RetrainPlan(False, attempts, reason)

    if change.total == 0:
        return wait("nothing changed since the latest release")
    if state is RunState.ACTIVE or other_run_active:
        return wait(f"one retraining at a time: a run is under way ({change})")
    if attempts >= policy.max_attempts:
        return wait(f"gave up on this approved set after {attempts} attempts ({change})")
    if state is RunState.SUCCEEDED:
        return wait(f"a run on exactly this approved set succeeded ({change})")
    quiet_s = now_s - changed_last_s
    if quiet_s < policy.quiet_period_s:
        return wait(f"approvals still coming in: quiet for {quiet_s:.0f} s of {policy.quiet_period_s:.0f} s ({change})")
    if state is RunState.FAILED:
        return RetrainPlan(
            True, attempts + 1, f"attempt {attempts + 1} of {policy.max_attempts} after a failure: {change}"
        )
    fraction = change.total / max(change.num_before, 1)
    if change.total >= policy.min_changed_sessions:
        return RetrainPlan(True, attempts + 1, f"{change}: at least {policy.min_changed_sessions} sessions changed")
    if change.num_before and fraction >= policy.min_changed_fraction:
        return RetrainPlan(True, attempts + 1, f"{change}: at least {policy.min_changed_fraction:.0%} changed")
    waited_s = now_s - changed_first_s
    if waited_s >= policy.max_wait_s:
        return RetrainPlan(True, attempts + 1, f"{change}: waited {waited_s:.0f} s, the longest allowed")
    return wait(
        f"{change}: expected {policy.min_changed_sessions} sessions or {policy.min_changed_fraction:.0%}, "
        f"or {policy.max_wait_s - waited_s:.0f} s more of waiting"
    )
