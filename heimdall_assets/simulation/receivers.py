"""What a receiver does to what it hears: clock, sample rate, carrier offset, gain, converter, and their faults.

Belongs here: one receiver's nuisance parameters and what they do to samples. Does not belong here: the way there
(``propagation``). Parameters of a station come from (seed, station) and stay; those of a recording from the session.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.physical import CHANNEL_HZ, ClockClass
from heimdall_assets.simulation.propagation import MAN_MADE_CITY_DBM, compute_noise_dbm
from heimdall_assets.specs import SimulationSpec

NUM_SEASONS = 4

QUIET_LEVEL_DBFS = -60.0
"""Of the noise alone, without AGC: a source some hundred metres away clips."""

IQ_GAIN_DB, IQ_PHASE_DEG = 0.1, 0.5
"""One-sigma imbalance: an image 40 to 50 dB down, as corrected quadrature receivers have."""

AGC_LEVEL_DBFS = -12.0  # rms that a gain control aims at

GNSS_GROUP_DELAY_S = (1e-6, 30e-6)
"""Uncalibrated delay of receive filters (measured on KiwiSDR receivers: 12 to 73 us, sky wave included)."""

NTP_ERROR_S = (1e-3, 20e-3)
"""Error of network time over the internet (RFC 5905, section 10: tens of milliseconds at worst)."""


@dataclass(frozen=True)
class StationTraits:
    """What stays with a station: clock bias and group delay in s, noise in dBm, gains in dB."""

    clock_bias_s: float
    group_delay_s: float
    noise_figure_db: float
    man_made_dbm: float
    noise_dbm: float
    gain_error_db: float
    season_gain_db: tuple[float, ...]
    has_agc: bool
    adc_bits: int
    iq_gain_db: float
    iq_phase_deg: float
    dc_dbfs: float
    dc_phase_rad: float


@dataclass(frozen=True)
class RecordingTraits:
    """What differs from session to session: clock error in s, relative rate error, carrier offset, faults."""

    clock_jitter_s: float
    clock_error_s: float
    rate_error: float
    frequency_offset_hz: float
    carrier_phase_rad: float
    skew_s: float
    gain_step_db: float
    dropped_start: int
    dropped_samples: int
    overdrive_db: float

    def dump(self) -> dict[str, Any]:
        return asdict(self)


def draw_station_traits(spec: SimulationSpec, station: int) -> StationTraits:
    """Return the traits of station number ``station``, from the seed and that number alone."""
    generator = np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(1, station)))
    bias, noise_figure, man_made, gain, iq_gain, iq_phase = generator.standard_normal(6)
    jumps = np.where(generator.random(NUM_SEASONS) < 0.1, 1.0, 0.0)
    jump_db = jumps * generator.choice([-1.0, 1.0], NUM_SEASONS) * generator.uniform(10.0, 20.0, NUM_SEASONS)
    group_delay_s = (
        generator.uniform(*GNSS_GROUP_DELAY_S) if spec.clock_class != ClockClass.GNSS_CALIBRATED.value else 0.0
    )
    real = spec.impairments
    figure_db = 5.0 + (1.5 * float(np.clip(noise_figure, -2, 2)) if real else 0.0)
    man_made_dbm = MAN_MADE_CITY_DBM + (3.0 * man_made if real else 0.0)
    return StationTraits(
        clock_bias_s=float(spec.clock_bias_s * bias),
        group_delay_s=float(group_delay_s),
        noise_figure_db=float(figure_db),
        man_made_dbm=float(man_made_dbm),
        noise_dbm=float(compute_noise_dbm(figure_db, man_made_dbm)),
        gain_error_db=float(2.0 * gain) if real else 0.0,
        season_gain_db=tuple(float(value) if real else 0.0 for value in jump_db),
        has_agc=bool(generator.random() < 0.3) and real,
        adc_bits=int(generator.choice([12, 14, 16])),
        iq_gain_db=float(IQ_GAIN_DB * iq_gain),
        iq_phase_deg=float(IQ_PHASE_DEG * iq_phase),
        dc_dbfs=float(generator.uniform(-80.0, -60.0)),
        dc_phase_rad=float(generator.uniform(0.0, 2.0 * math.pi)),
    )


def draw_recording_traits(
    generator: np.random.Generator, spec: SimulationSpec, station: StationTraits, num_samples: int
) -> RecordingTraits:
    """Return what one recording of a station suffers; clocks always err, the rest only with ``spec.impairments``.

    A receiver's oscillator drives both its mixer and its converter: a rate error e shifts the carrier by -e times the
    carrier frequency.
    """
    jitter, tune = generator.standard_normal(2)
    ntp_s = generator.uniform(*NTP_ERROR_S) * generator.choice([-1.0, 1.0])
    error_s = station.clock_bias_s + station.group_delay_s + spec.clock_jitter_s * jitter
    if spec.clock_class == ClockClass.NTP.value:
        error_s += ntp_s
    # log-uniform 0.1 to 20 ppm for a crystal; a GNSS-disciplined oscillator errs a thousand times less
    ppm = 0.1 * 200.0 ** generator.random() * generator.choice([-1.0, 1.0])
    phase, skew, step, drop, length, over = generator.random(6)
    dropped = round((0.005 + 0.015 * length) * spec.sample_rate_hz) if drop < 0.02 else 0
    real = spec.impairments
    rate_error = ppm * 1e-6 if real else 0.0
    return RecordingTraits(
        clock_jitter_s=float(spec.clock_jitter_s * jitter),
        clock_error_s=float(error_s),
        rate_error=float(rate_error),
        frequency_offset_hz=float(-rate_error * spec.carrier_hz + (0.5 * tune if real else 0.0)),
        carrier_phase_rad=float(2.0 * math.pi * phase),
        skew_s=float(0.004 * skew) if real else 0.0,
        gain_step_db=float(3.0 * (2.0 * step - 1.0)) if real and station.has_agc else 0.0,
        dropped_start=round(drop / 0.02 * (num_samples - dropped)) if dropped and real else 0,
        dropped_samples=dropped if real else 0,
        overdrive_db=float(20.0 + 10.0 * over) if real and over < 0.005 else 0.0,
    )


def compute_gain_db(station: StationTraits, traits: RecordingTraits, input_dbm: float) -> float:
    """Return what turns dBm at the antenna into dB of full scale: fixed above the noise, or set by a gain control."""
    if station.has_agc:
        return AGC_LEVEL_DBFS - input_dbm + traits.overdrive_db
    return QUIET_LEVEL_DBFS - station.noise_dbm + traits.overdrive_db


def apply_receiver(
    samples: NDArray[np.complex64], station: StationTraits, traits: RecordingTraits
) -> tuple[NDArray[np.complex64], float]:
    """Return what the converter makes of ``samples`` (full scale 1.0), and the share of samples it clips.

    In order: gain control settling, IQ imbalance, DC offset, quantisation and clipping, a dropped chunk as zeros.

    Source: IQ imbalance y = m x + n conj(x), m = (1 + g e^{-jp}) / 2, n = (1 - g e^{jp}) / 2; Razavi, RF
    Microelectronics, 2nd edition, section 4.2.3.
    """
    gain = 10.0 ** (station.iq_gain_db / 20.0)
    skew = math.radians(station.iq_phase_deg)
    straight = 0.5 * (1.0 + gain * complex(math.cos(skew), -math.sin(skew)))
    mirrored = 0.5 * (1.0 - gain * complex(math.cos(skew), math.sin(skew)))
    offset = 10.0 ** (station.dc_dbfs / 20.0) * complex(math.cos(station.dc_phase_rad), math.sin(station.dc_phase_rad))
    if traits.gain_step_db:
        settling = np.exp(-np.linspace(0.0, 5.0, len(samples), dtype=np.float32))
        samples = samples * np.power(np.float32(10.0), np.float32(traits.gain_step_db / 20.0) * settling)
    out = np.complex64(straight) * samples
    out += np.complex64(mirrored) * samples.conj()
    out += np.complex64(offset)
    parts = out.view(np.float32)
    steps = 2.0 ** (station.adc_bits - 1)
    np.multiply(parts, np.float32(steps), out=parts)
    np.rint(parts, out=parts)
    clipped = np.abs(parts) > steps - 1
    np.clip(parts, -steps, steps - 1, out=parts)
    parts /= np.float32(steps)
    if traits.dropped_samples:
        out[traits.dropped_start : traits.dropped_start + traits.dropped_samples] = 0
    return out, float(clipped.reshape(-1, 2).any(axis=1).mean())


def compute_noise_power(snr_db: float, signal_power: float, sample_rate_hz: float) -> float:
    """Return the noise power per sample that gives ``snr_db`` in one channel beside a signal of ``signal_power``.

    Examples:
        At 0 dB the noise in 12.5 kHz is as strong as the signal; a band twice as wide holds twice as much of it.

        >>> compute_noise_power(0.0, signal_power=1.0, sample_rate_hz=12_500.0)
        1.0
        >>> round(compute_noise_power(20.0, signal_power=1.0, sample_rate_hz=25_000.0), 6)
        0.02
    """
    per_signal: float = 10.0 ** (-snr_db / 10.0)
    return signal_power * per_signal * sample_rate_hz / CHANNEL_HZ
