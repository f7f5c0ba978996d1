"""evaluation_metrics: a stored checkpoint judged on a stored split; figures, table and plots kept as objects."""

from typing import Any

import numpy as np
import pandas as pd

from heimdall_assets.evaluation.evaluate import Evaluation, evaluate_model
from heimdall_assets.evaluation.figures.diagnostics import plot_diagnostics
from heimdall_assets.kinds import EVALUATION_METRICS, TEST_SPLIT, TRAIN_SPLIT, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest, decode_canonical_json, encode_canonical_json
from heimdall_assets.media_types import JSON_MEDIA_TYPE, SVG_MEDIA_TYPE
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, read_parent
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint
from heimdall_assets.pipeline.stages.variants import summarize_figures, summarize_moves
from heimdall_assets.pipeline.starts import check_not_seen, read_kept_start
from heimdall_assets.pipeline.teachers import find_teacher
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.specs import EvaluationSpec, TrainingSpec
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.tables import artifact_of_table


def evaluate_checkpoint(
    objects: ObjectStore, checkpoint: Manifest, test_split: Manifest, spec: EvaluationSpec
) -> Result:
    """Return the checkpoint's figures on the test split, found or computed.

    Raises:
        Refused: a model that the checkpoint's training started from was trained on a session of the test split.
    """

    def compute() -> Computed:
        start = read_kept_start(checkpoint)
        if start is not None:
            check_not_seen(objects, start, test_split)
        fitted = load_checkpoint(objects, checkpoint)
        reference = load_sessions(objects, read_parent(objects, checkpoint, TRAIN_SPLIT))
        sessions = load_sessions(objects, test_split)
        evaluated = evaluate_model(fitted.predict, sessions, reference, spec, fitted.predict_signals)
        teacher = find_teacher(objects, TrainingSpec(**checkpoint.specs["TrainingSpec"]), checkpoint.parents)
        if teacher is not None:
            answers = load_checkpoint(objects, teacher).predict(sessions)
            evaluated.metrics["teacher"] = compare_with_teacher(teacher.digest, evaluated, answers, sessions)
        artifacts = {
            "metrics.json": objects.put_bytes(encode_canonical_json(evaluated.metrics), JSON_MEDIA_TYPE),
            "predictions": artifact_of_table(objects, tabulate_predictions(sessions, evaluated)),
        }
        figures = plot_diagnostics(sessions, evaluated)
        drawn = objects.put_all(list(figures.values()), SVG_MEDIA_TYPE)
        artifacts |= {f"{name}.svg": artifact for name, artifact in zip(figures, drawn, strict=True)}
        return artifacts, summarize_metrics(evaluated.metrics)

    parents = {TRAINED_CHECKPOINT: checkpoint.digest, TEST_SPLIT: test_split.digest}
    return find_or_compute(objects, EVALUATION_METRICS, parents, [spec], compute)


def compare_with_teacher(
    teacher: str, evaluated: Evaluation, answers: Predictions, sessions: SessionSet
) -> dict[str, Any]:
    """Return how far a student lies from its teacher, in metres, on the same sessions; None where undefined."""
    names = ("median_m", "p90_m", "coverage_90")
    its = summarize_figures(answers, sessions)
    mine = {name: evaluated.metrics[name] for name in names}
    apart = summarize_moves(evaluated.predictions, answers)
    known = None not in (mine["median_m"], its["median_m"])
    return {
        "teacher": teacher,
        **mine,
        **{f"teacher_{name}": its[name] for name in names},
        "difference_m": mine["median_m"] - its["median_m"] if known else None,
        **{name: apart[name] for name in ("moved_median_m", "moved_p90_m")},
    }


_OF_BOUND = ("method_median_m", "median_m", "median_low_m")
"""Figures of the bound that tell whether the model beats it, by their names in the metrics."""


def summarize_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that become plots over materializations."""
    names = ("num_sessions", "num_refused", "median_m", "p90_m", "coverage_90", "median_error_over_bound")
    summary = {name: metrics[name] for name in names if metrics.get(name) is not None}
    bound = metrics.get("bound") or {}
    summary |= {f"bound_{name}": bound[name] for name in _OF_BOUND if bound.get(name) is not None}
    return {**summary, "worse_than": metrics["worse_than"]}


def load_metrics(objects: ObjectStore, evaluation: Manifest) -> dict[str, Any]:
    """Return the figures behind an evaluation's manifest."""
    metrics: dict[str, Any] = decode_canonical_json(objects.read_bytes(evaluation.artifacts["metrics.json"].digest))
    return metrics


def tabulate_predictions(sessions: SessionSet, evaluated: Evaluation) -> pd.DataFrame:
    """Return one row per session: prediction with covariance, truth, bound."""
    table = tabulate_answers(sessions, evaluated.predictions)
    refused = table.pop("refused")
    return table.assign(
        source_latitude=sessions.source_latitude,
        source_longitude=sessions.source_longitude,
        error_margin_m=sessions.error_margin_m,
        bound_m=evaluated.bound_m,
        refused=refused,
    )


def tabulate_answers(sessions: SessionSet, predictions: Predictions) -> pd.DataFrame:
    """Return one row per session: prediction with covariance, and whether it was refused."""
    return pd.DataFrame(
        {
            "session_id": sessions.session_id.astype(str),
            "latitude": predictions.latitude,
            "longitude": predictions.longitude,
            "variance_east_m2": predictions.covariance_m2[:, 0],
            "variance_north_m2": predictions.covariance_m2[:, 1],
            "covariance_en_m2": predictions.covariance_m2[:, 2],
            "refused": np.zeros(len(sessions), bool) if predictions.refused is None else predictions.refused,
        }
    )
