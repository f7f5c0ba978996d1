"""Arrival times at the receivers of a session, from raw IQ on a common time grid.

Belongs here: from recordings to delays with honest sigmas. The search stands in ``alignment``, the statistics in
``likelihood``. Does not belong here: positions (``locating``).

The sigmas are statistical: what noise does. What clocks and receive filters do comes on top (``specs.TimingSpec``).
Shapes: R receivers, Q pairs of those with a delay, M frequencies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.domain import Position, Recording
from heimdall_assets.errors import CannotLocate, InvalidInput
from heimdall_assets.signals.alignment import (
    RAMP_S,
    Alignment,
    Grid,
    align_recordings,
    compute_lag_limits_s,
    compute_spectrum,
    compute_start_times_s,
    fit_vertex,
    to_time,
)
from heimdall_assets.signals.likelihood import (
    SMOOTHING_HZ,
    SignalModel,
    combine,
    compute_delay_information,
    compute_step,
    fit_model,
    split_information,
)
from heimdall_assets.specs import DelaySpec

Floats = NDArray[np.float64]

DETECTION_MARGIN = 25.0
"""Natural logarithm by which a peak's likelihood must exceed the best of as many tries of pure noise.

Large, because the fitted spectrum prefers frequencies at which noises happen to agree."""

AMBIGUITY_MARGIN = 10.0
"""Natural logarithm of likelihood by which the peak must exceed the next one within the physical lags."""

AMBIGUITY_SHARE = 1e-2
"""Or by this share of what delay decides in it: a periodic signal repeats itself but for its ends and its receivers."""

NUM_REFERENCES = 3  # receivers tried as the one others are compared with, until most of them share its signal
NUM_STEPS = 8  # of Fisher scoring at most
SMALLEST_WORTH = 5e-3  # a step of a fifteenth of a sigma in each receiver is the last
MAX_STEP_S = 40e-6  # a step beyond half a sample of the channel is no refinement
NUM_SEGMENTS = 32  # of the transmission, between which a carrier's phase may turn by half a cycle
OVERSAMPLING = 4  # of a correlation before the parabola through its peak

CHANNEL_HZ = 12_500.0  # that SNR refers to


@dataclass(frozen=True)
class SessionDelays:
    """Arrivals of one transmission at R receivers, and the Q pairs they were found from.

    Attributes:
        arrival_s: float64 (R,), relative to an arbitrary zero; NaN: none.
        arrival_sigma_s: float64 (R,), one-sigma statistical error, independent between receivers beside an unknown
            common time; NaN: none.
        coherence: float64 (R,), mean coherence of the receiver's pairs; NaN: none.
        snr_db: float64 (R,), signal to noise in 12.5 kHz over the transmission; NaN: none.
        carrier_offset_hz: float64 (R,), where the signal's centre stands in the recording; NaN: none.
        ambiguous: bool (R,), another delay within the physical window is nearly as likely: such a receiver has none.
        reasons: str (R,), why a receiver has no arrival; empty where it has one.
        span_s: start and end of the transmission after the first sample of the earliest recording.
        pairs: int64 (Q, 2).
        pair_delay_s: float64 (Q,), arrival[i] - arrival[j].
        pair_sigma_s: float64 (Q,), statistical; errors of pairs that share a receiver are correlated.
        pair_coherence: float64 (Q,), 0 to 1, weighted by the signal's spectrum.
        pair_curvature: float64 (Q,), of the normalised correlation at its peak without the carrier's part, 1/s^2.
        pair_correlation: complex64 (Q, num_lags), weighted correlation around the peak, |peak| = coherence.
        lag_step_s: distance of its lags.
    """

    arrival_s: Floats
    arrival_sigma_s: Floats
    coherence: Floats
    snr_db: Floats
    carrier_offset_hz: Floats
    ambiguous: NDArray[np.bool_]
    reasons: NDArray[np.str_]
    span_s: tuple[float, float]
    pairs: NDArray[np.int64]
    pair_delay_s: Floats
    pair_sigma_s: Floats
    pair_coherence: Floats
    pair_curvature: Floats
    pair_correlation: NDArray[np.complex64]
    lag_step_s: float


def compute_delays(recordings: Sequence[Recording], receivers: Sequence[Position], spec: DelaySpec) -> SessionDelays:
    """Return when a transmission arrived at each receiver: joint maximum likelihood over all of them.

    Recordings may differ in rate and start; each is read on its own clock at its own true rate. Carrier phase and
    frequency of each receiver are estimated along. A recording without a start time, without a common signal, or whose
    delay is ambiguous has no arrival, and ``reasons`` says why.

    Raises:
        InvalidInput: recordings and receivers differ in number.
        CannotLocate: fewer than two recordings are timed or overlap, or no two share a signal.
    """
    if len(recordings) != len(receivers):
        raise InvalidInput(f"delays: {len(recordings)} recordings, expected one for each of {len(receivers)} receivers")
    start_s = compute_start_times_s(recordings)
    if np.isfinite(start_s).sum() < 2:
        raise CannotLocate(f"delays: {np.isfinite(start_s).sum()} timed recordings, expected at least 2")
    limits_s = compute_lag_limits_s(receivers, spec.max_baseline_slack)
    best: _Aligned | None = None
    for rank in range(NUM_REFERENCES):
        rough = align_recordings(recordings, start_s, limits_s, spec.bandwidth_hz, rank)
        aligned = _refine(_load(recordings, start_s, rough, spec.bandwidth_hz), limits_s, spec.min_coherence)
        if best is None or aligned.detected.sum() > best.detected.sum():
            best = aligned
        if 2 * best.detected.sum() > rough.used.sum() or rank + 1 >= rough.used.sum():
            break
    assert best is not None
    if best.detected.sum() < 2:
        raise CannotLocate(f"delays: found no signal that two of {len(recordings)} recordings share")
    return _report(best, start_s, limits_s, spec)


@dataclass(frozen=True)
class _Aligned:
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

    def shift(self, delay_s: Floats) -> "_Aligned":
        """Return the same with each arrival ``delay_s`` later than it was taken for."""
        cycles = np.outer(delay_s, self.grid.frequency_hz)
        turn = np.exp(2j * np.pi * cycles).astype(np.complex64)
        return replace(self, spectra=self.spectra * turn, delay_s=self.delay_s + delay_s)

    def fit(self) -> "_Aligned":
        """Return the same with its model fitted anew."""
        return replace(self, model=fit_model(self.spectra, self.smoothing))

    def select(self, rows: NDArray[np.bool_]) -> "_Aligned":
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


def _load(recordings: Sequence[Recording], start_s: Floats, rough: Alignment, bandwidth_hz: float) -> _Aligned:
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
    return _Aligned(
        rough=rough,
        grid=grid,
        places=np.array(places),
        spectra=spectra,
        delay_s=rough.delay_s[places],
        offset_hz=rough.offset_hz[places],
        model=fit_model(spectra[:1], _choose_smoothing(grid)),
        detected=np.ones(len(places), dtype=np.bool_),
    )


def _refine(aligned: _Aligned, limits_s: Floats, min_coherence: float) -> _Aligned:
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


def _correlate(product: NDArray[np.complex64], grid: Grid, reach_s: float) -> tuple[NDArray[np.complex64], Floats]:
    """Return correlations (..., L) of cross spectra (..., M) at lags up to ``reach_s`` both ways, and the lags in s."""
    size = fft.next_fast_len(OVERSAMPLING * grid.num)
    padded = np.zeros((*product.shape[:-1], size), dtype=np.complex64)
    padded[..., : grid.num - grid.num // 2] = product[..., grid.num // 2 :]
    padded[..., size - grid.num // 2 :] = product[..., : grid.num // 2]
    values = fft.ifft(padded, axis=-1, overwrite_x=True) * np.float32(size)
    num = min(int(reach_s * size * grid.step_hz) + 1, size // 2 - 1)
    lags = np.arange(-num, num + 1)
    return values[..., lags], lags / (size * grid.step_hz)


def _find_lags(aligned: _Aligned, limits_s: Floats) -> Floats:
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
        values, lags_s = _correlate(product.conj(), aligned.grid, limit_s + abs(aligned.delay_s[row]))
        power = np.where(np.abs(lags_s + aligned.delay_s[row]) <= limit_s, np.abs(values), 0.0)
        out[row] = _interpolate_peak(power, lags_s)
    return out


def _interpolate_peak(power: Floats, lags_s: Floats) -> float:
    peak = int(power.argmax())
    if not 0 < peak < len(power) - 1:
        return float(lags_s[peak])
    return float(lags_s[peak] + fit_vertex(power[peak - 1 : peak + 2]) * (lags_s[1] - lags_s[0]))


def _correct_offsets(aligned: _Aligned) -> _Aligned:
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


def _compute_coherence(aligned: _Aligned) -> NDArray[np.complex64]:
    """Return the complex coherence of every two receivers, (U, U), each frequency weighted by the signal's power."""
    weighted = aligned.spectra * np.sqrt(aligned.model.spectrum).astype(np.float32)
    weighted /= np.sqrt(np.square(np.abs(weighted)).sum(axis=1, keepdims=True))
    return weighted @ weighted.conj().T


