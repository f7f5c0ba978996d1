"""Simulated sessions at rest: drawn from seeds, stored and approved, labelled ``simulated`` for ever."""

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np

from heimdall_assets.domain import ApprovalStatus, ImportBatch, Measurement
from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.pipeline.work_pool import Progress, cut, run_parts
from heimdall_assets.simulation.network import SimulatedSession, simulate_session
from heimdall_assets.specs import SimulationSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import ObjectStore

CHUNK = 4  # sessions a process makes before it reports
PARALLEL_FROM = 12  # fewer sessions are made before worker processes have started


def import_simulated(
    stores: Stores, spec: SimulationSpec, campaign: str, progress: Progress, approve: bool = True
) -> dict[str, int]:
    """Return how many sessions of each signal type are stored: those of ``spec``, made only where they are missing.

    Approval needs nobody: a simulation's truth is known. The ledger says so.
    """
    present = {row["id"]: row for row in stores.measurements.list_sessions(campaign=campaign)}
    known = {(row["attributes"].get("simulation"), row["attributes"].get("index")) for row in present.values()}
    missing = [index for index in range(spec.num_sessions) if (spec_key(spec), index) not in known]
    made = 0
    for batches in run_parts(
        _make_sessions, cut(missing, CHUNK), len(missing), stores.objects, spec, campaign, parallel_from=PARALLEL_FROM
    ):
        for batch in batches:
            stores.measurements.add(batch)
        made += len(batches)
        progress("sessions simulated", made, len(missing))
    rows = [
        row
        for row in stores.measurements.list_sessions(campaign=campaign)
        if row["attributes"].get("simulation") == spec_key(spec)
    ]
    if approve:
        pending = [row["id"] for row in rows if row["approval_status"] == ApprovalStatus.PENDING]
        if pending:
            stores.measurements.decide(
                pending, ApprovalStatus.APPROVED, "heimdall", f"simulated with seed {spec.seed}: the truth is known"
            )
    return dict(sorted(Counter(str(row["attributes"]["signal_type"]) for row in rows).items()))


def spec_key(spec: SimulationSpec) -> str:
    """Return what tells this simulation's sessions from another's, however many of them are drawn."""
    return spec.model_copy(update={"num_sessions": 1}).digest()


def _make_sessions(
    indices: Sequence[int], objects: ObjectStore, spec: SimulationSpec, campaign: str
) -> list[ImportBatch]:
    # One session's ids must not depend on how many are drawn.
    single = spec.model_copy(update={"num_sessions": 1})
    return [_store_session(objects, simulate_session(single, index), single, index, campaign) for index in indices]


def _store_session(
    objects: ObjectStore, made: SimulatedSession, spec: SimulationSpec, index: int, campaign: str
) -> ImportBatch:
    attributes = {**made.session.attributes, "simulation": spec_key(spec), "index": index}
    return ImportBatch(
        stations=list(made.stations),
        sources=[made.source],
        sessions=[made.session.model_copy(update={"campaign": campaign, "attributes": attributes})],
        measurements=_store_samples(
            objects,
            [receiver.measurement for receiver in made.receivers],
            [receiver.recording.samples for receiver in made.receivers],
        ),
    )


def _store_samples(
    objects: ObjectStore, measurements: Sequence[Measurement], samples: Sequence[np.ndarray]
) -> list[Measurement]:
    artifacts = objects.put_all([_encode_samples(part) for part in samples], NPY_MEDIA_TYPE)
    return [
        measurement.model_copy(update={"iq_data_location": f"sha256:{artifact.digest}"})
        for measurement, artifact in zip(measurements, artifacts, strict=True)
    ]


def _encode_samples(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, samples, allow_pickle=False)
    return buffer.getvalue()
