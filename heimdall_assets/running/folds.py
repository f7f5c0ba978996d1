"""Folds: one run of the graph for each, up to its checkpoint; nothing is released, and no test session is looked at."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heimdall_assets.defs.jobs import FIT_JOB
from heimdall_assets.defs.progress import Listener
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.kinds import TRAINED_CHECKPOINT, VAL_SPLIT
from heimdall_assets.pipeline.trainings.crossvalidation import judge_fold, summarize_folds
from heimdall_assets.pipeline.trainings.starting import lay_over
from heimdall_assets.running.graph_run import run_job
from heimdall_assets.specs import EvaluationSpec, Spec, SplitSpec

if TYPE_CHECKING:
    from heimdall_assets.variables import Places


def cross_validate(
    places: "Places", specs: Sequence[Spec], num_folds: int, listener: Listener, reason: str | None = None
) -> dict[str, Any]:
    """Return how a model with these settings does on sessions that it was not fitted on, fold by fold and together.

    A fold that an earlier call trained with the same data, code and numbers is found again.

    Args:
        places: where everything rests.
        specs: settings; ``EvaluationSpec`` says how folds are judged.
        num_folds: 2 or more.
        listener: hears of progress.
        reason: why, in the words of whoever asks.

    Raises:
        InvalidSetting: ``SplitSpec`` names folds of its own.
        GraphFailed: a fold could not be trained; those before it are kept.
    """
    split = next((spec for spec in specs if isinstance(spec, SplitSpec)), SplitSpec())
    if split.num_folds is not None or split.fold:
        raise InvalidSetting("SplitSpec.num_folds: found folds of its own, expected none: each fold is made in turn")
    judging = next((spec for spec in specs if isinstance(spec, EvaluationSpec)), EvaluationSpec())
    # the job ends with the checkpoint: what judges and releases takes no part
    fitting = [spec for spec in specs if not isinstance(spec, EvaluationSpec)]
    objects, judged, computed = places.open_stores().objects, [], 0
    for fold in range(num_folds):
        listener("", f"fold {fold + 1} of {num_folds}", 0, 0)
        chosen = lay_over(fitting, [SplitSpec(num_folds=num_folds, fold=fold)])
        made = run_job(places, FIT_JOB, chosen, listener, reason)
        computed += made.count_computed()[TRAINED_CHECKPOINT]
        judged.append(judge_fold(objects, fold, made.manifests[TRAINED_CHECKPOINT], made.manifests[VAL_SPLIT], judging))
    return {**summarize_folds(judged, judging), "num_trained_now": computed}
