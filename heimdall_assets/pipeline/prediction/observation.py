"""Observation: sessions of any approval assembled from their rows, and what of them was refused and why."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from heimdall_assets.errors import CannotLocate
from heimdall_assets.learning.assembly import assemble_sessions
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import find_kind
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.datasets import join_recordings
from heimdall_assets.pipeline.stages.features import REFUSED_COLUMNS, compute_features
from heimdall_assets.pipeline.stages.recordings import ingest_recordings
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import DelaySpec, FeatureSpec, RecordingSpec, Spec, TimingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.shards import load_rows


def keep_silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def observe_stored(
    stores: Stores, rows: pd.DataFrame, progress: Progress = keep_silent, model: Manifest | None = None
) -> tuple[SessionSet, pd.DataFrame]:
    """Return sessions assembled from their rows, and what of them was refused (``features.REFUSED_COLUMNS``).

    Args:
        stores: of this home.
        rows: ``domain.APPROVED_COLUMNS``.
        progress: told what is done.
        model: manifest of an exported model whose specs are to be used; None: the defaults.
    """

    def fields(spec: type[Spec]) -> dict[str, Any]:
        return {} if model is None else _find_fields(stores, model, spec)

    return observe_sessions(
        stores.objects,
        rows,
        RecordingSpec(**fields(RecordingSpec)),
        FeatureSpec(**fields(FeatureSpec)),
        DelaySpec(**fields(DelaySpec)),
        TimingSpec(**fields(TimingSpec)),
        progress,
    )


_LACKS = {"recording": "left out", "spectrogram": "no spectrogram", "arrival": "no arrival time"}


def describe_refused(rows: pd.DataFrame, refused: pd.DataFrame) -> list[str]:
    """Return a line for each reason of one session: the stations, what they lack, and why."""
    names = refused["measurement_id"].map(rows.set_index("measurement_id")["station_name"])
    lacks: dict[tuple[str, str], list[str]] = {}  # station and reason -> what it lacks
    for station, what, reason in zip(names, refused["what"], refused["reason"], strict=True):
        lacks.setdefault((station, reason), []).append(_LACKS[what])
    stations: dict[tuple[str, str], list[str]] = {}
    for (station, reason), whats in lacks.items():
        stations.setdefault((", ".join(whats), reason), []).append(station)
    return [f"{', '.join(named)}: {what}: {reason}" for (what, reason), named in stations.items()]


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
    left_out = [f"measurement {row.measurement_id}: {row.reason}" for row in found.left_out.itertuples()]
    if not len(found.rows):
        why = f" ({left_out[0]})" if left_out else ""
        raise CannotLocate(f"session {name}: found 0 usable measurements, expected at least 1{why}")
    return session_id, found.rows, left_out


@contextmanager
def explain_refusals(reasons: list[str]) -> Iterator[None]:
    """Add what was refused to the message of an estimate that cannot be made."""
    try:
        yield
    except CannotLocate as error:
        raise CannotLocate("; ".join([str(error), *reasons])) from error


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
    checked = ingest_recordings(objects, rows, recordings, progress).table
    made = compute_features(objects, join_recordings(rows, checked), features, delays, progress)
    index, images = load_rows(objects, made.index)
    pairs, correlations = load_rows(objects, made.pairs)
    sessions = assemble_sessions(rows, index, made.arrivals, images, timing, pairs=pairs, correlations=correlations)
    bad = checked[checked["status"] != "ok"].assign(what="recording")[list(REFUSED_COLUMNS)].astype(REFUSED_COLUMNS)
    return sessions, pd.concat([bad, made.refused], ignore_index=True)
