"""Reference timing: the clocks of a session's receivers set by a transmitter of known place that all of them recorded.

Belongs here: from decoded files, of which parts hold the reference, to wanted parts with the start and rate that the
reference gives them. Does not belong here: the estimate (``signals.reference_clock``), which part holds what
(``layout``), rows (``iq_session``).

Nothing is cut out of what is stored: the row says which samples it is of.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidRecording, InvalidSetting
from heimdall_assets.locating.reach import compute_reach_m
from heimdall_assets.physical import Recording
from heimdall_assets.pipeline.intake.handed_in import Handed, Told, find_format, read_recording, tell_file
from heimdall_assets.pipeline.intake.layout import NOTHING_LAID_OUT, Layout, check_apart
from heimdall_assets.pipeline.intake.own_recordings import check_own, keep_beginning
from heimdall_assets.signals.acquisition import Stretch
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.signals.reference_clock import Clock, ClockFit, Reference, fit_clocks
from heimdall_assets.specs import RecordingSpec


@dataclass(frozen=True)
class ReferenceClaim:
    """What whoever imports says about the reference.

    Attributes:
        reference: the transmitter, and how far to look for it.
        layout: which part or channel of each file holds what; a sidecar may say it of its file.
        files: station -> the file of the same receiver that holds the reference, where it is another one.
    """

    reference: Reference
    layout: Layout = NOTHING_LAID_OUT
    files: Mapping[str, Handed] = field(default_factory=dict)


@dataclass(frozen=True)
class Heard:
    """One receiver's recording of reference and wanted transmission, before its clock is known.

    Attributes:
        name: of the file.
        station: that made it.
        wanted: the wanted part.
        first_sample: its first sample in the file.
        start_unix_ns: of the wanted part, as the receiver's own clock has it.
        references: parts that hold the reference, each with its start in ns on the same clock.
        start_sigma_s: how well the two files' starts are written down, where there are two.
        attributes: which parts they were.
    """

    name: str
    station: str
    wanted: Recording
    first_sample: int
    start_unix_ns: int
    references: tuple[tuple[Recording, int], ...]
    start_sigma_s: float
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Timed:
    """A wanted part with the start and the rate that the reference gives it, and how it was found.

    ``offset_hz`` is by how much higher the wanted carrier stands in it than in the mean of all receivers:
    their oscillators' errors shift it and the reference's in proportion to frequency.
    """

    recording: Recording
    first_sample: int
    start_sigma_s: float
    offset_hz: float
    attributes: dict[str, Any]
    remark: str


def hear(told: Told, whole: Recording, station: str, claim: ReferenceClaim, spec: RecordingSpec) -> Heard:
    """Return the parts of one receiver's recording.

    Raises:
        InvalidSetting: nobody says where the reference is, or which part is the wanted one.
        InvalidRecording: a part lies beyond the file, overlaps another, or is unusable.
    """
    name, layout = told.handed.path.name, claim.layout.or_else(told.layout)
    own_file = claim.files.get(station)
    if own_file is None and layout.reference_file is not None:
        own_file = Handed(told.handed.path.with_name(layout.reference_file), station, layout.reference_channel)
    is_elsewhere = own_file is not None or layout.reference_channel is not None
    if not is_elsewhere and not (layout.reference_parts and layout.wanted_part):
        lacks = (
            "reference part" if layout.wanted_part else "wanted part" if layout.reference_parts else "part of either"
        )
        raise InvalidSetting(
            f"{name}: says no {lacks}, expected --reference-part and --wanted-part, --reference-channel, "
            "--reference-recording, or the same in its sidecar"
        )
    assert whole.start_unix_ns is not None  # checked before
    first, after = (0, len(whole.samples)) if layout.wanted_part is None else layout.wanted_part.count(whole, name)
    holder, source, doubt_s = name, whole, 0.0
    attributes: dict[str, Any] = {}
    if own_file is not None:
        holder, source, attributes = _read_other(own_file, told, claim, spec)
        doubt_s = float(np.hypot(whole.timing_sigma_s or 0.0, source.timing_sigma_s or 0.0))
    elif layout.reference_channel is not None:
        source, attributes = _read_channel(told, layout.reference_channel, spec), {"channel": layout.reference_channel}
    parts = [part.count(source, holder) for part in layout.reference_parts] or [(0, len(source.samples))]
    if not is_elsewhere:
        check_apart(parts, (first, after), name)
    elif len(parts) > 1:
        check_apart(parts[1:], parts[0], holder)
    references = []
    for begin, end in parts:
        part = _cut(source, begin, end)
        check_recording(part, spec, name=f"{holder}, reference (samples {begin} to {end})")
        references.append((part, _start_of(source, begin)))
    attributes["parts"] = [list(part) for part in parts]
    return Heard(
        name, station, _cut(whole, first, after), first, _start_of(whole, first), tuple(references), doubt_s, attributes
    )


def _cut(recording: Recording, first: int, after: int) -> Recording:
    """Return a copy of a part, so that the rest of a long recording need not stay in memory."""
    return replace(recording, samples=recording.samples[first:after].copy())


def _start_of(recording: Recording, first: int) -> int:
    if recording.start_unix_ns is None:
        raise InvalidRecording("a reference without a start")
    return recording.start_unix_ns + round(first / recording.sample_rate_hz * 1e9)


def _read_channel(told: Told, channel: int, spec: RecordingSpec) -> Recording:
    name = told.handed.path.name
    if told.stated.channel is None:
        raise InvalidSetting(
            f"{name}: reference in channel {channel}, expected the wanted one named too (--recording CODE=FILE#CHANNEL)"
        )
    if told.stated.channel == channel:
        raise InvalidSetting(
            f"{name}: channel {channel} holds reference and wanted transmission, expected two channels"
        )
    other = replace(told, stated=replace(told.stated, channel=channel, frequency_hz=None))
    return other.decode(read_recording(told, spec), spec)


def _read_other(
    handed: Handed, told: Told, claim: ReferenceClaim, spec: RecordingSpec
) -> tuple[str, Recording, dict[str, Any]]:
    """Return name and recording of the file that holds the reference, and what is worth keeping of it."""
    name = handed.path.name
    if handed.path.resolve() == told.handed.path.resolve():
        raise InvalidSetting(f"{name}: holds reference and wanted transmission, expected two files, or parts of one")
    # A start that was said is the wanted file's; of a format with a clock of its own it is a day to count from.
    start_unix_ns = told.stated.start_unix_ns if find_format(handed.path).clock_class is not None else None
    frequency_hz = claim.reference.search.carrier_hz
    stated = replace(
        told.stated, channel=None, start_unix_ns=start_unix_ns, start_sigma_s=None, frequency_hz=frequency_hz
    )
    other = tell_file(handed, stated, None, is_complete=False, is_lenient=True)
    if said := other.layout.list_said():
        raise InvalidRecording(f"{name}: its sidecar says {said[0]}, expected it in that of the wanted recording")
    data = read_recording(other, spec)
    recording = other.decode(data, spec)
    if recording.start_unix_ns is None:
        raise InvalidRecording(f"{name}: does not say when it starts, expected a time on the clock of its receiver")
    return name, recording, {"file_name": name, "file_sha256": hashlib.sha256(data).hexdigest()}


def set_clocks(heard: Sequence[Heard], positions: Sequence[Position], claim: ReferenceClaim) -> list[Timed]:
    """Return the wanted parts of all receivers on one clock.

    Args:
        heard: by R receivers.
        positions: where they stood.
        claim: the reference.

    Raises:
        InvalidRecording: no receiver can hear the reference where it is said to be, or two have one recording of it.
        CannotLocate: as ``fit_clocks``.
    """
    _check_reach(heard, positions, claim.reference)
    _check_own(heard)
    zero_ns = min(one.start_unix_ns for one in heard)

    def place(recording: Recording, start_ns: int) -> Stretch:
        return Stretch(recording, (start_ns - zero_ns) * 1e-9)

    wanted = [place(one.wanted, one.start_unix_ns) for one in heard]
    references = [[place(*part) for part in one.references] for one in heard]
    fit = fit_clocks([one.name for one in heard], references, wanted, positions, claim.reference)
    timed = []
    mean_hz = float(np.mean([clock.offset_hz for clock in fit.clocks]))
    for one, aim, clock in zip(heard, wanted, fit.clocks, strict=True):
        corrected = clock.correct(aim)
        sigma_s = float(np.hypot(clock.sigma_s, one.start_sigma_s))
        start_unix_ns = zero_ns + round(corrected.start_s * 1e9)
        recording = replace(corrected.recording, start_unix_ns=start_unix_ns, timing_sigma_s=sigma_s)
        moved_s = (start_unix_ns - one.start_unix_ns) * 1e-9
        rate_error = recording.sample_rate_hz / one.wanted.sample_rate_hz - 1.0
        attributes = _describe(claim.reference, clock, fit) | one.attributes
        attributes |= {"start_moved_s": moved_s, "rate_error": rate_error, "start_sigma_s": sigma_s}
        timed.append(
            Timed(
                recording,
                one.first_sample,
                sigma_s,
                (clock.offset_hz - mean_hz)
                * (one.wanted.centre_frequency_hz or 0.0)
                / claim.reference.search.carrier_hz,
                attributes,
                _remark(one.name, claim.reference.name, moved_s, rate_error, sigma_s, clock),
            )
        )
    return timed


def _check_reach(heard: Sequence[Heard], positions: Sequence[Position], reference: Reference) -> None:
    here = reference.position
    for one, place in zip(heard, positions, strict=True):
        away_m = float(compute_distance_m(here.latitude, here.longitude, place.latitude, place.longitude))
        reach_m = float(compute_reach_m(reference.search.carrier_hz, here.altitude_m, place.altitude_m))
        if away_m > reach_m:
            raise InvalidRecording(
                f"{one.name}: reference {reference.name} at {here.latitude:.5f}, {here.longitude:.5f} is "
                f"{away_m / 1000:,.0f} km from station {one.station}, expected at most {reach_m / 1000:,.0f} km "
                "(radio horizon)"
            )


def _check_own(heard: Sequence[Heard]) -> None:
    """Check that no two receivers were given the same reference: a recording agrees with itself as no other does."""
    names, samples, owners = [], [], []
    for owner, one in enumerate(heard):
        for part, _ in one.references:
            names.append(f"{one.name}, reference of station {one.station}")
            samples.append(keep_beginning(part.samples))
            owners.append(owner)
    check_own(names, samples, owners)


def _describe(reference: Reference, clock: Clock, fit: ClockFit) -> dict[str, Any]:
    return {
        "name": reference.name,
        "latitude": reference.position.latitude,
        "longitude": reference.position.longitude,
        "altitude_m": reference.position.altitude_m,
        "margin_m": reference.margin_m,
        "frequency_hz": reference.search.carrier_hz,
        "coherence": clock.coherence,
        "offset_hz": clock.offset_hz,
        "rate_sigma": clock.rate_sigma,
        "chi_square": fit.chi_square,
        "num_blocks": fit.num_blocks,
    }


def _remark(name: str, reference: str, moved_s: float, rate_error: float, sigma_s: float, clock: Clock) -> str:
    return (
        f"{name}: clock set by {reference}: start {moved_s * 1e3:+.6f} ms, rate {rate_error * 1e6:+.3f} ppm, one sigma "
        f"{_say_time(sigma_s)}, coherence {clock.coherence:.2f}"
    )


def _say_time(value_s: float) -> str:
    """Return a short time in the unit that fits.

    Examples:
        >>> _say_time(4.1e-8), _say_time(2.5e-6), _say_time(0.0031)
        ('41 ns', '2.5 us', '3.1 ms')
    """
    for unit, scale in (("ns", 1e9), ("us", 1e6)):
        if value_s * scale < 1000.0:
            return f"{value_s * scale:.3g} {unit}"
    return f"{value_s * 1e3:.3g} ms"
