"""Rules of serving as the ledger tells: those that stand, and which of them later decisions left without effect.

Belongs here: what is read in milliseconds, for whoever asks often. Does not belong here: whether the files of a model
are whole and what it learned from (``rules``, which loads what judges models), the choice between rules
(``serving_rules``), the ledger itself (``stores.database.rules``).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from heimdall_assets.errors import NotFound
from heimdall_assets.serving_rules import (
    CANARY,
    CHAMPION,
    SHADOW,
    Canary,
    Choice,
    Flag,
    ServingRules,
    explain_choice,
)
from heimdall_assets.stores.database.rules import RuleChange, list_standing
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.releases.version_numbers import parse_version


@dataclass(frozen=True)
class JudgedRule:
    """A rule that stands, and why it is without effect; None: it is in force."""

    change: RuleChange
    problem: str | None


@dataclass(frozen=True)
class RulesInForce:
    """The rules of now.

    Attributes:
        number: of the last change of a rule; 0: there never was one.
        champion: version that answers without rules; None: there is none yet.
        judged: every rule that stands, in the order in which they were made.
    """

    number: int
    champion: str | None
    judged: tuple[JudgedRule, ...]

    @property
    def serving(self) -> ServingRules:
        """What of them is in force."""
        rules = [one.change.said.make_rule() for one in self.judged if one.problem is None]
        return ServingRules(
            canary=next((rule for rule in rules if isinstance(rule, Canary)), None),
            flags=tuple(rule for rule in rules if isinstance(rule, Flag)),
            shadow=next((rule for rule in rules if isinstance(rule, str)), None),
        )

    def choose(self, caller: str | None, receivers: Collection[str]) -> Choice:
        """Return which model answers, and why.

        Raises:
            NotFound: there is no champion.
            InvalidIdentifier: ``caller`` is no name.
        """
        if self.champion is None:
            raise NotFound("champion: found none, expected a release that heimdall models promote made one")
        return explain_choice(self.serving, caller, receivers, self.champion)


def read_standing_rules(stores: Stores) -> RulesInForce:
    """Return the rules that stand, each judged by the ledger alone; whoever opens a model finds by that what it is."""
    changes, promotions = stores.releases.read_serving()
    champions = [(int(event["id"]), str(event["version"])) for event in promotions if event["alias"] == CHAMPION]
    judged = tuple(JudgedRule(one, explain_spent(one, champions)) for one in list_standing(changes))
    return RulesInForce(len(changes), champions[-1][1] if champions else None, judged)


def explain_spent(change: RuleChange, champions: Sequence[tuple[int, str]]) -> str | None:
    """Return why a rule that stands is without effect by what was decided since; None: nothing speaks against it.

    - a flag of somebody whose name was erased is nobody's;
    - a canary or a shadow tries a model: once that is champion, or was since, the trial is over;
    - a rule that names a model from which the champion went back to an older release since waits for somebody to say
      it again, knowing that.

    Args:
        change: that stands.
        champions: number of each promotion to champion, and the version, oldest first.
    """
    version = str(change.said.version)
    if change.is_of_nobody:
        return f"{change.said.place}: whose name was erased"
    for (_, before), (number, after) in pairwise([(0, ""), *champions]):
        if number <= change.num_promotions:
            continue
        if before == version and _is_older(after, version):
            return f"release {version}: the champion went back from it to {after} since; say the rule again"
    then = [now for number, now in champions if number <= change.num_promotions][-1:]
    since = [now for number, now in champions if number > change.num_promotions]
    if change.said.rule in (CANARY, SHADOW) and version in (*then, *since):
        return f"release {version}: became champion since, the {change.said.rule} is over"
    return None


def _is_older(version: str, than: str) -> bool:
    return (parse_version(version) or ()) < (parse_version(than) or ())
