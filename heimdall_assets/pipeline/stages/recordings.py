"""Recordings: every one that a table of measurements names, read, checked and pinned by its digest.

Belongs here: the loop over recordings, and what is remembered of each. Does not belong here: formats (``formats``),
what makes a recording usable (``signals.iq``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.errors import UNUSABLE, InvalidRecording, NotFound, OutOfReach, StorageError, describe_fault
from heimdall_assets.formats import FORMATS, Stated, decode_recording
from heimdall_assets.kinds import IQ_FILES
from heimdall_assets.manifests import compute_json_digest
from heimdall_assets.physical import NANOSECOND_SIGMA_S, Recording
from heimdall_assets.pipeline.recipe import STAGES, name_index
from heimdall_assets.pipeline.work_pool import Progress, cut, run_parts
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores.computing import note_cache
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.tables import list_records, nullable, read_index, write_index

UNREAD = (NotFound, StorageError, MemoryError)
"""Bytes that could not be had now; they may come back, so nothing that lacks them is taken for final."""

RECORDING_COLUMNS = STAGES[IQ_FILES].columns["table"]

_ROW_FIELDS = [
    "measurement_id",
    "session_id",
    "iq_data_location",
    "iq_data_format",
    "iq_sample_rate_hz",
    "iq_samples_count",
    "iq_start_unix_ns",
]
_LATER_FIELDS = ["iq_start_sigma_s", "iq_full_scale", "iq_channel"]
_PART_FIELDS = ["iq_first_sample", "frequency_offset_hz"]
"""What came later is in a snapshot only where some row has a value; these two decide parts of recordings alone."""

_BYTES_PER_SAMPLE = 16  # complex128, the widest format read


@dataclass(frozen=True)
class Ingested:
    """One row (``RECORDING_COLUMNS``) a recording, how many were checked now, and how many were known before."""

    table: pd.DataFrame
    num_computed: int
    num_reused: int


def decode_row(data: bytes, row: dict[str, Any], max_samples: int) -> Recording:
    """Return the recording of a row's bytes, read as the row says.

    Args:
        data: the whole file.
        row: with what ``domain.Measurement`` says of IQ; what came later may be missing.
        max_samples: longer recordings are refused before anything is allocated.

    Raises:
        InvalidRecording: the bytes are not what the row says, or nothing that can be read.
    """
    name, first = str(row["iq_data_location"]), nullable(row.get("iq_first_sample"))
    stated = Stated(
        sample_rate_hz=nullable(row["iq_sample_rate_hz"]),
        start_unix_ns=nullable(row["iq_start_unix_ns"]),
        start_sigma_s=nullable(row.get("iq_start_sigma_s")),
        full_scale=nullable(row.get("iq_full_scale")),
        channel=nullable(row.get("iq_channel")),
    )
    if first is None:
        return decode_recording(data, str(row["iq_data_format"]), name=name, stated=stated, max_samples=max_samples)
    # Start and rate are those of the part, found out from a reference: a file's own clock was the one that erred.
    own_clock = FORMATS[str(row["iq_data_format"])].clock_class if row["iq_data_format"] in FORMATS else None
    beside = replace(stated, start_sigma_s=None, start_unix_ns=stated.start_unix_ns if own_clock else None)
    if own_clock is not None:  # such a file counts from a day that it does not say
        whole = FORMATS[str(row["iq_data_format"])].decode(data, name, beside, max_samples)
    else:
        whole = decode_recording(data, str(row["iq_data_format"]), name=name, stated=beside, max_samples=max_samples)
    rate_hz = stated.sample_rate_hz or whole.sample_rate_hz
    part = cut_part(whole, first, nullable(row["iq_samples_count"]), name)
    return replace(
        part,
        samples=_tune(part.samples, (nullable(row.get("frequency_offset_hz")) or 0.0) / rate_hz),
        sample_rate_hz=rate_hz,
        start_unix_ns=stated.start_unix_ns,
        timing_sigma_s=None if stated.start_unix_ns is None else stated.start_sigma_s or NANOSECOND_SIGMA_S,
    )


def _tune(samples: NDArray[np.complex64], cycles_a_sample: float) -> NDArray[np.complex64]:
    """Return samples whose receiver was mistuned as if it had not been; what it lost at the band's edge stays lost."""
    if not cycles_a_sample:
        return samples
    turns = cycles_a_sample * np.arange(len(samples))
    tuned: NDArray[np.complex64] = samples * np.exp(-2j * np.pi * (turns - np.rint(turns))).astype(np.complex64)
    return tuned


