"""Joint maximum likelihood of arrival times: one unknown signal in every receiver, each with its own gain and noise.

Belongs here: the Gaussian signal model, its fit, its gradient and its information. Does not belong here: recordings,
clocks, geometry (``alignment``, ``delays``).

Model, frequency by frequency: X_i = g_i S exp(-2 pi j f tau_i) + noise_i, S Gaussian with a spectrum P that is smooth
in f, noise of power N_i. Then the best use of all receivers is U = sum of conj(g_i) / N_i X_i exp(2 pi j f tau_i) with the
Wiener weight W = P / (1 + sum of rho), rho_i = P |g_i|^2 / N_i, and the information of a pair about phase at one
frequency is 2 rho_i rho_j / (1 + sum of rho). With two receivers this is the weight of Hannan and Thomson.

Source: Hannan and Thomson 1973, Biometrika 60 (3); Carter 1987, Proc. IEEE 75 (2), section IV; expectation
maximisation of a one-factor model: Rubin and Thayer 1982, Psychometrika 47 (1).

Shapes: R receivers, M frequencies.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

Floats = NDArray[np.float64]

SMOOTHING_HZ = 40.0
"""Width over which the signal's spectrum counts as constant: less than syllables and words can resolve."""

NUM_ROUNDS = 12  # of expectation maximisation; gains and spectra change by less than a percent after it

SMALLEST_NOISE = 1e-6
"""Of a receiver's power: 60 dB is more than a narrow-band FM receiver's converter and phase noise allow."""


@dataclass(frozen=True)
class SignalModel:
    """The fitted model.

    Attributes:
        gain: complex128 (R,).
        noise: float64 (R,), power per frequency.
        spectrum: float64 (M,), P.
    """

    gain: NDArray[np.complex128]
    noise: Floats
    spectrum: Floats

    @property
    def strength(self) -> Floats:
        """|g_i|^2 / N_i, float64 (R,): times P it is the signal to noise of each frequency."""
        return np.square(np.abs(self.gain)) / self.noise

    @property
    def wiener(self) -> Floats:
        """W, float64 (M,)."""
        return self.spectrum / (1.0 + self.strength.sum() * self.spectrum)


def fit_model(spectra: NDArray[np.complex64], smoothing: int, start: SignalModel | None = None) -> SignalModel:
    """Return the model of aligned spectra, complex (R, M): gains, noise powers and signal spectrum.

    Args:
        spectra: of mean power about 1 each.
        smoothing: over how many frequencies the signal's spectrum is averaged.
        start: a model to go on from; None: the first receiver's phase and the quietest parts of each band.
    """
    model = _guess(spectra, smoothing) if start is None else start
    total = np.square(np.abs(spectra)).sum(axis=1, dtype=np.float64)
    for _ in range(NUM_ROUNDS):
        model = _improve(spectra, total, smoothing, model)
    return model


def combine(spectra: NDArray[np.complex64], model: SignalModel) -> NDArray[np.complex64]:
    """Return conj(g_i) / N_i X_i, complex64 (R, M): every row has the signal's own phase."""
    return spectra * (model.gain.conj() / model.noise).astype(np.complex64)[:, None]


def compute_step(spectra: NDArray[np.complex64], model: SignalModel, frequency_hz: Floats) -> tuple[Floats, Floats]:
    """Return by how much each arrival is later (s) and each phase is ahead (rad) of what ``spectra`` assume, (R,) each.

    One step of Fisher scoring on the likelihood; the mean over receivers, which nothing determines, is zero.
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
    step = np.linalg.pinv(full, rcond=1e-10, hermitian=True) @ (np.concatenate([by_delay, by_phase]) / scale) / scale
    return step[:num] - step[:num].mean(), step[num:] - step[num:].mean()


def compute_information(model: SignalModel, frequency_hz: Floats) -> Floats:
    """Return the Fisher information of R arrival times (s) and R phases (rad), float64 (2 R, 2 R)."""
    omega = 2.0 * np.pi * frequency_hz
    pair = 2.0 * np.square(model.spectrum) / (1.0 + model.strength.sum() * model.spectrum)
    links = np.outer(model.strength, model.strength)
    np.fill_diagonal(links, 0.0)
    laplacian = np.diag(links.sum(axis=1)) - links
    second, first, zeroth = (pair * omega**2).sum(), -(pair * omega).sum(), pair.sum()
    return np.block([[second * laplacian, first * laplacian], [first * laplacian, zeroth * laplacian]])


def compute_delay_information(model: SignalModel, frequency_hz: Floats) -> Floats:
    """Return the information of the arrival times alone, float64 (R, R), 1/s^2: phases and common time are unknown."""
    omega = 2.0 * np.pi * frequency_hz
    pair = 2.0 * np.square(model.spectrum) / (1.0 + model.strength.sum() * model.spectrum)
    total = pair.sum()
    if not total > 0:
        return np.zeros((len(model.gain), len(model.gain)))
    centred = (pair * np.square(omega - (pair * omega).sum() / total)).sum()
    links = np.outer(model.strength, model.strength)
    np.fill_diagonal(links, 0.0)
    return centred * (np.diag(links.sum(axis=1)) - links)


def split_information(information: Floats, start: Floats) -> Floats:
    """Return weights d (1/s^2) with diag(d) - d d' / sum(d) as close to ``information`` as it gets, float64 (R,).

    So the errors of arrivals count as independent with variance 1 / d, next to an unknown common time: what position
    solvers take. Exact for the diagonal with three receivers and more; two share what they know in the ratio of
    ``start``.

    Args:
        information: a Laplacian, float64 (R, R).
        start: positive first weights, float64 (R,).
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


def _guess(spectra: NDArray[np.complex64], smoothing: int) -> SignalModel:
    """Return a first model: noise from the quietest tenth of each band, phases against the clearest receiver."""
    power = np.square(np.abs(spectra)).astype(np.float64)
    smooth = uniform_filter1d(power, max(smoothing, 3), axis=1, mode="nearest")
    noise = np.maximum(np.quantile(smooth, 0.1, axis=1), SMALLEST_NOISE * power.mean(axis=1))
    level = np.maximum(power.mean(axis=1) - noise, 1e-3 * power.mean(axis=1))
    clearest = int(np.argmax(level / noise))
    shape = np.maximum(smooth[clearest] - noise[clearest], 1e-3 * noise[clearest])
    shape /= shape.mean()
    cross = (spectra * spectra[clearest].conj()).astype(np.complex128) @ shape
    cross[clearest] = 1.0
    return SignalModel(np.sqrt(level) * np.exp(1j * np.angle(cross)), noise, shape)


def _improve(spectra: NDArray[np.complex64], total: Floats, smoothing: int, model: SignalModel) -> SignalModel:
    """Return the model after one round of expectation maximisation; ``total`` is each receiver's summed power."""
    wiener = model.wiener
    weights = (model.gain.conj() / model.noise).astype(np.complex64)
    estimate = (weights @ spectra) * wiener.astype(np.float32)
    energy = np.square(np.abs(estimate)).astype(np.float64) + wiener
    gain = (spectra @ estimate.conj()).astype(np.complex128) / energy.sum()
    explained = np.square(np.abs(gain)) * energy.sum()
    noise = np.maximum(total - explained, SMALLEST_NOISE * total) / spectra.shape[1]
    spectrum = uniform_filter1d(energy, smoothing, mode="nearest")
    size = spectrum.mean()
    return SignalModel(gain * np.sqrt(size), noise, np.maximum(spectrum / size, 1e-9))
