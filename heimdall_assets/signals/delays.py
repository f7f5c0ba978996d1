"""Arrival times at the receivers of a session, from raw IQ on a common time grid.

Belongs here: from recordings to delays with honest sigmas. The search stands in ``alignment``, the iteration in
``refinement``, the statistics in ``likelihood``. Does not belong here: positions (``locating``).

The sigmas are statistical: what noise does. What clocks and receive filters do comes on top (``specs.TimingSpec``).
Shapes: R receivers, Q pairs of those with a delay, M frequencies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import CannotLocate, InvalidInput
from heimdall_assets.physical import CHANNEL_HZ, Place, Recording
from heimdall_assets.signals.alignment import align_recordings, compute_lag_limits_s, compute_start_times_s, to_time
from heimdall_assets.signals.ambiguity import find_ambiguous
from heimdall_assets.signals.likelihood import compute_delay_information, split_information
from heimdall_assets.signals.refinement import Aligned, compute_coherence, load_aligned, refine

if TYPE_CHECKING:
    from heimdall_assets.specs import DelaySpec

Floats = NDArray[np.float64]

NUM_REFERENCES = 3  # receivers tried as the one others are compared with, until most of them share its signal


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


def compute_delays(recordings: Sequence[Recording], receivers: Sequence[Place], spec: "DelaySpec") -> SessionDelays:
    """Return when a transmission arrived at each receiver: joint maximum likelihood over all of them.

    Recordings may differ in rate and start; each is read on its own clock at its own true rate. Carrier phase and
    frequency of each receiver are estimated along. A recording without a start time, without a common signal, or whose
    delay is ambiguous has no arrival, and ``reasons`` says why.

    Raises:
        InvalidInput: recordings and receivers differ in number.
        CannotLocate: fewer than two recordings are timed or overlap, or no two share a signal.

    Examples:
        The same signal, heard 20 us later by the second receiver's clock, 30 dB above each receiver's own noise:

        >>> from heimdall_assets.domain import Position
        >>> from heimdall_assets.specs import DelaySpec
        >>> rng = np.random.default_rng(1)
        >>> signal, *noise = rng.normal(size=(3, 24_000, 2)) @ np.array([1.0, 1.0j])
        >>> samples = [(0.1 * signal + 0.003 * part).astype(np.complex64) for part in noise]
        >>> recordings = [Recording(part, 24_000.0, start) for part, start in zip(samples, (0, 20_000), strict=True)]
        >>> receivers = [Position(latitude=45.0, longitude=7.0), Position(latitude=45.1, longitude=7.0)]
        >>> found = compute_delays(recordings, receivers, DelaySpec())
        >>> round(float(found.arrival_s[1] - found.arrival_s[0]) * 1e6)
        20
    """
    if len(recordings) != len(receivers):
        raise InvalidInput(f"delays: {len(recordings)} recordings, expected one for each of {len(receivers)} receivers")
    start_s = compute_start_times_s(recordings)
    if np.isfinite(start_s).sum() < 2:
        raise CannotLocate(f"delays: {np.isfinite(start_s).sum()} timed recordings, expected at least 2")
    start_sigma_s = np.array([recording.timing_sigma_s or 0.0 for recording in recordings])
    limits_s = compute_lag_limits_s(receivers, spec.max_baseline_slack, start_sigma_s)
    best: Aligned | None = None
    for rank in range(NUM_REFERENCES):
        rough = align_recordings(recordings, start_s, limits_s, spec.bandwidth_hz, rank)
        aligned = refine(load_aligned(recordings, start_s, rough, spec.bandwidth_hz), limits_s, spec.min_coherence)
        if best is None or aligned.detected.sum() > best.detected.sum():
            best = aligned
        if 2 * best.detected.sum() > rough.used.sum() or rank + 1 >= rough.used.sum():
            break
    assert best is not None
    if best.detected.sum() < 2:
        raise CannotLocate(f"delays: found no signal that two of {len(recordings)} recordings share")
    return _report(best, start_s, limits_s, spec)


def _report(aligned: Aligned, start_s: Floats, limits_s: Floats, spec: "DelaySpec") -> SessionDelays:
    num = len(start_s)
    reasons = np.full(num, "", dtype="<U64")
    reasons[~np.isfinite(start_s)] = "no start time"
    reasons[np.isfinite(start_s) & ~aligned.rough.used] = "too little time in common with the others"
    reasons[aligned.places[~aligned.detected]] = "no signal in common with the others"
    found = aligned.select(aligned.detected).fit()
    ambiguous = np.zeros(num, dtype=np.bool_)
    unclear = find_ambiguous(found, limits_s)
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
    found: Aligned,
    num: int,
    sigma_s: Floats,
    information: Floats,
    ambiguous: NDArray[np.bool_],
    reasons: NDArray[np.str_],
    spec: "DelaySpec",
) -> SessionDelays:
    coherence = np.abs(compute_coherence(found)).astype(np.float64)
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
    found: Aligned, first: NDArray[np.int64], second: NDArray[np.int64], num_lags: int
) -> tuple[NDArray[np.complex64], Floats]:
    """Return each pair's weighted correlation around its peak, complex64 (Q, num_lags), and its curvature, (Q,)."""
    weighted = found.spectra * np.sqrt(found.model.spectrum).astype(np.float32)
    weighted /= np.sqrt(np.square(np.abs(weighted)).sum(axis=1, keepdims=True))
    product = weighted[first] * weighted[second].conj()
    lags = np.arange(num_lags) - num_lags // 2
    correlation = (to_time(product) * np.float32(found.grid.num))[:, lags]
    omega = 2.0 * np.pi * found.grid.frequency_hz
    # Each receiver's carrier has a phase of its own: turned to the real axis, what is common is what is left of noise.
    turn = product.sum(axis=1, keepdims=True)
    power = (product * (turn / np.maximum(np.abs(turn), 1e-30)).conj()).real.astype(np.float64)
    total = power.sum(axis=1)
    centre = (power @ omega) / total
    return correlation.astype(np.complex64), (power @ np.square(omega)) / total - np.square(centre)
