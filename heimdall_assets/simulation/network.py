"""Simulated sessions: one transmission, its way to every station of the Italian network, and what each records.

Belongs here: stations, and the order in which a session is put together. Does not belong here: modulation
(``waveforms``), the way (``propagation``), what one station makes of it (``reception``), delays without samples
(``observations``).
Session i depends on (seed, i) and on nothing else. Sources stand at sea level.
"""

import math
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
from scipy import fft

from heimdall_assets.domain import Measurement, Origin, Position, Session, SessionStatus, Source, Station
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.physical import ClockClass, Recording
from heimdall_assets.signals.geodesy import LocalFrame, compute_straight_range_m
from heimdall_assets.simulation import propagation, receivers, waveforms
from heimdall_assets.simulation.reception import NAMESPACE, Paths, SimulatedReceiver, record
from heimdall_assets.specs import SimulationSpec

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Start of session 0; session i starts i minutes later."""

GUARD_S = 0.02  # of the waveform on both sides: more than any delay, skew and echo


def _make_station(name: str, latitude: float, longitude: float, altitude_m: float) -> Station:
    return Station(
        id=str(uuid.uuid5(NAMESPACE, f"station {name}")),
        name=name,
        position=Position(latitude=latitude, longitude=longitude, altitude_m=altitude_m),
        clock_class=ClockClass.GNSS_CALIBRATED,
        frequency_min_hz=144_000_000.0,
        frequency_max_hz=438_000_000.0,
    )


ITALIAN_STATIONS: tuple[Station, ...] = (
    _make_station("Aquila di Giaveno", 45.02, 7.29, 600.0),
    _make_station("Montanaro", 45.234, 7.857, 300.0),
    _make_station("Torino", 45.044, 7.672, 250.0),
    _make_station("Coazze", 45.03, 7.27, 700.0),
    _make_station("Passo del Giovi", 44.561, 8.956, 480.0),
    _make_station("Genova", 44.395, 8.956, 100.0),
    _make_station("Milano Baggio", 45.478, 9.123, 120.0),
)
"""The seven 2 m / 70 cm WebSDRs of north-west Italy, as simulated with calibrated GNSS clocks."""


@dataclass(frozen=True)
class SimulatedSession:
    """One session with all that was heard of it."""

    source: Source
    session: Session
    receivers: tuple[SimulatedReceiver, ...]

    @property
    def stations(self) -> tuple[Station, ...]:
        return tuple(receiver.station for receiver in self.receivers)

    @property
    def recordings(self) -> tuple[Recording, ...]:
        return tuple(receiver.recording for receiver in self.receivers)

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        return tuple(receiver.measurement for receiver in self.receivers)


def simulate_session(spec: SimulationSpec, index: int) -> SimulatedSession:
    """Return session ``index`` of the traffic that ``spec`` describes: the same bytes in every process.

    ``snr_db`` counts the whole recording in one 12.5 kHz channel, so E / N0 is snr * 12500 Hz * duration even where the
    key was up for a part of it. ``Session.attributes`` holds ``signal_type``, ``span`` (start and end of the
    transmission in s from the session's start) and ``truth`` (every nuisance parameter).

    Raises:
        InvalidSetting: more receivers than stations, or a negative index.

    Examples:
        >>> heard = simulate_session(SimulationSpec(min_receivers=3, max_receivers=3), 0)
        >>> [round(recording.duration_s, 2) for recording in heard.recordings], heard.session.origin.value
        ([1.0, 1.0, 1.0], 'simulated')
    """
    if index < 0:
        raise InvalidSetting(f"session index {index}: expected 0 or more")
    if spec.max_receivers > len(ITALIAN_STATIONS):
        raise InvalidSetting(
            f"max_receivers {spec.max_receivers}: expected at most {len(ITALIAN_STATIONS)}, the Italian network"
        )
    generator = np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(0, index)))
    signal_type = waveforms.draw_signal_type(generator, spec)
    source = _draw_source(generator, spec, index)
    wave = waveforms.synthesize_waveform(
        generator, signal_type, spec.duration_s, _choose_waveform_rate_hz(spec), GUARD_S
    )
    heard_by = _draw_stations(generator, spec)
    path = _draw_paths(generator, spec, source.position, heard_by)
    session = _make_session(spec, index, source, wave, heard_by, path)
    spectrum = fft.fft(wave.samples)
    made = tuple(
        record(generator, spec, session, wave, spectrum, ITALIAN_STATIONS[station], station, path, place)
        for place, station in enumerate(heard_by)
    )
    truth = session.attributes["truth"] | {"receivers": [receiver.truth for receiver in made]}
    session = session.model_copy(update={"attributes": session.attributes | {"truth": truth}})
    return SimulatedSession(source, session, made)


def draw_signal_type(spec: SimulationSpec, index: int) -> str:
    """Return the signal type of session ``index`` without simulating it."""
    generator = np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(0, index)))
    return waveforms.draw_signal_type(generator, spec).value


def count_signal_types(spec: SimulationSpec, indices: Iterable[int]) -> dict[str, int]:
    """Return how many of the given sessions carry each signal type: the realised mix.

    Examples:
        >>> counts = count_signal_types(SimulationSpec(voice_fraction=0.0, tone_fraction=1.0), range(20))
        >>> counts["tone"]
        20
    """
    return dict(sorted(Counter(draw_signal_type(spec, index) for index in indices).items()))


def _draw_source(generator: np.random.Generator, spec: SimulationSpec, index: int) -> Source:
    """Return a source uniform in the network's box and its margin, at sea level."""
    places = [station.position for station in ITALIAN_STATIONS if station.position is not None]
    latitude, longitude = [place.latitude for place in places], [place.longitude for place in places]
    margin = spec.area_margin_deg
    position = Position(
        latitude=float(generator.uniform(min(latitude) - margin, max(latitude) + margin)),
        longitude=float(generator.uniform(min(longitude) - margin, max(longitude) + margin)),
    )
    return Source(
        id=str(uuid.uuid5(NAMESPACE, f"source {spec.digest()} {index}")),
        name=f"sim-{spec.digest()[:8]}-{index:06d}",
        position=position,
        frequency_hz=spec.carrier_hz,
        power_dbm=spec.source_power_dbm,
        source_type="simulated",
    )


def _draw_stations(generator: np.random.Generator, spec: SimulationSpec) -> list[int]:
    num = int(generator.integers(spec.min_receivers, spec.max_receivers, endpoint=True))
    return sorted(int(place) for place in generator.permutation(len(ITALIAN_STATIONS))[:num])


def _choose_waveform_rate_hz(spec: SimulationSpec) -> float:
    """Return a multiple of the sample rate that holds wide FM without aliasing."""
    return spec.sample_rate_hz * math.ceil(24_000.0 / spec.sample_rate_hz)


@lru_cache(maxsize=8)
def _draw_shadowing(seed: int, sigma_db: float) -> propagation.ShadowingField:
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    return propagation.ShadowingField.draw(generator, sigma_db)


def _draw_paths(generator: np.random.Generator, spec: SimulationSpec, source: Position, heard_by: list[int]) -> Paths:
    places = [ITALIAN_STATIONS[place].position for place in heard_by]
    latitude = np.array([place.latitude for place in places if place is not None])
    longitude = np.array([place.longitude for place in places if place is not None])
    altitude_m = np.array([place.altitude_m for place in places if place is not None])
    range_m = compute_straight_range_m(
        source.latitude, source.longitude, source.altitude_m, latitude, longitude, altitude_m
    )
    frame = LocalFrame(45.0, 8.0)  # shadowing needs some common metres, no more
    source_en = np.array(frame.to_local(source.latitude, source.longitude)[:2], dtype=np.float64)
    receiver_en = np.stack(frame.to_local(latitude, longitude)[:2], axis=-1)
    blocked, excess_s = propagation.draw_excess_s(generator, spec, len(heard_by))
    return Paths(
        range_m=range_m,
        loss_db=propagation.compute_loss_db(range_m, spec),
        shadowing_db=_draw_shadowing(spec.seed, spec.shadowing_db).evaluate_db(source_en, receiver_en),
        blocked=blocked,
        blocked_loss_db=np.where(blocked, spec.blocked_loss_db, 0.0),
        excess_s=excess_s,
        transmitter_offset_hz=float(spec.carrier_hz * generator.uniform(-2.5e-6, 2.5e-6)) if spec.impairments else 0.0,
        season=int(generator.integers(receivers.NUM_SEASONS)),
    )


def _make_session(
    spec: SimulationSpec, index: int, source: Source, wave: waveforms.Waveform, heard_by: list[int], path: Paths
) -> Session:
    start = EPOCH + timedelta(minutes=index)
    truth = {
        "seed": spec.seed,
        "index": index,
        "transmitter_offset_hz": path.transmitter_offset_hz,
        "rms_bandwidth_hz": wave.rms_bandwidth_hz,
        "season": path.season,
        "waveform": wave.truth,
    }
    return Session(
        id=str(uuid.uuid5(NAMESPACE, f"session {spec.digest()} {index}")),
        name=source.name,
        source_id=source.id,
        campaign="simulation",
        origin=Origin.SIMULATED,
        start=start,
        end=start + timedelta(seconds=spec.duration_s),
        status=SessionStatus.COMPLETED,
        attributes={"signal_type": wave.signal_type.value, "span": list(wave.span_s), "truth": truth},
    )
