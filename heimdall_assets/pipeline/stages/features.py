"""Features: spectrograms, signal tracks and delays of many sessions, each computed once.

Belongs here: what is known already and what is new. Does not belong here: how arrays and delays are listed and found
again (``array_index``, ``delay_index``), one session's work (``session_work``), arrays at rest (``objects.shards``).

What was computed is found again in cumulative indexes (one table a spec, behind a reference). Losing an index loses no
result: it is computed again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heimdall_assets.kinds import SPECTROGRAM_FEATURES
from heimdall_assets.manifests import compute_json_digest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.pipeline.stages.array_index import ArrayIndex
from heimdall_assets.pipeline.stages.delay_index import DelayIndex
from heimdall_assets.pipeline.stages.session_work import SessionTask, is_timed, work_sessions
from heimdall_assets.pipeline.work_pool import Progress, cut, run_parts
from heimdall_assets.signals.observation import Worked, WorkedSession, say_untimed
from heimdall_assets.specs import DelaySpec, FeatureSpec
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.tables import list_records, nullable

REFUSED_COLUMNS = STAGES[SPECTROGRAM_FEATURES].columns["refused"]

_SESSIONS_AT_ONCE = 4


@dataclass(frozen=True)
class Features:
    """Spectrograms, signal tracks, arrivals and pairs of sessions.

    Attributes:
        index: ``array_index.ARRAY_COLUMNS``, one row a spectrogram.
        tracks: the same, one row a signal track.
        arrivals: ``delay_index.ARRIVAL_COLUMNS``, one row a recording.
        pairs: ``delay_index.PAIR_COLUMNS``, one row for each two recordings of a session that have an arrival.
        refused: ``REFUSED_COLUMNS``: ``what`` (spectrogram, track or arrival) a recording lacks, and why.
        num_computed: spectrograms computed now.
        num_reused: spectrograms known before.
        num_unread: recordings whose bytes could not be had now.
    """

    index: pd.DataFrame
    tracks: pd.DataFrame
    arrivals: pd.DataFrame
    pairs: pd.DataFrame
    refused: pd.DataFrame
    num_computed: int
    num_reused: int
    num_unread: int

    def count(self) -> dict[str, int]:
        """Return how many there are, and how many recordings and sessions lack what."""
        timed = self.arrivals.groupby("session_id")["arrival_s"].count()
        return {
            "num_features": len(self.index),
            "num_tracks": len(self.tracks),
            "num_refused": int((self.refused["what"] == "spectrogram").sum()),
            "num_arrivals": int(self.arrivals["arrival_s"].notna().sum()),
            "num_pairs": len(self.pairs),
            "num_without_arrival": int((self.refused["what"] == "arrival").sum()),
            "num_sessions_without_delays": int((timed == 0).sum()),
            "num_unread": self.num_unread,
        }

    def list_shards(self) -> list[str]:
        """Return the digests of all shards that spectrograms, tracks and correlations lie in."""
        return sorted({str(shard) for table in (self.index, self.tracks, self.pairs) for shard in table["shard"]})


@dataclass(frozen=True)
class _Session:
    """One session's recordings, their keys, the key of its delays, and what is still to be done."""

    rows: list[dict[str, Any]]
    keys: list[str]
    key: str
    wants_delays: bool
    task: SessionTask

    @property
    def is_pending(self) -> bool:
        """Whether anything of it is still to be computed."""
        return any(self.task.needs_feature) or any(self.task.needs_track) or self.task.needs_delays


