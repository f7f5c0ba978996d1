"""What one session's recordings say: spectrograms, signal tracks, arrival times or why there is none, pairs.

Belongs here: the steps from recordings in memory, what is wrong with one of them costing no other. Does not belong
here: reading recordings (``pipeline.stages.session_work``, ``inference``), how a spectrogram, a track or a delay is
computed (one module each).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import UNUSABLE, describe_fault
from heimdall_assets.physical import Place, Recording

if TYPE_CHECKING:
    from heimdall_assets.specs import DelaySpec, FeatureSpec


@dataclass(frozen=True)
class Heard:
    """One recording of a session.

    Attributes:
        name: what errors call it.
        label: whose it is, in words: what other recordings of the session are told of it.
        clock_class: how it was timed, one of ``physical.ClockClass``.
        place: where its receiver stood.
        recording: as it was decoded; None: it could not be read.
    """

    name: str
    label: str
    clock_class: str
    place: Place
    recording: Recording | None


@dataclass
class Worked:
    """What came of one recording.

    Attributes:
        image: float32 (3, num_mels, num_frames), dB of full scale; None: not needed, or refused.
        refusal: why there is no spectrogram; None: there is one, or none was needed.
        track: float16 (signal_track.NUM_ROWS, NUM_STEPS); None: not needed, or refused.
        no_track: why there is no track; None: there is one, or none was needed.
        arrival_s, arrival_sigma_s, coherence: as in ``SessionDelays``; NaN: no arrival.
        no_arrival: why there is no arrival; None: there is one, or none was needed.
        is_unread: its bytes could not be had now.
    """

    image: NDArray[np.float32] | None = None
    refusal: str | None = None
    track: NDArray[np.float16] | None = None
    no_track: str | None = None
    arrival_s: float = np.nan
    arrival_sigma_s: float = np.nan
    coherence: float = np.nan
    no_arrival: str | None = None
    is_unread: bool = field(default=False)


@dataclass(frozen=True)
class WorkedPairs:
    """What came of a session's Q pairs of recordings.

    Attributes:
        first, second: int64 (Q,), places of the two in the session's rows.
        coherence, curvature, correlation: (Q, ...), as ``pair_...`` in ``SessionDelays``.
        lag_step_s: distance of two lags.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    coherence: NDArray[np.float64]
    curvature: NDArray[np.float64]
    correlation: NDArray[np.complex64]
    lag_step_s: float


@dataclass(frozen=True)
class WorkedSession:
    """What came of a session: of its recordings, in their order, and of their pairs; None: no delays."""

    recordings: list[Worked]
    pairs: WorkedPairs | None = None


def make_image(heard: Heard, features: "FeatureSpec", done: Worked) -> None:
    """Note a recording's spectrogram in ``done``, or why there is none."""
    # Slow to load, and wanted only where recordings are worked on.
    from heimdall_assets.signals.spectrogram import compute_spectrogram

    if heard.recording is None:
        return
    try:
        done.image = compute_spectrogram(
            heard.recording.samples, heard.recording.sample_rate_hz, features, name=heard.name
        )
    except UNUSABLE as error:
        done.refusal = describe_fault(error)


def make_track(heard: Heard, done: Worked) -> None:
    """Note a recording's signal track in ``done``, or why there is none."""
    from heimdall_assets.signals.signal_track import compute_track

    if heard.recording is None:
        return
    try:
        done.track = compute_track(heard.recording.samples, heard.recording.sample_rate_hz, name=heard.name)
    except UNUSABLE as error:
        done.no_track = describe_fault(error)


def find_arrivals(session: Sequence[Heard], delays: "DelaySpec", worked: Sequence[Worked]) -> WorkedPairs | None:
    """Note in ``worked`` when the transmission arrived at each, or why not; return the pairs it was found from."""
    from heimdall_assets.signals.copies import find_copies, say_lag
    from heimdall_assets.signals.delays import compute_delays

    timed = []
    for index, (heard, done) in enumerate(zip(session, worked, strict=True)):
        if heard.clock_class == "none":
            done.no_arrival = "the receiver's clock runs free (clock class none)"
        elif heard.recording is not None:
            timed.append(index)
    for copy in find_copies([recording.samples for recording in _list_recordings(session, timed)]):
        # Whose it is nobody knows: neither has an arrival.
        for one, other, lag in ((copy.first, copy.second, -copy.lag), (copy.second, copy.first, copy.lag)):
            worked[timed[one]].no_arrival = (
                f"the same recording as that of {session[timed[other]].label}, {say_lag(lag)}: "
                "they differ by no more than rounding, expected each receiver's own"
            )
    timed = [index for index in timed if worked[index].no_arrival is None]
    try:
        solved = compute_delays(_list_recordings(session, timed), [session[index].place for index in timed], delays)
    except UNUSABLE as error:  # the session keeps its levels and spectrograms
        for index in timed:
            worked[index].no_arrival = describe_fault(error)
        return None
    for place, index in enumerate(timed):
        done = worked[index]
        done.arrival_s = float(solved.arrival_s[place])
        done.arrival_sigma_s = float(solved.arrival_sigma_s[place])
        done.coherence = float(solved.coherence[place])
        done.no_arrival = str(solved.reasons[place]) or None
    first, second = np.array(timed, dtype=np.int64)[solved.pairs].T
    return WorkedPairs(
        first, second, solved.pair_coherence, solved.pair_curvature, solved.pair_correlation, solved.lag_step_s
    )


def _list_recordings(session: Sequence[Heard], places: Sequence[int]) -> list[Recording]:
    return [recording for place in places if (recording := session[place].recording) is not None]


def say_untimed(num_timed: int, num_recordings: int) -> str:
    """Return why a session with fewer than two timed recordings has no arrivals."""
    return f"{num_timed} of {num_recordings} recordings of the session are timed by a shared clock, expected 2"


@dataclass(frozen=True)
class Lack:
    """What one receiver's recording lacks: ``what`` of ``LACKS``, and why."""

    receiver: str
    what: str
    reason: str


LACKS = {
    "recording": "left out",
    "spectrogram": "no spectrogram",
    "track": "not demodulated",
    "arrival": "no arrival time",
}
"""What a recording may lack -> how it is told."""


def say_lacks(lacks: Sequence[Lack]) -> list[str]:
    """Return a line for each reason of one session: the receivers, what they lack, and why.

    Examples:
        >>> short = [Lack(name, "track", "too short") for name in "AB"]
        >>> say_lacks([*short, Lack("A", "arrival", "no start")])
        ['A, B: not demodulated: too short', 'A: no arrival time: no start']
    """
    whats: dict[tuple[str, str], list[str]] = {}  # receiver and reason -> what it lacks
    for lack in lacks:
        whats.setdefault((lack.receiver, lack.reason), []).append(LACKS[lack.what])
    receivers: dict[tuple[str, str], list[str]] = {}
    for (receiver, reason), lacking in whats.items():
        receivers.setdefault((", ".join(lacking), reason), []).append(receiver)
    return [f"{', '.join(named)}: {what}: {reason}" for (what, reason), named in receivers.items()]
