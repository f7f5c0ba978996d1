"""Datasets: recordings ingested, features packed and sessions assembled, each only where it is new.

Belongs here: the loops over many recordings that read the object store, hand arrays to ``signals`` and keep what comes
back. Does not belong here: how one spectrogram, delay or session is computed.

What was computed is found again in cumulative indexes (one Parquet table a spec, behind a reference). Losing an index
loses no result: it is computed again. Features rest in immutable shards, one contiguous array each.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray

from heimdall_assets.domain import IqFormat, Position, Recording, SessionSet
from heimdall_assets.errors import HeimdallError, InvalidRecording
from heimdall_assets.learning.data import assemble_sessions
from heimdall_assets.manifests import (
    NPY_MEDIA_TYPE,
    PARQUET_MEDIA_TYPE,
    Manifest,
    compute_json_digest,
)
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.specs import DelaySpec, FeatureSpec, RecordingSpec, TimingSpec
from heimdall_assets.stores.objects import ObjectStore
from heimdall_assets.stores.readers import decode_recording
from heimdall_assets.stores.results import read_parent
from heimdall_assets.stores.tables import decode_table, encode_table, load_table

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, how many there are."""

CODE_VERSION = "1"
"""Raised when recordings, features or delays come out differently from the same bytes and specs."""

SHARD_BYTES = 64_000_000
BYTES_PER_SAMPLE = 16  # complex128, the widest format read
PARALLEL_FROM = 64  # fewer recordings are done before worker processes have started

RECORDING_COLUMNS = {
    "measurement_id": "string",
    "session_id": "string",
    "status": "string",  # ok | refused
    "reason": "string",
    "digest": "string",
    "media_format": "string",
    "sample_rate_hz": "float64",
    "num_samples": "Int64",
    "start_unix_ns": "Int64",
    "timing_sigma_s": "float64",
    "duration_s": "float64",
    "level_dbfs": "float64",
    "clipped_fraction": "float64",
}


@dataclass(frozen=True)
class Computed:
    """A table, how many of its rows were computed now, and how many were found."""

    table: pd.DataFrame
    num_computed: int
    num_reused: int


def read_index(objects: ObjectStore, name: str) -> pd.DataFrame | None:
    """Return the cumulative index behind reference ``name``, or None where there is none or it is damaged."""
    try:
        digest = objects.read_reference(name)
        return None if digest is None else decode_table(objects.read_bytes(digest))
    except HeimdallError:
        return None


def write_index(objects: ObjectStore, name: str, table: pd.DataFrame) -> None:
    """Store ``table`` and let reference ``name`` point at it."""
    objects.write_reference(name, objects.put_bytes(encode_table(table), PARQUET_MEDIA_TYPE).digest)


def _list_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in record.items()} for record in table.to_dict("records")]


def _nullable(value: Any) -> Any:
    return None if pd.isna(value) else value


def _run(worker: Callable[..., Any], tasks: Sequence[Any], num_items: int, *shared: Any) -> Iterable[Any]:
    """Yield ``worker(task, *shared)`` for each task, in order; over processes where there are enough items."""
    jobs = cpu_count() if num_items >= PARALLEL_FROM else 1
    if jobs == 1:
        return (worker(task, *shared) for task in tasks)
    return Parallel(n_jobs=jobs, return_as="generator")(delayed(worker)(task, *shared) for task in tasks)


