"""Whether decoded samples are fit for use: shape, length, finiteness, silence, clipping, rate.

Belongs here: checks and plain facts about one recording in memory. Does not belong here: file formats
(``formats``) and features (``signals.spectrogram``).
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.physical import Recording

if TYPE_CHECKING:
    from heimdall_assets.specs import RecordingSpec

MAX_COMPONENT = 8.0
"""I or Q beyond this many full scales (18 dB) is not clipping, but samples in another unit."""

QUIETEST_DBFS = -150.0
"""No converter gives less: rounding to 24 bits alone makes noise of -146 dBFS, 20 log10(2^-23 sqrt(2 / 12))."""

_BLOCK = 1 << 20  # samples looked at in one go, so that a long recording costs no second copy of itself


def check_recording(
    recording: Recording,
    spec: "RecordingSpec",
    *,
    name: str,
    expected_rate_hz: float | None = None,
    expected_num_samples: int | None = None,
) -> dict[str, Any]:
    """Return facts about a usable recording: JSON values, levels in dB of full scale.

    Keys: ``num_samples``, ``sample_rate_hz``, ``duration_s``, ``rms_dbfs``, ``peak_dbfs`` (largest of |I| and |Q|),
    ``dc_dbfs`` (|mean|), ``clipped_fraction`` (share of samples with I or Q at full scale), ``zero_fraction`` (share of
    samples that are exactly zero: dropped blocks).

    Args:
        recording: samples complex64 (N,), full scale 1.0.
        spec: the limits.
        name: what to call the recording in an error.
        expected_rate_hz: the rate that the row states.
        expected_num_samples: the number of samples that the row states.

    Raises:
        InvalidRecording: it is empty, too short, too long, of another length or rate than its row says, holds NaN or
            infinity, never changes or is quieter than any converter (silent), is clipped, or is not scaled to 1.0.

    Examples:
        A complex tone of half the full scale has a level of 20 log10(1/2):

        >>> from heimdall_assets.specs import RecordingSpec
        >>> tone = 0.5 * np.exp(2j * np.pi * 0.01 * np.arange(24_000))
        >>> facts = check_recording(Recording(tone.astype(np.complex64), 24_000.0), RecordingSpec(), name="tone")
        >>> facts["duration_s"], round(facts["rms_dbfs"], 2), facts["zero_fraction"]
        (1.0, -6.02, 0.0)
    """
    samples = recording.samples
    if samples.ndim != 1 or samples.dtype != np.complex64:
        raise InvalidRecording(f"{name}: found {samples.dtype} {samples.shape}, expected complex64 (N,)")
    _check_rate(recording.sample_rate_hz, expected_rate_hz, spec, name)
    _check_length(recording, expected_num_samples, spec, name)
    facts = _measure(samples, recording.largest_component, name)
    if facts["clipped_fraction"] > spec.max_clipped_fraction:
        raise InvalidRecording(
            f"{name}: {facts['clipped_fraction']:.2%} of the samples at full scale, expected at most "
            f"{spec.max_clipped_fraction:.2%} (clipped)"
        )
    return {
        "num_samples": len(samples),
        "sample_rate_hz": recording.sample_rate_hz,
        "duration_s": recording.duration_s,
        **facts,
    }


def _check_rate(rate_hz: float, expected_hz: float | None, spec: "RecordingSpec", name: str) -> None:
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InvalidRecording(f"{name}: sample rate {rate_hz} Hz, expected a positive number")
    if expected_hz is not None and not abs(rate_hz - expected_hz) <= spec.max_rate_error * abs(expected_hz):
        raise InvalidRecording(
            f"{name}: sample rate {rate_hz:.6g} Hz in the file, expected {expected_hz:.6g} Hz within "
            f"{spec.max_rate_error:g} of it, as its row says"
        )


def _check_length(recording: Recording, expected_num_samples: int | None, spec: "RecordingSpec", name: str) -> None:
    num_samples = len(recording.samples)
    if num_samples == 0:
        raise InvalidRecording(f"{name}: no samples, expected at least {spec.min_duration_s:g} s of them")
    if expected_num_samples is not None and num_samples != expected_num_samples:
        raise InvalidRecording(f"{name}: {num_samples} samples, expected {expected_num_samples}, as its row says")
    if num_samples > spec.max_samples:
        raise InvalidRecording(f"{name}: {num_samples} samples, expected at most {spec.max_samples}")
    if recording.duration_s < spec.min_duration_s:
        raise InvalidRecording(
            f"{name}: {recording.duration_s:.4g} s long, expected at least {spec.min_duration_s:g} s"
        )


def _measure(samples: NDArray[np.complex64], largest: float, name: str) -> dict[str, float]:
    num_samples = len(samples)
    peak, power, total, num_clipped, num_zero = 0.0, 0.0, 0.0 + 0.0j, 0, 0
    changes = False
    for start in range(0, num_samples, _BLOCK):
        block = samples[start : start + _BLOCK]
        components = np.abs(np.ascontiguousarray(block).view(np.float32)).reshape(-1, 2)
        larger = components.max(axis=1)
        if not np.isfinite(larger).all():
            first = start + int(np.flatnonzero(~np.isfinite(larger))[0])
            raise InvalidRecording(f"{name}: sample {first} is not finite, expected numbers only")
        peak = max(peak, float(larger.max()))
        if peak > MAX_COMPONENT:
            raise InvalidRecording(
                f"{name}: samples reach {peak:.5g}, expected full scale 1.0 (int16 values divided by 32768)"
            )
        power += float(np.sum(np.square(components, dtype=np.float64)))
        total += complex(block.sum(dtype=np.complex128))
        num_clipped += int(np.count_nonzero(larger >= largest))
        num_zero += int(np.count_nonzero(larger == 0.0))
        changes = changes or bool((block != samples[0]).any())
    if not changes:
        kind = "all samples are zero" if peak == 0.0 else f"every sample is the same value {complex(samples[0]):.4g}"
        raise InvalidRecording(f"{name}: {kind}, expected a signal or at least noise (silent)")
    rms_dbfs = _to_db(power / num_samples)
    if rms_dbfs < QUIETEST_DBFS:
        raise InvalidRecording(
            f"{name}: level {rms_dbfs:.0f} dB of full scale, expected at least {QUIETEST_DBFS:.0f} dB, the least that "
            "a converter gives: silent, or in another coding or scale than is stated"
        )
    return {
        "rms_dbfs": rms_dbfs,
        "peak_dbfs": _to_db(peak**2),
        "dc_dbfs": _to_db(abs(total / num_samples) ** 2),
        "clipped_fraction": num_clipped / num_samples,
        "zero_fraction": num_zero / num_samples,
    }


def _to_db(power: float) -> float:
    """Return ``power`` in dB, floored at -300 dB, where no converter reaches, so that silence stays a number."""
    return 10.0 * math.log10(max(power, 1e-30))
