"""The IQ files of one session: each decoded and checked, all of them of the same transmission, then stored and added.

Belongs here: what every import of IQ files shares, whatever their formats. Does not belong here: formats (``formats``),
what is known of a file before it is read (``handed_in``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from heimdall_assets.domain import ImportBatch, Measurement, Origin, Position, Session, Source, Station
from heimdall_assets.errors import InvalidRecording, InvalidSetting
from heimdall_assets.formats import Stated
from heimdall_assets.manifests import compute_digest
from heimdall_assets.physical import NANOSECOND_SIGMA_S, ClockClass, Recording
from heimdall_assets.pipeline.intake.handed_in import Told, find_station, read_recording
from heimdall_assets.pipeline.intake.identities import (
    RECEIVER_MARGIN_M,
    check_session_name,
    compute_id,
    make_station,
)
from heimdall_assets.pipeline.intake.own_recordings import check_own, keep_beginning
from heimdall_assets.pipeline.intake.reference_timing import ReferenceClaim, Timed, hear, set_clocks
from heimdall_assets.pipeline.truth import check_truth
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.specs import RecordingSpec, TimingSpec
from heimdall_assets.stores.database.measurements import ImportReport, MeasurementStore
from heimdall_assets.stores.objects.folder import ObjectStore

MAX_UNIX_NS = 2**63 - 2**60
"""Ends in the year 2225: a time and the end of its recording fit a 64-bit column."""

_LEFT_OUT = {
    "num_samples_left_out": "samples before or after a gap or a change of frequency are left out",
    "num_bytes_left_out": "bytes of a last block, whose recorder was stopped, are left out",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class SessionClaim:
    """What whoever imports says about a session.

    Attributes:
        name: of the session; with ``campaign`` its identity.
        source: the transmitter (see ``identities.make_source``).
        campaign: the campaign that the session belongs to.
        receivers: station code -> position; may lack stations whose files say where they stood.
        clock_class: how receivers were timed whose files do not say it; ``none`` gives no delays.
        receiver_margin_m: by how much a stated position and a file's own may differ.
        waiver: why the source is there although who heard it contradicts that (see ``pipeline.truth``).
        reference: the transmitter that clocks are set by; None: they were right when they were recorded.
    """

    name: str
    source: Source
    campaign: str
    receivers: Mapping[str, Position]
    clock_class: ClockClass = ClockClass.NONE
    receiver_margin_m: float = RECEIVER_MARGIN_M
    waiver: str | None = None
    reference: ReferenceClaim | None = None


@dataclass(frozen=True)
class ImportedSession:
    """What an import added, and what is worth knowing of it, a line each."""

    report: ImportReport
    remarks: list[str]


@dataclass(frozen=True)
class _Part:
    """A decoded and checked file with what of its samples is ``compared``; its bytes are read again when stored."""

    told: Told
    station: str
    position: Position
    clock_class: ClockClass
    digest: str
    sample_rate_hz: float
    num_samples: int
    start_unix_ns: int
    timing_sigma_s: float
    frequency_hz: float
    beside: Stated
    attributes: dict[str, Any] = field(repr=False)
    compared: NDArray[np.complex64] = field(repr=False)
    timed: Timed | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.told.handed.path.name

    @property
    def end_unix_ns(self) -> int:
        return self.start_unix_ns + round(self.num_samples / self.sample_rate_hz * 1e9)


def add_iq_session(
    measurements: MeasurementStore,
    objects: ObjectStore,
    claim: SessionClaim,
    files: Sequence[Told],
    spec: RecordingSpec,
) -> ImportedSession:
    """Return what was added of one pending session made of ``files``, and remarks on it.

    Raises:
        InvalidIdentifier: the session's or campaign's name is none.
        InvalidSetting: a clock is stated of files whose format says it.
        InvalidRecording: there are no files, or one is unusable, untimed, of a station that has one already, elsewhere
            than stated, of another time than the first one, or a copy of another. Nothing is added.
        Refused: a recording is in another session, or no receiver can have heard the source where it is said to be.
    """
    check_session_name(claim.name, claim.campaign)
    _check_reference(claim, files)
    for told in files:  # all names before the first of many megabytes is read
        if told.format.clock_class is not None and claim.clock_class is not ClockClass.NONE:
            raise InvalidSetting(
                f"{told.handed.path.name}: found a stated clock {claim.clock_class}, expected none: the file says it"
            )
        if told.format.parts is None:
            find_station(told, claim.receivers, told.position is not None)
    if claim.reference is None:
        parts = [_examine(told, read_recording(told, spec), claim, spec) for told in files]
    else:
        parts = _examine_by_reference(files, claim, claim.reference, spec)
    _check_parts(parts, spec, claim.name)
    batch = check_truth(_build_batch(claim, parts), claim.waiver)
    for part in parts:
        data = read_recording(part.told, spec)
        if compute_digest(data) != part.digest:
            raise InvalidRecording(f"{part.name}: changed while it was imported, expected the bytes just checked")
        objects.put_bytes(data, part.told.format.media_type)
    return ImportedSession(measurements.add(batch), _remark(parts))


def _check_reference(claim: SessionClaim, files: Sequence[Told]) -> None:
    """Check that clocks are said to be set by a reference exactly where there is one."""
    if claim.reference is None:
        said = [f"{told.handed.path.name}: {said}" for told in files for said in told.layout.list_said()]
        clocks = {claim.clock_class, *(told.clock_class for told in files)}
        if said or ClockClass.REFERENCE in clocks:
            found = f"{said[0]}" if said else f"clock {ClockClass.REFERENCE}"
            raise InvalidSetting(f"{found}: found no reference, expected one (--reference-transmitter NAME=LAT,LON)")
    elif claim.clock_class not in (ClockClass.NONE, ClockClass.REFERENCE):
        raise InvalidSetting(
            f"clock {claim.clock_class}: found beside a reference, expected none: that sets the clocks"
        )


def _examine_by_reference(
    files: Sequence[Told], claim: SessionClaim, reference: ReferenceClaim, spec: RecordingSpec
) -> list[_Part]:
    """Return the wanted part of each file, with the start and the rate that the reference gives it."""
    heard, wholes = [], []
    for told in files:
        data = read_recording(told, spec)
        whole = told.decode(data, spec)
        _check_told(whole, told.handed.path.name)
        station, position = _place(told, whole, claim)
        heard.append(hear(told, whole, station, reference, spec))
        wholes.append((position, compute_digest(data)))
    unused = sorted(reference.files.keys() - {one.station for one in heard})
    if unused:
        raise InvalidSetting(f"--reference-recording {unused[0]}: found no other file of that station, expected one")
    positions = [position for position, _ in wholes]
    timed = set_clocks(heard, positions, reference)
    return [
        _describe(told, digest, one.recording, claim, spec, one)
        for told, (_, digest), one in zip(files, wholes, timed, strict=True)
    ]


def _examine(told: Told, data: bytes, claim: SessionClaim, spec: RecordingSpec) -> _Part:
    recording = told.decode(data, spec)
    _check_told(recording, told.handed.path.name)
    return _describe(told, compute_digest(data), recording, claim, spec)


def _check_told(recording: Recording, name: str) -> None:
    """Check that it is known when a recording starts, and where on the band."""
    if recording.start_unix_ns is None:
        raise InvalidRecording(f"{name}: does not say when it starts, expected a time (--start, or a sidecar)")
    if not 0 <= recording.start_unix_ns < MAX_UNIX_NS:
        raise InvalidRecording(
            f"{name}: starts {recording.start_unix_ns} ns after 1970, expected a time from 1970 to 2225"
        )
    if recording.centre_frequency_hz is None:
        raise InvalidRecording(f"{name}: does not say its frequency, expected one (--frequency-hz, or a sidecar)")


def _describe(
    told: Told, digest: str, recording: Recording, claim: SessionClaim, spec: RecordingSpec, timed: Timed | None = None
) -> _Part:
    """Return what is kept of a recording, or of the part of it that was timed by a reference."""
    name = told.handed.path.name
    facts = check_recording(recording, spec, name=name)
    assert recording.start_unix_ns is not None  # both were checked before
    assert recording.centre_frequency_hz is not None
    station, position = _place(told, recording, claim)
    kept = ("rms_dbfs", "peak_dbfs", "dc_dbfs", "clipped_fraction", "zero_fraction")
    beside = told.tell(recording)
    if timed is not None:
        beside = replace(beside, start_sigma_s=timed.start_sigma_s)
    sigma_s = recording.timing_sigma_s if recording.timing_sigma_s is not None else NANOSECOND_SIGMA_S
    return _Part(
        told=told,
        station=station,
        position=position,
        clock_class=ClockClass.REFERENCE if timed is not None else told.clock_class or claim.clock_class,
        digest=digest,
        sample_rate_hz=recording.sample_rate_hz,
        num_samples=len(recording.samples),
        start_unix_ns=recording.start_unix_ns,
        timing_sigma_s=sigma_s,
        frequency_hz=recording.centre_frequency_hz,
        beside=beside,
        attributes={
            "file_name": name,
            "timing_sigma_s": sigma_s,
            **{name: facts[name] for name in kept},
            **recording.attributes,
            **({} if timed is None else {"reference": timed.attributes}),
        },
        compared=keep_beginning(recording.samples),
        timed=timed,
    )


def _place(told: Told, recording: Recording, claim: SessionClaim) -> tuple[str, Position]:
    """Return the station that made a file and where it stood: as stated, else as its sidecar or it itself says."""
    own, said = told.position, recording.position
    if own is None and said is not None:
        own = Position(latitude=said.latitude, longitude=said.longitude, altitude_m=said.altitude_m)
    station = find_station(told, claim.receivers, own is not None)
    stated = claim.receivers.get(station)
    if stated is None:
        assert own is not None  # else there is no such station
        return station, own
    if own is not None:
        apart_m = float(compute_distance_m(stated.latitude, stated.longitude, own.latitude, own.longitude))
        if apart_m > claim.receiver_margin_m:
            raise InvalidRecording(
                f"{told.handed.path.name}: says that it was made at {own.latitude:.5f}, {own.longitude:.5f}, "
                f"{apart_m:,.0f} m from where station {station} is stated, expected at most "
                f"{claim.receiver_margin_m:g} m (--receiver-margin-m)"
            )
    return station, stated


def _check_parts(parts: Sequence[_Part], spec: RecordingSpec, session_name: str) -> None:
    if not parts:
        raise InvalidRecording(f"session {session_name}: no files, expected at least one")
    seen: dict[str, _Part] = {}
    for part in parts:
        if part.station in seen:
            raise InvalidRecording(
                f"{part.name}: station {part.station} already has {seen[part.station].name}, expected one "
                "file a station"
            )
        seen[part.station] = part
    by_digest: dict[str, _Part] = {}
    for part in parts:
        other = by_digest.setdefault(f"{part.digest}#{part.beside.channel}", part)
        if other is not part:
            raise InvalidRecording(
                f"{part.name}: the same bytes as {other.name}, expected each station's own recording"
            )
    first = parts[0]
    for part in parts[1:]:
        common_s = (min(first.end_unix_ns, part.end_unix_ns) - max(first.start_unix_ns, part.start_unix_ns)) * 1e-9
        if common_s < spec.min_duration_s:
            raise InvalidRecording(
                f"{part.name}: overlaps {first.name} by {common_s:.3f} s, expected at least "
                f"{spec.min_duration_s:g} s of the same transmission"
            )
    check_own([part.name for part in parts], [part.compared for part in parts], range(len(parts)))


def _remark(parts: Sequence[_Part]) -> list[str]:
    """Return a line for each file that knows the time worse than its clock, or of which something is left out."""
    remarks, timing = [], TimingSpec()
    for part in parts:
        claimed_s = timing.sigma_s(part.clock_class)
        if part.timed is not None:
            remarks.append(part.timed.remark)
        elif part.timing_sigma_s > claimed_s:
            remarks.append(
                f"{part.name}: its start is known to {part.timing_sigma_s:.2g} s (one sigma), worse than clock "
                f"{part.clock_class} claims ({claimed_s:.2g} s); both count"
            )
        for attribute, what in _LEFT_OUT.items():
            if part.attributes.get(attribute):
                remarks.append(f"{part.name}: {part.attributes[attribute]} {what}")
        if part.attributes.get("analytic_signal"):
            remarks.append(f"{part.name}: real samples, read as their analytic signal")
    return remarks


def _build_batch(claim: SessionClaim, parts: Sequence[_Part]) -> ImportBatch:
    session = Session(
        id=compute_id("session", claim.campaign, claim.name),
        name=claim.name,
        source_id=claim.source.id,
        campaign=claim.campaign,
        origin=Origin.MEASURED,
        start=_to_datetime(min(part.start_unix_ns for part in parts)),
        end=_to_datetime(max(part.end_unix_ns for part in parts)),
    )
    stations = [make_station(part.station, part.position, part.clock_class) for part in parts]
    return ImportBatch(
        stations=stations,
        sources=[claim.source],
        sessions=[session],
        measurements=[
            _build_measurement(part, station, session) for part, station in zip(parts, stations, strict=True)
        ],
    )


def _build_measurement(part: _Part, station: Station, session: Session) -> Measurement:
    try:
        return Measurement(
            id=compute_id("measurement", session.id, station.id),
            session_id=session.id,
            station_id=station.id,
            timestamp=_to_datetime(part.start_unix_ns),
            frequency_hz=part.frequency_hz,
            frequency_offset_hz=None if part.timed is None else part.timed.offset_hz,
            iq_data_location=f"sha256:{part.digest}",
            iq_data_format=part.told.format.name,
            iq_sample_rate_hz=part.sample_rate_hz,
            iq_samples_count=part.num_samples,
            iq_start_unix_ns=part.start_unix_ns,
            iq_start_sigma_s=part.beside.start_sigma_s,
            iq_full_scale=part.beside.full_scale,
            iq_channel=part.beside.channel,
            iq_first_sample=None if part.timed is None else part.timed.first_sample,
            duration_s=part.num_samples / part.sample_rate_hz,
            attributes=part.attributes,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRecording(
            f"{part.name}: {first['loc'][0]} {first['input']!r:.60}, expected otherwise: {first['msg']}"
        ) from None


def _to_datetime(unix_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_ns // 1000)
