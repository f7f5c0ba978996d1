"""Stored sessions, whatever their approval: located, predicted and judged outside the graph.

The same steps as the assets take, on the same code; nothing here decides what a model learns from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from heimdall_assets.counts import say_count
from heimdall_assets.errors import CannotLocate, NotFound, Refused
from heimdall_assets.evaluation.evaluate import evaluate_model
from heimdall_assets.inference.told_signals import tell_signals
from heimdall_assets.kinds import TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.learning.assembly import assemble_sessions
from heimdall_assets.locating.classical import locate_session
from heimdall_assets.locating.estimates import describe_estimate
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.prediction.outside import remark_outside
from heimdall_assets.pipeline.prediction.plausibility import remark_place
from heimdall_assets.pipeline.prediction.released import Released, read_released
from heimdall_assets.pipeline.prediction.used import Used
from heimdall_assets.pipeline.recipe import find_kind
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.datasets import join_recordings, load_sessions
from heimdall_assets.pipeline.stages.features import REFUSED_COLUMNS, compute_features
from heimdall_assets.pipeline.stages.recordings import ingest_recordings
from heimdall_assets.pipeline.truth import read_trusted
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.observation import Lack, say_lacks
from heimdall_assets.specs import DatasetSpec, DelaySpec, EvaluationSpec, FeatureSpec, RecordingSpec, Spec, TimingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.shards import load_rows
from heimdall_assets.stores.objects.tables import load_table


def keep_silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def observe_stored(
    stores: Stores,
    rows: pd.DataFrame,
    progress: Progress = keep_silent,
    model: Manifest | None = None,
    used: Used | None = None,
) -> tuple[SessionSet, pd.DataFrame]:
    """Return sessions assembled from their rows, and what of them was refused (``features.REFUSED_COLUMNS``).

    Args:
        stores: of this home.
        rows: ``domain.APPROVED_COLUMNS``.
        progress: told what is done.
        model: manifest of an exported model whose specs are to be used; None: the defaults.
        used: is told of the rows, the recordings and the specs; None: nobody asks.
    """

    def fields(spec: type[Spec]) -> dict[str, Any]:
        return {} if model is None else _find_fields(stores, model, spec)

    specs = (
        RecordingSpec(**fields(RecordingSpec)),
        FeatureSpec(**fields(FeatureSpec)),
        DelaySpec(**fields(DelaySpec)),
        TimingSpec(**fields(TimingSpec)),
    )
    sessions, refused, checked = _observe(stores.objects, rows, *specs, progress)
    if used is not None:
        used.add_session(rows, checked, specs)
    return sessions, refused


def describe_refused(rows: pd.DataFrame, refused: pd.DataFrame) -> list[str]:
    """Return a line for each reason of one session: the stations, what they lack, and why."""
    if refused.empty:
        return []
    names = refused["measurement_id"].map(rows.set_index("measurement_id")["station_name"])
    return say_lacks([Lack(*lack) for lack in zip(names, refused["what"], refused["reason"], strict=True)])


def keep_wanted(refused: pd.DataFrame, released: Released | None) -> pd.DataFrame:
    """Return what was refused of what a model looks at; None: nothing learned looks, so at arrivals alone.

    Signal tracks concern signal heads alone.
    """
    if released is None:
        return refused[~refused["what"].isin(["spectrogram", "track"])]
    return refused if released.graph.has_signals else refused[refused["what"] != "track"]


def _find_fields(stores: Stores, model: Manifest, spec: type[Spec]) -> dict[str, Any]:
    return dict(read_parent(stores.objects, model, find_kind(spec)).specs[spec.__name__])


def read_session(stores: Stores, name: str) -> tuple[str, pd.DataFrame, list[str]]:
    """Return the id of the session called ``name`` (id or name), its usable rows, and why others are left out.

    Raises:
        NotFound: there is none.
        CannotLocate: it has no usable measurements.
    """
    session_id = stores.measurements.find_session(name)["id"]
    found = stores.measurements.read_session(session_id)
    left_out = [f"measurement {row.measurement_id}: left out: {row.reason}" for row in found.left_out.itertuples()]
    if not len(found.rows):
        why = f" ({left_out[0]})" if left_out else ""
        raise CannotLocate(f"session {name}: found 0 usable measurements, expected at least 1{why}")
    return session_id, found.rows, left_out


@contextmanager
def explain_refusals(reasons: list[str], rows: pd.DataFrame, name: str) -> Iterator[None]:
    """Add what was refused to the message of an estimate that cannot be made.

    Args:
        reasons: what was refused, a line each.
        rows: of the session, which the message calls by its id.
        name: how whoever asked calls it: ``session NAME``, or what else it is.
    """
    try:
        yield
    except CannotLocate as error:
        said = str(error).replace(f"session {rows['session_id'].iloc[0]}", name)
        raise CannotLocate("; ".join([said, *reasons])) from error


def observe_sessions(
    objects: ObjectStore,
    rows: pd.DataFrame,
    recordings: RecordingSpec,
    features: FeatureSpec,
    delays: DelaySpec,
    timing: TimingSpec,
    progress: Progress,
) -> tuple[SessionSet, pd.DataFrame]:
    """Return sessions of any approval straight from their rows, and what of them was refused.

    The same steps as the asset graph's, for locating and judging outside a materialization.

    Returns:
        The sessions; and ``features.REFUSED_COLUMNS``, where ``what`` may also be a whole recording.
    """
    return _observe(objects, rows, recordings, features, delays, timing, progress)[:2]


def _observe(
    objects: ObjectStore,
    rows: pd.DataFrame,
    recordings: RecordingSpec,
    features: FeatureSpec,
    delays: DelaySpec,
    timing: TimingSpec,
    progress: Progress,
) -> tuple[SessionSet, pd.DataFrame, pd.DataFrame | None]:
    """Return also the recordings as they were checked, ``RECORDING_COLUMNS``; None: there are none."""
    if rows["iq_data_location"].isna().all():  # levels alone: nothing to read, nothing that could be refused
        nothing = pd.DataFrame(columns=list(REFUSED_COLUMNS)).astype(dict(REFUSED_COLUMNS))
        return assemble_sessions(rows, None, None, None, timing), nothing, None
    checked = ingest_recordings(objects, rows, recordings, progress).table
    made = compute_features(objects, join_recordings(rows, checked), features, delays, progress)
    index, images = load_rows(objects, made.index)
    pairs, correlations = load_rows(objects, made.pairs)
    tracked, tracks = load_rows(objects, made.tracks)
    sessions = assemble_sessions(
        rows, index, made.arrivals, images, timing,
        pairs=pairs, correlations=correlations, tracks_index=tracked, tracks=tracks,
    )  # fmt: skip
    bad = checked[checked["status"] != "ok"].assign(what="recording")[list(REFUSED_COLUMNS)].astype(REFUSED_COLUMNS)
    return sessions, pd.concat([bad, made.refused], ignore_index=True), checked


def observe_rows(rows: pd.DataFrame) -> SessionSet:
    """Return sessions assembled from rows without recordings, by the default timing of clock classes."""
    return assemble_sessions(rows, None, None, None, TimingSpec())


def find_truth_of(sessions: SessionSet, index: int) -> tuple[float, float] | None:
    """Return latitude and longitude of a session's source in degrees; None: unknown."""
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
    reasons = left_out + describe_refused(rows, keep_wanted(refused, None))
    with explain_refusals(reasons, rows, f"session {name}"):
        estimate = locate_session(sessions, 0)
    described = describe_estimate(estimate, find_truth_of(sessions, 0), float(sessions.error_margin_m[0]))
    said = {"num_receivers": len(rows), "remarks": remark_place(rows, estimate), "refused": reasons}
    return {"session_id": session_id, **described, **said}


