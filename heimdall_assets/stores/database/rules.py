"""Rules of serving at rest: a ledger of every change, of which the last of each place stands.

Belongs here: writing a change, reading changes back, which of them stand. Does not belong here: what rules do
(``serving_rules``), whether the model of one can still answer (``pipeline.releases.rules``).

A place is what at most one rule can stand in: the canary, the shadow, the flag of one user or of one receiver. Changes
are numbered 1, 2, 3 ...; who changes something says which number they saw last, so that of two who decide on the same
state one is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, func, select

from heimdall_assets.errors import NotFound, Refused
from heimdall_assets.people import is_pseudonym
from heimdall_assets.serving_rules import CANARY, FLAG, Canary, Flag
from heimdall_assets.stores.database.ledger import append_events, check_words, has_table
from heimdall_assets.stores.database.log import read_clock
from heimdall_assets.stores.database.people import find_pseudonym, name_person, read_names
from heimdall_assets.stores.database.schema import plain_row, promotion_events, serving_rule_events


@dataclass(frozen=True)
class SaidRule:
    """A rule as somebody says it, or the end of one.

    Attributes:
        rule: canary, flag or shadow.
        version: of the model; None: the rule in this place ends.
        share, salt: of a canary.
        user, receiver: of a flag, one of them.
    """

    rule: str
    version: str | None
    share: float | None = None
    salt: str | None = None
    user: str | None = None
    receiver: str | None = None

    @property
    def place(self) -> str:
        """What at most one rule stands in, in words."""
        if self.rule != FLAG:
            return self.rule
        return f"flag of receiver {self.receiver}" if self.user is None else f"flag of user {self.user}"

    def make_rule(self) -> Canary | Flag | str | None:
        """Return the canary, the flag or the version of the shadow; None: the rule ends.

        Raises:
            InvalidInput: it is none.
        """
        if self.rule == FLAG:
            flag = Flag(self.version or "none", self.user, self.receiver)
            return flag if self.version else None
        if self.rule == CANARY and self.version is not None:
            return Canary(self.version, self.share, self.salt)  # type: ignore[arg-type]  # which it refuses itself
        return self.version


@dataclass(frozen=True)
class RuleChange:
    """One change of a rule, as it lies.

    Attributes:
        id: 1, 2, 3 ...
        said: the rule; its user by name, or by pseudonym where the name was erased.
        num_promotions: how many promotions there were before it.
        decided_by, decided_at, reason: who, by pseudonym, when (ISO 8601) and why.
    """

    id: int
    said: SaidRule
    num_promotions: int
    decided_by: str
    decided_at: str
    reason: str

    @property
    def is_of_nobody(self) -> bool:
        """Whether it is the flag of somebody whose name was erased."""
        return self.said.user is not None and is_pseudonym(self.said.user)


def read_changes(connection: Connection) -> list[RuleChange]:
    """Return every change, oldest first; none where the database is of a revision that knows no rules."""
    if not has_table(connection, serving_rule_events):
        return []
    rows = [
        plain_row(row) for row in connection.execute(select(serving_rule_events).order_by(serving_rule_events.c.id))
    ]
    names = read_names(connection) if any(row["user"] is not None for row in rows) else {}
    return [_describe(row, names) for row in rows]


def list_standing(changes: Sequence[RuleChange]) -> list[RuleChange]:
    """Return the change that stands in each place, in the order in which they were made."""
    last = {change.said.place: change for change in changes}
    return sorted((change for change in last.values() if change.said.version is not None), key=lambda one: one.id)


def change_rule(connection: Connection, said: SaidRule, expected: int | None, why: tuple[str, str]) -> RuleChange:
    """Write a change and return it; the caller's transaction holds the write lock.

    Said again in the same words by the same person it is no second change: whoever was killed may repeat it. After a
    promotion it is one, for a rule that a promotion left without effect is said again to be in force again.

    Args:
        connection: of the ledger.
        said: the rule.
        expected: number of the last change that whoever decides has seen; None: they looked at none.
        why: who, and the reason.

    Raises:
        Refused: there was a change since; ``by`` or ``reason`` is blank.
        NotFound: a rule is to end where none stands.
        InvalidInput: it is no rule.
    """
    by, reason = check_words(*why)
    said.make_rule()
    changes = read_changes(connection)
    in_place = [change for change in changes if change.said.place == said.place]
    standing = in_place[-1] if in_place else None
    count = int(connection.execute(select(func.count()).select_from(promotion_events)).scalar() or 0)
    told = (said, find_pseudonym(connection, by), reason, count)
    if standing is not None and told == (standing.said, standing.decided_by, standing.reason, standing.num_promotions):
        return standing
    if expected is not None and expected != len(changes):
        raise _refuse_late(connection, changes, expected)
    if said.version is None and (standing is None or standing.said.version is None):
        raise NotFound(f"{said.place}: found no rule that stands, expected one; heimdall models rules shows them")
    person = name_person(connection, by)
    event = {
        **{name: getattr(said, name) for name in ("rule", "version", "share", "salt", "receiver")},
        "user": None if said.user is None else name_person(connection, said.user),
        "num_promotions": count,
        "decided_by": person,
        "decided_at": read_clock(),
        "reason": reason,
    }
    append_events(connection, serving_rule_events, [event])
    return replace(_describe({"id": len(changes) + 1, **event}, {}), said=said)


def _refuse_late(connection: Connection, changes: Sequence[RuleChange], expected: int) -> Refused:
    if not changes or expected > len(changes):
        return Refused(f"rules: found {len(changes)} as the number of their last change, expected {expected}")
    last = changes[-1]
    who = read_names(connection).get(last.decided_by, last.decided_by)
    return Refused(
        f"rules: found change {last.id} ({last.said.place}, by {who}: {last.reason:.80}), expected {expected} as the "
        "last one; look at heimdall models rules and decide again"
    )


def _describe(row: dict[str, Any], names: dict[str, str]) -> RuleChange:
    user = None if row["user"] is None else names.get(row["user"], row["user"])
    told = {name: row[name] for name in ("rule", "version", "share", "salt", "receiver")}
    when = row["decided_at"].isoformat()
    said = SaidRule(**told, user=user)
    return RuleChange(row["id"], said, row["num_promotions"], row["decided_by"], when, row["reason"])
