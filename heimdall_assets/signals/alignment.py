"""Recordings of one session on one clock: where they overlap, and roughly how they are shifted in time and frequency.

Belongs here: the common time grid and the search of delay and carrier offset that starts the likelihood
(``likelihood``). Does not belong here: anything finer than a sample of the channel.

Shapes: R receivers, M frequencies (and as many times) of the common grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.errors import CannotLocate
from heimdall_assets.physical import SIGNAL_SPEED_M_S, Place, Recording
from heimdall_assets.signals.chirp import compute_chirp_transform
from heimdall_assets.signals.geodesy import compute_straight_range_m

Floats = NDArray[np.float64]

MIN_OVERLAP_S = 0.05
"""Shorter common parts hold too few independent frequencies to tell a peak from noise."""

CLOCK_SLACK_S = 100e-6
"""Added to every lag window: three sigma of the difference of two uncalibrated GNSS receive chains."""

STEP_HALF_WIDTH = 3.0**0.5
"""Sigmas from the middle of a step to its end, of errors that are spread evenly over it: a written start is in it."""

RAMP_S = 0.004  # taper at both ends, so that samples cut off by one clock but not by another weigh nothing

SEGMENT_S = 0.01  # resolution at which the transmission's beginning and end are looked for

_CELLS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Grid:
    """A common interval of time and the frequencies that describe it: step 1 / duration, around 0 Hz.

    Attributes:
        start_s: start of the interval on the session's clock.
        num: M, how many frequencies, and samples of the channel.
        step_hz: their distance.
    """

    start_s: float
    num: int
    step_hz: float

    @property
    def duration_s(self) -> float:
        """Length of the interval, in s."""
        return 1.0 / self.step_hz

    @property
    def bandwidth_hz(self) -> float:
        """Width of the channel, in Hz: also the rate of its samples."""
        return self.num * self.step_hz

    @property
    def first_hz(self) -> float:
        """Lowest frequency, in Hz."""
        return -(self.num // 2) * self.step_hz

    @property
    def frequency_hz(self) -> Floats:
        """Frequencies, float64 (M,), rising."""
        return self.step_hz * (np.arange(self.num, dtype=np.float64) - self.num // 2)

    @classmethod
    def build(cls, start_s: float, end_s: float, bandwidth_hz: float) -> "Grid":
        """Return the grid of an interval, its number of samples rounded down to one that transforms fast.

        Examples:
            >>> grid = Grid.build(0.0, 1.0, 12_500.0)
            >>> grid.num, grid.step_hz, grid.first_hz
            (12500, 1.0, -6250.0)
        """
        duration_s = end_s - start_s
        return cls(start_s, fft.prev_fast_len(max(int(bandwidth_hz * duration_s), 16)), 1.0 / duration_s)


@dataclass(frozen=True)
class Alignment:
    """How each recording must be shifted to match the reference, and the interval that then holds the signal.

    Attributes:
        used: bool (R,), the recording takes part.
        reference: index of the receiver the others are compared with.
        delay_s: float64 (R,), arrival after the reference's, to about a tenth of the correlation's width.
        offset_hz: float64 (R,), frequency at which the signal's centre stands in each recording.
        start_s, end_s: of the transmission on the reference's clock.
        num_cells: how many delays, offsets and intervals were tried for each receiver.
    """

    used: NDArray[np.bool_]
    reference: int
    delay_s: Floats
    offset_hz: Floats
    start_s: float
    end_s: float
    num_cells: int


def compute_start_times_s(recordings: Sequence[Recording]) -> Floats:
    """Return each recording's time of sample 0 in s after the earliest, float64 (R,); NaN: untimed.

    Examples:
        >>> samples, starts_ns = np.zeros(8, dtype=np.complex64), (2_000_000_000, None, 500_000_000)
        >>> compute_start_times_s([Recording(samples, 8.0, start) for start in starts_ns]).tolist()
        [1.5, nan, 0.0]
    """
    known = [recording.start_unix_ns for recording in recordings if recording.start_unix_ns is not None]
    if not known:
        return np.full(len(recordings), np.nan)
    zero = min(known)
    return np.array(
        [np.nan if item.start_unix_ns is None else (item.start_unix_ns - zero) * 1e-9 for item in recordings]
    )


def find_overlap(start_s: Floats, end_s: Floats) -> tuple[NDArray[np.bool_], float, float]:
    """Return which recordings to use and the interval they share; those that spoil the overlap most are left out.

    Raises:
        CannotLocate: no two recordings share ``MIN_OVERLAP_S``.

    Examples:
        The third recording starts when the others have ended:

        >>> used, start_s, end_s = find_overlap(np.array([0.0, 0.25, 5.0]), np.array([1.0, 1.25, 6.0]))
        >>> used.tolist(), start_s, end_s
        ([True, True, False], 0.25, 1.0)
    """
    used = np.isfinite(start_s) & np.isfinite(end_s)
    while used.sum() >= 2:
        first, last = start_s[used].max(), end_s[used].min()
        if last - first >= MIN_OVERLAP_S:
            return used, float(first), float(last)
        candidates = np.flatnonzero(used)
        gains = []
        for place in candidates:
            rest = candidates[candidates != place]
            gains.append(end_s[rest].min() - start_s[rest].max())
        used[candidates[int(np.argmax(gains))]] = False
    raise CannotLocate(f"delays: no two of {len(start_s)} recordings share {MIN_OVERLAP_S} s of time")


def compute_lag_limits_s(receivers: Sequence[Place], slack: float, start_sigma_s: Floats | float = 0.0) -> Floats:
    """Return the largest possible delay of each pair in s, (R, R): ``slack`` times the way, and clock errors.

    Args:
        receivers: R positions.
        slack: by how much a way may be longer than the straight one.
        start_sigma_s: float64 (R,), how well the start of each recording is written down: within a step of that sigma.

    Examples:
        >>> from heimdall_assets.domain import Position
        >>> receivers = [Position(latitude=45.0, longitude=7.0), Position(latitude=46.0, longitude=7.0)]
        >>> round(1e6 * float(compute_lag_limits_s(receivers, slack=1.0)[0, 1]))  # 371 us of way, 100 us of clocks
        471
    """
    latitude, longitude, altitude_m = (
        np.array([getattr(place, name) for place in receivers]) for name in ("latitude", "longitude", "altitude_m")
    )
    distance = compute_straight_range_m(
        latitude[:, None], longitude[:, None], altitude_m[:, None], latitude, longitude, altitude_m
    )
    half_step_s = STEP_HALF_WIDTH * np.broadcast_to(np.asarray(start_sigma_s, dtype=np.float64), latitude.shape)
    return slack * distance / SIGNAL_SPEED_M_S + CLOCK_SLACK_S + half_step_s[:, None] + half_step_s


def compute_spectrum(
    recording: Recording, start_s: float, grid: Grid, delay_s: float = 0.0, offset_hz: float = 0.0
) -> NDArray[np.complex64]:
    """Return the spectrum of a recording on a common grid, complex64 (M,), shifted back by a delay and an offset.

    The recording's own rate and start time are exact in it: nothing is resampled. Both ends are tapered.

    Args:
        recording: at any rate.
        start_s: its sample 0 on the session's clock.
        grid: interval and frequencies.
        delay_s: how much later the signal arrives here; the interval moves along.
        offset_hz: where the grid's 0 Hz stands in this recording.
    """
    rate_hz = recording.sample_rate_hz
    begin_s = grid.start_s + delay_s - start_s
    first = max(int(np.ceil(begin_s * rate_hz)), 0)
    last = min(int(np.ceil((begin_s + grid.duration_s) * rate_hz)), len(recording.samples))
    time_s = np.arange(first, last) / rate_hz - begin_s
    edge = np.minimum(time_s, grid.duration_s - time_s) / min(RAMP_S, 0.1 * grid.duration_s)
    ramp = np.square(np.sin(0.5 * np.pi * np.clip(edge, 0.0, 1.0))).astype(np.float32)
    inside = recording.samples[first:last]
    # A converter's offset is a line of its own in each recording. A carrier at exactly 0 Hz goes with it, which tells
    # nothing about delay.
    level = np.complex64(inside.mean(dtype=np.complex128)) if len(inside) else np.complex64(0)
    return compute_chirp_transform(
        (inside - level) * ramp,
        grid.num,
        float(time_s[0]) if len(time_s) else 0.0,
        1.0 / rate_hz,
        grid.first_hz + offset_hz,
        grid.step_hz,
        sign=-1,
    )


def to_time(spectrum: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return the channel's samples over the grid's interval, complex64 (..., M)."""
    samples: NDArray[np.complex64] = fft.ifft(fft.ifftshift(spectrum, axes=-1), axis=-1)
    return samples


