"""Acquisition: how far a reference's samples are shifted between two receivers whose clocks have nothing in common.

Belongs here: lag, carrier offset and rate of one recording against another, searched wide and then followed, and
whether the lag is the only likely one. Does not belong here: anything finer than a tenth of the correlation's width,
what the lag says of a clock (``reference_clock``).

Oscillators of two receivers differ by up to 2e-4: a long wide-band stretch does not correlate as a whole until their
rates are known. So a piece of about ``PIECE_PRODUCT`` independent samples is found first, over all lags and offsets,
and the pieces before and after it are then followed outwards from there, each narrowing what the next may be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import uniform_filter1d

from heimdall_assets.errors import CannotLocate
from heimdall_assets.physical import Recording
from heimdall_assets.signals.alignment import Grid, compute_spectrum, fit_vertex, to_time
from heimdall_assets.signals.refinement import correlate

Floats = NDArray[np.float64]

PIECE_PRODUCT = 4000.0
"""Duration times bandwidth of a piece: 36 dB of gain, and 2e-4 of rate error shift its ends by less than a sample."""

QUICK_PRODUCT = 500.0
"""Of the piece that is searched for first, eight times as fast; a longer one where it stands out of chance by less than
``QUICK_PEAK`` times what it must."""

QUICK_PEAK = 2.0

NUM_BANDS = 256  # parts of the recorded band among which the occupied ones are told from the noise

FLOOR_SHARE = 1.3  # times the quieter fifth of the bands: what is below it is no signal
LEAST_SHARE = 0.02  # of the power above that floor; with less of it the whole band is taken as occupied

SEARCH_MARGIN = 12.0
"""Natural logarithm by which the best of all lags and offsets must exceed the best that noise alone would show."""

LARGEST_GRID = 1 << 25
"""Lags that are looked at for each offset: a transform of 270 MB, some seconds each."""

ONLY_SHARE = 0.7
"""Share of the peak's power that no other lag may reach: a periodic signal repeats itself, at its pilots or frames."""

NUM_PIECES = 12  # followed in each stretch
NUM_COMPARED = 6  # at all lags
LOBE_WIDTHS = 2.0  # half-width, in correlation widths, of what counts as one peak
EDGE_WIDTHS = 2.0


@dataclass(frozen=True)
class Search:
    """How far apart two receivers may be.

    Attributes:
        reach_s: largest difference of their clocks either way.
        max_rate_error: largest relative error of one oscillator.
        carrier_hz: radio frequency of the reference, which an oscillator's error shifts.
        bandwidth_hz: of the reference, around the centre of the recordings; None: all that is recorded.
    """

    reach_s: float
    max_rate_error: float
    carrier_hz: float
    bandwidth_hz: float | None = None

    @property
    def max_offset_hz(self) -> float:
        """Largest difference of two carriers."""
        return 2.0 * self.max_rate_error * self.carrier_hz + 500.0  # and some hundred hertz of tuning steps


@dataclass(frozen=True)
class Stretch:
    """A part of a recording that holds the reference, and the time of its first sample on its receiver's clock."""

    recording: Recording
    start_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.recording.duration_s

    def cut(self, begin_s: float, end_s: float) -> "Stretch":
        """Return what lies from ``begin_s`` to ``end_s``; may be nothing."""
        rate_hz = self.recording.sample_rate_hz
        first = min(max(round((begin_s - self.start_s) * rate_hz), 0), len(self.recording.samples))
        last = min(max(round((end_s - self.start_s) * rate_hz), first), len(self.recording.samples))
        cut = replace(self.recording, samples=self.recording.samples[first:last])
        return Stretch(cut, self.start_s + first / rate_hz)

    def move(self, shift_s: float, rate_error: float, pivot_s: float) -> "Stretch":
        """Return the same on a clock that reads t + shift + rate error (t - pivot) where this one reads t."""
        start_s = self.start_s + shift_s + rate_error * (self.start_s - pivot_s)
        rate_hz = self.recording.sample_rate_hz / (1.0 + rate_error)
        return Stretch(replace(self.recording, sample_rate_hz=rate_hz), start_s)


@dataclass(frozen=True)
class Occupied:
    """Where in the recorded band the reference is: middle, extent, and effective width in Hz."""

    centre_hz: float
    extent_hz: float
    width_hz: float


