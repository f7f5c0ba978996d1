"""Session work: one session's recordings, read from the store and handed to ``signals.observation``.

Belongs here: what one process does with one session. Does not belong here: the loop over sessions (``features``), the
steps themselves (``signals.observation``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heimdall_assets.domain import Position
from heimdall_assets.errors import UNUSABLE, OutOfReach, describe_fault
from heimdall_assets.physical import Recording
from heimdall_assets.pipeline.stages.recordings import UNREAD, decode_row
from heimdall_assets.signals.observation import Heard, Worked, WorkedSession, find_arrivals, make_image, make_track
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
    session = [_hear(row, _read(row, objects, done)) for row, done in zip(task.rows, worked, strict=True)]
    for number, (heard, done) in enumerate(zip(session, worked, strict=True)):
        if task.needs_feature[number]:
            make_image(heard, features, done)
        if task.needs_track[number]:
            make_track(heard, done)
    pairs = find_arrivals(session, delays, worked) if task.needs_delays else None
    return WorkedSession(worked, pairs)


def _hear(row: dict[str, Any], recording: Recording | None) -> Heard:
    place = Position(
        latitude=row["receiver_latitude"],
        longitude=row["receiver_longitude"],
        altitude_m=row["receiver_altitude_m"],
    )
    label = f"measurement {row['measurement_id']}"
    return Heard(str(row["iq_data_location"]), label, str(row["clock_class"]), place, recording)


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
