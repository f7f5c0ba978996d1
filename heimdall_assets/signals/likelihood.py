"""Joint maximum likelihood of arrival times: one unknown signal in every receiver, each with its own gain and noise.

Belongs here: the Gaussian signal model, its fit, its gradient and its information. Does not belong here: recordings,
clocks, geometry (``alignment``, ``delays``).

Model, frequency by frequency: X_i = g_i S exp(-2 pi j f tau_i) + noise_i, S Gaussian with a spectrum P that is smooth
in f, noise of power N_i, smooth too, so that one receiver's interference lowers its weight there. Then the best use of
all receivers is U = sum of conj(g_i) / N_i X_i exp(2 pi j f tau_i) with the Wiener weight W = P / (1 + sum of rho),
rho_i = P |g_i|^2 / N_i, and the information of a pair about phase at one frequency is 2 rho_i rho_j / (1 + sum of rho).
With two receivers this is the weight of Hannan and Thomson.

Source: Hannan and Thomson 1973, Biometrika 60 (3); Carter 1987, Proc. IEEE 75 (2), section IV; expectation
maximisation of a one-factor model: Rubin and Thayer 1982, Psychometrika 47 (1).

Shapes: R receivers, M frequencies.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

Floats = NDArray[np.float64]

SMOOTHING_HZ = 40.0
"""Width over which the signal's spectrum counts as constant: less than syllables and words can resolve."""

NOISE_SMOOTHING = 12
"""Noise spectra are smoothed this many times wider than the signal's: they change less, and are less well known."""

NUM_ROUNDS = 5  # of expectation maximisation before each step; twelve change no delay by a hundredth of its sigma

SHARED_SIGMAS = 5.0  # by which cross power must exceed that of noise for a frequency to count

SMALLEST_NOISE = 1e-6
"""Of a receiver's power: 60 dB is more than a narrow-band FM receiver's converter and phase noise allow."""


@dataclass(frozen=True)
class SignalModel:
    """The fitted model.

    Attributes:
        gain: complex128 (R,).
        noise: float64 (R, M), power per frequency.
        spectrum: float64 (M,), P.
        energy: float64 (M,), what the signal is thought to hold at each frequency, not smoothed: E |S|^2 given the
            spectra. P decides weights, this decides information, or a carrier's smoothed line would claim to know.
        shared: bool (M,), frequencies at which the receivers have more in common than noise by chance; None: all.
    """

    gain: NDArray[np.complex128]
    noise: Floats
    spectrum: Floats
    energy: Floats
    shared: NDArray[np.bool_] | None = None

    @property
    def strength(self) -> Floats:
        """|g_i|^2 / N_i, float64 (R, M): times P it is the signal to noise of each frequency."""
        return np.square(np.abs(self.gain))[:, None] / self.noise

    @property
    def wiener(self) -> Floats:
        """W, float64 (M,)."""
        weight = self.spectrum / (1.0 + self.strength.sum(axis=0) * self.spectrum)
        return weight if self.shared is None else np.where(self.shared, weight, 0.0)

    @property
    def snr(self) -> Floats:
        """Signal over noise power of the whole band, float64 (R,)."""
        ratio: Floats = np.square(np.abs(self.gain)) * self.spectrum.sum() / self.noise.sum(axis=1)
        return ratio


def fit_model(spectra: NDArray[np.complex64], smoothing: int, start: SignalModel | None = None) -> SignalModel:
    """Return the model of aligned spectra, complex (R, M): gains, noise powers and signal spectrum.

    Args:
        spectra: of mean power about 1 each.
        smoothing: over how many frequencies the signal's spectrum is averaged.
        start: a model to go on from; None: a first guess from what the receivers share.
    """
    model = _guess(spectra, smoothing) if start is None else replace(start, shared=None)
    for _ in range(NUM_ROUNDS):
        model = _improve(spectra, smoothing, model)
    return replace(model, shared=_find_shared(spectra, smoothing, model))


def combine(spectra: NDArray[np.complex64], model: SignalModel) -> NDArray[np.complex64]:
    """Return conj(g_i) / N_i X_i, complex64 (R, M): every row has the signal's own phase."""
    return spectra * (model.gain.conj()[:, None] / model.noise).astype(np.complex64)


