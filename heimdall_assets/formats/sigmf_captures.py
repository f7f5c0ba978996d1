"""Captures of a SigMF recording: whose samples are whose, which follow each other, when and where they were taken.

Belongs here: ``core:sample_start``, offsets, headers among the samples, gaps. Does not belong here: the other metadata
(``sigmf``). Source: SigMF specification 1.2, "Captures Array".
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.interface import MAX_FREQUENCY_DIFFERENCE_HZ, NUM_SIGMAS
from heimdall_assets.formats.samples import Coding, count_samples
from heimdall_assets.formats.written_times import WrittenTime, parse_time
from heimdall_assets.physical import Place

MAX_CLOCK_DRIFT = 1e-4
"""A later capture's time may stray by this share of what passed since the first: the rate is a nominal one."""


@dataclass(frozen=True)
class Capture:
    """One capture segment: ``start`` and ``end`` count samples of the dataset, from 0."""

    start: int
    end: int
    byte: int
    frequency_hz: float | None
    time: WrittenTime | None
    global_index: int | None
    place: Place | None


def list_captures(
    metadata: dict[str, Any], num_bytes: int, frame_bytes: int, coding: Coding, num_channels: int, name: str
) -> list[Capture]:
    """Return the captures in their order, each with the samples that are its own.

    Args:
        metadata: valid under the schema.
        num_bytes: of the dataset.
        frame_bytes: of one sample of every channel.
        coding: how samples are written.
        num_channels: interleaved ones.
        name: what to call the recording in an error.

    Raises:
        InvalidRecording: headers, offsets or starts that do not fit the dataset, no whole samples, a time or a place
            that is none.
    """
    described = metadata["global"]
    offset = int(described.get("core:offset", 0))
    listed = metadata["captures"] or [{"core:sample_start": offset}]
    headers = [int(item.get("core:header_bytes", 0)) for item in listed]
    extra = sum(headers) + int(described.get("core:trailing_bytes", 0))
    if extra and extra >= num_bytes:
        raise InvalidRecording(f"{name}: {num_bytes} bytes, expected more than the {extra} that are no samples")
    num_samples = count_samples(num_bytes - extra, coding, num_channels, name)
    starts = [int(item["core:sample_start"]) - offset for item in listed]
    if starts[0] != 0 or any(later <= earlier for earlier, later in itertools.pairwise(starts)):
        raise InvalidRecording(
            f"{name}: captures at samples {', '.join(str(start + offset) for start in starts[:4])}, expected the first "
            f"at {offset} (core:offset) and the others after it in rising order"
        )
    if starts[-1] >= num_samples:
        raise InvalidRecording(
            f"{name}: a capture at sample {starts[-1] + offset}, expected one of the {num_samples} from {offset} on"
        )
    captures, header = [], 0
    for number, item in enumerate(listed):
        header += headers[number]
        captures.append(
            Capture(
                start=starts[number],
                end=starts[number + 1] if number + 1 < len(starts) else num_samples,
                byte=header + starts[number] * frame_bytes,
                frequency_hz=None if item.get("core:frequency") is None else float(item["core:frequency"]),
                time=_parse_time(item.get("core:datetime"), name),
                global_index=item.get("core:global_index"),
                place=_parse_place(item.get("core:geolocation"), name),
            )
        )
    return captures


def _parse_time(text: str | None, name: str) -> WrittenTime | None:
    if text is None:
        return None
    try:
        if not text.endswith("Z"):
            raise ValueError
        return parse_time(text)
    except ValueError:
        raise InvalidRecording(
            f"{name}: core:datetime {text!r:.40}, expected a time such as 2026-01-31T12:00:00.123456789Z"
        ) from None


def _parse_place(point: dict[str, Any] | None, name: str) -> Place | None:
    """Return the position of a GeoJSON point: longitude, latitude, height above the ellipsoid."""
    if point is None:
        return None
    from heimdall_assets.domain import Position  # its bounds judge what a file says

    longitude, latitude, *height = point["coordinates"]
    try:
        return Position(latitude=latitude, longitude=longitude, altitude_m=height[0] if height else 0.0)
    except ValueError:
        raise InvalidRecording(
            f"{name}: core:geolocation {point['coordinates']!r:.60}, expected longitude, latitude and height in m"
        ) from None


def find_longest(captures: list[Capture], rate_hz: float) -> list[Capture]:
    """Return the longest stretch of captures without a gap between them, at one frequency."""
    stretches = [[captures[0]]]
    for capture in captures[1:]:
        if _follows(stretches[-1], capture, rate_hz):
            stretches[-1].append(capture)
        else:
            stretches.append([capture])
    return max(stretches, key=lambda stretch: stretch[-1].end - stretch[0].start)


def _follows(stretch: list[Capture], capture: Capture, rate_hz: float) -> bool:
    """Return whether nothing that ``capture`` says speaks against it that it goes on where ``stretch`` ends."""
    last, said_hz, index = stretch[-1], find_frequency_hz(stretch), capture.global_index
    if said_hz is not None and capture.frequency_hz is not None:
        retuned = abs(said_hz - capture.frequency_hz) > MAX_FREQUENCY_DIFFERENCE_HZ
        if retuned:
            return False
    if last.global_index is not None and index is not None and index - last.global_index != capture.start - last.start:
        return False
    timed = next((one for one in stretch if one.time is not None), None)
    if timed is None or timed.time is None or capture.time is None:
        return True
    elapsed_s = (capture.start - timed.start) / rate_hz
    told_s = (capture.time.middle_unix_ns - timed.time.middle_unix_ns) * 1e-9
    doubt_s = NUM_SIGMAS * (capture.time.sigma_s + timed.time.sigma_s) + MAX_CLOCK_DRIFT * elapsed_s + 1.0 / rate_hz
    return abs(told_s - elapsed_s) <= doubt_s


def find_frequency_hz(stretch: list[Capture]) -> float | None:
    """Return the frequency of a stretch; None: no capture of it says one."""
    return next((one.frequency_hz for one in stretch if one.frequency_hz is not None), None)


def find_start(stretch: list[Capture], rate_hz: float) -> tuple[int | None, float | None]:
    """Return the time of the stretch's first sample in ns since 1970-01-01 UTC, and its sigma in s."""
    timed = next((one for one in stretch if one.time is not None), None)
    if timed is None or timed.time is None:
        return None, None
    before_ns = round((timed.start - stretch[0].start) / rate_hz * 1e9)
    return timed.time.middle_unix_ns - before_ns, timed.time.sigma_s


def find_place(stretch: list[Capture], described: dict[str, Any], name: str) -> Place | None:
    """Return where the receiver stood: as the capture says, else as the recording does."""
    place = next((one.place for one in stretch if one.place is not None), None)
    return place if place is not None else _parse_place(described.get("core:geolocation"), name)


def read_stretch(data: bytes, stretch: list[Capture], coding: Coding, num_channels: int, channel: int) -> NDArray[Any]:
    """Return the channel's samples, (N, 2) or, of a real coding, (N,)."""
    width = 2 if coding.is_complex else 1
    parts = [
        np.frombuffer(
            data, coding.component, count=(one.end - one.start) * num_channels * width, offset=one.byte
        ).reshape(-1, num_channels, width)[:, channel - 1]
        for one in stretch
    ]
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return joined if coding.is_complex else joined[:, 0]
