"""Mel spectrograms of complex IQ in dB of full scale, cepstra, and their normalisation.

Belongs here: samples -> pictures. Does not belong here: checks of a recording (``iq``), delays (``delays``).

0 dBFS is a full-scale complex tone through the window: P_fullscale = n_fft * sum(window^2), all its power by Parseval,
so that the mel rows of one such tone add up to 0 dB. The magnitude |I + jQ| is never taken before the transform: FM has
a constant envelope, so that would erase the signal.

Shapes: N samples, T transforms, K = n_fft / 2 + 1 frequencies from 0 up, M mel rows, F frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.errors import InvalidInput, InvalidRecording

if TYPE_CHECKING:
    from heimdall_assets.specs import FeatureSpec

NUM_CHANNELS = 3

SMALLEST_SHARE = 1e-10
"""Added to P / P_fullscale before the logarithm, so that silence is -100 dB and not minus infinity."""

LARGEST_TRANSFORM = 65_536
"""Samples of the largest transform that ``FeatureSpec`` allows."""

_TRANSFORMS_AT_ONCE = 32  # of 2048 complex64: half a megabyte, which stays in the second-level cache


def compute_spectrogram(
    samples: NDArray[np.complexfloating], sample_rate_hz: float, spec: "FeatureSpec", name: str = "recording"
) -> NDArray[np.float32]:
    """Return the mel spectrogram of a recording, float32 (3, num_mels, num_frames), dB of full scale.

    Channels ``signed``: mel of f >= 0, mel of f < 0 (mirrored), their sum; ``iq``: |STFT(I)|^2, |STFT(Q)|^2, their sum.
    The third is the same in both. A tone at +f is in channel 0 of ``signed``. Rows too narrow to hold a frequency are
    constant at the floor; the row weights at 0 Hz are zero, so a receiver's DC offset does not show when f_min is 0.

    Frames ``pooled``: the T transforms that fit are cut into num_frames runs, as equal as whole transforms allow, and
    the power of each run is averaged; ``strict``: the first num_frames transforms. Nothing is padded: up to hop - 1
    samples at the end belong to no transform.

    Args:
        samples: complex (N,), full scale 1.0.
        sample_rate_hz: rate of this recording.
        spec: the picture.
        name: what to call the recording in an error.

    Raises:
        InvalidRecording: f_max lies above half the sample rate, or fewer transforms fit than frames are asked for.

    Examples:
        A tone 1 kHz above the carrier at full scale stands in the first channel and not in the second:

        >>> from heimdall_assets.specs import FeatureSpec
        >>> tone = np.exp(2j * np.pi * 1000.0 / 192_000.0 * np.arange(192_000))
        >>> above, below, both = compute_spectrogram(tone, 192_000.0, FeatureSpec())
        >>> above.shape
        (128, 32)
        >>> bool(above.max() > below.max() + 60.0), abs(round(float(both.max() - above.max()), 2))
        (True, 0.0)
    """
    _check(samples, sample_rate_hz, spec, name)
    num_transforms = 0 if len(samples) < spec.n_fft else (len(samples) - spec.n_fft) // spec.hop + 1
    if num_transforms < spec.num_frames:
        needed = spec.n_fft + (spec.num_frames - 1) * spec.hop
        raise InvalidRecording(
            f"{name}: {len(samples)} samples hold {num_transforms} transforms of {spec.n_fft} every {spec.hop}, "
            f"expected at least {spec.num_frames} ({needed} samples)"
        )
    bank = _Bank.build(sample_rate_hz, spec.n_fft, spec.num_mels, spec.f_min_hz, spec.f_max_hz)
    if spec.frames == "strict":
        num_transforms = spec.num_frames
    edges = np.arange(spec.num_frames + 1) * num_transforms // spec.num_frames
    power_CKF = np.zeros((2, bank.num_bins, spec.num_frames), dtype=np.float32)
    for first, block_CTK in _iterate_power(samples, num_transforms, spec, bank):
        last = first + block_CTK.shape[1]
        inside = np.unique(np.clip(edges, first, last))
        frame = np.searchsorted(edges, inside[:-1], side="right") - 1
        sums = np.add.reduceat(block_CTK, inside[:-1] - first, axis=1)
        power_CKF[:, :, frame] += sums.transpose(0, 2, 1)
    power_CKF /= np.diff(edges).astype(np.float32)
    return _encode_db(np.stack([bank.apply(power_CKF[0]), bank.apply(power_CKF[1])]), spec)


def compute_full_spectrogram(
    samples: NDArray[np.complexfloating], sample_rate_hz: float, spec: "FeatureSpec", name: str = "recording"
) -> NDArray[np.float32]:
    """Return the whole mel spectrogram, all frequencies of both signs, float32 (num_mels, ceil(N / hop)), in dBFS.

    192000 samples with a hop of 512 give 375 frames. Frame t is centred at sample t * hop: the recording is extended by
    n_fft / 2 zeros at its start and by as many as the last frame needs at its end, so the outer frames hold less power.

    Raises:
        InvalidRecording: f_max lies above half the sample rate, or there are fewer than n_fft samples.

    Examples:
        >>> from heimdall_assets.specs import FeatureSpec
        >>> compute_full_spectrogram(np.ones(192_000, dtype=np.complex64), 192_000.0, FeatureSpec()).shape
        (128, 375)
    """
    _check(samples, sample_rate_hz, spec, name)
    if len(samples) < spec.n_fft:
        raise InvalidRecording(f"{name}: {len(samples)} samples, expected at least one transform of {spec.n_fft}")
    bank = _Bank.build(sample_rate_hz, spec.n_fft, spec.num_mels, spec.f_min_hz, spec.f_max_hz)
    num_frames = -(-len(samples) // spec.hop)
    padded = np.zeros((num_frames - 1) * spec.hop + spec.n_fft, dtype=np.complex64)
    usable = min(len(samples), len(padded) - spec.n_fft // 2)
    padded[spec.n_fft // 2 : spec.n_fft // 2 + usable] = samples[:usable]
    signed = spec.model_copy(update={"channels": "signed"})
    mel_MF = np.empty((spec.num_mels, num_frames), dtype=np.float32)
    for first, block_CTK in _iterate_power(padded, num_frames, signed, bank):
        total_KT = np.ascontiguousarray(block_CTK.sum(axis=0).T)
        mel_MF[:, first : first + total_KT.shape[1]] = bank.apply(total_KT)
    return _to_db(mel_MF, spec)


def compute_mfcc(
    samples: NDArray[np.complexfloating],
    sample_rate_hz: float,
    spec: "FeatureSpec",
    num_coefficients: int = 13,
    name: str = "recording",
) -> NDArray[np.float32]:
    """Return mel-frequency cepstral coefficients of both signs' power, float32 (num_coefficients, num_frames), in dB.

    The orthonormal type-II cosine transform of the third channel's dB values along the mel rows.

    Raises:
        InvalidInput: more coefficients than mel rows.
        InvalidRecording: as ``compute_spectrogram``.

    Source: Davis and Mermelstein 1980, IEEE Trans. ASSP 28 (4), eq. 1.

    Examples:
        Silence is flat at the floor of -100 dB: all of it is in the first coefficient, -100 sqrt(128).

        >>> from heimdall_assets.specs import FeatureSpec
        >>> silence = compute_mfcc(np.zeros(192_000, dtype=np.complex64), 192_000.0, FeatureSpec())
        >>> round(float(silence[0, 0])), bool(np.abs(silence[1:]).max() < 0.01)
        (-1131, True)
    """
    if not 1 <= num_coefficients <= spec.num_mels:
        raise InvalidInput(f"num_coefficients {num_coefficients}: expected 1 to num_mels {spec.num_mels}")
    total_MF = compute_spectrogram(samples, sample_rate_hz, spec, name)[2]
    return np.ascontiguousarray(fft.dct(total_MF, type=2, axis=0, norm="ortho")[:num_coefficients])


def convert_hz_to_mel(frequency_hz: Any) -> Any:
    """Return frequencies on the mel scale. Source: O'Shaughnessy 1987, Speech Communication, p. 150 (as in HTK).

    Examples:
        >>> round(float(convert_hz_to_mel(1000.0)))  # the scale's anchor
        1000
    """
    return 2595.0 * np.log10(1.0 + np.asarray(frequency_hz, dtype=np.float64) / 700.0)


def convert_mel_to_hz(mel: Any) -> Any:
    """Return frequencies in Hz of points on the mel scale; the inverse of ``convert_hz_to_mel``.

    Examples:
        >>> np.round(convert_mel_to_hz(convert_hz_to_mel(np.array([0.0, 440.0, 6250.0]))), 6).tolist()
        [0.0, 440.0, 6250.0]
    """
    return 700.0 * (10.0 ** (np.asarray(mel, dtype=np.float64) / 2595.0) - 1.0)


def compute_mel_bank(
    sample_rate_hz: float, n_fft: int, num_mels: int, f_min_hz: float, f_max_hz: float
) -> NDArray[np.float64]:
    """Return triangular mel weights, float64 (num_mels, n_fft / 2 + 1), peak 1; neighbours add up to 1.

    Examples:
        >>> bank = compute_mel_bank(sample_rate_hz=24_000.0, n_fft=1024, num_mels=16, f_min_hz=0.0, f_max_hz=12_000.0)
        >>> bank.shape
        (16, 513)
        >>> bool(np.allclose(bank[:, 10:400].sum(axis=0), 1.0))  # between the outermost peaks
        True
    """
    return _compute_weights(
        (sample_rate_hz / n_fft) * np.arange(n_fft // 2 + 1, dtype=np.float64), num_mels, f_min_hz, f_max_hz
    )


def count_empty_rows(sample_rate_hz: float, spec: "FeatureSpec") -> int:
    """Return how many mel rows lie between two frequencies of the transform: they hold the floor, whatever was heard.

    Examples:
        At 24 kHz the transform has a frequency each 12 Hz, at 192 kHz each 94 Hz:

        >>> from heimdall_assets.specs import FeatureSpec
        >>> count_empty_rows(24_000.0, FeatureSpec()), count_empty_rows(192_000.0, FeatureSpec())
        (0, 35)
    """
    bank = compute_mel_bank(sample_rate_hz, spec.n_fft, spec.num_mels, spec.f_min_hz, spec.f_max_hz)
    return int((~bank.any(axis=1)).sum())


def find_full_transform(sample_rate_hz: float, spec: "FeatureSpec") -> int | None:
    """Return the smallest doubling of ``spec.n_fft`` that leaves no mel row empty; None: no allowed one does."""
    n_fft = spec.n_fft
    while n_fft <= LARGEST_TRANSFORM:
        if not count_empty_rows(sample_rate_hz, spec.model_copy(update={"n_fft": n_fft})):
            return n_fft
        n_fft *= 2
    return None


def _compute_weights(
    bin_hz: NDArray[np.float64], num_mels: int, f_min_hz: float, f_max_hz: float
) -> NDArray[np.float64]:
    edges_hz = convert_mel_to_hz(np.linspace(convert_hz_to_mel(f_min_hz), convert_hz_to_mel(f_max_hz), num_mels + 2))
    left, centre, right = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (bin_hz - left) / (centre - left), (right - bin_hz) / (right - centre)
    triangles: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    return triangles


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel in dB, float64 (3,), as fitted on a training split."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def __post_init__(self) -> None:
        for what, values in (("mean", self.mean), ("std", self.std)):
            if np.shape(values) != (NUM_CHANNELS,) or not np.all(np.isfinite(values)):
                raise InvalidInput(f"statistics: {what} {values!r}, expected {NUM_CHANNELS} finite numbers")
        if not np.all(np.asarray(self.std) > 0):
            raise InvalidInput(f"statistics: std {self.std!r}, expected positive numbers (a channel never changes)")

    def apply(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return (features - mean) / std, float32, for features (..., 3, num_mels, num_frames).

        Examples:
            >>> statistics = Statistics(mean=np.full(3, -60.0), std=np.full(3, 20.0))
            >>> statistics.apply(np.full((3, 1, 1), -40.0)).ravel().tolist()
            [1.0, 1.0, 1.0]
        """
        mean, std = (np.asarray(value, dtype=np.float32)[:, None, None] for value in (self.mean, self.std))
        return ((np.asarray(features, dtype=np.float32) - mean) / std).astype(np.float32)