def compute_step(
    spectra: NDArray[np.complex64], model: SignalModel, frequency_hz: Floats
) -> tuple[Floats, Floats, float]:
    """Return by how much each arrival is later (s) and each phase ahead (rad) of what ``spectra`` assume, (R,) each.

    One step of Fisher scoring on the likelihood; the mean over receivers, which nothing determines, is zero. The third
    number is how much the step is worth: its squared length in sigmas.
    """
    parts = combine(spectra, model)
    weighted = parts.sum(axis=0).conj() * model.wiener.astype(np.float32)
    omega = (2.0 * np.pi * frequency_hz).astype(np.float32)
    # An arrival later by t turns X_i by exp(-j omega t), a phase ahead by p by exp(j p).
    turned = (parts * weighted).imag
    by_delay = -2.0 * (turned @ omega).astype(np.float64)
    by_phase = 2.0 * turned.sum(axis=1, dtype=np.float64)
    information = compute_information(model, frequency_hz)
    num = len(spectra)
    scale = _scale_of(information)
    full = information / np.outer(scale, scale)
    slope = np.concatenate([by_delay, by_phase]) / scale
    step = np.linalg.pinv(full, rcond=1e-10, hermitian=True) @ slope
    worth = float(step @ slope)
    step /= scale
    return step[:num] - step[:num].mean(), step[num:] - step[num:].mean(), worth


def compute_information(model: SignalModel, frequency_hz: Floats) -> Floats:
    """Return the Fisher information of R arrival times (s) and R phases (rad), float64 (2 R, 2 R)."""
    zeroth, first, second = _compute_moments(model, 2.0 * np.pi * frequency_hz)
    return np.block([[second, -first], [-first, zeroth]])


def compute_delay_information(model: SignalModel, frequency_hz: Floats) -> Floats:
    """Return the information of the arrival times alone, float64 (R, R), 1/s^2: phases and common time are unknown."""
    omega = 2.0 * np.pi * frequency_hz
    weight = model.energy * model.wiener * np.square(model.strength.sum(axis=0))
    if not weight.sum() > 0:
        return np.zeros((len(model.gain), len(model.gain)))
    zeroth, first, second = _compute_moments(model, omega - (weight @ omega) / weight.sum())
    return second - first @ np.linalg.pinv(zeroth, rcond=1e-10, hermitian=True) @ first


def _compute_moments(model: SignalModel, omega: Floats) -> tuple[Floats, Floats, Floats]:
    """Return Laplacians (R, R) of the pairs' information about phase, weighted by 1, omega and omega squared."""
    shares = model.strength * np.sqrt(2.0 * model.energy * model.wiener)
    out = []
    for power in (np.ones_like(omega), omega, np.square(omega)):
        links = (shares * power) @ shares.T
        np.fill_diagonal(links, 0.0)
        out.append(np.diag(links.sum(axis=1)) - links)
    return out[0], out[1], out[2]


def split_information(information: Floats, start: Floats) -> Floats:
    """Return weights d (1/s^2) with diag(d) - d d' / sum(d) as close to ``information`` as it gets, float64 (R,).

    So the errors of arrivals count as independent with variance 1 / d, next to an unknown common time: what position
    solvers take. Exact for the diagonal with three receivers and more; two share what they know in the ratio of
    ``start``.

    Args:
        information: a Laplacian, float64 (R, R).
        start: positive first weights, float64 (R,).

    Examples:
        Independent arrivals with weights 1, 2 and 4 next to an unknown common time:

        >>> weight = np.array([1.0, 2.0, 4.0])
        >>> information = np.diag(weight) - np.outer(weight, weight) / weight.sum()
        >>> np.round(split_information(information, start=np.ones(3)), 2).tolist()
        [1.0, 2.0, 4.0]
    """
    weights = start.copy()
    wanted = np.diagonal(information)
    for _ in range(60):
        share = weights / weights.sum()
        have = weights * (1.0 - share)
        weights = weights * np.sqrt(np.divide(wanted, have, out=np.ones_like(have), where=have > 0))
    return weights


def _scale_of(information: Floats) -> Floats:
    diagonal = np.sqrt(np.maximum(np.diagonal(information), 0.0))
    return np.where(diagonal > 0, diagonal, 1.0)


