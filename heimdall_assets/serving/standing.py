"""Standing: which model answers whom, as the ledger says at this moment.

Belongs here: reading the ledger again when it changed, and only then; rules whose model cannot be opened. Does not
belong here: the choice itself (``serving_rules``), opening models (``serving.predictors``).
"""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from heimdall_assets.pipeline.releases.rules import read_rules_in_force
from heimdall_assets.pipeline.releases.standing_rules import RulesInForce, read_standing_rules
from heimdall_assets.serving_rules import Choice, ServingRules
from heimdall_assets.stores.home import Stores

LOOK_AGAIN_S = 60.0
"""Files are looked at again after this even where nothing was decided."""


@dataclass(frozen=True)
class Standing:
    """The ledger at one moment.

    Attributes:
        size: entries of its log before it was read.
        rules: that stand.
        failed: versions that cannot be used now; rules that name one are without effect.
    """

    size: int
    rules: RulesInForce
    failed: frozenset[str] = frozenset()

    @property
    def usable(self) -> RulesInForce:
        """The rules, each of a model that cannot be used with that as its problem."""
        if not self.failed:
            return self.rules
        judged = tuple(
            replace(one, problem=one.problem or f"release {one.change.said.version}: cannot be used now")
            if str(one.change.said.version) in self.failed
            else one
            for one in self.rules.judged
        )
        return replace(self.rules, judged=judged)

    @property
    def serving(self) -> ServingRules:
        """What of the rules is in force."""
        return self.usable.serving

    def without(self, failed: frozenset[str]) -> "Standing":
        """Return the same, where rules that name a version of ``failed`` are without effect."""
        return replace(self, failed=failed)

    def choose(self, caller: str | None, receivers: Collection[str]) -> Choice:
        """Return which model answers, and why.

        Raises:
            NotFound: there is no champion.
            InvalidIdentifier: ``caller`` is no name.
        """
        return self.usable.choose(caller, receivers)

    def list_named(self) -> list[str]:
        """Return every version that answers somebody or computes beside, the champion first."""
        rules = self.rules.serving
        named = [self.rules.champion, *(flag.model for flag in rules.flags), rules.shadow]
        named.insert(1, rules.canary.model if rules.canary is not None else None)
        return list(dict.fromkeys(version for version in named if version is not None))


@dataclass(frozen=True)
class Problems:
    """Versions that no rule may name, found out beside the answers, for that reads files and takes a while.

    Attributes:
        versions: whose files are damaged or gone, or that learned from what is withdrawn.
        size: of the log when they were looked at.
        at: when, by the monotonic clock.
    """

    versions: frozenset[str] = frozenset()
    size: int = -1
    at: float = 0.0

    def look(self, stores: Stores, standing: Standing) -> "Problems":
        """Return what is so now, looked at again where something was decided since, or ``LOOK_AGAIN_S`` are over."""
        now = time.monotonic()
        if standing.size == self.size and now - self.at < LOOK_AGAIN_S:
            return self
        if not standing.rules.judged:
            return Problems(size=standing.size, at=now)
        judged = read_rules_in_force(stores).judged
        spent = {one.change.id for one in standing.rules.judged if one.problem is not None}
        found = {str(one.change.said.version) for one in judged if one.problem and one.change.id not in spent}
        return Problems(frozenset(found), standing.size, now)


class Ledger:
    """The ledger of a home, asked at every request: one query while nothing was decided, for threads."""

    def __init__(self, stores: Stores):
        self._stores = stores
        self._lock = threading.Lock()
        self._standing: Standing | None = None

    def read(self) -> Standing:
        """Return what stands now; never what stood before the call, and was over.

        The log grows with every decision. Its size is taken before the rules are read, so that a decision in between
        is seen by the next who asks.

        Raises:
            StorageError: the ledger cannot be asked.
        """
        size = self._stores.releases.count_log_entries()
        with self._lock:
            if self._standing is None or self._standing.size != size:
                self._standing = Standing(size, read_standing_rules(self._stores))
            return self._standing
