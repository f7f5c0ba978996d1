"""Rules of serving in force: what people said, less what no longer can or should answer anybody.

Belongs here: which model a rule may name, why a rule that stands is without effect, which model answers a caller. Does
not belong here: the choice between rules (``serving_rules``), the ledger of their changes (``stores.database.rules``).

A rule is made only with a model that could be promoted: published, not rejected, whole, learned from nothing that is
withdrawn. Later the model, or what it was for, may go. Then the rule still stands in the ledger, is without effect, and
whoever lists rules is told why; the champion, or the next rule that applies, answers.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from heimdall_assets.counts import say_count
from heimdall_assets.errors import HeimdallError, NotFound, OutOfReach, Refused
from heimdall_assets.pipeline.releases.promotion import CHAMPION, find_alias, find_obstacles, find_withdrawn
from heimdall_assets.serving_rules import (
    CANARY,
    FLAG,
    SHADOW,
    Canary,
    Choice,
    Flag,
    ServingRules,
    check_caller,
    explain_choice,
)
from heimdall_assets.stores.database.rules import RuleChange, SaidRule, list_standing
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.releases.version_numbers import parse_version


@dataclass(frozen=True)
class Decider:
    """Who changes a rule, why, and what they have seen.

    Attributes:
        by: the name.
        reason: in their words.
        expected: number of the last change that they saw; None: they decide whatever there was.
    """

    by: str
    reason: str
    expected: int | None = None


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


def read_rules_in_force(stores: Stores, *, checks_models: bool = True) -> RulesInForce:
    """Return the rules that stand, each judged.

    Args:
        stores: the opened stores.
        checks_models: whether the files of each named model, and what it learned from, are looked at too. Without, the
            ledger alone is read: milliseconds, for whoever asks often and opens the model anyway.
    """
    changes = stores.releases.list_rule_changes()
    standing = list_standing(changes)
    history = _list_champions(stores) if standing else []
    problems = {str(change.said.version): "" for change in standing} if checks_models else {}
    problems = {version: find_problem(stores, version) or "" for version in problems}
    judged = [
        JudgedRule(one, explain_spent(one, history) or problems.get(str(one.said.version), "") or None)
        for one in standing
    ]
    return RulesInForce(len(changes), find_alias(stores, CHAMPION), tuple(judged))


def find_problem(stores: Stores, version: str) -> str | None:
    """Return why no rule may name a release; None: it may.

    Raises:
        NotFound: it is not published.
        OutOfReach: nobody can say how its files are.
    """
    try:
        obstacles = find_obstacles(stores, version)
        gone = () if obstacles else find_withdrawn(stores, version)
    except (NotFound, OutOfReach):
        raise
    except HeimdallError as error:
        return str(error)
    if obstacles:
        return obstacles[0]
    if gone:
        return f"release {version}: learned from {say_count(len(gone), 'session')} withdrawn since"
    return None


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
    is_trial = change.said.rule in (CANARY, SHADOW)
    if is_trial and any(now == version for number, now in champions if number > change.num_promotions):
        return f"release {version}: became champion since, the {change.said.rule} is over"
    return None


def set_canary(stores: Stores, model: str, share: float, decider: Decider, salt: str | None = None) -> RuleChange:
    """Have a share of callers answered by ``model``.

    Callers are drawn by ``salt``; without one, by that of the canary of this model that stands, so that a share that
    grows lets nobody out, else by the version: the same callers each time that this model is tried.

    Raises:
        Refused: the model cannot be named by a rule, or is champion; somebody changed a rule since.
        InvalidInput: share or salt is none.
        NotFound: nothing released is called ``model``.
    """
    version = stores.releases.resolve(model)
    standing = [one.said for one in list_standing(stores.releases.list_rule_changes())]
    kept = next((one.salt for one in standing if (one.rule, one.version) == (CANARY, version)), None)
    chosen = salt if salt is not None else kept if kept is not None else version
    rule = Canary(version, share, chosen)  # what is no canary is told before files are read
    _check_model(stores, CANARY, version)
    return _change(stores, SaidRule(CANARY, version, float(rule.share), rule.salt), decider)


def set_flag(stores: Stores, model: str, whose: tuple[str | None, str | None], decider: Decider) -> RuleChange:
    """Have ``model`` answer one user, or all data of one receiver: ``whose`` is user and receiver, one of them None.

    Raises:
        Refused: the model cannot be named by a rule; somebody changed a rule since.
        InvalidInput: the name of the user or of the receiver is none.
        NotFound: nothing released is called ``model``.
    """
    said = SaidRule(FLAG, stores.releases.resolve(model), user=whose[0], receiver=whose[1])
    said.make_rule()  # what is no flag is told before files are read
    _check_model(stores, FLAG, str(said.version))
    return _change(stores, said, decider)


def set_shadow(stores: Stores, model: str, decider: Decider) -> RuleChange:
    """Have ``model`` compute beside whatever answers.

    Raises:
        Refused: the model cannot be named by a rule, or is champion; somebody changed a rule since.
        NotFound: nothing released is called ``model``.
    """
    return _change(stores, SaidRule(SHADOW, _check_model(stores, SHADOW, model)), decider)


def end_rule(
    stores: Stores, rule: str, decider: Decider, whose: tuple[str | None, str | None] = (None, None)
) -> RuleChange:
    """End the canary, the shadow, or the flag of a user or a receiver.

    Raises:
        NotFound: no such rule stands.
        Refused: somebody changed a rule since.
    """
    return _change(stores, SaidRule(rule, None, user=whose[0], receiver=whose[1]), decider)


def explain_model(stores: Stores, caller: str | None, receivers: Collection[str]) -> tuple[Choice, RulesInForce]:
    """Return which model would answer and why, and the rules that this follows from.

    Raises:
        NotFound: there is no champion.
        InvalidIdentifier: ``caller`` is no name.
    """
    if caller is not None:
        check_caller(caller)
    found = read_rules_in_force(stores)
    return found.choose(caller, receivers), found


def _change(stores: Stores, said: SaidRule, decider: Decider) -> RuleChange:
    return stores.releases.change_rule(said, decider.expected, decider.by, decider.reason)


def _check_model(stores: Stores, rule: str, model: str) -> str:
    """Return the version that a rule may name."""
    version = stores.releases.resolve(model)
    problem = find_problem(stores, version)
    if problem is not None:
        raise Refused(f"{rule}: {problem}; expected a model that could answer")
    if rule in (CANARY, SHADOW) and find_alias(stores, CHAMPION) == version:
        raise Refused(f"{rule}: found release {version}, which is champion and answers anyway, expected another one")
    return version


def _list_champions(stores: Stores) -> list[tuple[int, str]]:
    events = stores.releases.list_promotion_events()
    return [(int(event["id"]), str(event["version"])) for event in events if event["alias"] == CHAMPION]


def _is_older(version: str, than: str) -> bool:
    return (parse_version(version) or ()) < (parse_version(than) or ())
