"""A small world for clocks that a reference sets: four free-running receivers, a multiplex, and a voice in between.

What they record is written as rtl_sdr writes it: bytes, unsigned, I and Q in turn, one file in three blocks.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import Position
from heimdall_assets.physical import SignalType
from heimdall_assets.pipeline.intake.layout import Layout, Part
from heimdall_assets.pipeline.intake.reference_timing import ReferenceClaim
from heimdall_assets.signals.acquisition import Search
from heimdall_assets.signals.reference_clock import Reference
from heimdall_assets.simulation.free_running import Emission, Listener, record_in_turn, synthesize_multiplex
from heimdall_assets.simulation.waveforms import synthesize_waveform

TRUTH = Position(latitude=46.05, longitude=8.1)
REFERENCE = Position(latitude=46.2, longitude=7.9, altitude_m=1200.0)
RECEIVERS = {
    "RA": Position(latitude=46.6, longitude=7.4, altitude_m=600.0),
    "RB": Position(latitude=46.5, longitude=8.9, altitude_m=400.0),
    "RC": Position(latitude=45.4, longitude=8.7, altitude_m=100.0),
    "RD": Position(latitude=45.5, longitude=7.3, altitude_m=700.0),
}
START = "2026-11-20T10:00:00Z"
START_NS = 1_795_168_800 * 10**9


@dataclass(frozen=True)
class World:
    """Numbers of the world; lengths of the three blocks and rates in s and Hz."""

    seed: int = 1
    rate_hz: float = 256_000.0
    bandwidth_hz: float = 192_000.0
    reference_hz: float = 100e6
    wanted_hz: float = 145.5e6
    turns_s: tuple[float, ...] = (0.20, 0.30, 0.20)
    skew_s: float = 0.02
    clock_error: float = 50e-6
    snr_db: float = 20.0
    truth: Position = TRUTH
    excess_sigma_s: float = 0.0
    order: tuple[int, ...] = (0, 1)  # 0: the reference, 1: the voice; over again

    @property
    def parts(self) -> list[tuple[float, float]]:
        """Begin and end of each block, in s, without the hundredth in which a tuner settles."""
        edges = np.concatenate([[0.0], np.cumsum(self.turns_s)])
        pairs = enumerate(itertools.pairwise(edges.tolist()))
        return [(begin + 0.01 * (place > 0), end) for place, (begin, end) in pairs]


@dataclass(frozen=True)
class Made:
    """What was drawn and recorded: station -> listener, station -> complex64 samples."""

    listeners: dict[str, Listener]
    samples: dict[str, NDArray[np.complex64]]


def make_world(world: World) -> Made:
    """Return what four receivers record."""
    rng = np.random.default_rng(world.seed)
    length_s = 0.7 + 2.0 * world.skew_s + 0.02
    multiplex = synthesize_multiplex(rng, length_s, world.rate_hz, world.bandwidth_hz)
    voice = synthesize_waveform(rng, SignalType.VOICE, length_s, 48_000.0, 0.01)
    emissions = [
        Emission(multiplex, world.rate_hz, -world.skew_s - 0.01, REFERENCE, world.reference_hz),
        Emission(voice.samples, voice.sample_rate_hz, voice.start_s - world.skew_s, world.truth, world.wanted_hz),
    ]
    listeners = {
        name: Listener(
            place,
            float(rng.uniform(-world.skew_s, world.skew_s)),
            float(rng.uniform(-world.clock_error, world.clock_error)),
            (float(rng.normal(0.0, world.excess_sigma_s)), 0.0) if world.excess_sigma_s else (),
        )
        for name, place in RECEIVERS.items()
    }
    turns = [(world.order[place % len(world.order)], length_s) for place, length_s in enumerate(world.turns_s)]
    samples = {
        name: record_in_turn(rng, emissions, turns, one, world.rate_hz, world.snr_db) for name, one in listeners.items()
    }
    return Made(listeners, samples)


def write_rtl_sdr(folder: Path, samples: dict[str, NDArray[np.complex64]], gain: float = 0.2) -> list[Path]:
    """Return the files, ``STATION.cu8``: I and Q as bytes around 127.5."""
    paths = []
    for name, values in samples.items():
        pairs = np.stack([values.real, values.imag], axis=1) * gain * 127.5 + 127.5
        (folder / f"{name}.cu8").write_bytes(np.clip(np.rint(pairs), 0, 255).astype(np.uint8).tobytes())
        paths.append(folder / f"{name}.cu8")
    return paths


SMALL = World(rate_hz=64_000.0, bandwidth_hz=48_000.0, reference_hz=20e6, wanted_hz=30e6)
"""A narrower world at lower frequencies: a tenth of the work."""


def make_claim(world: World, **changes: Any) -> ReferenceClaim:
    """Return what is said of the world's reference."""
    search = Search(2.0 * world.skew_s + 1e-3, 100e-6, world.reference_hz)
    parts = [Part(*part) for part in world.parts]
    references = tuple(part for place, part in enumerate(parts) if place != 1)
    return ReferenceClaim(Reference("DAB", REFERENCE, search), Layout(references, parts[1]), **changes)


def list_options(world: World) -> list[str]:
    """Return the options of the command line that say what is known of the world."""
    parts = [f"{begin:g}:{end:g}" for begin, end in world.parts]
    place = f"{REFERENCE.latitude},{REFERENCE.longitude},{REFERENCE.altitude_m}"
    options = ["--reference-transmitter", f"DAB={place}", "--reference-frequency-hz", f"{world.reference_hz:g}"]
    options += ["--reference-part", parts[0], "--wanted-part", parts[1], "--reference-part", parts[2]]
    options += ["--rate-hz", f"{world.rate_hz:g}", "--start", START, "--frequency-hz", f"{world.wanted_hz:g}"]
    for name, at in RECEIVERS.items():
        options += ["--receiver", f"{name},{at.latitude},{at.longitude},{at.altitude_m}"]
    return options