def _chunk(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


# --- recordings -------------------------------------------------------------------------------------------------------


def decode_row(data: bytes, row: dict[str, Any], max_samples: int) -> Recording:
    """Return the recording of a row's bytes, read as the row says.

    Raises:
        InvalidRecording: the bytes are not what the row says, or nothing that can be read.
    """
    return decode_recording(
        data,
        IqFormat(row["iq_data_format"]),
        name=str(row["iq_data_location"]),
        sample_rate_hz=_nullable(row["iq_sample_rate_hz"]),
        start_unix_ns=_nullable(row["iq_start_unix_ns"]),
        max_samples=max_samples,
    )


def _ingest_row(objects: ObjectStore, row: dict[str, Any], spec: RecordingSpec) -> dict[str, Any]:
    known = {"measurement_id": row["measurement_id"], "session_id": row["session_id"]}
    location = str(row["iq_data_location"])
    try:
        if _nullable(row["iq_data_format"]) is None:
            raise InvalidRecording(
                f"{location}: found no iq_data_format, expected one of {[f.value for f in IqFormat]}"
            )
        data = objects.read_location(location, max_bytes=spec.max_samples * BYTES_PER_SAMPLE)
        recording = decode_row(data, row, spec.max_samples)
        facts = check_recording(
            recording,
            spec,
            name=location,
            expected_rate_hz=_nullable(row["iq_sample_rate_hz"]),
            expected_num_samples=_nullable(row["iq_samples_count"]),
        )
    except (HeimdallError, ValueError) as error:
        return {**known, "status": "refused", "reason": str(error)}
    digest = location.removeprefix("sha256:")
    if digest == location:  # a named object may change under its name: keep what was read, under its content
        digest = objects.put_bytes(
            data, NPY_MEDIA_TYPE if row["iq_data_format"] == "npy" else "application/octet-stream"
        ).digest
    return {
        **known,
        "status": "ok",
        "digest": digest,
        "media_format": str(row["iq_data_format"]),
        "sample_rate_hz": recording.sample_rate_hz,
        "num_samples": len(recording.samples),
        "start_unix_ns": recording.start_unix_ns,
        "timing_sigma_s": recording.timing_sigma_s,
        "duration_s": recording.duration_s,
        "level_dbfs": facts["rms_dbfs"],
        "clipped_fraction": facts["clipped_fraction"],
    }


def _ingest_rows(rows: Sequence[dict[str, Any]], objects: ObjectStore, spec: RecordingSpec) -> list[dict[str, Any]]:
    return [_ingest_row(objects, row, spec) for row in rows]


_ROW_FIELDS = [
    "measurement_id",
    "session_id",
    "iq_data_location",
    "iq_data_format",
    "iq_sample_rate_hz",
    "iq_samples_count",
    "iq_start_unix_ns",
]


def _key_of_row(row: dict[str, Any]) -> str:
    return compute_json_digest([str(_nullable(row[name])) for name in _ROW_FIELDS])


def ingest_recordings(
    objects: ObjectStore, approved: pd.DataFrame, spec: RecordingSpec, progress: Progress
) -> Computed:
    """Return one row for each measurement that names an IQ object: checked, under its digest, or refused with a reason.

    One bad recording never stops the others. Objects named by content are not read twice; objects named by path may
    have changed and are always read.
    """
    rows = _list_records(approved.loc[approved["iq_data_location"].notna(), _ROW_FIELDS])
    keys = [_key_of_row(row) for row in rows]
    name = f"recordings/{spec.digest()}-{CODE_VERSION}"
    index = read_index(objects, name)
    known: dict[str, dict[str, Any]] = {}
    if index is not None:
        known = {record.pop("key"): record for record in _list_records(index)}
    found: list[dict[str, Any] | None] = []
    for key, row in zip(keys, rows, strict=True):
        record = known.get(key) if str(row["iq_data_location"]).startswith("sha256:") else None
        found.append(record if record is not None and objects.exists(str(record["digest"])) else None)
    missing = [row for row, record in zip(rows, found, strict=True) if record is None]
    fresh: list[dict[str, Any]] = []
    for part in _run(_ingest_rows, _chunk(missing, 16), len(missing), objects, spec):
        fresh.extend(part)
        progress("recordings checked", len(fresh), len(missing))
    replies = iter(fresh)
    records = [record if record is not None else next(replies) for record in found]
    table = pd.DataFrame(records, columns=list(RECORDING_COLUMNS)).astype(RECORDING_COLUMNS)
    if fresh:
        good = table.assign(key=keys)[table["status"] == "ok"]
        old = index[~index["key"].isin(good["key"])] if index is not None else None
        write_index(objects, name, good if old is None else pd.concat([old, good], ignore_index=True))
    return Computed(table, len(fresh), len(rows) - len(missing))


# --- features ---------------------------------------------------------------------------------------------------------

FEATURE_COLUMNS = {"measurement_id": "string", "key": "string", "shard": "string", "row": "int64"}
ARRIVAL_COLUMNS = {
    "measurement_id": "string",
    "session_id": "string",
    "key": "string",
    "arrival_s": "float64",
    "arrival_sigma_s": "float64",
    "coherence": "float64",
}


@dataclass(frozen=True)
class _Task:
    """One session's work: its recordings, which of them need a spectrogram, and whether delays are needed."""

    rows: list[dict[str, Any]]
    needs_feature: list[bool]
    needs_delays: bool


def _decode_checked(data: bytes, row: dict[str, Any]) -> Recording:
    return decode_row(data, row, max_samples=len(data))  # checked before: its own size bounds it


def _work_session(
    task: _Task, objects: ObjectStore, features: FeatureSpec, delays: DelaySpec
) -> tuple[list[NDArray[np.float32] | str | None], list[tuple[float, float, float]]]:
    """Return each row's spectrogram (a reason where there is none, None where none is needed), and its arrivals."""
    # Slow to load, and wanted only where recordings are worked on.
    from heimdall_assets.signals.delays import compute_delays
    from heimdall_assets.signals.spectrogram import compute_spectrogram

    recordings = [_decode_checked(objects.read_bytes(row["digest"]), row) for row in task.rows]
    images: list[NDArray[np.float32] | str | None] = []
    for row, recording, needed in zip(task.rows, recordings, task.needs_feature, strict=True):
        image: NDArray[np.float32] | str | None
        try:
            image = (
                compute_spectrogram(
                    recording.samples, recording.sample_rate_hz, features, name=str(row["iq_data_location"])
                )
                if needed
                else None
            )
        except HeimdallError as error:
            image = str(error)
        images.append(image)
    arrivals = [(np.nan, np.nan, np.nan)] * len(task.rows)
    if task.needs_delays:
        timed = [index for index, row in enumerate(task.rows) if row["clock_class"] != "none"]
        receivers = [
            Position(
                latitude=task.rows[index]["receiver_latitude"],
                longitude=task.rows[index]["receiver_longitude"],
                altitude_m=task.rows[index]["receiver_altitude_m"],
            )
            for index in timed
        ]
        try:
            solved = compute_delays([recordings[index] for index in timed], receivers, delays)
        except HeimdallError:
            return images, arrivals  # no common signal: the session keeps its levels and spectrograms
        for place, index in enumerate(timed):
            arrivals[index] = (
                float(solved.arrival_s[place]),
                float(solved.arrival_sigma_s[place]),
                float(solved.coherence[place]),
            )
    return images, arrivals


def _work_sessions(tasks: Sequence[_Task], *shared: Any) -> list[Any]:
    return [_work_session(task, *shared) for task in tasks]


@dataclass(frozen=True)
class Features:
    """Index of spectrograms, arrivals of each session's receivers, what had no spectrogram, and how much was new."""

    index: pd.DataFrame
    arrivals: pd.DataFrame
    refused: pd.DataFrame
    num_computed: int
    num_reused: int


def _needs_delays(rows: list[dict[str, Any]]) -> bool:
    return sum(row["clock_class"] != "none" and _nullable(row["start_unix_ns"]) is not None for row in rows) >= 2


def compute_features(
    objects: ObjectStore,
    rows: pd.DataFrame,
    features: FeatureSpec,
    delays: DelaySpec,
    progress: Progress,
) -> Features:
    """Return spectrograms and delays of all given recordings, computing only those not yet known.

    Args:
        rows: approved rows joined with their ingested recordings (``RECORDING_COLUMNS``), status ok only.
    """
    spectrogram_name = f"features/{features.digest()}-{CODE_VERSION}"
    delay_name = f"delays/{delays.digest()}-{CODE_VERSION}"
    known_features = _read_feature_index(objects, spectrogram_name)
    delay_index = read_index(objects, delay_name)
    known_delays = {} if delay_index is None else dict(tuple(delay_index.groupby("key")))

    tasks: list[_Task] = []
    feature_rows: list[dict[str, Any]] = []
    arrival_tables: list[pd.DataFrame] = []
    pending_keys: list[str] = []
    columns = ["measurement_id", "session_id"]
    for _, group in rows.groupby("session_id", sort=True):
        records = _list_records(group)
        keys = [_key_of_recording(record) for record in records]
        needs = [key not in known_features for key in keys]
        session_key = _key_of_session(records, keys)
        wanted = _needs_delays(records)
        known = known_delays.get(session_key)
        for record, key in zip(records, keys, strict=True):
            feature_rows.append({"measurement_id": record["measurement_id"], "key": key})
        if wanted and known is not None:
            arrival_tables.append(known[list(ARRIVAL_COLUMNS)])
        if any(needs) or (wanted and known is None):
            tasks.append(_Task(records, needs, wanted and known is None))
            pending_keys.append(session_key)

    images: list[NDArray[np.float32]] = []
    image_keys: list[str] = []
    refused: list[dict[str, Any]] = []
    fresh_arrivals: list[dict[str, Any]] = []
    done = 0
    chunks = _chunk(tasks, 4)
    num_items = sum(len(task.rows) for task in tasks)
    for chunk_index, replies in enumerate(_run(_work_sessions, chunks, num_items, objects, features, delays)):
        for offset, (task, (task_images, arrivals)) in enumerate(zip(chunks[chunk_index], replies, strict=True)):
            for row, image in zip(task.rows, task_images, strict=True):
                if isinstance(image, str):
                    refused.append({name: row[name] for name in columns} | {"reason": image})
                elif image is not None:
                    images.append(image)
                    image_keys.append(_key_of_recording(row))
            if task.needs_delays:
                key = pending_keys[chunk_index * 4 + offset]
                fresh_arrivals.extend(
                    {name: row[name] for name in columns}
                    | {"key": key, "arrival_s": arrival, "arrival_sigma_s": sigma, "coherence": coherence}
                    for row, (arrival, sigma, coherence) in zip(task.rows, arrivals, strict=True)
                )
            done += 1
        progress("sessions turned into features", done, len(tasks))

    places = known_features | _pack_shards(objects, images, image_keys)
    if images:
        stored = pd.DataFrame([(key, *place) for key, place in places.items()], columns=["key", "shard", "row"])
        write_index(objects, spectrogram_name, stored)
    fresh_table = pd.DataFrame(fresh_arrivals, columns=list(ARRIVAL_COLUMNS)).astype(ARRIVAL_COLUMNS)
    if fresh_arrivals:
        parts = [fresh_table] if delay_index is None else [delay_index, fresh_table]
        write_index(objects, delay_name, pd.concat(parts, ignore_index=True))
    index = [
        {**row, "shard": places[row["key"]][0], "row": places[row["key"]][1]}
        for row in feature_rows
        if row["key"] in places
    ]
    tables = [table for table in [*arrival_tables, fresh_table] if len(table)]
    arrivals_table = pd.concat(tables, ignore_index=True) if tables else fresh_table
    return Features(
        index=pd.DataFrame(index, columns=list(FEATURE_COLUMNS)).astype(FEATURE_COLUMNS),
        arrivals=arrivals_table.astype(ARRIVAL_COLUMNS).sort_values(
            ["session_id", "measurement_id"], ignore_index=True
        ),
        refused=pd.DataFrame(refused, columns=[*columns, "reason"]).astype("string"),
        num_computed=len(images),
        num_reused=len(index) - len(images),
    )


def _read_feature_index(objects: ObjectStore, name: str) -> dict[str, tuple[str, int]]:
    index = read_index(objects, name)
    if index is None:
        return {}
    present = {shard: objects.exists(shard) for shard in index["shard"].unique()}
    rows = zip(index["key"], index["shard"], index["row"], strict=True)
    return {key: (str(shard), int(row)) for key, shard, row in rows if present[shard]}


def _key_of_recording(row: dict[str, Any]) -> str:
    return compute_json_digest([str(row["digest"]), str(row["media_format"]), float(row["sample_rate_hz"])])


def _key_of_session(rows: list[dict[str, Any]], keys: list[str]) -> str:
    """Return a key of all that decides a session's delays: recordings, start times, positions and clocks."""
    parts = [
        [
            str(row["measurement_id"]),
            key,
            str(_nullable(row["start_unix_ns"])),
            float(row["receiver_latitude"]),
            float(row["receiver_longitude"]),
            float(row["receiver_altitude_m"]),
            str(row["clock_class"]),
        ]
        for row, key in zip(rows, keys, strict=True)
    ]
    return compute_json_digest(sorted(parts))


def _pack_shards(
    objects: ObjectStore, images: list[NDArray[np.float32]], keys: list[str]
) -> dict[str, tuple[str, int]]:
    """Store ``images`` in immutable shards; return key -> (shard digest, row)."""
    places: dict[str, tuple[str, int]] = {}
    if not images:
        return places
    per_shard = max(1, SHARD_BYTES // images[0].nbytes)
    for part, part_keys in zip(_chunk(images, per_shard), _chunk(keys, per_shard), strict=True):
        digest = objects.put_bytes(encode_shard(part), NPY_MEDIA_TYPE).digest
        places.update((key, (digest, row)) for row, key in enumerate(part_keys))
    return places


def encode_shard(images: Sequence[NDArray[np.float32]]) -> bytes:
    """Return the one encoding of a shard: spectrograms one after the other, as ``.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack(images), allow_pickle=False)
    return buffer.getvalue()


def load_features(objects: ObjectStore, index: pd.DataFrame) -> tuple[pd.DataFrame | None, NDArray[np.float32] | None]:
    """Return ``index`` with its rows renumbered, and the one array they count in: float32 (F, 3, mels, frames).

    Both are None where there is no feature at all. A single shard that is used whole stays memory-mapped; otherwise
    the rows are gathered.
    """
    if not len(index):
        return None, None
    shards = {
        shard: np.load(objects.local_path(shard), mmap_mode="r", allow_pickle=False) for shard in set(index["shard"])
    }
    if len(shards) == 1 and len(index) == len(next(iter(shards.values()))):
        return index, next(iter(shards.values()))
    ordered = index.sort_values(["shard", "row"], ignore_index=True)
    parts = [shards[str(shard)][group["row"].to_numpy()] for shard, group in ordered.groupby("shard", sort=True)]
    return ordered.assign(row=np.arange(len(ordered), dtype=np.int64)), np.concatenate(parts)


# --- sessions ---------------------------------------------------------------------------------------------------------


def load_sessions(objects: ObjectStore, split: Manifest) -> SessionSet:
    """Return the sessions of a split manifest with everything that was computed of them."""
    features = read_parent(objects, split, "spectrogram_features")
    approved = load_table(objects, read_parent(objects, features, "approved_measurements").artifacts["table"])
    members = load_table(objects, split.artifacts["table"])
    rows = approved[approved["session_id"].isin(members["session_id"])]
    index = load_table(objects, features.artifacts["index"])
    used, images = load_features(objects, index[index["measurement_id"].isin(rows["measurement_id"])])
    arrivals = load_table(objects, features.artifacts["arrivals"])
    return assemble_sessions(rows, used, arrivals, images, TimingSpec(**split.specs["TimingSpec"]), members)


def observe_sessions(
    objects: ObjectStore,
    rows: pd.DataFrame,
    recordings: RecordingSpec,
    features: FeatureSpec,
    delays: DelaySpec,
    timing: TimingSpec,
    progress: Progress,
) -> tuple[SessionSet, pd.DataFrame]:
    """Return sessions of any approval straight from their rows, and the recordings that were refused, with reasons.

    The same steps as the asset graph's, for locating and judging outside a materialization.
    """
    checked = ingest_recordings(objects, rows, recordings, progress).table
    good = checked[checked["status"] == "ok"].drop(columns=["session_id", "duration_s"])
    joined = rows.merge(good, on="measurement_id", how="inner", validate="one_to_one")
    made = compute_features(objects, joined, features, delays, progress)
    index, images = load_features(objects, made.index)
    sessions = assemble_sessions(rows, index, made.arrivals, images, timing)
    return sessions, checked.loc[checked["status"] != "ok", ["measurement_id", "session_id", "reason"]]
