"""Observing: stored sessions, whatever their approval, located, predicted and judged outside the graph.

The same steps as the assets take, on the same code; nothing here decides what a model learns from.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.domain import ClockClass, Estimate, Position, Predictions, SessionSet
from heimdall_assets.errors import CannotLocate, InvalidSetting, NotFound, Refused
from heimdall_assets.learning.judging import judge_model
from heimdall_assets.locating.classical import locate_session
from heimdall_assets.manifests import Manifest
from heimdall_assets.signals.geodesy import LocalFrame, compute_distance_m
from heimdall_assets.specs import DatasetSpec, DelaySpec, EvaluationSpec, FeatureSpec, RecordingSpec, Spec, TimingSpec
from heimdall_assets.stores.checkpoints import load_checkpoint
from heimdall_assets.stores.datasets import load_sessions, observe_sessions
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.identities import make_source
from heimdall_assets.stores.imports import Stated, import_recordings
from heimdall_assets.stores.iq_session import SessionClaim
from heimdall_assets.stores.measurements import MeasurementStore
from heimdall_assets.stores.results import read_parent
from heimdall_assets.stores.tables import load_table
from heimdall_assets.stores.work_pool import Progress

if TYPE_CHECKING:
    from heimdall_assets.learning.fitted import FittedModel


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def describe_estimate(
    estimate: Estimate, truth: tuple[float, float] | None = None, error_margin_m: float = 0.0
) -> dict[str, Any]:
    """Return position, 90 % ellipse and, where the truth is known, the error and whether the ellipse holds the truth.

    The truth's own error margin is added to the covariance before it is asked whether the ellipse contains it.
    """
    ellipse = estimate.ellipse(0.90)
    described: dict[str, Any] = {
        "latitude": estimate.latitude,
        "longitude": estimate.longitude,
        "method": estimate.method,
        "ellipse_90": {
            "semi_major_m": ellipse.semi_major_m,
            "semi_minor_m": ellipse.semi_minor_m,
            "azimuth_deg": ellipse.azimuth_deg,
        },
        "sigma_east_m": float(np.sqrt(estimate.variance_east_m2)),
        "sigma_north_m": float(np.sqrt(estimate.variance_north_m2)),
        "error_m": None,
        "inside_90": None,
    }
    if truth is not None:
        east, north, _ = LocalFrame(estimate.latitude, estimate.longitude).to_local(truth[0], truth[1])
        covariance = np.array(
            [
                [estimate.variance_east_m2, estimate.covariance_en_m2],
                [estimate.covariance_en_m2, estimate.variance_north_m2],
            ]
        ) + error_margin_m**2 * np.eye(2)
        offset = np.array([float(east), float(north)])
        described["error_m"] = float(compute_distance_m(estimate.latitude, estimate.longitude, *truth))
        described["inside_90"] = bool(offset @ np.linalg.solve(covariance, offset) <= -2.0 * np.log(0.10))
    return described


def take_estimate(predictions: Predictions, index: int) -> Estimate:
    """Return one row of ``predictions``.

    Raises:
        CannotLocate: the row was refused.
    """
    if predictions.refused is not None and predictions.refused[index]:
        raise CannotLocate(f"{predictions.method}: the session holds nothing from which this model can tell a position")
    east, north, both = (float(value) for value in predictions.covariance_m2[index])
    return Estimate(
        latitude=float(predictions.latitude[index]),
        longitude=float(predictions.longitude[index]),
        variance_east_m2=east,
        variance_north_m2=north,
        covariance_en_m2=both,
        method=predictions.method,
    )


def observe_stored(
    stores: Stores, rows: pd.DataFrame, progress: Progress = _silent, model: Manifest | None = None
) -> tuple[SessionSet, pd.DataFrame]:
    """Return sessions assembled from their rows, and what of them was refused (``features.REFUSED_COLUMNS``).

    Args:
        stores: of this home.
        rows: ``domain.APPROVED_COLUMNS``.
        progress: told what is done.
        model: manifest of an exported model whose specs are to be used; None: the defaults.
    """

    def fields(spec: type[Spec]) -> dict[str, Any]:
        return {} if model is None else _find_spec(stores, model, spec.__name__)

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


_SPEC_HOMES = {
    "RecordingSpec": "iq_files",
    "FeatureSpec": "spectrogram_features",
    "DelaySpec": "spectrogram_features",
    "TimingSpec": "test_split",
}


def _find_spec(stores: Stores, model: Manifest, name: str) -> dict[str, Any]:
    return read_parent(stores.objects, model, _SPEC_HOMES[name]).specs[name]


def _truth_of(sessions: SessionSet, index: int) -> tuple[float, float] | None:
    latitude, longitude = float(sessions.source_latitude[index]), float(sessions.source_longitude[index])
    return (latitude, longitude) if np.isfinite(latitude) and np.isfinite(longitude) else None


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


def locate_stored(stores: Stores, name: str, progress: Progress = _silent) -> dict[str, Any]:
    """Return where the classical estimators put a stored session.

    Raises:
        NotFound: there is no such session.
        CannotLocate: no honest position follows from its data.
    """
    session_id, rows, left_out = read_session(stores, name)
    sessions, refused = observe_stored(stores, rows, progress)
    reasons = left_out + describe_refused(rows, refused)
    with _explained(reasons):
        estimate = locate_session(sessions, 0)
    described = describe_estimate(estimate, _truth_of(sessions, 0), float(sessions.error_margin_m[0]))
    return {"session_id": session_id, **described, "num_receivers": len(rows), "refused": reasons}


@contextmanager
def _explained(reasons: list[str]) -> Iterator[None]:
    """Add what was refused to the message of an estimate that cannot be made."""
    try:
        yield
    except CannotLocate as error:
        raise CannotLocate("; ".join([str(error), *reasons])) from error


# --- released models --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Released:
    """A released model: its version, its ONNX file, and the manifest of its export, from which its data follow."""

    version: str
    onnx: bytes
    manifest: Manifest
    fitted: "FittedModel"

    def predict(self, sessions: SessionSet) -> Predictions:
        """Return what the ONNX file says, not what PyTorch would."""
        from heimdall_assets.learning.export import predict_onnx

        return predict_onnx(self.fitted, self.onnx, sessions)

    def predict_signals(self, sessions: SessionSet) -> dict[str, NDArray[Any]] | None:
        """Return what the ONNX file says of the signals; None: a model of positions alone."""
        from heimdall_assets.learning.export import predict_onnx_signals

        return predict_onnx_signals(self.fitted, self.onnx, sessions)


def read_released(stores: Stores, model: str) -> Released:
    """Return a released model by version, latest or alias.

    Raises:
        NotFound: there is no such model.
    """
    version = stores.releases.resolve(model)
    manifest = Manifest.decode(stores.objects.read_bytes(stores.releases.find_record(version)["manifest"]))
    checkpoint = read_parent(stores.objects, manifest, "trained_checkpoint")
    return Released(
        version=version,
        onnx=stores.releases.read_file(version, "model.onnx"),
        manifest=manifest,
        fitted=load_checkpoint(stores.objects, checkpoint),
    )


def predict_stored(stores: Stores, model: str, name: str, progress: Progress = _silent) -> dict[str, Any]:
    """Return where a released model puts a stored session.

    Raises:
        NotFound: there is no such model or session.
        CannotLocate: the session holds nothing from which this model can tell a position.
    """
    released = read_released(stores, model)
    session_id, rows, left_out = read_session(stores, name)
    sessions, refused = observe_stored(stores, rows, progress, released.manifest)
    reasons = left_out + describe_refused(rows, refused)
    with _explained(reasons):
        estimate = take_estimate(released.predict(sessions), 0)
    described = describe_estimate(estimate, _truth_of(sessions, 0), float(sessions.error_margin_m[0]))
    return {"version": released.version, "session_id": session_id, **described, "refused": reasons}


def predict_files(
    stores: Stores,
    model: str,
    files: Sequence[Path],
    receivers: Mapping[str, Position],
    stated: Stated,
    clock_class: ClockClass = ClockClass.NONE,
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Return where a released model puts the transmitter of recordings that are in no database, and stay in none.

    Args:
        stores: of this home; it is given nothing but the recordings' bytes and what is computed of them.
        model: version, latest or alias.
        files: GNSS-stamped KiwiSDR recordings (.wav), SigMF (.sigmf, .sigmf-meta) or NumPy (.npy), one a receiver, all
            of one kind.
        receivers: station part of a file's name -> its position.
        stated: what files of this kind cannot say themselves.
        clock_class: how .npy and SigMF recordings were timed; KiwiSDR recordings say it.
        progress: told what is done.

    Raises:
        InvalidRecording: a file that cannot be read, timed or used.
        InvalidSetting: files of another kind, or something is stated that they say, or not stated that they cannot.
        CannotLocate: they hold nothing from which this model can tell a position.
    """
    released = read_released(stores, model)
    if not receivers:
        raise InvalidSetting("files: found no --receiver, expected CODE,LAT,LON of each file's station")
    # An import needs a source; what it says of the truth is not asked for below.
    somewhere = make_source("unknown", next(iter(receivers.values())))
    with TemporaryDirectory() as folder:
        database = MeasurementStore(f"sqlite:///{folder}/files.db")
        database.upgrade()
        claim = SessionClaim("files", somewhere, "files", receivers, clock_class)
        import_recordings(database, stores.objects, claim, files, stated)
        rows = database.read_session_rows(database.find_session("files")["id"])
        database.close()
    sessions, refused = observe_stored(stores, rows, progress, released.manifest)
    reasons = describe_refused(rows, refused)
    with _explained(reasons):
        estimate = take_estimate(released.predict(sessions), 0)
    return {"version": released.version, "session_id": None, **describe_estimate(estimate), "refused": reasons}


def evaluate_stored(
    stores: Stores, model: str, campaigns: list[str], spec: EvaluationSpec, progress: Progress = _silent
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
    for name in ("train_split", "val_split"):
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
    reference = load_sessions(stores.objects, read_parent(stores.objects, released.manifest, "train_split"))
    judged = judge_model(released.predict, sessions, reference, spec, released.predict_signals)
    return {
        "version": released.version,
        "campaigns": campaigns,
        **judged.metrics,
        "num_refused_trained_on": num_trained_on,
        "num_refused_recordings": int((refused["what"] == "recording").sum()),
    }
