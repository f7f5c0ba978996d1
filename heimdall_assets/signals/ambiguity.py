"""Whether a delay is the only likely one: periodic signals fit several.

Belongs here: the comparison of a peak with the others within the physical lags. Does not belong here: finding it.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.signals.alignment import RAMP_S, Grid, fit_vertex, to_time
from heimdall_assets.signals.likelihood import combine
from heimdall_assets.signals.refinement import Aligned, correlate

Floats = NDArray[np.float64]

AMBIGUITY_MARGIN = 10.0
"""Natural logarithm of likelihood by which the peak must exceed the next one within the physical lags."""

AMBIGUITY_SHARE = 1e-2
"""Or by this share of what delay decides in it: a periodic signal repeats itself but for its ends and its receivers."""


def find_ambiguous(aligned: Aligned, limits_s: Floats) -> NDArray[np.bool_]:
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
        values, lags_s = correlate(product[row], aligned.grid, limit_s + abs(delay_s))
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