def align_recordings(
    recordings: Sequence[Recording], start_s: Floats, lag_limits_s: Floats, bandwidth_hz: float, rank: int = 0
) -> Alignment:
    """Return a first alignment: the peak of each recording's ambiguity function against the clearest one.

    Args:
        recordings: R of them.
        start_s: float64 (R,), as ``compute_start_times_s`` gives it.
        lag_limits_s: float64 (R, R).
        bandwidth_hz: of the channel.
        rank: 0 compares with the clearest recording, 1 with the second, and so on.

    Raises:
        CannotLocate: no two recordings overlap in time.
    """
    end_s = start_s + np.array([recording.duration_s for recording in recordings])
    used, first_s, last_s = find_overlap(start_s, end_s)
    places: list[int] = np.flatnonzero(used).tolist()
    bandwidth_hz = min(bandwidth_hz, *(recordings[place].sample_rate_hz for place in places))
    grid = Grid.build(first_s, last_s, bandwidth_hz)
    spectra = np.stack([compute_spectrum(recordings[place], start_s[place], grid) for place in places])
    clarity = np.array([_estimate_clarity(spectrum) for spectrum in spectra])
    reference = int(np.argsort(-clarity, kind="stable")[min(rank, len(places) - 1)])
    samples = to_time(spectra)
    delay_s, offset_hz = np.zeros(len(recordings)), np.zeros(len(recordings))
    centre_hz = _estimate_centre_hz(spectra[reference], grid)
    offset_hz[places[reference]] = centre_hz
    products, num_cells = [], 1
    for row, place in enumerate(places):
        if row == reference:
            continue
        limit_s = float(lag_limits_s[place, places[reference]])
        peak = _find_peak(samples[row], samples[reference], grid, limit_s)
        delay_s[place], offset_hz[place] = peak.lag_s, centre_hz + peak.offset_hz
        products.append(peak.product)
        num_cells = max(num_cells, peak.num_cells)
    begin, end = _find_span(np.sum(products, axis=0), grid)
    begin = max(begin, float((start_s - delay_s)[used].max()))
    end = min(end, float((end_s - delay_s)[used].min()))
    if end - begin < MIN_OVERLAP_S:
        raise CannotLocate(f"delays: found a signal of {end - begin:.3f} s, expected at least {MIN_OVERLAP_S} s")
    num_cells *= max(1, len(products[0]) ** 2 // 2)  # every interval of whole segments
    return Alignment(used, int(places[reference]), delay_s, offset_hz, begin, end, num_cells)


@dataclass(frozen=True)
class _Peak:
    """The best shift against the reference, and the power both then share, segment by segment."""

    lag_s: float
    offset_hz: float
    num_cells: int
    product: Floats


def _smooth_power(spectrum: NDArray[np.complex64], num: int) -> Floats:
    """Return mean power in ``num`` equal parts of the band."""
    usable = len(spectrum) // num * num
    power: Floats = np.square(np.abs(spectrum[:usable].astype(np.complex128))).reshape(num, -1).mean(axis=1)
    return power


def _estimate_clarity(spectrum: NDArray[np.complex64]) -> float:
    """Return signal to noise, the noise taken from the quieter fifth of the band."""
    power = _smooth_power(spectrum, min(50, len(spectrum) // 8))
    return float(power.mean() / max(np.quantile(power, 0.2), 1e-300))


def _estimate_centre_hz(spectrum: NDArray[np.complex64], grid: Grid) -> float:
    """Return the centroid of what stands out of the noise."""
    num = min(50, len(spectrum) // 8)
    power = _smooth_power(spectrum, num)
    power = np.maximum(power - 2.0 * np.quantile(power, 0.2), 0.0)
    centres = grid.first_hz + (np.arange(num) + 0.5) * (len(spectrum) // num) * grid.step_hz
    return float((power * centres).sum() / power.sum()) if power.sum() > 0 else 0.0


def _find_peak(samples: NDArray[np.complex64], reference: NDArray[np.complex64], grid: Grid, limit_s: float) -> _Peak:
    """Return the peak of the ambiguity function: every second sample's lag, every carrier offset within the channel."""
    num = grid.num
    reach = int(limit_s * grid.bandwidth_hz)
    lags = np.arange(-(reach - reach % 2), reach + 1, 2)
    best = (-1.0, 0, 0.0)
    chunk = max(1, _CELLS_AT_ONCE // num)
    for start in range(0, len(lags), chunk):
        part = lags[start : start + chunk]
        products = np.stack([_multiply(samples, reference, int(lag)) for lag in part])
        power = np.abs(fft.fft(products, axis=1, overwrite_x=True))
        row, column = np.unravel_index(int(power.argmax()), power.shape)
        if power[row, column] > best[0]:
            around = power[row, [(column - 1) % num, column, (column + 1) % num]]
            best = (float(power[row, column]), int(part[row]), int(column) + fit_vertex(around))
    lag, turns = best[1], best[2]
    turns -= num if turns >= num / 2 else 0.0
    product = _multiply(samples, reference, lag).astype(np.complex128)
    product *= np.exp(-2j * np.pi * turns * np.arange(num) / num)
    product *= np.exp(-1j * np.angle(product.sum()))
    per_segment = _segment(grid)
    product = product[: num // per_segment * per_segment].real.reshape(-1, per_segment).sum(axis=1)
    scale = np.abs(product).sum()
    return _Peak(lag / grid.bandwidth_hz, turns * grid.step_hz, len(lags) * num, product / (scale or 1.0))


def _multiply(samples: NDArray[np.complex64], reference: NDArray[np.complex64], lag: int) -> NDArray[np.complex64]:
    """Return samples[m + lag] conj(reference[m]), zero where one of them has no sample."""
    out = np.zeros(len(samples), dtype=np.complex64)
    if lag >= 0:
        np.multiply(samples[lag:], reference[: len(reference) - lag].conj(), out=out[: len(samples) - lag])
    else:
        np.multiply(samples[:lag], reference[-lag:].conj(), out=out[-lag:])
    return out


def fit_vertex(values: NDArray[np.floating]) -> float:
    """Return where the parabola through three equidistant values peaks, in steps from the middle one.

    Examples:
        >>> round(fit_vertex(np.array([1.0 - (step - 0.25) ** 2 for step in (-1.0, 0.0, 1.0)])), 6)
        0.25
    """
    left, middle, right = (float(value) for value in values)
    bend = left - 2.0 * middle + right
    return 0.5 * (left - right) / bend if bend < 0 else 0.0


def _segment(grid: Grid) -> int:
    return max(1, round(SEGMENT_S * grid.bandwidth_hz))


def _find_span(product: Floats, grid: Grid) -> tuple[float, float]:
    """Return when the common signal begins and ends: the run of segments that exceeds half its level most.

    Source: maximum-sum run, Bentley 1984, Communications of the ACM 27 (9).
    """
    level = np.median(product[product >= np.median(product)])
    excess = product - 0.5 * level
    total = np.concatenate([[0.0], np.cumsum(excess)])
    lowest = np.minimum.accumulate(total)
    end = int(np.argmax(total - lowest))
    begin = int(np.argmin(total[: end + 1]))
    step_s = _segment(grid) / grid.bandwidth_hz
    first = grid.start_s if begin == 0 else grid.start_s + max(begin - 1, 0) * step_s
    last = grid.start_s + grid.duration_s if end >= len(product) - 1 else grid.start_s + (end + 1) * step_s
    return first, last
