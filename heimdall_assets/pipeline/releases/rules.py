"""Rules of serving in force: what people said, less what no longer can or should answer anybody.

Belongs here: which model a rule may name, making and ending rules, which model answers a caller. Does not belong here:
what the ledger alone tells of them (``standing_rules``), the choice between rules (``serving_rules``).

A rule is made only with a model that could be promoted: published, not rejected, whole, learned from nothing that is
withdrawn. Later the model, or what it was for, may go. Then the rule still stands in the ledger, is without effect, and
whoever lists rules is told why; the champion, or the next rule that applies, answers.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from heimdall_assets.counts import say_count
from heimdall_assets.errors import HeimdallError, NotFound, OutOfReach, Refused
from heimdall_assets.pipeline.releases.promotion import CHAMPION, find_alias, find_obstacles, find_withdrawn
from heimdall_assets.pipeline.releases.standing_rules import RulesInForce, read_standing_rules
from heimdall_assets.serving_rules import CANARY, FLAG, SHADOW, Canary, Choice, check_caller
from heimdall_assets.stores.database.rules import RuleChange, SaidRule, list_standing
from heimdall_assets.stores.home import Stores


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


def read_rules_in_force(stores: Stores) -> RulesInForce:
    """Return the rules that stand, each judged by the ledger, the files of its model and what that learned from."""
    found = read_standing_rules(stores)
    versions = {str(one.change.said.version) for one in found.judged if one.problem is None}
    problems = {version: find_problem(stores, version) for version in sorted(versions)}
    judged = [replace(one, problem=one.problem or problems.get(str(one.change.said.version))) for one in found.judged]
    return replace(found, judged=tuple(judged))


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
