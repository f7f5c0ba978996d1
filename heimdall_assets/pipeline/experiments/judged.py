"""A judged model as its run is told of it: figures on all three splits, pictures, examples, importance of inputs.

The evaluation is of the test split alone. Here the model is also judged on validation, whole, and on a sample of its
training sessions, whose number is told: the distance of the three says how much it learned by heart.
"""

from typing import Any

import numpy as np
import pandas as pd

from heimdall_assets.evaluation.confusion import count_confusion, encode_confusion, plot_confusion
from heimdall_assets.evaluation.importance import compute_importance, list_read, plot_importance
from heimdall_assets.evaluation.metrics import compute_metrics
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.kinds import TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.learning.fitting.fitted import FittedModel
from heimdall_assets.manifests import Manifest, encode_canonical_json
from heimdall_assets.pipeline.experiments.settings import describe_spec, describe_split
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.evaluation_metrics import load_metrics
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.specs import EvaluationSpec
from heimdall_assets.stores.experiment_entries import Entries, collect_figures
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.tables import load_table

MAX_TRAIN_SESSIONS = 500
"""Training sessions that are judged: enough for a median within some percent, seconds on a processor."""

MAX_EXCHANGED_SESSIONS = 100
"""Validation sessions whose inputs are exchanged: with every kind of input some 1000 predictions."""

NUM_EXAMPLES = 25
"""Test sessions whose predictions are shown, row by row."""


def describe_evaluation(
    objects: ObjectStore, checkpoint: Manifest, evaluation: Manifest, spec: EvaluationSpec
) -> Entries:
    """Return what a checkpoint's run is told of an evaluation; the same one, the same words."""
    settings = describe_spec(spec, "evaluation")
    fitted, metrics = load_checkpoint(objects, checkpoint), load_metrics(objects, evaluation)
    test = read_parent(objects, evaluation, TEST_SPLIT)
    figures, files = judge_splits(objects, checkpoint, fitted, spec)
    files |= {"evaluation/metrics.json": encode_canonical_json(metrics)}
    files |= {"predictions/examples.csv": encode_examples(load_table(objects, evaluation.artifacts["predictions"]))}
    for name, artifact in evaluation.artifacts.items():
        if name.endswith(".svg"):
            files[f"plots/{name}"] = objects.read_bytes(artifact.digest)
    if fitted.model.multi_target:
        files |= confuse_types(fitted, load_sessions(objects, test))
    return Entries(
        params=settings.params,
        tags={"heimdall.evaluation": evaluation.digest},
        metrics={**collect_figures(metrics), **figures},
        data=[describe_split(test)],
        files={**files, **settings.files},
    )


def judge_splits(
    objects: ObjectStore, checkpoint: Manifest, fitted: FittedModel, spec: EvaluationSpec
) -> tuple[dict[str, float], dict[str, bytes]]:
    """Return figures of the model on validation and on a sample of training, importance of inputs, and their files."""
    val = load_sessions(objects, read_parent(objects, checkpoint, VAL_SPLIT))
    train = load_sample(objects, read_parent(objects, checkpoint, TRAIN_SPLIT), MAX_TRAIN_SESSIONS, spec.seed)
    figures: dict[str, float] = {}
    for name, sessions in (("val", val), ("train", train)):
        figures |= collect_figures(compute_metrics(compute_residuals(sessions, fitted.predict(sessions)), spec), name)
    asked = val.take(pick_sessions(len(val), MAX_EXCHANGED_SESSIONS, spec.seed))
    importance = compute_importance(fitted.predict, asked, list_read(fitted.model), spec.seed)
    for name, row in importance.items():
        if row["increase_m"] is not None:
            figures[f"importance/{name}/increase_m"] = row["increase_m"]
    files = {"evaluation/importance.json": encode_canonical_json(importance)}
    return figures, files | {"plots/importance.svg": plot_importance(importance)}


def load_sample(objects: ObjectStore, split: Manifest, limit: int, seed: int) -> SessionSet:
    """Return at most ``limit`` sessions of a split; nothing of the others is read."""
    members = load_table(objects, split.artifacts["table"])
    return load_sessions(objects, split, members.iloc[pick_sessions(len(members), limit, seed)])


def pick_sessions(num: int, limit: int, seed: int) -> Any:
    """Return rows of at most ``limit`` of ``num`` sessions, ascending; each is as likely."""
    if num <= limit:
        return np.arange(num)
    return np.sort(np.random.default_rng(seed).choice(num, limit, replace=False))


def encode_examples(predictions: pd.DataFrame, count: int = NUM_EXAMPLES) -> bytes:
    """Return the first predictions, by session, as CSV: where, how sure, the truth, and how far off in metres."""
    shown = predictions.sort_values("session_id").head(count)
    known = ("latitude", "longitude", "source_latitude", "source_longitude")
    error_m = compute_distance_m(*(shown[name].to_numpy(np.float64) for name in known))
    text: str = shown.assign(error_m=np.round(error_m, 1)).to_csv(index=False, lineterminator="\n")
    return text.encode()


def confuse_types(fitted: FittedModel, sessions: SessionSet) -> dict[str, bytes]:
    """Return which types of signals were taken for which, as a table and as a picture; none: it tells no types."""
    signals = fitted.predict_signals(sessions)
    if signals is None:
        return {}
    counts = count_confusion(sessions, signals["signal_type"])
    return {"evaluation/confusion.csv": encode_confusion(counts), "plots/confusion.svg": plot_confusion(counts)}
