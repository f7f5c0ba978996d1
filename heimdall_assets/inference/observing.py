"""What the recordings of one session say, computed with the settings of a release.

Belongs here: one session's recordings through the steps of ``signals.observation``, and what of them was refused. Does
not belong here: the steps, which the graph takes too; receivers (``inference.receivers``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import UNUSABLE, describe_fault
from heimdall_assets.inference.receivers import Observed, Receiver, observe_nothing
from heimdall_assets.inference.release import ReleaseFolder
from heimdall_assets.learning.pairs import order_pairs
from heimdall_assets.session_set import PairSet
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.signals.observation import (
    Heard,
    Lack,
    Worked,
    WorkedPairs,
    find_arrivals,
    make_image,
    make_track,
    say_untimed,
)


@dataclass(frozen=True)
class Wanted:
    """What a model looks at beside arrivals."""

    spectrograms: bool
    tracks: bool


def observe_recordings(
    receivers: Sequence[Receiver], release: ReleaseFolder, wanted: Wanted
) -> tuple[Observed, list[Lack]]:
    """Return what the recordings of one session say, and what they lack; what is wrong with one costs no other.

    Args:
        receivers: of the session; those without a recording have nothing to say.
        release: whose settings decide.
        wanted: what is computed beside arrivals.
    """
    lacks: list[Lack] = []
    places = [place for place in range(len(receivers)) if _is_usable(receivers[place], release, lacks)]
    if not places:
        return observe_nothing(len(receivers)), lacks
    session = [_hear(receivers[place]) for place in places]
    worked = [Worked() for _ in places]
    for heard, done in zip(session, worked, strict=True):
        if wanted.spectrograms:
            make_image(heard, release.read_settings("FeatureSpec"), done)  # type: ignore[arg-type]  # stands in for it
        if wanted.tracks:
            make_track(heard, done)
    pairs = _find_arrivals(session, release, worked)
    for place, done in zip(places, worked, strict=True):
        name = receivers[place].name
        lacks += [Lack(name, "spectrogram", done.refusal)] if done.refusal else []
        lacks += [Lack(name, "track", done.no_track)] if done.no_track else []
    for place, done in zip(places, worked, strict=True):
        lacks += [Lack(receivers[place].name, "arrival", done.no_arrival)] if done.no_arrival else []
    return _gather(receivers, places, worked, pairs), lacks


def _is_usable(receiver: Receiver, release: ReleaseFolder, lacks: list[Lack]) -> bool:
    """Return whether a receiver has a recording that can be used; what is wrong with it is noted in ``lacks``."""
    if receiver.recording is None:
        return False
    settings: Any = release.read_settings("RecordingSpec")
    try:
        check_recording(receiver.recording, settings, name=receiver.name)
    except UNUSABLE as error:
        lacks.append(Lack(receiver.name, "recording", describe_fault(error)))
        return False
    return True


def _hear(receiver: Receiver) -> Heard:
    label = f"receiver {receiver.name}"
    return Heard(receiver.name, label, str(receiver.clock_class), receiver, receiver.recording)


def _find_arrivals(session: Sequence[Heard], release: ReleaseFolder, worked: Sequence[Worked]) -> WorkedPairs | None:
    timed = [
        heard.clock_class != "none" and heard.recording is not None and heard.recording.start_unix_ns is not None
        for heard in session
    ]
    if sum(timed) >= 2:
        settings: Any = release.read_settings("DelaySpec")
        return find_arrivals(session, settings, worked)
    for done in worked:
        done.no_arrival = say_untimed(sum(timed), len(session))
    return None


def _gather(
    receivers: Sequence[Receiver], places: list[int], worked: Sequence[Worked], pairs: WorkedPairs | None
) -> Observed:
    recordings = [receivers[place].recording for place in places]
    features, feature_row = _stack([done.image for done in worked], places, len(receivers))
    tracks, track_row = _stack([done.track for done in worked], places, len(receivers))
    starts = [None if recording is None else recording.timing_sigma_s for recording in recordings]

    def spread(values: Sequence[float | None]) -> NDArray[np.float64]:
        out = np.full(len(receivers), np.nan)
        out[places] = [np.nan if value is None else value for value in values]
        return out

    return Observed(
        arrival_s=spread([done.arrival_s for done in worked]),
        arrival_sigma_s=spread([done.arrival_sigma_s for done in worked]),
        start_sigma_s=spread(starts),
        coherence=spread([done.coherence for done in worked]),
        feature_row=feature_row,
        track_row=track_row,
        features=features,
        tracks=tracks,
        pairs=_order_pairs(pairs, places, len(receivers)),
        duration_s=next((recording.duration_s for recording in recordings if recording is not None), np.nan),
    )


def _stack(
    arrays: Sequence[NDArray[Any] | None], places: Sequence[int], num: int
) -> tuple[NDArray[Any] | None, NDArray[np.int64]]:
    """Return the arrays that there are as one, and the row of each of ``num`` receivers in it; -1: it has none."""
    row = np.full(num, -1, dtype=np.int64)
    known = [(place, array) for place, array in zip(places, arrays, strict=True) if array is not None]
    row[[place for place, _ in known]] = np.arange(len(known))
    return (np.stack([array for _, array in known]) if known else None), row


def _order_pairs(pairs: WorkedPairs | None, places: Sequence[int], num: int) -> PairSet | None:
    if pairs is None:
        return None
    at = np.array(places, dtype=np.int64)
    numbers = [pairs.coherence, pairs.curvature, np.full(len(pairs.first), pairs.lag_step_s)]
    return order_pairs(
        np.array([0, num], dtype=np.int64),
        (at[pairs.first], at[pairs.second]),
        np.stack(numbers, axis=1),
        np.asarray(pairs.correlation, dtype=np.complex64),
    )
