"""Sidecars: ``FILE.json`` says beside ``FILE`` what recordings of its format cannot say themselves.

Belongs here: what a sidecar may hold, and reading plain files of a bounded size. Does not belong here: what counts when
several sources speak (``handed_in``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heimdall_assets.domain import Altitude, Frequency, FullScale, Latitude, Longitude, Position, SampleRate
from heimdall_assets.errors import InvalidInput, InvalidRecording, InvalidSetting, NotFound
from heimdall_assets.formats.interface import Stated
from heimdall_assets.formats.strict_json import parse_strict_json
from heimdall_assets.formats.written_times import parse_time
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.layout import SAMPLES, SECONDS, Layout, Part, parse_part
from heimdall_assets.stores.objects.regular_files import check_regular_file
from heimdall_assets.suggestions import suggest_name

SIDECAR = ".json"
"""What the name of a sidecar adds to its file's: ``A.cu8.json`` speaks of ``A.cu8``."""

_MAX_SIDECAR_BYTES = 1_000_000


class Sidecar(BaseModel):
    """What ``FILE.json`` may say of ``FILE``; everything may be missing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    station: str | None = None
    sample_rate_hz: SampleRate | None = None
    start: str | None = None
    frequency_hz: Frequency | None = None
    full_scale: FullScale | None = None
    channel: int | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    altitude_m: Altitude | None = None
    clock_class: ClockClass | None = None
    reference_parts_s: list[list[float]] | None = None
    wanted_part_s: list[float] | None = None
    reference_parts_samples: list[list[int]] | None = None
    wanted_part_samples: list[int] | None = None
    reference_channel: Annotated[int, Field(ge=1, le=1024)] | None = None
    reference_file: str | None = None

    @property
    def position(self) -> Position | None:
        """Where the receiver stood; None: it is not said."""
        if self.latitude is None or self.longitude is None:
            return None
        return Position(latitude=self.latitude, longitude=self.longitude, altitude_m=self.altitude_m or 0.0)


def read_bounded(path: Path, max_bytes: int, error: type[InvalidInput]) -> bytes:
    """Return the bytes of a plain file of at most ``max_bytes``; a device or pipe would never end.

    Raises:
        NotFound: there is no such file.
        InvalidInput: of type ``error``: it is none that is regular, it is longer, or the system refuses to read it.
    """
    try:
        check_regular_file(path, error=error)
        if not path.exists():
            raise NotFound(f"{path}: found no file, expected one to import")
        if path.stat().st_size > max_bytes:
            raise error(f"{path.name}: {path.stat().st_size} bytes, expected at most {max_bytes}")
        return path.read_bytes()
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror})") from None


def read_sidecar(path: Path) -> Sidecar | None:
    """Return what stands beside a file; None: nothing does.

    Raises:
        InvalidRecording: what stands there is no regular file, or no JSON object of a sidecar's names and types.
    """
    beside = path.with_name(path.name + SIDECAR)
    if not beside.exists():
        return None
    data = read_bounded(beside, _MAX_SIDECAR_BYTES, InvalidRecording)
    try:
        content = parse_strict_json(data)
    except ValueError as error:
        raise InvalidRecording(f"{beside.name}: no strict JSON ({error!s:.100}), expected an object") from None
    if not isinstance(content, dict):
        raise InvalidRecording(f"{beside.name}: found {type(content).__name__}, expected an object")
    for name in content:
        if name not in Sidecar.model_fields:
            near = suggest_name(name, {known: known for known in Sidecar.model_fields})
            known = f"{near}?" if near else f"one of {', '.join(Sidecar.model_fields)}"
            raise InvalidRecording(f"{beside.name}: found {name!r:.60}, expected {known}")
    try:
        # JSON has no enumerations: the word is turned into one here, since nothing else is converted.
        clock = content.get("clock_class")
        sidecar = Sidecar.model_validate(content | ({"clock_class": ClockClass(clock)} if clock is not None else {}))
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{first['loc'][0]} {first['input']!r:.40}, {first['msg']}" if first else f"clock_class {clock!r:.40}"
        raise InvalidRecording(f"{beside.name}: found {what}") from None
    if (sidecar.latitude is None) != (sidecar.longitude is None):
        raise InvalidRecording(f"{beside.name}: found one of latitude and longitude, expected both or none")
    return sidecar


def parse_sidecar(sidecar: Sidecar, path: Path) -> Stated:
    """Return what the sidecar of ``path`` says of samples, time and frequency.

    Raises:
        InvalidRecording: its start is no time with a zone.
    """
    start = None
    if sidecar.start is not None:
        try:
            start = parse_time(sidecar.start)
        except ValueError as error:
            raise InvalidRecording(
                f"{path.name}{SIDECAR}: start {sidecar.start!r:.60}, expected an ISO 8601 time with a zone such as "
                f"2026-11-20T10:00:00.123456789Z ({error!s:.60})"
            ) from None
    return Stated(
        sample_rate_hz=sidecar.sample_rate_hz,
        start_unix_ns=None if start is None else start.middle_unix_ns,
        start_sigma_s=None if start is None else start.sigma_s,
        frequency_hz=sidecar.frequency_hz,
        full_scale=sidecar.full_scale,
        channel=sidecar.channel,
    )


def parse_layout(sidecar: Sidecar, path: Path) -> Layout:
    """Return which part of ``path`` holds what, as its sidecar says.

    Raises:
        InvalidRecording: a part is no pair of begin and end, is said in seconds and in samples, or its other file is
            named by a path.
    """
    name = f"{path.name}{SIDECAR}"
    named = sidecar.reference_file
    if named is not None and (named in ("", "..") or Path(named).name != named):
        raise InvalidRecording(f"{name}: reference_file {sidecar.reference_file!r:.60}, expected a name in its folder")
    references = _parse_parts(sidecar.reference_parts_s, sidecar.reference_parts_samples, f"{name}: reference_parts")
    wanted = _parse_parts(
        None if sidecar.wanted_part_s is None else [sidecar.wanted_part_s],
        None if sidecar.wanted_part_samples is None else [sidecar.wanted_part_samples],
        f"{name}: wanted_part",
    )
    return Layout(references, wanted[0] if wanted else None, sidecar.reference_channel, sidecar.reference_file)


def _parse_parts(
    seconds: Sequence[Sequence[float]] | None, samples: Sequence[Sequence[int]] | None, what: str
) -> tuple[Part, ...]:
    if seconds is not None and samples is not None:
        raise InvalidRecording(f"{what}: found in seconds and in samples, expected one of them")
    given, unit = (seconds, SECONDS) if samples is None else (samples, SAMPLES)
    parts = []
    for pair in given or ():
        if len(pair) != 2:
            raise InvalidRecording(f"{what}: found {len(pair)} numbers, expected begin and end")
        try:
            parts.append(parse_part(pair[0], pair[1], unit, what))
        except InvalidSetting as error:
            raise InvalidRecording(str(error)) from None
    return tuple(parts)
