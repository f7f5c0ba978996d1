"""From a rough alignment to maximum-likelihood delays, phases and carrier offsets, and who shares the signal.

Belongs here: the iteration. Its statistics stand in ``likelihood``, its start in ``alignment``.

Shapes: U receivers in use, M frequencies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.physical import Recording
from heimdall_assets.signals.alignment import Alignment, Grid, compute_spectrum, fit_vertex, to_time
from heimdall_assets.signals.likelihood import SMOOTHING_HZ, SignalModel, combine, compute_step, fit_model

Floats = NDArray[np.float64]

DETECTION_MARGIN = 25.0
"""Natural logarithm by which a peak's likelihood must exceed the best of as many tries of pure noise.

Large, because the fitted spectrum prefers frequencies at which noises happen to agree."""

NUM_STEPS = 8  # of Fisher scoring at most
SMALLEST_WORTH = 5e-3  # a step of a fifteenth of a sigma in each receiver is the last
MAX_STEP_S = 40e-6  # a step beyond half a sample of the channel is no refinement
NUM_SEGMENTS = 32  # of the transmission, between which a carrier's phase may turn by half a cycle
OVERSAMPLING = 4  # of a correlation before the parabola through its peak


@dataclass(frozen=True)
class Aligned:
    """Spectra of the U receivers in use, shifted onto the reference, and what shifted them.

    Attributes:
        rough: the alignment they started from.
        grid: their frequencies.
        places: int64 (U,), which receiver each row is.
        spectra: complex64 (U, M), mean power 1 each.
        delay_s, offset_hz: float64 (U,), arrival after the reference's; the signal's place in the recording.
        model: fitted to ``spectra``.
        detected: bool (U,), shares a signal with the reference's group.
    """

    rough: Alignment
    grid: Grid
    places: NDArray[np.int64]
    spectra: NDArray[np.complex64]
    delay_s: Floats
    offset_hz: Floats
    model: SignalModel
    detected: NDArray[np.bool_]

    @property
    def reference(self) -> int:
        """The reference's row."""
        return int(np.flatnonzero(self.places == self.rough.reference)[0])

    @property
    def smoothing(self) -> int:
        return _choose_smoothing(self.grid)

    def shift(self, delay_s: Floats) -> "Aligned":
        """Return the same with each arrival ``delay_s`` later than it was taken for."""
        cycles = np.outer(delay_s, self.grid.frequency_hz)
        turn = np.exp(2j * np.pi * cycles).astype(np.complex64)
        return replace(self, spectra=self.spectra * turn, delay_s=self.delay_s + delay_s)

    def fit(self) -> "Aligned":
        """Return the same with its model fitted anew."""
        return replace(self, model=fit_model(self.spectra, self.smoothing))

    def select(self, rows: NDArray[np.bool_]) -> "Aligned":
        """Return the receivers of ``rows`` alone, with their model."""
        model = replace(self.model, gain=self.model.gain[rows], noise=self.model.noise[rows])
        return replace(
            self,
            places=self.places[rows],
            spectra=self.spectra[rows],
            delay_s=self.delay_s[rows],
            offset_hz=self.offset_hz[rows],
            model=model,
            detected=self.detected[rows],
        )


def _choose_smoothing(grid: Grid) -> int:
    return max(5, round(SMOOTHING_HZ / grid.step_hz))


def load_aligned(recordings: Sequence[Recording], start_s: Floats, rough: Alignment, bandwidth_hz: float) -> Aligned:
    """Return the spectra of the transmission, roughly aligned."""
    places: list[int] = np.flatnonzero(rough.used).tolist()
    bandwidth_hz = min(bandwidth_hz, *(recordings[place].sample_rate_hz for place in places))
    grid = Grid.build(rough.start_s, rough.end_s, bandwidth_hz)
    spectra = np.stack(
        [
            compute_spectrum(recordings[place], start_s[place], grid, rough.delay_s[place], rough.offset_hz[place])
            for place in places
        ]
    )
    rms = np.sqrt(np.square(np.abs(spectra)).mean(axis=1, keepdims=True))
    spectra /= np.where(rms > 0, rms, 1.0)
    return Aligned(
        rough=rough,
        grid=grid,
        places=np.array(places),
        spectra=spectra,
        delay_s=rough.delay_s[places],
        offset_hz=rough.offset_hz[places],
        model=fit_model(spectra[:1], _choose_smoothing(grid)),
        detected=np.ones(len(places), dtype=np.bool_),
    )


def refine(aligned: Aligned, limits_s: Floats, min_coherence: float) -> Aligned:
    """Return the maximum-likelihood delays, phases and offsets, and which receivers share the signal."""
    aligned = aligned.shift(_find_lags(aligned, limits_s)).fit()
    for _ in range(NUM_STEPS):
        aligned = _correct_offsets(aligned)
        delay_s, phase, worth = compute_step(aligned.spectra, aligned.model, aligned.grid.frequency_hz)
        aligned = aligned.shift(np.clip(delay_s, -MAX_STEP_S, MAX_STEP_S))
        gain = aligned.model.gain * np.exp(1j * phase)
        model = replace(aligned.model, gain=gain)
        aligned = replace(aligned, model=fit_model(aligned.spectra, aligned.smoothing, model))
        if worth < SMALLEST_WORTH * len(aligned.places):
            break
    return replace(aligned, detected=_detect(aligned, min_coherence))


