"""Session work: one session's recordings to spectrograms, signal tracks, arrival times or why there is none, pairs.

Belongs here: what one process does with one session. Does not belong here: the loop over sessions (``features``), how a
spectrogram, a track or a delay is computed (``signals``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import Position, Recording
from heimdall_assets.errors import OutOfReach
from heimdall_assets.pipeline.stages.recordings import UNREAD, UNUSABLE, decode_row, describe_fault
from heimdall_assets.specs import DelaySpec, FeatureSpec
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.tables import nullable


@dataclass(frozen=True)
class SessionTask:
    """A session's ingested recordings, which of them need a spectrogram or a track, and whether delays are needed."""

    rows: list[dict[str, Any]]
    needs_feature: list[bool]
    needs_track: list[bool]
    needs_delays: bool


@dataclass
class Worked:
    """What came of one recording.

    Attributes:
        image: float32 (3, num_mels, num_frames), dB of full scale; None: not needed, or refused.
        refusal: why there is no spectrogram; None: there is one, or none was needed.
        track: float16 (signal_track.NUM_ROWS, NUM_STEPS); None: not needed, or refused.
        no_track: why there is no track; None: there is one, or none was needed.
        arrival_s, arrival_sigma_s, coherence: as in ``SessionDelays``; NaN: no arrival.
        no_arrival: why there is no arrival; None: there is one, or none was needed.
        is_unread: its bytes could not be had now.
    """

    image: NDArray[np.float32] | None = None
    refusal: str | None = None
    track: NDArray[np.float16] | None = None
    no_track: str | None = None
    arrival_s: float = np.nan
    arrival_sigma_s: float = np.nan
    coherence: float = np.nan
    no_arrival: str | None = None
    is_unread: bool = field(default=False)


@dataclass(frozen=True)
class WorkedPairs:
    """What came of a session's Q pairs of recordings.

    Attributes:
        first, second: int64 (Q,), places of the two in the session's rows.
        coherence, curvature, correlation: (Q, ...), as ``pair_...`` in ``SessionDelays``.
        lag_step_s: distance of two lags.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    coherence: NDArray[np.float64]
    curvature: NDArray[np.float64]
    correlation: NDArray[np.complex64]
    lag_step_s: float


@dataclass(frozen=True)
class WorkedSession:
    """What came of a session: of its recordings, in their order, and of their pairs; None: no delays."""

    recordings: list[Worked]
    pairs: WorkedPairs | None = None


def is_timed(row: dict[str, Any]) -> bool:
    """Return whether an ingested recording has a clock that others can be compared with."""
    return row["clock_class"] != "none" and nullable(row["start_unix_ns"]) is not None


def work_sessions(
    tasks: Sequence[SessionTask], objects: ObjectStore, features: FeatureSpec, delays: DelaySpec
) -> list[WorkedSession]:
    """Return what came of each session; what is wrong with one recording costs no other."""
    return [_work_session(task, objects, features, delays) for task in tasks]


def _work_session(task: SessionTask, objects: ObjectStore, features: FeatureSpec, delays: DelaySpec) -> WorkedSession:
    worked = [Worked() for _ in task.rows]
    recordings = [_read(row, objects, done) for row, done in zip(task.rows, worked, strict=True)]
    for number, (row, recording, done) in enumerate(zip(task.rows, recordings, worked, strict=True)):
        if recording is not None and task.needs_feature[number]:
            _make_image(row, recording, features, done)
        if recording is not None and task.needs_track[number]:
            _make_track(row, recording, done)
    pairs = _find_arrivals(task.rows, recordings, delays, worked) if task.needs_delays else None
    return WorkedSession(worked, pairs)


def _read(row: dict[str, Any], objects: ObjectStore, done: Worked) -> Recording | None:
    try:
        data = objects.read_bytes(row["digest"])
        return decode_row(data, row, max_samples=len(data))  # checked before: its own size bounds it
    except OutOfReach:
        raise
    except (*UNREAD, *UNUSABLE) as error:
        done.refusal = done.no_track = done.no_arrival = describe_fault(error)
        done.is_unread = isinstance(error, UNREAD)
        return None


def _make_image(row: dict[str, Any], recording: Recording, features: FeatureSpec, done: Worked) -> None:
    # Slow to load, and wanted only where recordings are worked on.
    from heimdall_assets.signals.spectrogram import compute_spectrogram

    try:
        done.image = compute_spectrogram(
            recording.samples, recording.sample_rate_hz, features, name=str(row["iq_data_location"])
        )
    except UNUSABLE as error:
        done.refusal = describe_fault(error)


def _make_track(row: dict[str, Any], recording: Recording, done: Worked) -> None:
    from heimdall_assets.signals.signal_track import compute_track

    try:
        done.track = compute_track(recording.samples, recording.sample_rate_hz, name=str(row["iq_data_location"]))
    except UNUSABLE as error:
        done.no_track = describe_fault(error)


def _find_arrivals(
    rows: Sequence[dict[str, Any]], recordings: Sequence[Recording | None], delays: DelaySpec, worked: list[Worked]
) -> WorkedPairs | None:
    """Note in ``worked`` when the transmission arrived at each; return the pairs it was found from."""
    from heimdall_assets.signals.copies import find_copies, say_lag
    from heimdall_assets.signals.delays import compute_delays

    timed = []
    for index, (row, recording, done) in enumerate(zip(rows, recordings, worked, strict=True)):
        if row["clock_class"] == "none":
            done.no_arrival = "the receiver's clock runs free (clock class none)"
        elif recording is not None:
            timed.append(index)
    for copy in find_copies([recording.samples for index in timed if (recording := recordings[index]) is not None]):
        # Whose it is nobody knows: neither has an arrival.
        for one, other, lag in ((copy.first, copy.second, -copy.lag), (copy.second, copy.first, copy.lag)):
            worked[timed[one]].no_arrival = (
                f"the same recording as that of measurement {rows[timed[other]]['measurement_id']}, {say_lag(lag)}: "
                "they differ by no more than rounding, expected each receiver's own"
            )
    timed = [index for index in timed if worked[index].no_arrival is None]
    try:
        solved = compute_delays(
            [recording for index in timed if (recording := recordings[index]) is not None],
            [_place(rows[index]) for index in timed],
            delays,
        )
    except UNUSABLE as error:  # the session keeps its levels and spectrograms
        for index in timed:
            worked[index].no_arrival = describe_fault(error)
        return None
    for place, index in enumerate(timed):
        done = worked[index]
        done.arrival_s = float(solved.arrival_s[place])
        done.arrival_sigma_s = float(solved.arrival_sigma_s[place])
        done.coherence = float(solved.coherence[place])
        done.no_arrival = str(solved.reasons[place]) or None
    first, second = np.array(timed, dtype=np.int64)[solved.pairs].T
    return WorkedPairs(
        first, second, solved.pair_coherence, solved.pair_curvature, solved.pair_correlation, solved.lag_step_s
    )


def _place(row: dict[str, Any]) -> Position:
    return Position(
        latitude=row["receiver_latitude"],
        longitude=row["receiver_longitude"],
        altitude_m=row["receiver_altitude_m"],
    )