def _detect(aligned: _Aligned, min_coherence: float) -> NDArray[np.bool_]:
    """Return which receivers hang together with the reference by pairs that are no chance find."""
    spectrum = aligned.model.spectrum
    num_independent = spectrum.sum() ** 2 / np.square(spectrum).sum()
    chance = np.sqrt((np.log(aligned.rough.num_cells) + DETECTION_MARGIN) / num_independent)
    linked = np.abs(_compute_coherence(aligned)) >= max(min_coherence, chance)
    reached = np.zeros(len(linked), dtype=np.bool_)
    reached[aligned.reference] = True
    for _ in range(len(linked)):
        reached = reached | linked[reached].any(axis=0)
    return reached


def _find_ambiguous(aligned: _Aligned, limits_s: Floats) -> NDArray[np.bool_]:
    """Return whose next best delay within the physical lags is nearly as likely as the best.

    A recording's interval was moved along with its delay, so its tapered ends fit that delay alone. The others are
    therefore cut shorter here, by the longest lag: within it every delay is compared on the same samples.
    """
    parts = combine(aligned.spectra, aligned.model)
    others = to_time((parts.sum(axis=0) - parts) * aligned.model.wiener.astype(np.float32))
    reach_s = float(limits_s[aligned.places, aligned.rough.reference].max()) + RAMP_S
    time_s = np.arange(aligned.grid.num) / aligned.grid.bandwidth_hz
    others *= np.minimum(time_s, aligned.grid.duration_s - time_s) > 2.0 * reach_s
    product = parts * fft.fftshift(fft.fft(others, axis=1), axes=1).conj()
    out = np.zeros(len(parts), dtype=np.bool_)
    anchor = aligned.reference
    for row, place in enumerate(aligned.places):
        if row == anchor:
            continue
        limit_s = float(limits_s[place, aligned.rough.reference])
        delay_s = aligned.delay_s[row] - aligned.delay_s[anchor]
        values, lags_s = _correlate(product[row], aligned.grid, limit_s + abs(delay_s))
        # Half the likelihood as a function of one delay, at the best phase.
        likelihood = np.abs(values)
        zero = _walk_up(likelihood, len(lags_s) // 2)
        rising = np.diff(likelihood) > 0
        right = zero + int(np.argmax(np.append(rising[zero:], True)))
        left = zero - int(np.argmax(np.append(~rising[:zero][::-1], True)))
        inside = np.abs(lags_s + delay_s) <= limit_s
        outside = inside.copy()
        outside[left : right + 1] = False
        if outside.any():
            other = int(np.where(outside, likelihood, 0.0).argmax())
            # What the likelihood loses at the worst lag is the part that delay decides; the rest is carrier.
            decided = float(likelihood[zero] - likelihood[inside].min())
            margin = max(0.5 * AMBIGUITY_MARGIN, AMBIGUITY_SHARE * decided)
            # Between two lags of the grid a peak may be higher by a few percent: only near ones are looked at closely.
            if likelihood[zero] - likelihood[other] < max(10.0 * margin, 0.1 * decided):
                step_s = lags_s[1] - lags_s[0]
                best, second = (_climb(product[row], aligned.grid, lags_s[at], step_s) for at in (zero, other))
                out[row] = best - second < margin
    return out


def _walk_up(values: Floats, place: int) -> int:
    """Return the local maximum that ``place`` belongs to."""
    while True:
        around = values[max(place - 1, 0) : place + 2]
        best = max(place - 1, 0) + int(around.argmax())
        if best == place or values[best] == values[place]:
            return place
        place = best


def _climb(product: NDArray[np.complex64], grid: Grid, lag_s: float, step_s: float) -> float:
    """Return the height of the correlation's peak next to a lag: parabolas on ever finer steps."""
    omega = 2.0 * np.pi * grid.frequency_hz
    height = 0.0
    for width_s in (step_s, 0.1 * step_s):
        lags_s = lag_s + width_s * np.array([-1.0, 0.0, 1.0])
        values = np.abs(np.exp(1j * np.outer(lags_s, omega)) @ product.astype(np.complex128))
        vertex = float(np.clip(fit_vertex(values), -1.0, 1.0))
        height = float(values.max())
        lag_s = lags_s[1] + vertex * width_s
    return max(height, float(abs(np.exp(1j * lag_s * omega) @ product.astype(np.complex128))))


def _report(aligned: _Aligned, start_s: Floats, limits_s: Floats, spec: DelaySpec) -> SessionDelays:
    num = len(start_s)
    reasons = np.full(num, "", dtype="<U64")
    reasons[~np.isfinite(start_s)] = "no start time"
    reasons[np.isfinite(start_s) & ~aligned.rough.used] = "too little time in common with the others"
    reasons[aligned.places[~aligned.detected]] = "no signal in common with the others"
    found = aligned.select(aligned.detected).fit()
    ambiguous = np.zeros(num, dtype=np.bool_)
    unclear = _find_ambiguous(found, limits_s)
    ambiguous[found.places[unclear]] = True
    reasons[found.places[unclear]] = "another delay is as likely"
    if unclear.any():
        found = found.select(~unclear)
    if len(found.places) < 2:
        raise CannotLocate(f"delays: {num} recordings, but all delays are ambiguous")
    information = compute_delay_information(found.model, found.grid.frequency_hz)
    weights = split_information(information, found.model.snr)
    with np.errstate(divide="ignore"):
        sigma_s = 1.0 / np.sqrt(weights)
    if not np.any(sigma_s < limits_s[np.ix_(found.places, found.places)].max()):
        raise CannotLocate("delays: the common signal is too narrow to carry a delay (a bare carrier)")
    return _assemble(found, num, sigma_s, information, ambiguous, reasons, spec)


def _assemble(
    found: _Aligned,
    num: int,
    sigma_s: Floats,
    information: Floats,
    ambiguous: NDArray[np.bool_],
    reasons: NDArray[np.str_],
    spec: DelaySpec,
) -> SessionDelays:
    coherence = np.abs(_compute_coherence(found)).astype(np.float64)
    first, second = np.triu_indices(len(found.places), 1)
    covariance = np.linalg.pinv(information, rcond=1e-12, hermitian=True)
    variance = covariance[first, first] + covariance[second, second] - 2.0 * covariance[first, second]
    correlation, curvature = _correlate_pairs(found, first, second, spec.num_lags)
    mean_coherence = (coherence.sum(axis=1) - 1.0) / (len(coherence) - 1)
    signal = found.model.snr * found.grid.bandwidth_hz / CHANNEL_HZ

    def spread(values: Floats) -> Floats:
        out = np.full(num, np.nan)
        out[found.places] = values
        return out

    return SessionDelays(
        arrival_s=spread(found.delay_s - found.delay_s.mean()),
        arrival_sigma_s=spread(sigma_s),
        coherence=spread(mean_coherence),
        snr_db=spread(10.0 * np.log10(signal)),
        carrier_offset_hz=spread(found.offset_hz),
        ambiguous=ambiguous,
        reasons=reasons,
        span_s=(found.rough.start_s, found.rough.end_s),
        pairs=np.stack([found.places[first], found.places[second]], axis=1).astype(np.int64),
        pair_delay_s=found.delay_s[first] - found.delay_s[second],
        pair_sigma_s=np.sqrt(variance),
        pair_coherence=coherence[first, second],
        pair_curvature=curvature,
        pair_correlation=correlation,
        lag_step_s=1.0 / found.grid.bandwidth_hz,
    )


def _correlate_pairs(
    found: _Aligned, first: NDArray[np.int64], second: NDArray[np.int64], num_lags: int
) -> tuple[NDArray[np.complex64], Floats]:
    """Return each pair's weighted correlation around its peak, complex64 (Q, num_lags), and its curvature, (Q,)."""
    weighted = found.spectra * np.sqrt(found.model.spectrum).astype(np.float32)
    weighted /= np.sqrt(np.square(np.abs(weighted)).sum(axis=1, keepdims=True))
    product = weighted[first] * weighted[second].conj()
    lags = np.arange(num_lags) - num_lags // 2
    correlation = (to_time(product) * np.float32(found.grid.num))[:, lags]
    omega = 2.0 * np.pi * found.grid.frequency_hz
    power = product.real.astype(np.float64)
    total = power.sum(axis=1)
    centre = (power @ omega) / total
    return correlation.astype(np.complex64), (power @ np.square(omega)) / total - np.square(centre)