def fit_statistics(features: NDArray[np.floating], rows: NDArray[np.int64] | None = None) -> Statistics:
    """Return the statistics of spectrograms (F, 3, num_mels, num_frames), of ``rows`` alone where they are given.

    Reads a few at a time, so ``features`` may be a memory map larger than memory.

    Raises:
        InvalidInput: no spectrogram, or a channel that never changes.

    Examples:
        >>> fitted = fit_statistics(np.stack([np.full((3, 8, 4), -70.0), np.full((3, 8, 4), -50.0)]))
        >>> fitted.mean.tolist(), fitted.std.tolist()
        ([-60.0, -60.0, -60.0], [10.0, 10.0, 10.0])
    """
    chosen = np.arange(len(features)) if rows is None else np.asarray(rows)
    if len(chosen) == 0:
        raise InvalidInput("statistics: found no spectrogram, expected at least one")
    shift = np.asarray(features[chosen[0]], dtype=np.float64).mean(axis=(1, 2))  # keeps the squares small
    sums, squares, count = np.zeros(NUM_CHANNELS), np.zeros(NUM_CHANNELS), 0
    for start in range(0, len(chosen), 256):
        part = np.asarray(features[chosen[start : start + 256]], dtype=np.float64) - shift[:, None, None]
        sums += part.sum(axis=(0, 2, 3))
        squares += np.square(part).sum(axis=(0, 2, 3))
        count += part.size // NUM_CHANNELS
    mean = sums / count
    return Statistics(mean=shift + mean, std=np.sqrt(np.maximum(squares / count - mean**2, 0.0)))