@dataclass(frozen=True)
class Shift:
    """How one receiver's clock and carrier are shifted against another's.

    Attributes:
        lag_s: what its clock reads later, at ``pivot_s`` of the other's clock.
        rate_error: by how much more its clock advances, relative.
        pivot_s: on the other's clock.
        offset_hz: its carrier less the other's.
        peak: power at the best lag over what noise alone shows at its best.
        rival: power of the next best lag, relative to the best; NaN: none was compared.
        is_edge: the best lag lies at the end of the search.
    """

    lag_s: float
    rate_error: float
    pivot_s: float
    offset_hz: float
    peak: float
    rival: float
    is_edge: bool

    def predict_s(self, time_s: float) -> float:
        """Return the lag at a time of the other's clock."""
        return self.lag_s + self.rate_error * (time_s - self.pivot_s)

    def undo(self, stretch: Stretch) -> Stretch:
        """Return a stretch of this receiver on the other's clock."""
        rate_error = -self.rate_error / (1.0 + self.rate_error)
        return stretch.move(-self.lag_s, rate_error, self.pivot_s + self.lag_s)


def find_occupied(stretch: Stretch, bandwidth_hz: float) -> Occupied:
    """Return which part of ``bandwidth_hz`` around 0 Hz stands out of the noise; all of it where none does.

    Examples:
        Noise that fills half of the band, 30 dB above what fills all of it:

        >>> rng = np.random.default_rng(1)
        >>> spectrum = rng.normal(size=(48_000, 2)) @ [1.0, 1.0j]
        >>> spectrum[np.abs(np.fft.fftfreq(48_000)) > 0.25] *= 0.03
        >>> heard = Stretch(Recording(np.fft.ifft(spectrum).astype(np.complex64), 48_000.0), 0.0)
        >>> found = find_occupied(heard, 48_000.0)
        >>> round(found.width_hz / 1000.0), round(found.extent_hz / 1000.0)
        (24, 24)
    """
    grid = Grid.build(stretch.start_s, stretch.end_s, bandwidth_hz)
    num = min(NUM_BANDS, grid.num // 8)
    size = grid.num // num
    power = np.square(np.abs(compute_spectrum(stretch.recording, stretch.start_s, grid)[: num * size]))
    bands = power.reshape(num, size).mean(axis=1, dtype=np.float64)
    above = np.maximum(bands - FLOOR_SHARE * np.quantile(bands, 0.2), 0.0)
    if above.sum() < LEAST_SHARE * bands.sum():
        return Occupied(0.0, grid.bandwidth_hz, grid.bandwidth_hz)
    step_hz = size * grid.step_hz
    share = np.cumsum(above) / above.sum()
    low, high = (
        grid.first_hz + step_hz * (np.searchsorted(share, part) + more) for part, more in ((0.01, 0), (0.99, 1))
    )
    width_hz = step_hz * above.sum() ** 2 / np.square(above).sum()
    return Occupied(float(0.5 * (low + high)), float(high - low), float(width_hz))


def find_shift(anchors: Sequence[Stretch], others: Sequence[Stretch], search: Search, occupied: Occupied) -> Shift:
    """Return how another receiver's clock is shifted against the anchor's, found in its longest stretch.

    Args:
        anchors: stretches of the receiver that is compared with, one for each time the reference was heard.
        others: those of the other receiver, in the same order.
        search: how far to look.
        occupied: of the anchor.
    """
    longest = int(np.argmax([stretch.recording.duration_s for stretch in anchors]))
    anchor, other = anchors[longest], others[longest]
    middle_s, half_s = 0.5 * (anchor.start_s + anchor.end_s), 0.25 * anchor.recording.duration_s
    for product in (QUICK_PRODUCT, PIECE_PRODUCT):
        length_s = min(product / occupied.width_hz, 2.0 * half_s)
        piece = anchor.cut(middle_s - 0.5 * length_s, middle_s + 0.5 * length_s)
        found = _search(piece, other, search, occupied)
        if found.peak > QUICK_PEAK:
            break
    length_s = min(PIECE_PRODUCT / occupied.width_hz, 2.0 * half_s)
    edge_s = search.reach_s - EDGE_WIDTHS / occupied.width_hz
    found = replace(found, is_edge=abs(found.lag_s) > edge_s)
    if found.peak < 1.0 or found.is_edge:
        return found
    found = _follow(anchors, others, found, length_s, search, occupied)
    return replace(found, rival=_find_rival(anchor, other, found, length_s, search, occupied))


def _choose_band_hz(stretch: Stretch, other: Stretch, search: Search, occupied: Occupied, slack_hz: float) -> float:
    rates = [stretch.recording.sample_rate_hz, other.recording.sample_rate_hz]
    return min(*rates, search.bandwidth_hz or np.inf, occupied.extent_hz + 2.0 * slack_hz)


def _search(piece: Stretch, other: Stretch, search: Search, occupied: Occupied) -> Shift:
    """Return the best lag and offset of all, of one piece; its rate is not known yet."""
    length_s, reach_s = piece.recording.duration_s, search.reach_s
    bandwidth_hz = _choose_band_hz(piece, other, search, occupied, search.max_offset_hz)
    grid = Grid.build(piece.start_s - reach_s, piece.end_s + reach_s, bandwidth_hz)
    if grid.num > LARGEST_GRID:
        raise CannotLocate(
            f"a reference of {grid.bandwidth_hz:,.0f} Hz looked for over {grid.duration_s:.3g} s: {grid.num} lags, "
            f"expected at most {LARGEST_GRID}: a narrower --reference-search-s, or --reference-bandwidth-hz"
        )
    wanted, heard = (_load(one, grid, 0.0, occupied.centre_hz) for one in (piece, other))
    smoothing = max(8, round(8.0 * grid.duration_s / length_s))
    template = fft.ifftshift((wanted * _weigh(wanted, heard, smoothing)).conj())
    heard = fft.ifftshift(heard)
    step = max(1, round(0.5 * grid.duration_s / length_s))
    # Beyond half the band a carrier has left it, and what comes in at its other end would be taken for it.
    most = max(1, int(min(search.max_offset_hz, 0.49 * grid.bandwidth_hz) / (step * grid.step_hz)))
    lags = np.arange(grid.num)
    lags[lags > grid.num // 2] -= grid.num
    inside = np.abs(lags) <= reach_s * grid.bandwidth_hz
    peaks, places, mean = np.zeros(2 * most + 1), np.zeros(2 * most + 1, dtype=np.int64), 0.0
    for turn in range(-most, most + 1):
        values = fft.ifft(np.roll(heard, -turn * step) * template, overwrite_x=True)
        power = np.where(inside, np.square(values.real) + np.square(values.imag), 0.0)
        places[turn + most] = int(power.argmax())
        peaks[turn + most] = power[places[turn + most]]
        mean += float(power.sum()) / inside.sum() / (2 * most + 1)
    best = int(peaks.argmax())
    offset = float(best - most)
    if 0 < best < 2 * most:
        offset += fit_vertex(np.sqrt(peaks[best - 1 : best + 2]))
    chance = np.log(inside.sum() * (2.0 * most + 1)) + SEARCH_MARGIN
    return Shift(
        lag_s=float(lags[places[best]] / grid.bandwidth_hz),
        rate_error=0.0,
        pivot_s=piece.start_s + 0.5 * length_s,
        offset_hz=offset * step * grid.step_hz,
        peak=float(peaks[best] / max(mean, 1e-300) / chance),
        rival=np.nan,
        is_edge=False,
    )


def _load(stretch: Stretch, grid: Grid, delay_s: float, offset_hz: float) -> NDArray[np.complex64]:
    """Return its spectrum, mean power about 1."""
    spectrum = compute_spectrum(stretch.recording, stretch.start_s, grid, delay_s, offset_hz)
    rms = np.sqrt(np.mean(np.square(np.abs(spectrum))))
    return spectrum / np.float32(rms if rms > 0 else 1.0)


def _weigh(wanted: NDArray[np.complex64], heard: NDArray[np.complex64], smoothing: int) -> NDArray[np.float32]:
    """Return weights that favour what the one holds, and not what the other holds beside it."""
    power, beside = (uniform_filter1d(np.square(np.abs(one)), smoothing, mode="nearest") for one in (wanted, heard))
    weight: NDArray[np.float32] = (power / (power + power.mean()) / (beside + beside.mean())).astype(np.float32)
    return weight


def _follow(
    anchors: Sequence[Stretch], others: Sequence[Stretch], found: Shift, length_s: float, search: Search, of: Occupied
) -> Shift:
    """Return lag, rate and offset as the pieces of all stretches show them, each looked for where the others lead."""
    middles = np.concatenate(
        [
            np.linspace(one.start_s + 0.5 * length_s, one.end_s - 0.5 * length_s, NUM_PIECES)
            for one in anchors
            if one.recording.duration_s >= length_s
        ]
    )
    middles = middles[np.argsort(np.abs(middles - found.pivot_s), kind="stable")]
    width_s = 1.0 / of.width_hz
    times, lags, offsets = [found.pivot_s], [found.lag_s], [found.offset_hz]
    doubt = 2.0 * search.max_rate_error
    for middle in middles:
        place = next(number for number, one in enumerate(anchors) if one.start_s <= middle <= one.end_s)
        reach_s = 2.0 * width_s + doubt * abs(middle - found.pivot_s)
        piece = anchors[place].cut(middle - 0.5 * length_s, middle + 0.5 * length_s)
        seen = _look(piece, others[place], found.predict_s(middle), found.offset_hz, reach_s, search, of)
        if seen is None:
            continue
        times.append(middle)
        lags.append(seen[0])
        offsets.append(seen[1])
        span_s = float(np.ptp(times))
        if len(times) >= 3 and span_s > 0 and width_s / span_s < search.max_rate_error:
            slope, lag_s = np.polyfit(np.array(times) - found.pivot_s, lags, 1)
            found = replace(found, lag_s=float(lag_s), rate_error=float(slope))
            doubt = min(doubt, 2.0 * width_s / span_s)
        elif len(times) == 2:
            found = replace(found, lag_s=float(np.mean(lags)))
        found = replace(found, offset_hz=float(np.median(offsets)))
    return found


def _look(
    piece: Stretch, other: Stretch, lag_s: float, offset_hz: float, reach_s: float, search: Search, of: Occupied
) -> tuple[float, float] | None:
    """Return lag and offset of one piece near where they are expected; None: nothing is seen there."""
    length_s = piece.recording.duration_s
    bandwidth_hz = _choose_band_hz(piece, other, search, of, 2.0 / length_s)
    grid = Grid.build(piece.start_s - reach_s, piece.end_s + reach_s, bandwidth_hz)
    heard = other.cut(piece.start_s + lag_s - reach_s, piece.end_s + lag_s + reach_s)
    if heard.recording.duration_s < length_s:
        return None
    wanted = _load(piece, grid, 0.0, of.centre_hz)
    found = _load(heard, grid, lag_s, of.centre_hz + offset_hz)
    weight = _weigh(wanted, found, max(8, round(8.0 * grid.duration_s / length_s)))
    product = found * wanted.conj() * weight
    values, lags_s = correlate(product, grid, reach_s)
    power = np.square(np.abs(values))
    best = int(power.argmax())
    energies = [float((weight * np.square(np.abs(one))).sum()) for one in (wanted, found)]
    coherence_square = float(power[best]) / max(energies[0] * energies[1], 1e-300)
    if not 0 < best < len(power) - 1:
        return None
    if coherence_square < (np.log(len(power)) + SEARCH_MARGIN) / (length_s * of.width_hz):
        return None
    later_s = float(lags_s[best] + fit_vertex(power[best - 1 : best + 2]) * (lags_s[1] - lags_s[0]))
    return lag_s + later_s, offset_hz + _measure_offset(found, wanted, weight, grid, later_s)


def _measure_offset(
    found: NDArray[np.complex64], wanted: NDArray[np.complex64], weight: NDArray[np.float32], grid: Grid, lag_s: float
) -> float:
    """Return how far the carrier stands off what it was taken for, in Hz: where their product in time has its line."""
    later = np.exp(2j * np.pi * lag_s * grid.frequency_hz).astype(np.complex64)
    product = to_time(found * later * weight) * to_time(wanted).conj()
    size = fft.next_fast_len(4 * len(product))
    power = np.abs(fft.fft(product, n=size))
    most = max(2, round(4.0 * size / len(product)))  # a few steps of what the piece resolves
    places = np.arange(-most, most + 1)
    near = power[places % size]
    best = int(near.argmax())
    vertex = fit_vertex(near[best - 1 : best + 2]) if 0 < best < len(near) - 1 else 0.0
    return float((places[best] + vertex) * grid.bandwidth_hz / size)


def _find_rival(anchor: Stretch, other: Stretch, found: Shift, length_s: float, search: Search, of: Occupied) -> float:
    """Return the power of the next best lag relative to the best, over pieces all along what both heard."""
    moved = found.undo(other)
    bandwidth_hz = _choose_band_hz(anchor, moved, search, of, 2.0 / length_s)
    total: Floats | None = None
    begin_s, end_s = max(anchor.start_s, moved.start_s), min(anchor.end_s, moved.end_s)
    length_s = min(length_s, max(end_s - begin_s, 0.1 * length_s))
    for middle in np.linspace(begin_s + 0.5 * length_s, end_s - 0.5 * length_s, NUM_COMPARED):
        piece = anchor.cut(middle - 0.5 * length_s, middle + 0.5 * length_s)
        grid = Grid.build(piece.start_s - search.reach_s, piece.start_s + length_s + search.reach_s, bandwidth_hz)
        wanted = _load(piece, grid, 0.0, of.centre_hz)
        heard = _load(moved, grid, 0.0, of.centre_hz + found.offset_hz)
        weight = _weigh(wanted, heard, max(8, round(8.0 * grid.duration_s / length_s)))
        values = fft.ifft(fft.ifftshift(heard * wanted.conj() * weight), overwrite_x=True)
        power = np.square(np.abs(values)).astype(np.float64)
        total = power if total is None else total + power
    assert total is not None
    lags = np.fft.fftfreq(len(total), 1.0 / len(total)) / grid.bandwidth_hz
    lobe = np.abs(lags) <= LOBE_WIDTHS / of.width_hz
    beside = ~lobe & (np.abs(lags) <= search.reach_s)
    return float(total[beside].max() / total[lobe].max()) if beside.any() else 0.0