def correlate(product: NDArray[np.complex64], grid: Grid, reach_s: float) -> tuple[NDArray[np.complex64], Floats]:
    """Return correlations (..., L) of cross spectra (..., M) at lags up to ``reach_s`` both ways, and the lags in s."""
    size = fft.next_fast_len(OVERSAMPLING * grid.num)
    padded = np.zeros((*product.shape[:-1], size), dtype=np.complex64)
    padded[..., : grid.num - grid.num // 2] = product[..., grid.num // 2 :]
    padded[..., size - grid.num // 2 :] = product[..., : grid.num // 2]
    values = fft.ifft(padded, axis=-1, overwrite_x=True) * np.float32(size)
    num = min(int(reach_s * size * grid.step_hz) + 1, size // 2 - 1)
    lags = np.arange(-num, num + 1)
    return values[..., lags], lags / (size * grid.step_hz)


def _find_lags(aligned: Aligned, limits_s: Floats) -> Floats:
    """Return by how much each arrival is later than the rough alignment: its best place among all physical lags."""
    reference = aligned.spectra[aligned.reference]
    model = fit_model(reference[None], aligned.smoothing)
    weight = (model.spectrum / (model.spectrum + model.noise.mean())).astype(np.float32)
    out = np.zeros(len(aligned.places))
    for row, place in enumerate(aligned.places):
        if row == aligned.reference:
            continue
        limit_s = float(limits_s[place, aligned.rough.reference])
        # x later by t has phase -2 pi f t against the reference: its conjugate product peaks at +t.
        product = reference * aligned.spectra[row].conj() * weight
        values, lags_s = correlate(product.conj(), aligned.grid, limit_s + abs(aligned.delay_s[row]))
        power = np.where(np.abs(lags_s + aligned.delay_s[row]) <= limit_s, np.abs(values), 0.0)
        out[row] = _interpolate_peak(power, lags_s)
    return out


def _interpolate_peak(power: Floats, lags_s: Floats) -> float:
    peak = int(power.argmax())
    if not 0 < peak < len(power) - 1:
        return float(lags_s[peak])
    return float(lags_s[peak] + fit_vertex(power[peak - 1 : peak + 2]) * (lags_s[1] - lags_s[0]))


def _correct_offsets(aligned: Aligned) -> Aligned:
    """Return the same with carrier offsets at their most likely values, each against all other receivers."""
    parts = combine(aligned.spectra, aligned.model)
    weight = aligned.model.wiener.astype(np.float32)
    others = to_time((parts.sum(axis=0) - parts) * weight)
    samples = to_time(aligned.spectra)
    num = aligned.grid.num
    length = num // NUM_SEGMENTS
    product = (samples * others.conj())[:, : length * NUM_SEGMENTS].reshape(len(samples), NUM_SEGMENTS, length)
    padded = fft.fft(product.sum(axis=2), n=16 * NUM_SEGMENTS, axis=1)
    power = np.abs(padded)
    peak = power.argmax(axis=1)
    turns = np.empty(len(samples))
    for row, column in enumerate(peak):
        around = power[row, [column - 1, column, (column + 1) % power.shape[1]]]
        turns[row] = column + fit_vertex(around)
    turns = np.where(turns >= power.shape[1] / 2, turns - power.shape[1], turns) / power.shape[1] / length
    # Each was measured against the others, which move too: a receiver that outweighs them moves them, not itself.
    share = aligned.model.snr / aligned.model.snr.sum()
    turns *= 1.0 - share
    samples = samples * np.exp(-2j * np.pi * np.outer(turns, np.arange(num) - 0.5 * num)).astype(np.complex64)
    spectra = fft.fftshift(fft.fft(samples, axis=1, overwrite_x=True), axes=1)
    return replace(aligned, spectra=spectra, offset_hz=aligned.offset_hz + turns * aligned.grid.bandwidth_hz)


def compute_coherence(aligned: Aligned) -> NDArray[np.complex64]:
    """Return the complex coherence of every two receivers, (U, U), each frequency weighted by the signal's power."""
    weighted = aligned.spectra * np.sqrt(aligned.model.spectrum).astype(np.float32)
    weighted /= np.sqrt(np.square(np.abs(weighted)).sum(axis=1, keepdims=True))
    return weighted @ weighted.conj().T


def _detect(aligned: Aligned, min_coherence: float) -> NDArray[np.bool_]:
    """Return which receivers hang together with the reference by pairs that are no chance find."""
    spectrum = aligned.model.spectrum
    num_independent = spectrum.sum() ** 2 / np.square(spectrum).sum()
    chance = np.sqrt((np.log(aligned.rough.num_cells) + DETECTION_MARGIN) / num_independent)
    linked = np.abs(compute_coherence(aligned)) >= max(min_coherence, chance)
    reached = np.zeros(len(linked), dtype=np.bool_)
    reached[aligned.reference] = True
    for _ in range(len(linked)):
        reached = reached | linked[reached].any(axis=0)
    return reached