def _check(samples: NDArray[Any], sample_rate_hz: float, spec: "FeatureSpec", name: str) -> None:
    if samples.ndim != 1 or not np.iscomplexobj(samples):
        raise InvalidRecording(f"{name}: found {samples.dtype} {samples.shape}, expected complex (N,)")
    if not sample_rate_hz >= 2.0 * spec.f_max_hz:
        raise InvalidRecording(
            f"{name}: sample rate {sample_rate_hz:.6g} Hz, expected at least {2.0 * spec.f_max_hz:.6g} Hz, "
            f"twice f_max_hz {spec.f_max_hz:.6g} (Nyquist)"
        )


@lru_cache(maxsize=8)
def _window(n_fft: int) -> tuple[NDArray[np.float32], float]:
    """Return the periodic Hann window scaled so that a full-scale complex tone has power 1 in all, and its scale."""
    from scipy.signal.windows import get_window  # slow to load: listing the graph needs no window

    window = get_window("hann", n_fft)
    scale = 1.0 / np.sqrt(n_fft * np.square(window).sum())
    return (window * scale).astype(np.float32), scale


def _iterate_power(
    samples: NDArray[Any], num_transforms: int, spec: "FeatureSpec", bank: "_Bank"
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first transform, power float32 (2, T, K)) block by block; both parts add up to the total power.

    Frequencies above the highest one that a mel row uses are left out. The array is used again for the next block.
    """
    window = _window(spec.n_fft)[0]
    view = np.lib.stride_tricks.sliding_window_view(samples, spec.n_fft)[:: spec.hop][:num_transforms]
    num_bins = bank.num_bins
    power = np.empty((2, min(_TRANSFORMS_AT_ONCE, num_transforms), num_bins), dtype=np.float32)
    framed = np.empty((power.shape[1], spec.n_fft), dtype=np.complex64)
    halves = np.empty((power.shape[1], spec.n_fft), dtype=np.float32)
    for first in range(0, num_transforms, power.shape[1]):
        num = min(power.shape[1], num_transforms - first)
        block = view[first : first + num]
        if spec.channels == "signed":
            np.multiply(block, window, out=framed[:num], casting="same_kind")
            spectrum = fft.fft(framed[:num], axis=1, overwrite_x=True)
            _square(spectrum[:, :num_bins], power[0, :num])
            # Frequency -k stands at n_fft - k; 0 Hz counts as positive, half the rate as negative, each once.
            _square(spectrum[:, : spec.n_fft - num_bins : -1], power[1, :num, 1:])
            power[1, :num, 0] = 0.0
            if num_bins == spec.n_fft // 2 + 1:
                power[0, :num, -1] = 0.0
        else:
            for channel, part in enumerate((block.real, block.imag)):
                np.multiply(part, window, out=halves[:num], casting="same_kind")
                spectrum = fft.rfft(halves[:num], axis=1)
                _square(spectrum[:, :num_bins], power[channel, :num])
                # A real signal's power at -f equals that at +f: both are counted, but 0 Hz and half the rate once.
                power[channel, :num, 1:] *= 2.0
                if num_bins == spec.n_fft // 2 + 1:
                    power[channel, :num, -1] *= 0.5
        yield first, power[:, :num]


def _square(values: NDArray[np.complex64], out: NDArray[np.float32]) -> None:
    np.multiply(values.real, values.real, out=out)
    out += values.imag * values.imag


@dataclass(frozen=True)
class _Bank:
    """Mel weights cut into bands of rows, each with the run of frequencies that its rows use: few products by zero."""

    num_mels: int
    num_bins: int
    bands: tuple[tuple[slice, slice, NDArray[np.float32]], ...]

    @staticmethod
    @lru_cache(maxsize=64)
    def build(sample_rate_hz: float, n_fft: int, num_mels: int, f_min_hz: float, f_max_hz: float) -> "_Bank":
        num_used = min(n_fft // 2 + 1, int(f_max_hz / sample_rate_hz * n_fft) + 1)
        bin_hz = (sample_rate_hz / n_fft) * np.arange(num_used, dtype=np.float64)
        weights = _compute_weights(bin_hz, num_mels, f_min_hz, f_max_hz).astype(np.float32)
        used = np.flatnonzero(weights.any(axis=0))
        num_bins = int(used[-1]) + 1 if len(used) else 2
        bands = []
        for start in range(0, num_mels, 16):
            rows = slice(start, min(start + 16, num_mels))
            bins = np.flatnonzero(weights[rows].any(axis=0))
            if len(bins):
                columns = slice(int(bins[0]), int(bins[-1]) + 1)
                bands.append((rows, columns, np.ascontiguousarray(weights[rows, columns])))
        return _Bank(num_mels, num_bins, tuple(bands))

    def apply(self, power_KF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return mel power, float32 (M, F), of power by frequency, float32 (K, F)."""
        mel_MF = np.zeros((self.num_mels, power_KF.shape[1]), dtype=np.float32)
        for rows, columns, weights in self.bands:
            np.matmul(weights, power_KF[columns], out=mel_MF[rows])
        return mel_MF


def _encode_db(mel_CMF: NDArray[np.float32], spec: "FeatureSpec") -> NDArray[np.float32]:
    """Return both parts and their sum in dB, float32 (3, M, F)."""
    return _to_db(np.concatenate([mel_CMF, mel_CMF.sum(axis=0, keepdims=True)]), spec)


def _to_db(power: NDArray[np.float32], spec: "FeatureSpec") -> NDArray[np.float32]:
    level_db: NDArray[np.float32] = 10.0 * np.log10(power + np.float32(SMALLEST_SHARE))
    return np.clip(level_db, spec.floor_db, 0.0).astype(np.float32)
