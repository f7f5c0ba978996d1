"""Policy: when approved data has changed enough to train again, debounced by a quiet period. Pure: facts to a decision.

The watch is the sensor's cursor, the fingerprint in it a watermark of the approved set: no largest id, for sessions are
approved out of order and withdrawn.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Self

from heimdall_assets.specs import RetrainPolicy

MAX_REASONS = 6
MAX_REASON = 110  # characters; all of them together are drawn in the page without a click


class RunState(StrEnum):
    """How the last run asked for the current approved set stands."""

    NONE = "none"
    ACTIVE = "active"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True)
class Watch:
    """What the sensor saw so far: its cursor, and all that it remembers.

    Attributes:
        reported: the version of the database that Dagster was told last.
        fingerprint: of the approved set as it was seen last.
        changed_first_s: since when the set differs from the released one; None: it does not.
        changed_last_s: when it changed last.
        reasons: the last ``MAX_REASONS`` different reasons and when each was first given, seconds since 1970.
    """

    reported: str | None = None
    fingerprint: str | None = None
    changed_first_s: float | None = None
    changed_last_s: float = 0.0
    reasons: tuple[tuple[float, str], ...] = ()

    @classmethod
    def decode(cls, cursor: str | None) -> Self:
        """Return what ``cursor`` says; one that cannot be read is as none: the waits begin anew, nothing is lost."""
        try:
            read = json.loads(cursor or "{}")
            reasons = tuple((float(time_s), str(reason)) for time_s, reason in read.pop("reasons", ()))
            seen = cls(**read, reasons=reasons[-MAX_REASONS:])
            texts = all(value is None or isinstance(value, str) for value in (seen.reported, seen.fingerprint))
            times = all(isinstance(value, int | float) for value in (seen.changed_first_s or 0, seen.changed_last_s))
        except (ValueError, TypeError, AttributeError):
            return cls()
        return seen if texts and times else cls()

    def encode(self) -> str:
        return json.dumps(asdict(self))

    def see(self, fingerprint: str, released: bool, now_s: float) -> "Watch":
        """Return the watch after the approved set was seen as ``fingerprint``; ``released``: a model stands for it.

        A time that is still to come was noted before the clock was set back: it counts as now, so that the waits begin
        anew and none lasts until the clock is there again.
        """
        changed = fingerprint != self.fingerprint
        first_s = now_s if self.changed_first_s is None else min(self.changed_first_s, now_s)
        return replace(
            self,
            fingerprint=fingerprint,
            changed_first_s=None if released else first_s,  # the next change starts its own wait
            changed_last_s=now_s if changed else min(self.changed_last_s, now_s),
        )

    def note(self, reason: str, now_s: float) -> "Watch":
        """Return the watch that remembers ``reason``; itself, where the last one differs in seconds alone."""
        if self.reasons and _drop_seconds(self.reasons[-1][1]) == _drop_seconds(reason):
            return self
        return replace(self, reasons=(*self.reasons, (now_s, reason[:MAX_REASON]))[-MAX_REASONS:])


def _drop_seconds(reason: str) -> str:
    # What is waited for says how long still, anew at each look.
    return re.sub(r"\d+ s\b", "", reason[:MAX_REASON])


@dataclass(frozen=True)
class Change:
    """How two approved sets differ, in sessions."""

    added: int
    withdrawn: int
    revised: int  # in both, but decided anew
    num_before: int

    @property
    def num_now(self) -> int:
        return self.num_before + self.added - self.withdrawn

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
    changed_first_s: float | None,
    changed_last_s: float,
    state: RunState,
    attempts: int,
    other_run_active: bool,
) -> RetrainPlan:
    """Return whether to retrain now.

    Args:
        change: from the data of the latest release to what is approved now.
        changed_first_s, changed_last_s: when the approved set was first and last seen to differ, seconds.
        state: of the last run asked for exactly this change.
        attempts: runs already asked for it.
        other_run_active: another run that makes these assets is under way.
    """

    def wait(reason: str) -> RetrainPlan:
        return RetrainPlan(False, attempts, reason)

    if change.num_now == 0:
        return wait(f"no session is approved, nothing to train on ({change})")
    if change.total == 0:
        return wait(f"nothing changed since the latest release ({change.num_before} sessions)")
    if state is RunState.ACTIVE or other_run_active:
        return wait(f"one retraining at a time: a run is under way ({change})")
    if attempts >= policy.max_attempts:
        return wait(f"gave up on this approved set after {attempts} attempts; heimdall train says why ({change})")
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
    if change.withdrawn >= policy.min_withdrawn_sessions:
        return RetrainPlan(True, attempts + 1, f"{change}: withdrawn sessions do not wait")
    if change.num_before and fraction >= policy.min_changed_fraction:
        return RetrainPlan(True, attempts + 1, f"{change}: at least {policy.min_changed_fraction:.0%} changed")
    waited_s = 0.0 if changed_first_s is None else now_s - changed_first_s
    if waited_s >= policy.max_wait_s:
        return RetrainPlan(True, attempts + 1, f"{change}: waited {waited_s:.0f} s, the longest allowed")
    return wait(
        f"{change}: expected {policy.min_changed_sessions} sessions or {policy.min_changed_fraction:.0%}, "
        f"or {policy.max_wait_s - waited_s:.0f} s more of waiting"
    )
