"""Receivers without a common clock: each records transmitters one after the other, on an oscillator of its own.

Belongs here: a broadcast reference, and what a free-running receiver makes of it and of a wanted transmission in turn.
Does not belong here: receivers that share a clock (``network``, ``reception``), bytes of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.domain import Position
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.signals.chirp import compute_chirp_transform
from heimdall_assets.signals.geodesy import compute_range_m

CARRIER_STEP_HZ = 1000.0
"""Distance of the carriers of a broadcast multiplex (DAB, transmission mode I: ETSI EN 300 401, table 38)."""

GUARD_SHARE = 0.246
"""Guard interval over useful symbol in that mode: 246 us of 1 ms."""

FRAME_SYMBOLS = 76
"""Symbols after the null symbol of each frame, the first of them always the same."""


@dataclass(frozen=True)
class Emission:
    """A complex envelope of mean power 1 on the air.

    Attributes:
        samples: complex64 (L,), at ``rate_hz``; before and after them nothing is sent.
        rate_hz: of the samples.
        start_s: when the first one leaves the antenna.
        position: of the antenna.
        carrier_hz: radio frequency.
    """

    samples: NDArray[np.complex64]
    rate_hz: float
    start_s: float
    position: Position
    carrier_hz: float


@dataclass(frozen=True)
class Listener:
    """A receiver on its own clock.

    Attributes:
        position: of the antenna.
        start_s: true time of its first sample.
        clock_error: relative error of its one oscillator: it samples faster and tunes higher by it.
        excess_s: by how much each emission comes late beyond the straight way, in their order.
    """

    position: Position
    start_s: float
    clock_error: float
    excess_s: tuple[float, ...] = ()


def synthesize_multiplex(
    generator: np.random.Generator, duration_s: float, rate_hz: float, bandwidth_hz: float
) -> NDArray[np.complex64]:
    """Return a broadcast multiplex of mean power about 1, complex64 (rate * duration,): many carriers, frame by frame.

    Each frame begins with a null symbol and one symbol that is always the same, as DAB has them; the rest is random.
    ``rate_hz`` must be a multiple of ``CARRIER_STEP_HZ``.
    """
    size = round(rate_hz / CARRIER_STEP_HZ)
    guard = round(GUARD_SHARE * size)
    num_carriers = round(bandwidth_hz / CARRIER_STEP_HZ)
    places = np.arange(-(num_carriers // 2), num_carriers - num_carriers // 2) % size
    known = np.exp(0.5j * np.pi * np.random.default_rng(1).integers(4, size=num_carriers))
    num_symbols = int(np.ceil(duration_s * rate_hz / (size + guard)))
    symbols: list[NDArray[np.complex128]] = []
    for number in range(num_symbols):
        carriers = np.zeros(size, dtype=np.complex128)
        place = number % (FRAME_SYMBOLS + 1)
        if place:
            quarters = generator.integers(4, size=num_carriers)
            carriers[places] = known if place == 1 else np.exp(0.5j * np.pi * quarters)
        useful: NDArray[np.complex128] = np.fft.ifft(carriers) * size / np.sqrt(num_carriers)
        symbols.append(np.concatenate([useful[size - guard :], useful]))
    made: NDArray[np.complex64] = np.concatenate(symbols)[: round(duration_s * rate_hz)].astype(np.complex64)
    return made


def record_in_turn(
    generator: np.random.Generator,
    emissions: Sequence[Emission],
    turns: Sequence[tuple[int, float]],
    listener: Listener,
    rate_hz: float,
    snr_db: float,
) -> NDArray[np.complex64]:
    """Return what a receiver records that listens to one emission after the other, complex64 (N,), signal power 1.

    Each emission arrives late by its way, and is sampled exactly at the receiver's own instants; its carrier stands off
    by what the receiver's oscillator mistunes.

    Args:
        generator: draws phases and noise.
        emissions: what is on the air.
        turns: (number of the emission, how long by the receiver's own clock in s), one after the other.
        listener: the receiver.
        rate_hz: its nominal rate.
        snr_db: signal over noise in all of the recorded band.
    """
    counts = [round(length_s * rate_hz) for _, length_s in turns]
    true_rate_hz = rate_hz * (1.0 + listener.clock_error)
    out, done = [], 0
    for (number, _), count in zip(turns, counts, strict=True):
        begin_s = listener.start_s + done / true_rate_hz
        out.append(_sample(generator, emissions[number], listener, number, begin_s, count, true_rate_hz))
        done += count
    noise = generator.standard_normal((done, 2)) @ np.array([1.0, 1.0j]) * np.sqrt(0.5) * 10.0 ** (-snr_db / 20.0)
    recorded: NDArray[np.complex64] = (np.concatenate(out) + noise).astype(np.complex64)
    return recorded


def _sample(
    generator: np.random.Generator,
    emission: Emission,
    listener: Listener,
    number: int,
    begin_s: float,
    count: int,
    rate_hz: float,
) -> NDArray[np.complex64]:
    here, place = listener.position, emission.position
    range_m = compute_range_m(
        place.latitude,
        place.longitude,
        place.altitude_m,
        here.latitude,
        here.longitude,
        here.altitude_m,
        emission.carrier_hz,
    )
    delay_s = float(range_m) / SIGNAL_SPEED_M_S + (listener.excess_s[number] if listener.excess_s else 0.0)
    spectrum = fft.fftshift(fft.fft(emission.samples))
    step_hz = emission.rate_hz / len(spectrum)
    first_hz = -(len(spectrum) // 2) * step_hz
    first_s = begin_s - delay_s - emission.start_s
    samples = compute_chirp_transform(spectrum, count, first_hz, step_hz, first_s, 1.0 / rate_hz, sign=1)
    # Each part begins at a phase of its own: a receiver that was tuned elsewhere in between lost the carrier's.
    offset_hz = -listener.clock_error * emission.carrier_hz
    turns = offset_hz * (begin_s + np.arange(count) / rate_hz) + generator.random()
    turn = np.exp(2j * np.pi * (turns - np.rint(turns)))
    heard: NDArray[np.complex64] = (samples / len(spectrum) * turn).astype(np.complex64)
    return heard