def cut_part(recording: Recording, first: int, num_samples: int | None, name: str) -> Recording:
    """Return the part of a recording that begins with its sample number ``first``, from 0; its start is not looked at.

    Raises:
        InvalidRecording: the recording does not hold it, or nobody says how long it is.
    """
    whole = len(recording.samples)
    if num_samples is None or num_samples < 1 or first + num_samples > whole:
        raise InvalidRecording(
            f"{name}: part of {num_samples} samples from sample {first} on, expected one within its {whole} samples"
        )
    return replace(recording, samples=recording.samples[first : first + num_samples])


def ingest_recordings(
    objects: ObjectStore, approved: pd.DataFrame, spec: RecordingSpec, progress: Progress
) -> Ingested:
    """Return one row for each measurement that names an IQ object: checked, under its digest, or refused with a reason.

    One bad recording never stops the others. Objects named by content are not read twice; objects named by path may
    have changed and are always read.

    Args:
        objects: where the recordings rest.
        approved: rows with ``domain.APPROVED_COLUMNS``.
        spec: the limits of a usable recording.
        progress: told how many recordings are checked.

    Raises:
        OutOfReach: the service that holds recordings cannot be asked.
        StorageError: what was read from a named object could not be stored under its digest.
    """
    fields = _ROW_FIELDS + [name for name in (*_LATER_FIELDS, *_PART_FIELDS) if name in approved.columns]
    rows = list_records(approved.loc[approved["iq_data_location"].notna(), fields])
    keys = [_key_of_row(row) for row in rows]
    name = name_index(IQ_FILES, "recordings", spec)
    index = read_index(objects, name)
    known: dict[str, dict[str, Any]] = {}
    if index is not None:
        known = {record.pop("key"): record for record in list_records(index.table)}
    found = [
        known.get(key) if str(row["iq_data_location"]).startswith("sha256:") else None
        for key, row in zip(keys, rows, strict=True)
    ]
    present = objects.find_present({str(record["digest"]) for record in found if record is not None})
    found = [record if record is not None and str(record["digest"]) in present else None for record in found]
    missing = [row for row, record in zip(rows, found, strict=True) if record is None]
    if index is not None and len(missing) < len(rows):
        note_cache(index.name, index.digest)
    fresh: list[dict[str, Any]] = []
    for part in run_parts(_ingest_rows, cut(missing, 16), len(missing), objects, spec):
        fresh.extend(part)
        progress("recordings checked", len(fresh), len(missing))
    replies = iter(fresh)
    records = [record if record is not None else next(replies) for record in found]
    table = pd.DataFrame(records, columns=list(RECORDING_COLUMNS)).astype(RECORDING_COLUMNS)
    if fresh:
        good = table.assign(key=keys)[table["status"] == "ok"]
        old = index.table[~index.table["key"].isin(good["key"])] if index is not None else None
        write_index(objects, name, good if old is None else pd.concat([old, good], ignore_index=True))
    return Ingested(table, len(fresh), len(rows) - len(missing))


def _ingest_rows(rows: Sequence[dict[str, Any]], objects: ObjectStore, spec: RecordingSpec) -> list[dict[str, Any]]:
    return [_ingest_row(objects, row, spec) for row in rows]


def _ingest_row(objects: ObjectStore, row: dict[str, Any], spec: RecordingSpec) -> dict[str, Any]:
    known = {"measurement_id": row["measurement_id"], "session_id": row["session_id"]}
    location = str(row["iq_data_location"])
    try:
        if nullable(row["iq_data_format"]) is None:
            raise InvalidRecording(f"{location}: found no iq_data_format, expected one of {', '.join(sorted(FORMATS))}")
        data = objects.read_location(location, max_bytes=spec.max_samples * _BYTES_PER_SAMPLE)
        recording = decode_row(data, row, spec.max_samples)
        facts = check_recording(
            recording,
            spec,
            name=location,
            expected_rate_hz=nullable(row["iq_sample_rate_hz"]),
            expected_num_samples=nullable(row["iq_samples_count"]),
        )
    except OutOfReach:
        raise  # of each of them: a run on what happened to be read before would be another one
    except UNREAD as error:
        return {**known, "status": "unread", "reason": describe_fault(error)}
    except UNUSABLE as error:
        return {**known, "status": "refused", "reason": describe_fault(error)}
    digest = location.removeprefix("sha256:")
    if digest == location:  # a named object may change under its name: keep what was read, under its content
        digest = objects.put_bytes(data, FORMATS[str(row["iq_data_format"])].media_type).digest
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


def _key_of_row(row: dict[str, Any]) -> str:
    is_part = nullable(row.get("iq_first_sample")) is not None
    part = [str(nullable(row.get(name))) for name in _PART_FIELDS] if is_part else []
    return compute_json_digest([*(str(nullable(row.get(name))) for name in (*_ROW_FIELDS, *_LATER_FIELDS)), *part])
