"""Layout: which part, channel or file holds the reference, and which the wanted transmission.

Belongs here: what is said of it, by options or sidecars, and samples from seconds. Does not belong here: what the
reference says of clocks (``reference_timing``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from heimdall_assets.errors import InvalidRecording, InvalidSetting
from heimdall_assets.physical import Recording

SECONDS, SAMPLES = "s", "samples"

LAST = 1e10
"""No recording holds a second, or a sample, beyond it (``domain.Measurement.iq_samples_count``)."""


@dataclass(frozen=True)
class Part:
    """A part of a recording from ``begin`` up to ``end``, in seconds at the recorder's own rate or in samples."""

    begin: float
    end: float
    unit: str = SECONDS

    def __str__(self) -> str:
        return f"{self.begin:g}:{self.end:g} {self.unit}"

    def count(self, recording: Recording, name: str) -> tuple[int, int]:
        """Return its first sample and the one after its last.

        Raises:
            InvalidRecording: the recording does not hold it.
        """
        rate_hz = recording.sample_rate_hz if self.unit == SECONDS else 1.0
        first, after, whole = round(self.begin * rate_hz), round(self.end * rate_hz), len(recording.samples)
        if after > whole or first >= after:
            raise InvalidRecording(
                f"{name}: part {self}, samples {first} to {after}, expected within its {whole} samples "
                f"({recording.duration_s:.6g} s)"
            )
        return first, after


def parse_part(begin: float, end: float, unit: str, what: str) -> Part:
    """Return a part.

    Raises:
        InvalidSetting: it begins before the recording, does not end after its begin, or halves samples.
    """
    if not 0.0 <= begin < end <= LAST:
        raise InvalidSetting(f"{what}: found {begin:g} to {end:g}, expected 0 to {LAST:g}, and an end after the begin")
    if unit == SAMPLES and (begin % 1 or end % 1):
        raise InvalidSetting(f"{what}: found {begin:g} to {end:g}, expected whole samples")
    return Part(begin, end, unit)


@dataclass(frozen=True)
class Layout:
    """What is said of a file's contents; empty and None: nothing is.

    Attributes:
        reference_parts: where the reference was received, one part for each time.
        wanted_part: where the wanted transmission was.
        reference_channel: which channel holds the reference, from 1.
        reference_file: name of the file, in the same folder, that holds the reference.
    """

    reference_parts: tuple[Part, ...] = ()
    wanted_part: Part | None = None
    reference_channel: int | None = None
    reference_file: str | None = None

    def or_else(self, other: "Layout") -> "Layout":
        """Return this, and where it says nothing what ``other`` says."""
        return Layout(**{item.name: getattr(self, item.name) or getattr(other, item.name) for item in fields(self)})

    def list_said(self) -> list[str]:
        """Return the names of the attributes that say something."""
        return [item.name for item in fields(self) if getattr(self, item.name)]


NOTHING_LAID_OUT = Layout()


def check_apart(reference: Sequence[tuple[int, int]], wanted: tuple[int, int], name: str) -> None:
    """Check that parts of one channel, each (first sample, one after the last), have no sample in common.

    Raises:
        InvalidRecording: two of them do.
    """
    named = [("reference part", part) for part in reference] + [("wanted part", wanted)]
    for place, (what, part) in enumerate(named):
        for other_what, other in named[place + 1 :]:
            if part[0] < other[1] and other[0] < part[1]:
                raise InvalidRecording(
                    f"{name}: {what} (samples {part[0]} to {part[1]}) and {other_what} (samples {other[0]} to "
                    f"{other[1]}) overlap, expected one transmitter in each"
                )
