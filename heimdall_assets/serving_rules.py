"""Rules of serving: which released model answers a caller, and which one computes beside it.

Belongs here: what a rule is, and the choice that follows from rules, a pure function. Does not belong here: who made a
rule, when and why (``stores.database.rules``), whether its model can still be used (``pipeline.releases.rules``).

The share of a canary is taken by a hash, so that whoever asks gets the same model from every process and machine, and
another language can repeat it::

    digest   = BLAKE2b, 8 bytes long, no key, over UTF-8(salt) + 0x00 + UTF-8(caller)
    position = (digest as a big-endian unsigned integer, shifted right by 11 bits) / 2**53
    chosen   = position < share

53 bits are what a double holds exactly. ``printf 'SALT\\0CALLER' | b2sum -l 64`` prints the digest. A position does not
depend on the share: a share that grows takes callers in and lets none out.
"""

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass

from heimdall_assets.domain import check_name
from heimdall_assets.errors import InvalidIdentifier, InvalidSetting

CHAMPION, CANARY, FLAG, SHADOW = "champion", "canary", "flag", "shadow"
"""What chose a model: no rule, or one of these."""

MAX_CALLER = 200
"""Characters of the name of a caller."""


@dataclass(frozen=True)
class Canary:
    """A share of all callers is answered by another model.

    Attributes:
        model: version that answers them.
        share: of callers, 0 to 1.
        salt: that callers are drawn with; two canaries with different salts draw independently.

    Raises:
        InvalidSetting: the share is none.
        InvalidIdentifier: the salt is no name.
    """

    model: str
    share: float
    salt: str

    def __post_init__(self) -> None:
        check_name(self.salt, "salt")
        is_number = isinstance(self.share, int | float) and not isinstance(self.share, bool)
        if not is_number or not math.isfinite(self.share) or not 0.0 <= self.share <= 1.0:
            raise InvalidSetting(f"canary {self.model}: found share {self.share!r:.40}, expected a number from 0 to 1")


@dataclass(frozen=True)
class Flag:
    """One caller, or all data of one receiver, is answered by another model.

    Attributes:
        model: version that answers.
        user: the caller; None: the flag is of a receiver.
        receiver: name of the receiver; None: the flag is of a caller.

    Raises:
        InvalidSetting: both are given, or none.
        InvalidIdentifier: one of them is no name.
    """

    model: str
    user: str | None = None
    receiver: str | None = None

    def __post_init__(self) -> None:
        if (self.user is None) == (self.receiver is None):
            raise InvalidSetting(
                f"flag {self.model}: found user {self.user!r:.80} and receiver {self.receiver!r:.80}, "
                "expected one of them"
            )
        if self.user is not None:
            check_caller(self.user)
        if self.receiver is not None:
            check_name(self.receiver, "receiver")


@dataclass(frozen=True)
class ServingRules:
    """The rules in force; the champion answers wherever none of them says otherwise.

    Attributes:
        canary: a share of callers; None: no share.
        flags: by caller or receiver, each at most once.
        shadow: version that computes beside whatever answers, and never answers itself; None: none does.

    Raises:
        InvalidSetting: two flags are of the same caller or receiver.
    """

    canary: Canary | None = None
    flags: tuple[Flag, ...] = ()
    shadow: str | None = None

    def __post_init__(self) -> None:
        named = [(flag.user, flag.receiver) for flag in self.flags]
        for user, receiver in named:
            if named.count((user, receiver)) > 1:
                whose = f"receiver {receiver}" if user is None else f"user {user}"
                raise InvalidSetting(f"flags: found several of {whose}, expected one")


@dataclass(frozen=True)
class Choice:
    """Which model answers, and why.

    Attributes:
        version: of the model that answers.
        chosen_by: champion, canary or flag.
        reason: for people.
        shadow: version that computes beside it; None: none, or it is the one that answers.
    """

    version: str
    chosen_by: str
    reason: str
    shadow: str | None = None


def choose_model(rules: ServingRules, caller: str | None, receivers: Collection[str], champion: str) -> str:
    """Return the version that answers; the same caller and receivers get the same while rules and champion stand."""
    return explain_choice(rules, caller, receivers, champion).version


def explain_choice(rules: ServingRules, caller: str | None, receivers: Collection[str], champion: str) -> Choice:
    """Return the version that answers and why.

    The first that applies decides: the flag of the caller; the flag of a receiver, by the order of their names where
    several have one; the canary; the champion. Who has no name is in no canary, for nothing could keep them there.

    Args:
        rules: those in force.
        caller: who asks, by name; None: nobody knows.
        receivers: names of the receivers whose data it is.
        champion: the version that answers without rules.

    Raises:
        InvalidIdentifier: ``caller`` is empty or no text.
    """
    if caller is not None:
        check_caller(caller)
    version, chosen_by, reason = _choose(rules, caller, receivers, champion)
    return Choice(version, chosen_by, reason, rules.shadow if rules.shadow != version else None)


def compute_position(salt: str, caller: str) -> float:
    """Return where a caller stands among all callers of a salt: uniform in [0, 1), the same for ever.

    Examples:
        >>> round(compute_position("v1.0.0", "ada"), 12)
        0.49545379627
    """
    digest = hashlib.blake2b(salt.encode() + b"\0" + caller.encode(), digest_size=8).digest()
    return float((int.from_bytes(digest, "big") >> 11) / 2**53)


def check_caller(caller: str) -> str:
    """Return the name of a caller unchanged: 1 to 200 printable characters, no blank at its ends.

    Raises:
        InvalidIdentifier: it is none.
    """
    is_text = isinstance(caller, str) and caller.isprintable() and caller.strip() == caller
    if not is_text or not 0 < len(caller) <= MAX_CALLER:
        raise InvalidIdentifier(
            f"user {caller!r:.80}: expected 1 to {MAX_CALLER} printable characters without blanks at the ends"
        )
    return caller


def _choose(rules: ServingRules, caller: str | None, receivers: Collection[str], champion: str) -> tuple[str, str, str]:
    for flag in rules.flags:
        if flag.user is not None and flag.user == caller:
            return flag.model, FLAG, f"the flag of user {flag.user}"
    heard = [flag for flag in rules.flags if flag.receiver is not None and flag.receiver in receivers]
    if heard:
        first = min(heard, key=lambda flag: str(flag.receiver))
        return first.model, FLAG, f"the flag of receiver {first.receiver}"
    if rules.canary is None:
        return champion, CHAMPION, "the champion: no rule is of this request"
    share = f"the canary's share of {rules.canary.share:g}"
    if caller is None:
        return champion, CHAMPION, f"the champion: who has no name is not in {share}"
    position = compute_position(rules.canary.salt, caller)
    if position < rules.canary.share:
        return rules.canary.model, CANARY, f"user {caller} stands at {position:.4f}, within {share}"
    return champion, CHAMPION, f"the champion: user {caller} stands at {position:.4f}, beyond {share}"
