"""Observing: stored sessions, whatever their approval, located, predicted and judged outside the graph.

The same steps as the assets take, on the same code; nothing here decides what a model learns from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heimdall_assets.domain import Estimate, Position, Predictions, SessionSet
from heimdall_assets.errors import CannotLocate, InvalidSetting, NotFound, Refused
from heimdall_assets.learning.judging import judge_model
from heimdall_assets.locating.classical import locate_session
from heimdall_assets.manifests import Manifest
from heimdall_assets.signals.geodesy import LocalFrame, compute_distance_m
from heimdall_assets.specs import DatasetSpec, DelaySpec, EvaluationSpec, FeatureSpec, RecordingSpec, Spec, TimingSpec
from heimdall_assets.stores.checkpoints import load_checkpoint
from heimdall_assets.stores.datasets import Progress, load_sessions, observe_sessions
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.identities import make_source
from heimdall_assets.stores.imports import import_kiwisdr, import_sigmf
from heimdall_assets.stores.measurements import MeasurementStore
from heimdall_assets.stores.results import read_parent
from heimdall_assets.stores.tables import load_table

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
) -> tuple[SessionSet, list[str]]:
    """Return sessions assembled from their rows, and the reason of each refused recording.

    Args:
        model: manifest of an exported model whose specs are to be used; None: the defaults.
    """

    def fields(spec: type[Spec]) -> dict[str, Any]:
        return {} if model is None else _find_spec(stores, model, spec.__name__)

    sessions, refused = observe_sessions(
        stores.objects,
        rows,
        RecordingSpec(**fields(RecordingSpec)),
        FeatureSpec(**fields(FeatureSpec)),
        DelaySpec(**fields(DelaySpec)),
        TimingSpec(**fields(TimingSpec)),
        progress,
    )
    return sessions, [str(reason) for reason in refused["reason"]]


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


def read_session(stores: Stores, name: str) -> tuple[str, pd.DataFrame]:
    """Return the id and rows of the session called ``name`` (id or name), of any approval.

    Raises:
        NotFound: there is none.
        CannotLocate: it has no measurements.
    """
    session_id = stores.measurements.find_session(name)["id"]
    rows = stores.measurements.read_session_rows(session_id)
    if not len(rows):
        raise CannotLocate(f"session {name}: found 0 usable measurements, expected at least 1")
    return session_id, rows


def locate_stored(stores: Stores, name: str, progress: Progress = _silent) -> dict[str, Any]:
    """Return where the classical estimators put a stored session.

    Raises:
        NotFound: there is no such session.
        CannotLocate: no honest position follows from its data.
    """
    session_id, rows = read_session(stores, name)
    sessions, refused = observe_stored(stores, rows, progress)
    estimate = locate_session(sessions, 0)
    described = describe_estimate(estimate, _truth_of(sessions, 0), float(sessions.error_margin_m[0]))
    return {"session_id": session_id, **described, "num_receivers": len(rows), "refused": refused}


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
    """Return where a released model puts a stored session."""
    released = read_released(stores, model)
    session_id, rows = read_session(stores, name)
    sessions, refused = observe_stored(stores, rows, progress, released.manifest)
    estimate = take_estimate(released.predict(sessions), 0)
    described = describe_estimate(estimate, _truth_of(sessions, 0), float(sessions.error_margin_m[0]))
    return {"version": released.version, "session_id": session_id, **described, "refused": refused}


def predict_files(
    stores: Stores, model: str, files: Sequence[Path], receivers: Mapping[str, Position], progress: Progress = _silent
) -> dict[str, Any]:
    """Return where a released model puts the transmitter of recordings that are in no database, and stay in none.

    Args:
        files: GNSS-stamped KiwiSDR recordings (.wav) or SigMF (.sigmf, .sigmf-meta), one a receiver, all of one kind.
        receivers: station part of a file's name -> its position.

    Raises:
        InvalidRecording: a file that cannot be read, timed or used.
        InvalidSetting: files of another kind.
    """
    released = read_released(stores, model)
    kinds = {path.suffix.removesuffix("-meta").removesuffix("-data") for path in files}
    importers = {".wav": import_kiwisdr, ".sigmf": import_sigmf}
    if len(kinds) != 1 or not kinds <= set(importers):
        raise InvalidSetting(
            f"files {', '.join(sorted(kinds))}: expected all .wav (KiwiSDR) or all .sigmf; import others first"
        )
    if not receivers:
        raise InvalidSetting("files: found no --receiver, expected CODE,LAT,LON of each file's station")
    # An import needs a source; what it says of the truth is not asked for below.
    somewhere = make_source("unknown", next(iter(receivers.values())))
    with TemporaryDirectory() as folder:
        database = MeasurementStore(f"sqlite:///{folder}/files.db")
        database.upgrade()
        importers[kinds.pop()](
            database,
            stores.objects,
            session_name="files",
            source=somewhere,
            receivers=receivers,
            files=list(files),
            campaign="files",
        )
        rows = database.read_session_rows(database.find_session("files")["id"])
        database.close()
    sessions, refused = observe_stored(stores, rows, progress, released.manifest)
    described = describe_estimate(take_estimate(released.predict(sessions), 0))
    return {"version": released.version, "session_id": None, **described, "refused": refused}


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
    judged = judge_model(released.predict, sessions, reference, spec)
    return {
        "version": released.version,
        "campaigns": campaigns,
        **judged.metrics,
        "num_refused_trained_on": num_trained_on,
        "num_refused_recordings": len(refused),
    }
