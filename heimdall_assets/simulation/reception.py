"""What one station records of a transmission: level, delay, noise, receiver faults, time stamp, row and truth.

Belongs here: one station's part of a session. Does not belong here: who transmits, and who listens (``network``).
"""

import math
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.domain import Measurement, Session, Station
from heimdall_assets.physical import NANOSECOND_SIGMA_S, SIGNAL_SPEED_M_S, ClockClass, Recording
from heimdall_assets.signals.chirp import compute_chirp_transform
from heimdall_assets.simulation import propagation, receivers, waveforms
from heimdall_assets.specs import SimulationSpec

NAMESPACE = uuid.UUID("6f0d8f5e-3c0b-5a44-9f43-6b6f2f0c7c11")  # of every id that simulation makes

SNR_READING_DB, OFFSET_READING_HZ = 0.5, 1.0  # one-sigma errors of what a receiver displays


@dataclass(frozen=True)
class SimulatedReceiver:
    """One station's part in a session; ``measurement`` names no IQ object yet: whoever stores the samples does."""

    station: Station
    recording: Recording
    measurement: Measurement
    truth: dict[str, Any]


@dataclass(frozen=True)
class Paths:
    """The ways from the source to R receivers, each float64 (R,)."""

    range_m: NDArray[np.float64]
    loss_db: NDArray[np.float64]
    shadowing_db: NDArray[np.float64]
    blocked: NDArray[np.bool_]
    blocked_loss_db: NDArray[np.float64]
    excess_s: NDArray[np.float64]
    transmitter_offset_hz: float
    season: int


def record(
    generator: np.random.Generator,
    spec: SimulationSpec,
    session: Session,
    wave: waveforms.Waveform,
    spectrum: NDArray[np.complex64],
    model: Station,
    station_number: int,
    path: Paths,
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
    heard = Heard(
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
    model = model.model_copy(update={"clock_class": ClockClass(spec.clock_class)})
    recording = _stamp(spec, session, samples, heard, traits)
    scale_db = station.season_gain_db[path.season] + station.gain_error_db
    measurement = _measure(generator, spec, session, model, recording, heard, scale_db)
    truth = {
        "station_id": model.id,
        "range_m": float(path.range_m[place]),
        "blocked": bool(path.blocked[place]),
        "excess_s": float(path.excess_s[place]),
        "path_loss_db": float(path.loss_db[place]),
        "blocked_loss_db": float(path.blocked_loss_db[place]),
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
class Heard:
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
    path: Paths,
    place: int,
    station: receivers.StationTraits,
) -> float:
    """Return the mean level over the recording: by the link budget, or so that the SNR in sight is as drawn.

    What reaches a blocked receiver is weaker by the spec's loss, either way: the noise beside it is the station's own,
    so level and SNR fall together.
    """
    if spec.snr_min_db is not None and spec.snr_max_db is not None:
        level_dbm = station.noise_dbm + generator.uniform(spec.snr_min_db, spec.snr_max_db)
    else:
        level_dbm = spec.source_power_dbm - path.loss_db[place] + path.shadowing_db[place]
        level_dbm += 10.0 * math.log10(wave.mean_power)
    return float(level_dbm - path.blocked_loss_db[place])


def _add_noise(
    generator: np.random.Generator,
    spec: SimulationSpec,
    clean: NDArray[np.complex64],
    wave: waveforms.Waveform,
    heard: Heard,
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
    heard: Heard,
    traits: receivers.RecordingTraits,
) -> Recording:
    """Return the recording with the time its receiver believes; a free-running clock believes none."""
    timed = spec.clock_class != ClockClass.NONE.value
    start_unix_ns = round((session.start - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**9
    start_unix_ns += round((traits.skew_s + traits.clock_error_s) * 1e9)
    return Recording(
        samples=samples,
        sample_rate_hz=heard.rate_hz,
        start_unix_ns=start_unix_ns if timed else None,
        timing_sigma_s=NANOSECOND_SIGMA_S if timed else None,
        centre_frequency_hz=spec.carrier_hz,
    )


def _measure(
    generator: np.random.Generator,
    spec: SimulationSpec,
    session: Session,
    station: Station,
    recording: Recording,
    heard: Heard,
    scale_db: float,
) -> Measurement:
    """Return the row: levels on the station's own scale, SNR and offset as it reads them."""
    errors = generator.standard_normal(2) if spec.impairments else np.zeros(2)
    return Measurement(
        id=str(uuid.uuid5(NAMESPACE, f"measurement {session.id} {station.id}")),
        session_id=session.id,
        station_id=station.id,
        timestamp=session.start,
        frequency_hz=spec.carrier_hz,
        signal_strength_db=heard.level_dbm + scale_db,
        snr_db=float(heard.snr_db + SNR_READING_DB * errors[0]),
        frequency_offset_hz=float(heard.offset_hz + OFFSET_READING_HZ * errors[1]),
        iq_data_format="npy",
        iq_sample_rate_hz=heard.rate_hz,
        iq_samples_count=len(recording.samples),
        iq_start_unix_ns=recording.start_unix_ns,
        duration_s=recording.duration_s,
    )


def _receive(
    wave: waveforms.Waveform,
    spectrum: NDArray[np.complex64],
    echoes: propagation.Echoes | None,
    heard: Heard,
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