def predict_stored(
    stores: Stores, model: str, name: str, progress: Progress = keep_silent, used: Used | None = None
) -> dict[str, Any]:
    """Return where a released model puts a stored session; ``used`` is told from what, for a receipt.

    Raises:
        NotFound: there is no such model or session.
        CannotLocate: the session holds nothing from which this model can tell a position.
    """
    released = read_released(stores, model)
    session_id, rows, left_out = read_session(stores, name)
    remarks = remark_outside(stores, released, rows)
    sessions, refused = observe_stored(stores, rows, progress, released.manifest, used)
    reasons = left_out + describe_refused(rows, keep_wanted(refused, released))
    with explain_refusals(reasons, rows, f"session {name}"):
        estimate = released.predict_one(sessions)
    described = describe_estimate(estimate, find_truth_of(sessions, 0), float(sessions.error_margin_m[0]))
    remarks += remark_place(rows, estimate)
    said = {
        "signal": tell_signals(released.predict_signals(sessions), sessions),
        "remarks": remarks,
        "refused": reasons,
    }
    return {"version": released.version, "session_id": session_id, **described, **said}


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
    rows = read_trusted(stores.measurements, DatasetSpec(campaigns=campaigns)).rows
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
            f"model {released.version} on {where}: was trained on all of {say_count(num_trained_on, 'session')}, "
            "expected at least 1 that it was not trained on"
        )
    sessions, refused = observe_stored(stores, fresh, progress, released.manifest)
    reference = load_sessions(stores.objects, read_parent(stores.objects, released.manifest, TRAIN_SPLIT))
    judged = evaluate_model(released.predict, sessions, reference, spec, released.predict_signals)
    return {
        "version": released.version,
        "campaigns": campaigns,
        **judged.metrics,
        "num_refused_trained_on": num_trained_on,
        "num_refused_recordings": int((refused["what"] == "recording").sum()),
    }
