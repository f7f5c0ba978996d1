"""What is transmitted: complex envelopes of narrow-band FM voice, single tones and DTMF, with push-to-talk.

Belongs here: modulation. Does not belong here: where it goes and who hears it (``propagation``, ``network``).
FM has a constant envelope, so the centred rms bandwidth, which decides how well a delay can be measured, is exactly the
rms frequency deviation. There are no unmodulated carriers.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.physical import SignalType
from heimdall_assets.specs import SimulationSpec

Floats = NDArray[np.float64]

AUDIO_LOW_HZ, AUDIO_HIGH_HZ = 300.0, 3000.0
"""Speech band of a narrow-band FM transmitter (ETSI EN 300 086, audio response)."""

NARROW_DEVIATION_HZ, WIDE_DEVIATION_HZ = 2500.0, 5000.0
"""Peak deviation in a 12.5 kHz and in a 25 kHz channel (ETSI EN 300 086-1, clause 7.3)."""

WIDE_SHARE = 0.1  # of voice transmissions that use the wide deviation

CTCSS_HZ = (67.0, 71.9, 77.0, 82.5, 88.5, 94.8, 100.0, 107.2, 114.8, 123.0, 131.8, 141.3, 151.4, 162.2, 173.8, 203.5)
"""Sub-audible squelch tones (TIA-603, CTCSS)."""

CTCSS_SHARE_OF_DEVIATION = 0.12
"""A sub-audible tone takes 10 to 15 percent of the peak deviation (TIA-603)."""

TONES_HZ = (1000.0, 1750.0, 2100.0)
"""Test tone, repeater call tone, and answer tone (ITU-T V.25)."""

DTMF_ROWS_HZ = (697.0, 770.0, 852.0, 941.0)
DTMF_COLUMNS_HZ = (1209.0, 1336.0, 1477.0, 1633.0)
DTMF_KEYS = "123A456B789C*0#D"
"""Keys row by row. Source: ITU-T Q.23 (1988), table 1."""

DTMF_ON_S = DTMF_OFF_S = 0.040
"""Shortest signal and pause that must be recognised. Source: ITU-T Q.24 (1988), table A-1."""

SYLLABLES_HZ = 4.0
"""Rate of syllables in speech (Greenberg 1999, Speech Communication 29: 4 to 5 a second)."""

VOICE_RMS_SHARE = 0.32
"""RMS over peak deviation of limited speech: 800 Hz at 2500 Hz."""

KEYED_SHARE = 0.25  # of transmissions that begin, and as many that end, within the recording
RAMP_S = 0.005  # of the power amplifier when the key is pressed or released
TAIL_S = (0.02, 0.08)  # the key is released this long after the last word


@dataclass(frozen=True)
class Waveform:
    """The complex envelope of one transmission.

    Attributes:
        samples: complex64 (L,), amplitude 1 while the key is pressed.
        sample_rate_hz: of ``samples``.
        start_s: time of sample 0; the recording is [0, duration).
        signal_type: what it is.
        span_s: start and end of the transmission within the recording.
        rms_bandwidth_hz: centred rms bandwidth within the recording.
        mean_power: mean of |samples|^2 within the recording: less than 1 where the key was up.
        truth: every number drawn.
    """

    samples: NDArray[np.complex64]
    sample_rate_hz: float
    start_s: float
    signal_type: SignalType
    span_s: tuple[float, float]
    rms_bandwidth_hz: float
    mean_power: float
    truth: dict[str, Any]


def draw_signal_type(generator: np.random.Generator, spec: SimulationSpec) -> SignalType:
    """Return voice, tone or DTMF, by the thresholds of ``spec``."""
    draw = generator.random()
    if draw < spec.voice_fraction:
        return SignalType.VOICE
    return SignalType.TONE if draw < spec.voice_fraction + spec.tone_fraction else SignalType.DTMF


def synthesize_waveform(
    generator: np.random.Generator, signal_type: SignalType, duration_s: float, sample_rate_hz: float, guard_s: float
) -> Waveform:
    """Return a transmission of ``signal_type`` over [-guard, duration + guard), band-limited to the sample rate.

    Raises:
        ValueError: a signal type that is not simulated.
    """
    num = fft.next_fast_len(math.ceil((duration_s + 2 * guard_s) * sample_rate_hz))
    time_s = np.arange(num) / sample_rate_hz - guard_s
    makers = {SignalType.VOICE: _make_voice, SignalType.TONE: _make_tone, SignalType.DTMF: _make_dtmf}
    if signal_type not in makers:
        raise ValueError(f"signal type {signal_type.value}: expected one of {[item.value for item in makers]}")
    deviation_hz, truth = makers[signal_type](generator, num, sample_rate_hz)
    span_s, truth["tail_s"] = _draw_span(generator, duration_s)
    amplitude = compute_key_envelope(time_s, *_extend(span_s, duration_s, guard_s))
    if truth["tail_s"] and span_s[1] < duration_s:
        deviation_hz = np.where(time_s < span_s[1] - truth["tail_s"], deviation_hz, 0.0)
    samples = modulate_fm(deviation_hz, sample_rate_hz) * amplitude.astype(np.float32)
    inside = (time_s >= 0) & (time_s < duration_s)
    weight = np.square(amplitude[inside])
    return Waveform(
        samples=samples.astype(np.complex64),
        sample_rate_hz=sample_rate_hz,
        start_s=-guard_s,
        signal_type=signal_type,
        span_s=span_s,
        rms_bandwidth_hz=_compute_rms(deviation_hz[inside], weight),
        mean_power=float(weight.mean()),
        truth=truth,
    )


def modulate_fm(deviation_hz: Floats, sample_rate_hz: float) -> NDArray[np.complex64]:
    """Return exp(2 pi j integral of the frequency deviation), complex64, same length.

    Its phase is 0 one sample before the first.

    Examples:
        A constant deviation of a quarter of the sample rate turns by a quarter each sample:

        >>> bool(np.allclose(modulate_fm(np.full(4, 1_000.0), 4_000.0), [1j, -1, -1j, 1], atol=1e-6))
        True
    """
    cycles = np.cumsum(deviation_hz) / sample_rate_hz
    phase = (2.0 * np.pi * (cycles - np.rint(cycles))).astype(np.float32)
    out = np.empty(len(phase), dtype=np.complex64)
    np.cos(phase, out=out.real)
    np.sin(phase, out=out.imag)
    return out


def compute_key_envelope(time_s: Floats, start_s: float, end_s: float) -> Floats:
    """Return the amplitude, 0 to 1, of a transmitter keyed from ``start_s`` to ``end_s``, with raised-cosine ramps.

    Examples:
        >>> compute_key_envelope(np.array([0.0, 0.5, 1.0]), start_s=0.25, end_s=0.75).tolist()  # before, while, after
        [0.0, 1.0, 0.0]
    """
    rise = np.clip((time_s - start_s) / RAMP_S, 0.0, 1.0)
    fall = np.clip((end_s - time_s) / RAMP_S, 0.0, 1.0)
    return np.square(np.sin(0.5 * np.pi * np.minimum(rise, fall)))


def get_dtmf_pair_hz(key: str) -> tuple[float, float]:
    """Return the low and the high frequency of a DTMF key.

    Examples:
        >>> get_dtmf_pair_hz("5")
        (770.0, 1336.0)
    """
    place = DTMF_KEYS.index(key)
    return DTMF_ROWS_HZ[place // 4], DTMF_COLUMNS_HZ[place % 4]


def _compute_rms(deviation_hz: Floats, weight: Floats) -> float:
    """Return the centred rms of the deviation where the transmitter is on."""
    total = weight.sum()
    if total <= 0:
        return 0.0
    mean = (weight * deviation_hz).sum() / total
    return float(np.sqrt((weight * np.square(deviation_hz - mean)).sum() / total))


def _draw_span(generator: np.random.Generator, duration_s: float) -> tuple[tuple[float, float], float]:
    """Return start and end of the transmission within the recording, and the silence before the key is released."""
    begins, ends, early, late, tail = generator.random(5)
    start = 0.3 * early * duration_s if begins < KEYED_SHARE else 0.0
    end = (1.0 - 0.3 * late) * duration_s if ends < KEYED_SHARE else duration_s
    return (start, end), float(TAIL_S[0] + (TAIL_S[1] - TAIL_S[0]) * tail) if end < duration_s else 0.0


def _extend(span_s: tuple[float, float], duration_s: float, guard_s: float) -> tuple[float, float]:
    """Return when the key goes down and up: outside the guard where the transmission began before or ends after."""
    outside = guard_s + 2 * RAMP_S
    start, end = span_s
    return (-outside if start == 0.0 else start), (duration_s + outside if end == duration_s else end)


def _make_tone(generator: np.random.Generator, num: int, rate_hz: float) -> tuple[Floats, dict[str, Any]]:
    tone_hz = float(generator.choice(TONES_HZ))
    phase = generator.random()
    deviation = NARROW_DEVIATION_HZ * np.sin(2.0 * np.pi * (tone_hz / rate_hz * np.arange(num) + phase))
    return deviation, {"tone_hz": tone_hz, "peak_deviation_hz": NARROW_DEVIATION_HZ}


def _make_dtmf(generator: np.random.Generator, num: int, rate_hz: float) -> tuple[Floats, dict[str, Any]]:
    period_s = DTMF_ON_S + DTMF_OFF_S
    time_s = np.arange(num) / rate_hz + generator.random() * period_s
    slot = np.floor(time_s / period_s).astype(np.int64)
    keys = "".join(generator.choice(list(DTMF_KEYS), size=int(slot[-1]) + 1))
    pairs_hz = np.array([get_dtmf_pair_hz(key) for key in keys])
    on = time_s - slot * period_s < DTMF_ON_S
    tones = np.sin(2.0 * np.pi * pairs_hz[slot] * time_s[:, None]).sum(axis=1)
    return 0.5 * NARROW_DEVIATION_HZ * on * tones, {"keys": keys, "peak_deviation_hz": NARROW_DEVIATION_HZ}


def _make_voice(generator: np.random.Generator, num: int, rate_hz: float) -> tuple[Floats, dict[str, Any]]:
    peak_hz = WIDE_DEVIATION_HZ if generator.random() < WIDE_SHARE else NARROW_DEVIATION_HZ
    ctcss_hz = float(generator.choice(CTCSS_HZ)) if generator.random() < 0.5 else 0.0
    ctcss_phase = generator.random()
    voice = _make_speech(generator, num, rate_hz)
    truth = {"peak_deviation_hz": peak_hz, "ctcss_hz": ctcss_hz}
    if ctcss_hz == 0.0:
        return peak_hz * voice, truth
    squelch = np.sin(2.0 * np.pi * (ctcss_hz / rate_hz * np.arange(num) + ctcss_phase))
    share = CTCSS_SHARE_OF_DEVIATION
    return peak_hz * ((1.0 - share) * voice + share * squelch), truth


def _make_speech(generator: np.random.Generator, num: int, rate_hz: float) -> Floats:
    """Return limited speech-like noise within +-1: syllables, pauses, 300 to 3000 Hz, rms ``VOICE_RMS_SHARE``."""
    frequency_hz = fft.rfftfreq(num, 1.0 / rate_hz)
    # Speech falls by 6 dB an octave above about 1 kHz; the transmitter's pre-emphasis gives half of it back.
    shape = _pass_band(frequency_hz) / np.sqrt(1.0 + np.square(frequency_hz / 1000.0))
    spectrum = generator.standard_normal(len(frequency_hz), dtype=np.float32) + 1j * generator.standard_normal(
        len(frequency_hz), dtype=np.float32
    )
    audio = fft.irfft(spectrum * shape, n=num)
    audio *= _draw_syllables(generator, num, rate_hz) / np.sqrt(np.mean(np.square(audio)))
    limited = np.tanh(1.2 * audio)
    # The splatter filter behind the limiter keeps its harmonics out of the channel; what overshoots is cut.
    smooth = fft.irfft(fft.rfft(limited) * _pass_band(frequency_hz), n=num)
    target = VOICE_RMS_SHARE * np.exp(0.08 * generator.standard_normal())
    clipped: NDArray[np.float64] = np.clip(smooth * (target / np.sqrt(np.mean(np.square(smooth)))), -1.0, 1.0)
    return clipped


def _pass_band(frequency_hz: Floats) -> Floats:
    """Return the amplitude response of the speech band, sixth-order skirts."""
    ratio = np.divide(AUDIO_LOW_HZ, frequency_hz, out=np.full_like(frequency_hz, np.inf), where=frequency_hz > 0)
    return 1.0 / np.sqrt((1.0 + ratio**12) * (1.0 + (frequency_hz / AUDIO_HIGH_HZ) ** 12))


def _draw_syllables(generator: np.random.Generator, num: int, rate_hz: float) -> Floats:
    """Return the loudness of speech: syllables of random height four times a second, every sixth or so a pause."""
    num_points = max(4, math.ceil(num / rate_hz * SYLLABLES_HZ) + 3)
    height = np.exp(0.4 * generator.standard_normal(num_points))
    height[generator.random(num_points) < 1.0 / 6.0] = 0.0
    place = np.arange(num) / rate_hz * SYLLABLES_HZ + generator.random()
    syllable = np.floor(place).astype(np.int64)
    # However short the recording, somebody speaks in its middle.
    height[syllable[num // 2]] = max(height[syllable[num // 2]], 1.0)
    # One syllable swells and fades like a half sine, and never quite to nothing within a word.
    swell = 0.25 + 0.75 * np.sin(np.pi * (place - syllable))
    return height[syllable] * swell
