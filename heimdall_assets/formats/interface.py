"""What every format of recordings is: one record in its own module, found by name, by ending, or by first bytes.

Belongs here: the record, what may be said beside a file, and how that and the file's own word are brought together.
Does not belong here: any format (one module each), opening files (``intake.files``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.physical import NANOSECOND_SIGMA_S, ClockClass, Recording

MAX_RATE_DIFFERENCE = 1e-3
"""A stated sample rate and a file's own agree within this share: the true rate differs from the nominal one by less."""

MAX_START_DIFFERENCE_NS = 1_000_000
"""A stated start and a file's own agree within this; another estimator may differ by microseconds."""

MAX_FREQUENCY_DIFFERENCE_HZ = 1.0

NUM_SIGMAS = 3.0
"""Two times agree within this many of their sigmas together."""

MIN_RATE_HZ, MAX_RATE_HZ = 500.0, 1e9
"""Below lies what was written in kHz (24, 48, 250), or samples slower than any receiver's; above, nobody samples."""

HEAD_BYTES = 64
"""How much of a file is looked at to tell its format."""


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What is said beside a file, by its row, its name, a sidecar or whoever imports it; None: nothing is said.

    Attributes:
        sample_rate_hz: samples in a second.
        start_unix_ns: time of the first sample, ns since 1970-01-01 UTC.
        start_sigma_s: one-sigma error of the start against other receivers' starts; None: known to the nanosecond.
        frequency_hz: radio frequency of 0 Hz baseband.
        full_scale: value of floating samples that is full scale; None: 1.0.
        channel: which of several channels, from 1; None: the only one.
    """

    sample_rate_hz: float | None = None
    start_unix_ns: int | None = None
    start_sigma_s: float | None = None
    frequency_hz: float | None = None
    full_scale: float | None = None
    channel: int | None = None

    def list_said(self) -> list[str]:
        """Return the names of the attributes that say something."""
        return [item.name for item in fields(self) if getattr(self, item.name) is not None]

    def or_else(self, other: "Stated") -> "Stated":
        """Return this, and where it says nothing what ``other`` says; a start comes with its own sigma."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.start_unix_ns is None:
            values.update(start_unix_ns=other.start_unix_ns, start_sigma_s=other.start_sigma_s)
        for name in ("sample_rate_hz", "frequency_hz", "full_scale", "channel"):
            values[name] = values[name] if values[name] is not None else getattr(other, name)
        return Stated(**values)


NOTHING_STATED = Stated()

WORDS = {
    "sample_rate_hz": "sample rate",
    "start_unix_ns": "start",
    "start_sigma_s": "error of the start",
    "frequency_hz": "frequency",
    "full_scale": "full scale",
    "channel": "channel",
}
"""Attribute of ``Stated`` -> what people call it."""

Decode = Callable[[bytes, str, Stated, int], Recording]
"""(whole file, what to call it in an error, what is said beside it, most samples) -> its recording."""


@dataclass(frozen=True)
class FileName:
    """What a file's name says: the station's code, and what its format leaves out; None and empty: nothing."""

    station: str | None = None
    stated: Stated = Stated()


@dataclass(frozen=True)
class Parts:
    """A recording that lies in several files.

    Attributes:
        main: how the name of the file ends that is named for all of them.
        other: how the name of another one ends, where it follows the main one's; it may be named too.
        list_others: (its name, its bytes) -> names of the others, in the same folder.
        pack: (its name, its bytes, name -> bytes of the others) -> one file that holds them all.
    """

    main: str
    other: str
    list_others: Callable[[str, bytes], list[str]]
    pack: Callable[[str, bytes, Mapping[str, bytes]], bytes]


@dataclass(frozen=True)
class Collection:
    """A file that lists recordings: how its name ends; (its bytes, its name) -> name beside it -> its SHA-512."""

    ending: str
    list_members: Callable[[bytes, str], dict[str, str]]


