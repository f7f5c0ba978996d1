"""Promotion (champion and challenger): which released model users get, decided on evidence and kept in the ledger.

A new release is ``challenger``. It becomes ``champion`` only if, at that moment, its files are whole, what must hold of
it holds, and it is not worse than the champion on the same frozen test sessions. One that answers the same as the
champion replaces it only where the champion learned from sessions that are withdrawn. A person may promote or roll
back, saying who and why. A rejected release is neither, whoever asks: with other gates the same model is released anew.
"""

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from heimdall_assets.counts import say_count
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import HeimdallError, NotFound, OutOfReach, Refused
from heimdall_assets.evaluation.comparison import compare_paired, count_changes
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    SPLIT_KINDS,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.manifests import Manifest
from heimdall_assets.people import ITSELF
from heimdall_assets.pipeline.prediction.released import Released, read_released
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import read_outcome
from heimdall_assets.specs import EvaluationSpec, PromotionSpec
from heimdall_assets.stores.database.ledger import check_words
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

CHAMPION = "champion"
CHALLENGER = "challenger"


@dataclass(frozen=True)
class Decision:
    """Whether ``version`` becomes champion, why, and the comparison behind it."""

    version: str
    promoted: bool
    reason: str
    comparison: dict[str, Any] = field(default_factory=dict)

    def dump(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def find_alias(stores: Stores, alias: str) -> str | None:
    """Return the version that ``alias`` means, or None."""
    try:
        return stores.releases.resolve(alias)
    except NotFound:
        return None


def read_aliases(stores: Stores) -> dict[str, str | None]:
    """Return the version behind each alias that a promotion may set."""
    return {alias: find_alias(stores, alias) for alias in (CHAMPION, CHALLENGER)}


def find_obstacles(stores: Stores, version: str) -> list[str]:
    """Return what keeps a release from being used at all, one line each; checked now, on the bytes as they are."""
    obstacles = stores.releases.find_problems(version)
    obstacles += [f"release {version} is rejected: {reason}" for reason in _list_rejections(stores, version)]
    if obstacles:
        return obstacles
    try:
        released = read_released(stores, version)
        if not released.manifest.summary["parity"]["passed"]:
            obstacles.append(f"release {version}: ONNX and PyTorch differ by more than the tolerance")
        for kind in (TRAINED_CHECKPOINT, TEST_SPLIT):
            parent = read_parent(stores.objects, released.manifest, kind)
            for artifact in parent.artifacts.values():
                stores.objects.read_bytes(artifact.digest)
        sessions = [
            set(_list_sessions(stores, read_parent(stores.objects, released.manifest, kind)))
            for kind in SPLIT_KINDS.values()
        ]
        if sessions[2] & (sessions[0] | sessions[1]):
            obstacles.append(f"release {version}: test sessions were trained on")
    except OutOfReach:
        raise
    except HeimdallError as error:
        obstacles.append(str(error))
    return obstacles


def _list_rejections(stores: Stores, version: str) -> list[str]:
    """Return the gates that a release did not pass when it was made."""
    return [str(reason) for reason in stores.releases.find_record(version).get("rejected", [])]


def decide_promotion(stores: Stores, version: str, spec: PromotionSpec) -> Decision:
    """Return whether ``version`` may become champion; nothing is changed."""
    obstacles = find_obstacles(stores, version)
    if obstacles:
        return Decision(version, False, obstacles[0])
    champion = find_alias(stores, CHAMPION)
    gone = find_withdrawn(stores, version) if champion != version else ()
    if gone:
        learned = say_count(len(gone), "session")
        return Decision(version, False, f"it learned from {learned} withdrawn since, without which the next run trains")
    if champion is None:
        untrained = _tell_untrained(stores, read_released(stores, version))
        return Decision(version, True, f"the first release whose checks hold{untrained}")
    if champion == version:
        return Decision(version, False, "it is the champion already")
    try:
        new, old = read_released(stores, version), read_released(stores, champion)
        comparison = _compare(stores, new, old, spec)
    except OutOfReach:
        raise
    except HeimdallError as error:
        return Decision(version, False, f"cannot be compared with champion {champion}: {error}")
    if comparison["num_sessions"] < spec.min_sessions:
        return Decision(
            version,
            False,
            f"{comparison['num_sessions']} test sessions in common with champion {champion}, "
            f"expected at least {spec.min_sessions}",
            comparison,
        )
    if not comparison["num_moved"] + comparison["num_resized"]:
        return _decide_equal(stores, new, old, comparison)
    highest = comparison["ratio_high"]
    holds = highest is not None and highest <= spec.max_median_ratio
    said = "not worse than" if holds else "not shown to be as good as"
    shown = "unknown" if highest is None else f"{highest:.3f}"
    reason = (
        f"{said} champion {champion}: median error ratio at most {shown} "
        f"({spec.confidence:.0%} interval, {comparison['num_sessions']} sessions), allowed {spec.max_median_ratio}"
    )
    if not comparison["num_moved"]:
        reason += "; no position changed, only ellipses did"
    withdrawn = set() if holds else _list_withdrawn(stores, new, old)
    if withdrawn:  # which of the two weighs more is for a person to say
        learned = say_count(len(withdrawn), "session")
        reason += f"; {champion} learned from {learned} withdrawn since, heimdall models promote {version} replaces it"
    return Decision(version, holds, reason + _tell_untrained(stores, new), comparison)


def _decide_equal(stores: Stores, new: Released, champion: Released, comparison: dict[str, Any]) -> Decision:
    """Return the decision on a release that answers as the champion does: users would notice nothing."""
    withdrawn = _list_withdrawn(stores, new, champion)
    reason = (
        f"no answer changed: it says the same as champion {champion.version} on all {comparison['num_sessions']} test "
        "sessions in common"
    )
    if withdrawn:
        learned = say_count(len(withdrawn), "session")
        reason += f"; it takes its place because that one learned from {learned} withdrawn since"
    else:
        reason += "; the champion stays"
    return Decision(new.version, bool(withdrawn), reason + _tell_untrained(stores, new), comparison)


def _tell_untrained(stores: Stores, released: Released) -> str:
    outcome = read_outcome(read_parent(stores.objects, released.manifest, TRAINED_CHECKPOINT))
    return "" if outcome.trained else f"; {outcome}"


def find_withdrawn(stores: Stores, version: str) -> list[str]:
    """Return the sessions that a release learned from and that are approved no more, whoever withdrew them when."""
    approved = {str(row["id"]) for row in stores.measurements.list_sessions(approval_status=ApprovalStatus.APPROVED)}
    return sorted(_list_learned(stores, read_released(stores, version)) - approved)


def _list_withdrawn(stores: Stores, new: Released, champion: Released) -> set[str]:
    """Return the sessions that the champion learned from, that are approved no more and that the new release lacks."""
    approved = {str(row["id"]) for row in stores.measurements.list_sessions(approval_status=ApprovalStatus.APPROVED)}
    snapshot = read_parent(stores.objects, new.manifest, APPROVED_MEASUREMENTS)
    return _list_learned(stores, champion) - approved - set(_list_sessions(stores, snapshot))


def apply_promotion(stores: Stores, version: str, spec: PromotionSpec) -> Decision:
    """Make a new release the challenger and, if the rule holds, the champion; return the decision."""
    if find_alias(stores, CHALLENGER) != version and not _list_rejections(stores, version):
        stores.releases.set_alias(CHALLENGER, version, ITSELF, "newly released")
    decision = decide_promotion(stores, version, spec)
    if decision.promoted:
        stores.releases.set_alias(CHAMPION, version, ITSELF, decision.reason)
    return decision


def promote_release(stores: Stores, model: str, by: str, reason: str) -> str:
    """Make a release the champion because a person says so; return its version.

    Raises:
        Refused: it is not whole or its checks do not hold: nobody can promote that.
    """
    version = stores.releases.resolve(model)
    obstacles = find_obstacles(stores, version)
    if obstacles:
        raise Refused(f"release {version} cannot be promoted: {obstacles[0]}")
    stores.releases.set_alias(CHAMPION, version, by, reason)
    return version


def roll_back(stores: Stores, by: str, reason: str) -> str:
    """Make the champion before this one champion again; return its version.

    Asked again by the same person for the same reason, it changes nothing: a second step back, unlike the repetition
    of a command that was killed, has a reason of its own.

    Raises:
        NotFound: there was none before.
        Refused: it is not whole any more.
    """
    events = [event for event in stores.releases.list_promotion_events() if event["alias"] == CHAMPION]
    changes = [event for last, event in pairwise([{"version": None}, *events]) if event["version"] != last["version"]]
    champions = [str(event["version"]) for event in changes]
    if len(champions) < 2:
        raise NotFound(f"champion {champions[0] if champions else 'none'}: found no champion before it")
    by, reason = check_words(by, reason)
    said = (changes[-1]["decided_by"], changes[-1]["reason"])
    if champions[-1] in champions[-3:-2] and said == (stores.releases.find_pseudonym(by), reason):
        return champions[-1]
    return promote_release(stores, champions[-2], by, reason)


def _list_sessions(stores: Stores, split: Manifest) -> list[str]:
    return [str(name) for name in load_table(stores.objects, split.artifacts["table"])["session_id"]]


def _list_learned(stores: Stores, released: Released) -> set[str]:
    splits = [read_parent(stores.objects, released.manifest, name) for name in (TRAIN_SPLIT, VAL_SPLIT)]
    return {name for split in splits for name in _list_sessions(stores, split)}


def _compare(stores: Stores, challenger: Released, champion: Released, spec: PromotionSpec) -> dict[str, Any]:
    """Return the paired comparison on the challenger's test sessions that the champion did not learn from either."""
    test_split = read_parent(stores.objects, challenger.manifest, TEST_SPLIT)
    sessions = load_sessions(stores.objects, test_split)
    learned = _list_learned(stores, champion)
    common = np.array([index for index, name in enumerate(sessions.session_id) if str(name) not in learned], np.int64)
    if not len(common):
        return {"num_sessions": 0, "ratio_high": None}
    sessions = sessions.take(common)
    answers, errors = [model.predict(sessions) for model in (challenger, champion)], []
    for predictions in answers:
        residuals = compute_residuals(sessions, predictions)
        errors.append(np.where(residuals.answered, residuals.error_m, np.inf))
    rules = EvaluationSpec(num_bootstrap=spec.num_bootstrap, confidence=spec.confidence, seed=spec.seed)
    return compare_paired(errors[0], errors[1], rules, sessions.strata["site"]) | count_changes(*answers)