def _find_shared(spectra: NDArray[np.complex64], smoothing: int, model: SignalModel) -> NDArray[np.bool_] | None:
    """Return where the cross power of all pairs stands out of what independent noises would give, bool (M,).

    Expectation maximisation never lets P fall to nothing; far from the carrier even a little of it claims to know
    delays. The sum of u_i conj(u_j) over i != j of pure noise has mean 0 and variance sum of strengths i, j.
    """
    if len(spectra) == 1:
        return None
    parts = combine(spectra, model)
    crossed = np.square(np.abs(parts.sum(axis=0))) - np.square(np.abs(parts)).sum(axis=0)
    strength = model.strength
    variance = np.square(strength.sum(axis=0)) - np.square(strength).sum(axis=0)
    sigma: Floats = np.sqrt(variance / smoothing)
    return _smooth(crossed.astype(np.float64), smoothing) > SHARED_SIGMAS * sigma


def _smooth(power: Floats, width: int) -> Floats:
    smooth: Floats = uniform_filter1d(power, min(width, power.shape[-1]), axis=-1, mode="nearest")
    return smooth


def _guess(spectra: NDArray[np.complex64], smoothing: int) -> SignalModel:
    """Return a first model: the signal's spectrum from what receivers share, noise from what is left.

    One receiver alone shares nothing: its noise is that of the quietest tenth of the band.
    """
    power = np.square(np.abs(spectra)).astype(np.float64)
    smooth = _smooth(power, max(smoothing, 3))
    quiet = np.maximum(np.quantile(smooth, 0.1, axis=1), SMALLEST_NOISE * power.mean(axis=1))
    level = np.maximum(power.mean(axis=1) - quiet, 1e-3 * power.mean(axis=1))
    clearest = int(np.argmax(level / quiet))
    shape = np.maximum(smooth[clearest] - quiet[clearest], 1e-3 * quiet[clearest])
    shape /= shape.mean()
    if len(spectra) == 1:
        return SignalModel(np.sqrt(level).astype(np.complex128), np.full_like(power, quiet[0]), shape, shape)
    cross = (spectra * spectra[clearest].conj()).astype(np.complex128) @ shape
    cross[clearest] = 1.0
    phase = np.exp(1j * np.angle(cross))
    turned = spectra * phase.conj().astype(np.complex64)[:, None]
    shared = np.square(np.abs(turned.sum(axis=0))).astype(np.float64) - power.sum(axis=0)
    spectrum = np.maximum(_smooth(shared, smoothing), 1e-3 * np.abs(shared).mean())
    spectrum /= spectrum.mean()
    gain = np.sqrt(level) * phase
    wide = _smooth(power, NOISE_SMOOTHING * smoothing)
    left = wide - level[:, None] * _smooth(spectrum, NOISE_SMOOTHING * smoothing)
    return SignalModel(gain, np.maximum(left, 0.02 * wide), spectrum, spectrum)


def _improve(spectra: NDArray[np.complex64], smoothing: int, model: SignalModel) -> SignalModel:
    """Return the model after one round of expectation maximisation."""
    wiener = model.wiener
    estimate = combine(spectra, model).sum(axis=0) * wiener.astype(np.float32)
    energy = np.square(np.abs(estimate)).astype(np.float64) + wiener
    precision = (1.0 / model.noise).astype(np.float32)
    gain = ((spectra * precision) @ estimate.conj()).astype(np.complex128) / (precision @ energy.astype(np.float32))
    misfit = np.square(np.abs(spectra - np.outer(gain, estimate).astype(np.complex64))).astype(np.float64)
    misfit += np.square(np.abs(gain))[:, None] * wiener
    noise = _smooth(misfit, NOISE_SMOOTHING * smoothing)
    if len(spectra) == 1:
        noise = np.repeat(misfit.mean(axis=1, keepdims=True), misfit.shape[1], axis=1)
    spectrum = _smooth(energy, smoothing)
    size = spectrum.mean()
    return SignalModel(
        gain=gain * np.sqrt(size),
        noise=np.maximum(noise, SMALLEST_NOISE),
        spectrum=np.maximum(spectrum / size, 1e-9),
        energy=energy / size,
    )
