"""Cross-validation: what models of several folds say of the sessions that each of them was not fitted on.

Belongs here: judging a fold, putting folds together. Does not belong here: training them (``running.folds``), which
session is of which fold (``learning.splits``). The test split is no input of anything here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput, Refused
from heimdall_assets.evaluation.comparison import bound_median
from heimdall_assets.evaluation.evaluate import evaluate_model
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.kinds import TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint, read_outcome
from heimdall_assets.specs import EvaluationSpec
from heimdall_assets.stores.objects.folder import ObjectStore

FIGURES = ("median_m", "p90_m", "coverage_90", "best_val_loss")
"""What is told of each fold, and as mean and spread over them."""


@dataclass(frozen=True)
class JudgedFold:
    """A fold's model on the sessions that validate in it.

    Attributes:
        row: JSON values: fold, counts, ``FIGURES``, whether training bettered its start, digest of the checkpoint.
        session_id: str (S,), with known truth.
        site: str (S,).
        error_m: float64 (S,); infinity: refused.
    """

    row: dict[str, Any]
    session_id: NDArray[np.str_]
    site: NDArray[np.str_]
    error_m: NDArray[np.float64]


def judge_fold(
    objects: ObjectStore, fold: int, checkpoint: Manifest, val_split: Manifest, spec: EvaluationSpec
) -> JudgedFold:
    """Return a checkpoint's figures on its validation split.

    Raises:
        Refused: the split is not the one that the checkpoint validated on.
    """
    if val_split.kind != VAL_SPLIT or checkpoint.parents[VAL_SPLIT] != val_split.digest:
        raise Refused(f"fold {fold}: found {val_split.kind} {val_split.digest}, expected what the fold validates on")
    fitted, sessions = load_checkpoint(objects, checkpoint), load_sessions(objects, val_split)
    reference = load_sessions(objects, Manifest.decode(objects.read_bytes(checkpoint.parents[TRAIN_SPLIT])))
    judged = evaluate_model(fitted.predict, sessions, reference, spec)
    residuals = compute_residuals(sessions, judged.predictions)
    known = residuals.has_truth
    row = {
        "fold": fold,
        "num_train_sessions": len(reference),
        "num_val_sessions": len(sessions),
        **{name: judged.metrics.get(name, checkpoint.summary.get(name)) for name in FIGURES},
        "trained": read_outcome(checkpoint).trained,
        "checkpoint": checkpoint.digest,
    }
    error = np.where(residuals.answered, residuals.error_m, np.inf)
    return JudgedFold(row, sessions.session_id[known], sessions.strata["site"][known].astype(np.str_), error[known])


def summarize_folds(folds: Sequence[JudgedFold], spec: EvaluationSpec) -> dict[str, Any]:
    """Return the folds together as JSON values.

    ``figures`` has mean, standard deviation over folds, smallest and largest of each figure that every fold has.
    ``pooled`` has the median error of all sessions together, each judged by the fold that was not fitted on it, with
    an interval by bootstrap over sites. The spread over folds is no error of the mean: folds share most of their
    training sessions, and no unbiased estimate of its variance exists (Bengio and Grandvalet, 2004).

    Raises:
        InvalidInput: fewer than two folds, or a session that validates in two.
    """
    if len(folds) < 2:
        raise InvalidInput(f"folds: found {len(folds)}, expected at least 2")
    ids = np.concatenate([fold.session_id for fold in folds])
    names, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InvalidInput(f"session {names[counts > 1][0]}: validates in several folds, expected one")
    error, site = np.concatenate([fold.error_m for fold in folds]), np.concatenate([fold.site for fold in folds])
    low, high = bound_median(error, spec, site)
    median = float(np.median(error))
    return {
        "num_folds": len(folds),
        "folds": [fold.row for fold in folds],
        "figures": {name: _describe([fold.row[name] for fold in folds]) for name in FIGURES},
        "pooled": {
            "num_sessions": len(error),
            "num_sites": len(np.unique(site)),
            "num_refused": int(np.isinf(error).sum()),
            "median_m": median if np.isfinite(median) else None,
            "median_low_m": low,
            "median_high_m": high,
            "confidence": spec.confidence,
        },
    }


def _describe(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return mean and spread over folds; None: a fold lacks the figure."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) < len(values):
        return None
    return {
        "mean": float(known.mean()),
        "sd": float(known.std(ddof=1)),
        "min": float(known.min()),
        "max": float(known.max()),
    }