@dataclass(frozen=True)
class Format:
    """One format of recordings.

    Attributes:
        name: what rows call it (``iq_data_format``).
        command: what ``heimdall import`` calls it.
        title: what it is, for people.
        endings: how names of its files end; empty: no ending tells it.
        media_type: of its files.
        decode: reads it; raises ``InvalidRecording`` for whatever is wrong, before anything large is allocated.
        may_state: attributes of ``Stated`` that may be said where the file does not say them.
        must_state: those of them that no file of this format says.
        clock_class: how its recordings are timed, where the format itself says so; None: whoever imports says it.
        read_name: what a file's name says.
        recognises: whether a file that begins so, ``HEAD_BYTES`` of it, is surely one of this format.
        parts: where a recording may lie in several files; None: always in one.
        collection: where a file may list several recordings; None: never.
    """

    name: str
    command: str
    title: str
    endings: tuple[str, ...]
    media_type: str
    decode: Decode
    may_state: frozenset[str] = frozenset()
    must_state: frozenset[str] = frozenset()
    clock_class: ClockClass | None = None
    read_name: Callable[[str], FileName] = lambda name: FileName()
    recognises: Callable[[bytes], bool] = lambda head: False
    parts: Parts | None = None
    collection: Collection | None = None

    def fits(self, file_name: str) -> bool:
        """Return whether a file's name has an ending of this format."""
        return file_name.lower().endswith(self.endings)

    def strip_ending(self, file_name: str) -> str:
        """Return a file's name without the longest ending of this format, or else without what follows its last dot."""
        fitting = [len(ending) for ending in self.endings if file_name.lower().endswith(ending)]
        return file_name[: -max(fitting)] if fitting else file_name.rpartition(".")[0] or file_name


def take_rate_hz(said: float | None, stated: Stated, name: str) -> float:
    """Return the sample rate that the file says, or else the stated one.

    Raises:
        InvalidRecording: neither says one, it is not positive, or both do and disagree.
    """
    told = stated.sample_rate_hz
    if said is None and told is None:
        raise InvalidRecording(f"{name}: no sample rate, expected one in the file or stated beside it (--rate-hz)")
    if said is not None and told is not None and not abs(said - told) <= MAX_RATE_DIFFERENCE * abs(told):
        raise InvalidRecording(
            f"{name}: sample rate {said:.6g} Hz in the file, expected the stated {told:.6g} Hz within "
            f"{MAX_RATE_DIFFERENCE:g} of it"
        )
    rate_hz = float(said if said is not None else told)  # type: ignore[arg-type]  # one of them is
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        kilo = " (is it in kHz?)" if 1.0 <= rate_hz < MIN_RATE_HZ else ""
        raise InvalidRecording(f"{name}: sample rate {rate_hz:g} Hz, expected {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g}{kilo}")
    return rate_hz


def take_start(
    said_unix_ns: int | None, said_sigma_s: float | None, stated: Stated, name: str
) -> tuple[int | None, float | None]:
    """Return start and its sigma as the file says them, or else as stated; None, None: neither says a start.

    Raises:
        InvalidRecording: both say one and disagree by more than ``MAX_START_DIFFERENCE_NS`` and their sigmas.
    """
    told = stated.start_unix_ns
    if said_unix_ns is None:
        return (None, None) if told is None else (told, stated.start_sigma_s or NANOSECOND_SIGMA_S)
    if told is not None:
        difference_ns = said_unix_ns - told
        doubt_s = (said_sigma_s or 0.0) + (stated.start_sigma_s or 0.0)
        limit_ns = MAX_START_DIFFERENCE_NS + NUM_SIGMAS * doubt_s * 1e9
        if abs(difference_ns) > limit_ns:
            raise InvalidRecording(
                f"{name}: first sample {difference_ns / 1e6:.3f} ms after the stated time, expected at most "
                f"{limit_ns / 1e6:.3g} ms of difference"
            )
    return said_unix_ns, said_sigma_s


def take_frequency_hz(said: float | None, stated: Stated, name: str) -> float | None:
    """Return the frequency that the file says, or else the stated one; None: neither says one.

    Raises:
        InvalidRecording: both do and disagree.
    """
    told = stated.frequency_hz
    if said is not None and told is not None and not abs(said - told) <= MAX_FREQUENCY_DIFFERENCE_HZ:
        raise InvalidRecording(f"{name}: frequency {said:.10g} Hz in the file, expected the stated {told:.10g} Hz")
    return said if said is not None else told
