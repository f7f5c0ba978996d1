"""Simulated sessions: one transmission, its way to every station of the Italian network, and what each records.

Belongs here: stations, and the order in which a session is put together. Does not belong here: modulation
(``waveforms``), the way (``propagation``), receivers' hardware (``receivers``), delays without samples
(``observations``).
Session i depends on (seed, i) and on nothing else. Sources stand at sea level.
"""

import math
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.domain import (
    SIGNAL_SPEED_M_S,
    ClockClass,
    IqFormat,
    Measurement,
    Origin,
    Position,
    Recording,
    Session,
    SessionStatus,
    Source,
    Station,
)
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.signals.chirp import compute_chirp_transform
from heimdall_assets.signals.geodesy import LocalFrame, compute_straight_range_m
from heimdall_assets.simulation import propagation, receivers, waveforms
from heimdall_assets.specs import SimulationSpec, TimingSpec

_NAMESPACE = uuid.UUID("6f0d8f5e-3c0b-5a44-9f43-6b6f2f0c7c11")  # of every id that simulation makes

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Start of session 0; session i starts i minutes later."""

GUARD_S = 0.02  # of the waveform on both sides: more than any delay, skew and echo

SNR_READING_DB, OFFSET_READING_HZ = 0.5, 1.0  # one-sigma errors of what a receiver displays


def _make_station(name: str, latitude: float, longitude: float, altitude_m: float) -> Station:
    return Station(
        id=str(uuid.uuid5(_NAMESPACE, f"station {name}")),
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
class SimulatedReceiver:
    """One station's part in a session; ``measurement`` names no IQ object yet: whoever stores the samples does."""

    station: Station
    recording: Recording
    measurement: Measurement
    truth: dict[str, Any]


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
    key was up for a part of it. ``session.attributes`` holds ``signal_type``, ``span`` (start and end of the
    transmission in s from the session's start) and ``truth`` (every nuisance parameter).

    Raises:
        InvalidSetting: more receivers than stations, or a negative index.
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
        _record(generator, spec, session, wave, spectrum, station, path, place)
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
    """Return how many of the given sessions carry each signal type: the realised mix."""
    return dict(sorted(Counter(draw_signal_type(spec, index) for index in indices).items()))


@dataclass(frozen=True)
class _Paths:
    """The ways from the source to R receivers, each float64 (R,)."""

    range_m: NDArray[np.float64]
    loss_db: NDArray[np.float64]
    shadowing_db: NDArray[np.float64]
    blocked: NDArray[np.bool_]
    excess_s: NDArray[np.float64]
    transmitter_offset_hz: float
    season: int


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
        id=str(uuid.uuid5(_NAMESPACE, f"source {spec.digest()} {index}")),
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


def _draw_paths(generator: np.random.Generator, spec: SimulationSpec, source: Position, heard_by: list[int]) -> _Paths:
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
    return _Paths(
        range_m=range_m,
        loss_db=propagation.compute_loss_db(range_m, spec),
        shadowing_db=_draw_shadowing(spec.seed, spec.shadowing_db).evaluate_db(source_en, receiver_en),
        blocked=blocked,
        excess_s=excess_s,
        transmitter_offset_hz=float(spec.carrier_hz * generator.uniform(-2.5e-6, 2.5e-6)) if spec.impairments else 0.0,
        season=int(generator.integers(receivers.NUM_SEASONS)),
    )


def _make_session(
    spec: SimulationSpec, index: int, source: Source, wave: waveforms.Waveform, heard_by: list[int], path: _Paths
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
        id=str(uuid.uuid5(_NAMESPACE, f"session {spec.digest()} {index}")),
        name=source.name,
        source_id=source.id,
        campaign="simulation",
        origin=Origin.SIMULATED,
        start=start,
        end=start + timedelta(seconds=spec.duration_s),
        status=SessionStatus.COMPLETED,
        attributes={"signal_type": wave.signal_type.value, "span": list(wave.span_s), "truth": truth},
    )


def _record(
    generator: np.random.Generator,
    spec: SimulationSpec,
    session: Session,
    wave: waveforms.Waveform,
    spectrum: NDArray[np.complex64],
    station_number: int,
    path: _Paths,
    place: int,
) -> SimulatedReceiver:
    """Return what one station records."""
    station = receivers.draw_station_traits(spec, station_number)
    num_samples = round(spec.duration_s * spec.sample_rate_hz)
    traits = receivers.draw_recording_traits(generator, spec, station, num_samples)
    echoes = None
    if spec.rician_k_db is not None:
        echoes = propagation.draw_echoes(generator, spec.rician_k_db, spec.delay_spread_s)
    level_dbm = _draw_level_dbm(generator, spec, wave, path, place, station)
    input_dbm = 10.0 * math.log10(10.0 ** (level_dbm / 10.0) + 10.0 ** (station.noise_dbm / 10.0))
    heard = _Heard(
        level_dbm=level_dbm,
        snr_db=level_dbm - station.noise_dbm,
        gain_db=receivers.compute_gain_db(station, traits, input_dbm),
        delay_s=float(path.range_m[place] / SIGNAL_SPEED_M_S + path.excess_s[place]),
        offset_hz=path.transmitter_offset_hz + traits.frequency_offset_hz,
        rate_hz=spec.sample_rate_hz * (1.0 + traits.rate_error),
    )
    clean = _receive(wave, spectrum, echoes, heard, traits.skew_s, num_samples)
    samples = _add_noise(generator, spec, clean, wave, heard, traits)
    clipped = 0.0
    if spec.impairments:
        samples, clipped = receivers.apply_receiver(samples, station, traits)
    model = ITALIAN_STATIONS[station_number].model_copy(update={"clock_class": ClockClass(spec.clock_class)})
    recording = _stamp(spec, session, samples, heard, traits)
    scale_db = station.season_gain_db[path.season] + station.gain_error_db
    measurement = _measure(generator, spec, session, model, recording, heard, scale_db)
    truth = {
        "station_id": model.id,
        "range_m": float(path.range_m[place]),
        "blocked": bool(path.blocked[place]),
        "excess_s": float(path.excess_s[place]),
        "path_loss_db": float(path.loss_db[place]),
        "shadowing_db": float(path.shadowing_db[place]),
        "noise_dbm": station.noise_dbm,
        "clipped_fraction": clipped,
        "echo_delay_s": [] if echoes is None else echoes.delay_s.tolist(),
        "echo_amplitude": [] if echoes is None else np.abs(echoes.amplitude).tolist(),
        "echo_phase_rad": [] if echoes is None else np.angle(echoes.amplitude).tolist(),
        "station": asdict(station) | {"season_gain_db": list(station.season_gain_db)},
        **asdict(heard),
        **asdict(traits),
    }
    return SimulatedReceiver(model, recording, measurement, truth)


@dataclass(frozen=True)
class _Heard:
    """Level and SNR at one antenna, gain to full scale, delay, carrier offset and true sample rate."""

    level_dbm: float
    snr_db: float
    gain_db: float
    delay_s: float
    offset_hz: float
    rate_hz: float


def _draw_level_dbm(
    generator: np.random.Generator,
    spec: SimulationSpec,
    wave: waveforms.Waveform,
    path: _Paths,
    place: int,
    station: receivers.StationTraits,
) -> float:
    """Return the mean level over the recording: by the link budget, or so that the SNR is as drawn."""
    if spec.snr_min_db is not None and spec.snr_max_db is not None:
        return float(station.noise_dbm + generator.uniform(spec.snr_min_db, spec.snr_max_db))
    level_dbm = spec.source_power_dbm - path.loss_db[place] + path.shadowing_db[place]
    return float(level_dbm + 10.0 * math.log10(wave.mean_power))


def _add_noise(
    generator: np.random.Generator,
    spec: SimulationSpec,
    clean: NDArray[np.complex64],
    wave: waveforms.Waveform,
    heard: _Heard,
    traits: receivers.RecordingTraits,
) -> NDArray[np.complex64]:
    """Return signal and noise in units of full scale."""
    amplitude = 10.0 ** ((heard.level_dbm + heard.gain_db) / 20.0) / math.sqrt(wave.mean_power)
    cycles = heard.delay_s * spec.carrier_hz
    phase = traits.carrier_phase_rad - 2.0 * math.pi * (cycles - math.floor(cycles))
    noise_power = receivers.compute_noise_power(heard.snr_db, wave.mean_power, spec.sample_rate_hz)
    noise = generator.standard_normal(2 * len(clean), dtype=np.float32).view(np.complex64)
    samples = clean * np.complex64(amplitude * complex(math.cos(phase), math.sin(phase)))
    samples += noise * np.float32(amplitude * math.sqrt(0.5 * noise_power))
    return samples


def _stamp(
    spec: SimulationSpec,
    session: Session,
    samples: NDArray[np.complex64],
    heard: _Heard,
    traits: receivers.RecordingTraits,
) -> Recording:
    """Return the recording with the time its receiver believes; a free-running clock believes none."""
    timed = spec.clock_class != ClockClass.NONE
    start_unix_ns = round((session.start - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**9
    start_unix_ns += round((traits.skew_s + traits.clock_error_s) * 1e9)
    return Recording(
        samples=samples,
        sample_rate_hz=heard.rate_hz,
        start_unix_ns=start_unix_ns if timed else None,
        timing_sigma_s=TimingSpec.model_validate({}).sigma_s(spec.clock_class) if timed else None,
        centre_frequency_hz=spec.carrier_hz,
    )


def _measure(
    generator: np.random.Generator,
    spec: SimulationSpec,
    session: Session,
    station: Station,
    recording: Recording,
    heard: _Heard,
    scale_db: float,
) -> Measurement:
    """Return the row: levels on the station's own scale, SNR and offset as it reads them."""
    errors = generator.standard_normal(2) if spec.impairments else np.zeros(2)
    return Measurement(
        id=str(uuid.uuid5(_NAMESPACE, f"measurement {session.id} {station.id}")),
        session_id=session.id,
        station_id=station.id,
        timestamp=session.start,
        frequency_hz=spec.carrier_hz,
        signal_strength_db=heard.level_dbm + scale_db,
        snr_db=float(heard.snr_db + SNR_READING_DB * errors[0]),
        frequency_offset_hz=float(heard.offset_hz + OFFSET_READING_HZ * errors[1]),
        iq_data_format=IqFormat.NPY,
        iq_sample_rate_hz=heard.rate_hz,
        iq_samples_count=len(recording.samples),
        iq_start_unix_ns=recording.start_unix_ns,
        duration_s=recording.duration_s,
    )


def _receive(
    wave: waveforms.Waveform,
    spectrum: NDArray[np.complex64],
    echoes: propagation.Echoes | None,
    heard: _Heard,
    skew_s: float,
    num_samples: int,
) -> NDArray[np.complex64]:
    """Return the envelope as it arrives, sampled at ``rate_hz`` from ``skew_s`` on: exact for a band-limited signal.

    The receiver's filter passes what lies within half its rate.
    """
    rate_hz, offset_hz = heard.rate_hz, heard.offset_hz
    num_bins = len(spectrum)
    step_hz = wave.sample_rate_hz / num_bins
    frequency_hz = fft.fftshift(fft.fftfreq(num_bins, 1.0 / wave.sample_rate_hz))
    sorted_spectrum = fft.fftshift(spectrum)
    inside = slice(*np.searchsorted(frequency_hz + offset_hz, [-0.5 * rate_hz, 0.5 * rate_hz]))
    band = sorted_spectrum[inside]
    if echoes is not None:
        band = band * echoes.compute_response(frequency_hz[inside])
    first_s = skew_s - heard.delay_s - wave.start_s
    out = compute_chirp_transform(
        band, num_samples, float(frequency_hz[inside][0]), step_hz, first_s, 1.0 / rate_hz, sign=1
    )
    out /= np.float32(num_bins)
    if offset_hz:
        turns = offset_hz / rate_hz * np.arange(num_samples)
        out *= np.exp(2j * np.pi * (turns - np.rint(turns))).astype(np.complex64)
    return out
