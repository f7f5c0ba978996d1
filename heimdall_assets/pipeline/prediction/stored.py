"""Stored sessions, whatever their approval: located, predicted and judged outside the graph.

The same steps as the assets take, on the same code; nothing here decides what a model learns from.
"""

from typing import Any

import numpy as np

from heimdall_assets.errors import NotFound, Refused
from heimdall_assets.evaluation.judging import judge_model
from heimdall_assets.kinds import TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.locating.classical import locate_session
from heimdall_assets.locating.estimates import describe_estimate, take_estimate
from heimdall_assets.pipeline.prediction.observation import (
    describe_refused,
    explain_refusals,
    keep_silent,
    observe_stored,
    read_session,
)
from heimdall_assets.pipeline.prediction.released import read_released
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import DatasetSpec, EvaluationSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table


def _truth_of(sessions: SessionSet, index: int) -> tuple[float, float] | None:
    latitude, longitude = float(sessions.source_latitude[index]), float(sessions.source_longitude[index])
    return (latitude, longitude) if np.isfinite(latitude) and np.isfinite(longitude) else None


def locate_stored(stores: Stores, name: str, progress: Progress = keep_silent) -> dict[str, Any]:
    """Return where the classical estimators put a stored session.

    Raises:
        NotFound: there is no such session.
        CannotLocate: no honest position follows from its data.
    """
    session_id, rows, left_out = read_session(stores, name)
    sessions, refused = observe_stored(stores, rows, progress)
    reasons = left_out + describe_refused(rows, refused)
    with explain_refusals(reasons):
        estimate = locate_session(sessions, 0)
    described = describe_estimate(estimate, _truth_of(sessions, 0), float(sessions.error_margin_m[0]))
    return {"session_id": session_id, **described, "num_receivers": len(rows), "refused": reasons}


def predict_stored(stores: Stores, model: str, name: str, progress: Progress = keep_silent) -> dict[str, Any]:
    """Return where a released model puts a stored session.

    Raises:
        NotFound: there is no such model or session.
        CannotLocate: the session holds nothing from which this model can tell a position.
    """
    released = read_released(stores, model)
    session_id, rows, left_out = read_session(stores, name)
    sessions, refused = observe_stored(stores, rows, progress, released.manifest)
    reasons = left_out + describe_refused(rows, refused)
    with explain_refusals(reasons):
        estimate = take_estimate(released.predict(sessions), 0)
    described = describe_estimate(estimate, _truth_of(sessions, 0), float(sessions.error_margin_m[0]))
    return {"version": released.version, "session_id": session_id, **described, "refused": reasons}


def evaluate_stored(
    stores: Stores, model: str, campaigns: list[str], spec: EvaluationSpec, progress: Progress = keep_silent
) -> dict[str, Any]:
    """Return the figures of a released model on approved sessions that it was neither fitted nor calibrated on.

    Raises:
        NotFound: no approved session is in these campaigns.
        Refused: the model was trained on every one of them.
    """
    released = read_released(stores, model)
    where = f"campaign {', '.join(campaigns)}" if campaigns else "the database"
    rows = stores.measurements.read_approved(DatasetSpec(campaigns=campaigns)).rows
    if not len(rows):
        raise NotFound(f"{where}: found 0 approved, trainable sessions, expected at least 1")
    used = set()
    for name in (TRAIN_SPLIT, VAL_SPLIT):
        split = read_parent(stores.objects, released.manifest, name)
        used |= set(load_table(stores.objects, split.artifacts["table"])["session_id"])
    fresh = rows[~rows["session_id"].isin(used)]
    num_trained_on = int(rows["session_id"].nunique() - fresh["session_id"].nunique())
    if not len(fresh):
        raise Refused(
            f"model {released.version} on {where}: all {num_trained_on} sessions were trained on, "
            "expected at least 1 that was not"
        )
    sessions, refused = observe_stored(stores, fresh, progress, released.manifest)
    reference = load_sessions(stores.objects, read_parent(stores.objects, released.manifest, TRAIN_SPLIT))
    judged = judge_model(released.predict, sessions, reference, spec, released.predict_signals)
    return {
        "version": released.version,
        "campaigns": campaigns,
        **judged.metrics,
        "num_refused_trained_on": num_trained_on,
        "num_refused_recordings": int((refused["what"] == "recording").sum()),
    }