def compute_features(
    objects: ObjectStore, rows: pd.DataFrame, features: FeatureSpec, delays: DelaySpec, progress: Progress
) -> Features:
    """Return spectrograms, signal tracks and delays of all given recordings, computing only those not yet known.

    What is wrong with a recording or a session costs no other: it stands in ``refused`` with its reason.

    Args:
        objects: where recordings, shards and indexes rest.
        rows: approved rows joined with their ingested recordings (``recordings.RECORDING_COLUMNS``), status ok only.
        features: numbers that decide a spectrogram; tracks have none of their own and rest beside them.
        delays: numbers that decide a session's delays.
        progress: told how many sessions are done.

    Raises:
        StorageError: a shard or an index could not be stored; nothing stored before is lost.
    """
    pictures, tracks = (ArrayIndex(objects, part, features) for part in ("features", "tracks"))
    delay_index = DelayIndex(objects, delays)
    groups = rows.groupby("session_id", sort=True)
    sessions = [_plan_session(list_records(group), pictures, tracks, delay_index) for _, group in groups]
    pending = [session for session in sessions if session.is_pending]
    lacking, num_unread = [], 0
    for session, worked in _work(pending, objects, features, delays, progress):
        for row, key, done in zip(session.rows, session.keys, worked.recordings, strict=True):
            for what, arrays, array, refusal in (
                ("spectrogram", pictures, done.image, done.refusal),
                ("track", tracks, done.track, done.no_track),
            ):
                if array is not None:
                    arrays.add(key, array)
                elif refusal is not None:
                    lacking.append(_refuse(row, what, refusal))
        unread = sum(done.is_unread for done in worked.recordings)
        num_unread += unread
        if session.task.needs_delays:
            delay_index.add(session.key, session.rows, worked, is_final=not unread)

    pictures.store()
    tracks.store()
    for session in sessions:
        if not session.wants_delays:
            delay_index.add(session.key, session.rows, _say_untimed(session.rows), is_final=False)
    delay_index.store()
    recordings = [pair for session in sessions for pair in zip(session.rows, session.keys, strict=True)]
    index = pictures.list_rows(recordings)
    arrivals, pairs = delay_index.gather({session.key for session in sessions})
    return Features(
        index=index,
        tracks=tracks.list_rows(recordings),
        arrivals=arrivals,
        pairs=pairs,
        refused=_gather_refused(lacking, arrivals),
        num_computed=pictures.num_added,
        num_reused=len(index) - pictures.num_added,
        num_unread=num_unread,
    )


def _plan_session(
    rows: list[dict[str, Any]], pictures: ArrayIndex, tracks: ArrayIndex, delay_index: DelayIndex
) -> _Session:
    keys = [_key_of_recording(row) for row in rows]
    key = _key_of_session(rows, keys)
    wants_delays = sum(map(is_timed, rows)) >= 2
    task = SessionTask(
        rows,
        needs_feature=[name not in pictures for name in keys],
        needs_track=[name not in tracks for name in keys],
        needs_delays=wants_delays and key not in delay_index,
    )
    return _Session(rows, keys, key, wants_delays, task)


def _work(
    pending: Sequence[_Session], objects: ObjectStore, features: FeatureSpec, delays: DelaySpec, progress: Progress
) -> Iterator[tuple[_Session, WorkedSession]]:
    """Yield each session with what came of it."""
    chunks = cut(pending, _SESSIONS_AT_ONCE)
    tasks = [[session.task for session in chunk] for chunk in chunks]
    num_recordings, done = sum(len(session.rows) for session in pending), 0
    for chunk, replies in zip(
        chunks, run_parts(work_sessions, tasks, num_recordings, objects, features, delays), strict=True
    ):
        yield from zip(chunk, replies, strict=True)
        done += len(chunk)
        progress("sessions turned into features", done, len(pending))


def _say_untimed(rows: Sequence[dict[str, Any]]) -> WorkedSession:
    reason = say_untimed(sum(map(is_timed, rows)), len(rows))
    return WorkedSession([Worked(no_arrival=reason) for _ in rows])


def _refuse(row: dict[str, Any], what: str, reason: str) -> dict[str, Any]:
    return {
        "measurement_id": row["measurement_id"],
        "session_id": row["session_id"],
        "what": what,
        "reason": reason,
    }


def _gather_refused(lacking: list[dict[str, Any]], arrivals: pd.DataFrame) -> pd.DataFrame:
    without = list_records(arrivals[arrivals["reason"].notna()])
    refused = lacking + [_refuse(row, "arrival", row["reason"]) for row in without]
    return pd.DataFrame(refused, columns=list(REFUSED_COLUMNS)).astype(REFUSED_COLUMNS)


def _key_of_recording(row: dict[str, Any]) -> str:
    beside = [str(nullable(row.get(name))) for name in ("iq_channel", "iq_full_scale")]
    if (first := nullable(row.get("iq_first_sample"))) is not None:
        beside += [str(first), str(nullable(row["num_samples"])), str(nullable(row["frequency_offset_hz"]))]
    return compute_json_digest([str(row["digest"]), str(row["media_format"]), float(row["sample_rate_hz"]), *beside])


def _key_of_session(rows: list[dict[str, Any]], keys: list[str]) -> str:
    """Return a key of all that decides a session's delays: recordings, starts and their sigmas, positions, clocks."""
    parts = [
        [
            str(row["measurement_id"]),
            key,
            str(nullable(row["start_unix_ns"])),
            str(nullable(row["timing_sigma_s"])),
            float(row["receiver_latitude"]),
            float(row["receiver_longitude"]),
            float(row["receiver_altitude_m"]),
            str(row["clock_class"]),
        ]
        for row, key in zip(rows, keys, strict=True)
    ]
    return compute_json_digest(sorted(parts))
