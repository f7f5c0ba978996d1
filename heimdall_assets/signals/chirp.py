"""Spectra of samples on any uniform clock at any uniform frequencies, and back: exact, without interpolating samples.

Belongs here: the chirp transform. It is how recordings of slightly different rates and start times get onto one common
grid. Does not belong here: what the spectra are used for (``delays``, ``simulation.network``).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft


def compute_chirp_transform(
    values: NDArray[np.complexfloating],
    num_out: int,
    in_start: float,
    in_step: float,
    out_start: float,
    out_step: float,
    sign: int,
) -> NDArray[np.complex64]:
    """Return sum over n of values[n] exp(sign 2 pi j x[n] y[m]) for every m, complex64 (num_out,).

    x[n] = in_start + n in_step and y[m] = out_start + m out_step: times and frequencies, or the other way round. Phases
    are computed in float64 and in cycles, so they stay exact over millions of cycles.

    Args:
        values: complex (N,).
        num_out: how many y.
        in_start, in_step, out_start, out_step: in s and Hz, or in Hz and s.
        sign: -1 from time to frequency, +1 back (no factor 1 / N is applied).

    Source: Bluestein 1970, IEEE Trans. Audio Electroacoust. 18 (4): n m = (n^2 + m^2 - (m - n)^2) / 2.

    Examples:
        A tone of 5 Hz, looked at from 4.5 to 5.5 Hz in steps that no FFT of one second has:

        >>> tone = np.exp(2j * np.pi * 5.0 * np.arange(64) / 64.0)
        >>> spectrum = compute_chirp_transform(tone, 11, 0.0, 1.0 / 64.0, out_start=4.5, out_step=0.1, sign=-1)
        >>> int(np.abs(spectrum).argmax()), round(float(np.abs(spectrum).max()), 2)  # 4.5 + 5 * 0.1 Hz, all 64 samples
        (5, 64.0)
    """
    num_in = len(values)
    index = np.arange(max(num_in, num_out), dtype=np.float64)
    bend = _turn(0.5 * in_step * out_step * index * index, sign)
    size = fft.next_fast_len(num_in + num_out - 1)
    weighted = np.zeros(size, dtype=np.complex64)
    weighted[:num_in] = values * bend[:num_in]
    if out_start != 0.0:
        weighted[:num_in] *= _turn(out_start * in_step * index[:num_in], sign)
    kernel = np.zeros(size, dtype=np.complex64)
    kernel[:num_out] = bend[:num_out].conj()
    kernel[size - num_in + 1 :] = bend[1:num_in][::-1].conj()
    folded = fft.ifft(fft.fft(weighted, overwrite_x=True) * fft.fft(kernel, overwrite_x=True), overwrite_x=True)
    out: NDArray[np.complex64] = folded[:num_out] * bend[:num_out]
    if in_start != 0.0:
        out *= _turn(in_start * (out_start + out_step * index[:num_out]), sign)
    return out


def _turn(cycles: NDArray[np.float64], sign: int) -> NDArray[np.complex64]:
    """Return exp(sign 2 pi j cycles), complex64."""
    phase = (cycles - np.rint(cycles)).astype(np.float32)
    phase *= np.float32(2.0 * np.pi * sign)
    out = np.empty(len(phase), dtype=np.complex64)
    np.cos(phase, out=out.real)
    np.sin(phase, out=out.imag)
    return out
