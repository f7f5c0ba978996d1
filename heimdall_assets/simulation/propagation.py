"""What the way does to a signal: loss, shadowing, noise, echoes and detours.

Belongs here: formulas of propagation and their random parts. Does not belong here: stations, clocks, samples
(``network``). Distances are metres, losses positive dB, powers dBm.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heimdall_assets.physical import CHANNEL_HZ, SPEED_OF_LIGHT_M_S
from heimdall_assets.specs import SimulationSpec

Floats = NDArray[np.float64]

REFERENCE_M = 1000.0
"""Where the log-distance law takes over from free space: macro cells (Rappaport 2002, section 4.9.1)."""

SOURCE_HEIGHT_M, RECEIVER_HEIGHT_M = 5.0, 30.0  # above ground: a car or house, and a hill-top mast; two-ray law only

NEAREST_M = 10.0  # antennas closer than a few wavelengths have no path loss law

THERMAL_DBM_HZ = -174.0
"""Thermal noise at 290 K in 1 Hz: 10 log10(k T / 1 mW)."""

MAN_MADE_CITY_DBM = -113.0
"""Man-made noise in 12.5 kHz at 145 MHz in a city (ITU-R P.372-16, figure 39)."""

SHADOWING_LENGTH_M = 2000.0
"""Distance over which shadowing forgets, rural (Gudmundson 1991, Electronics Letters 27: 500 m; hills: more)."""

NUM_WAVES = 512  # of a shadowing field: its marginal is Gaussian to within a percent


def compute_free_space_loss_db(distance_m: ArrayLike, frequency_hz: float) -> Floats:
    """Return 20 log10(4 pi d f / c). Source: ITU-R P.525-4, eq. 4.

    Examples:
        145 MHz over 1, 10 and 100 km: 20 dB a decade.

        >>> compute_free_space_loss_db([1e3, 1e4, 1e5], 145e6).round(1).tolist()
        [75.7, 95.7, 115.7]
    """
    distance = np.maximum(np.asarray(distance_m, dtype=np.float64), NEAREST_M)
    return 20.0 * np.log10(4.0 * math.pi * distance * frequency_hz / SPEED_OF_LIGHT_M_S)


def compute_log_distance_loss_db(distance_m: ArrayLike, frequency_hz: float, exponent: float) -> Floats:
    """Return free space up to 1 km, from there 10 ``exponent`` dB more per decade. Source: Rappaport 2002, eq. 4.69.

    Examples:
        >>> compute_log_distance_loss_db([1e3, 1e4, 1e5], 145e6, exponent=3.0).round(1).tolist()
        [75.7, 105.7, 135.7]
    """
    distance = np.asarray(distance_m, dtype=np.float64)
    near = compute_free_space_loss_db(np.minimum(distance, REFERENCE_M), frequency_hz)
    return near + 10.0 * exponent * np.log10(np.maximum(distance, REFERENCE_M) / REFERENCE_M)


def compute_two_ray_loss_db(
    distance_m: ArrayLike, frequency_hz: float, height_m: float, other_height_m: ArrayLike
) -> Floats:
    """Return the loss over flat ground that reflects with coefficient -1: 40 dB per decade far away.

    Source: Rappaport 2002, section 4.6; far away the loss is 40 log10(d) - 20 log10(h1 h2).

    Examples:
        Antennas at 5 m and 30 m, 145 MHz: 40 log10(d) - 20 log10(5 * 30) far away, whatever the frequency.

        >>> compute_two_ray_loss_db([1e5, 1e6], 145e6, 5.0, 30.0).round(1).tolist()
        [156.5, 196.5]
    """
    distance = np.maximum(np.asarray(distance_m, dtype=np.float64), NEAREST_M)
    heights = np.asarray(other_height_m, dtype=np.float64)
    direct, reflected = np.hypot(distance, heights - height_m), np.hypot(distance, heights + height_m)
    # The difference of two nearly equal lengths, written without cancellation.
    detour = 4.0 * heights * height_m / (direct + reflected)
    field = np.abs(1.0 - direct / reflected * np.exp(-2j * math.pi * frequency_hz / SPEED_OF_LIGHT_M_S * detour))
    interference_db: Floats = 20.0 * np.log10(np.maximum(field, 1e-6))
    return compute_free_space_loss_db(direct, frequency_hz) - interference_db


def compute_loss_db(distance_m: ArrayLike, spec: SimulationSpec) -> Floats:
    """Return the mean loss in dB by the law that ``spec`` names.

    Examples:
        >>> laws = [SimulationSpec(path_loss=law) for law in ("free_space", "two_ray", "log_distance")]
        >>> [round(float(np.diff(compute_loss_db([1e4, 1e5], spec))[0])) for spec in laws]  # dB of the second decade
        [20, 40, 30]
    """
    if spec.path_loss == "free_space":
        return compute_free_space_loss_db(distance_m, spec.carrier_hz)
    if spec.path_loss == "two_ray":
        return compute_two_ray_loss_db(distance_m, spec.carrier_hz, SOURCE_HEIGHT_M, RECEIVER_HEIGHT_M)
    return compute_log_distance_loss_db(distance_m, spec.carrier_hz, spec.path_loss_exponent)


def compute_noise_dbm(noise_figure_db: ArrayLike, man_made_dbm: ArrayLike = -math.inf) -> Floats:
    """Return the noise power in one channel: thermal and receiver noise, plus what machines around it make.

    Examples:
        kTB of 12.5 kHz, a receiver of 5 dB, and city noise that drowns both:

        >>> compute_noise_dbm([0.0, 5.0]).round(1).tolist(), round(float(compute_noise_dbm(5.0, MAN_MADE_CITY_DBM)), 1)
        ([-133.0, -128.0], -112.9)
    """
    thermal = THERMAL_DBM_HZ + 10.0 * math.log10(CHANNEL_HZ) + np.asarray(noise_figure_db, dtype=np.float64)
    return 10.0 * np.log10(10.0 ** (thermal / 10.0) + 10.0 ** (np.asarray(man_made_dbm, dtype=np.float64) / 10.0))


@dataclass(frozen=True)
class ShadowingField:
    """A fixed random landscape: shadowing of every path, alike for paths whose ends lie close together.

    Covariance sigma^2 exp(-|source move| / L) exp(-|receiver move| / L), as a sum of plane waves over the four
    coordinates. It depends on the seed alone, so a session's shadowing does not depend on which others are drawn.

    Source: Gudmundson 1991, Electronics Letters 27 (23), eq. 1; spectral sampling: 2-D exponential covariance has the
    cumulative distribution 1 - 1 / sqrt(1 + (k L)^2) of wave number k.
    """

    sigma_db: float
    source_waves: Floats
    receiver_waves: Floats
    phase: Floats

    @classmethod
    def draw(cls, generator: np.random.Generator, sigma_db: float) -> "ShadowingField":
        """Return a landscape."""
        return cls(
            sigma_db,
            _draw_waves(generator),
            _draw_waves(generator),
            2.0 * math.pi * generator.random(NUM_WAVES),
        )

    def evaluate_db(self, source_en_m: Floats, receiver_en_m: Floats) -> Floats:
        """Return the shadowing from one source (2,) to receivers (R, 2), east and north in m: dB (R,).

        Examples:
            The same path is shadowed alike:

            >>> landscape = ShadowingField.draw(np.random.default_rng(1), sigma_db=6.6)
            >>> same, again = landscape.evaluate_db(np.zeros(2), np.array([[5e3, 0.0], [5e3, 0.0]]))
            >>> bool(abs(same - again) < 1e-9)
            True
        """
        phase = source_en_m @ self.source_waves + receiver_en_m @ self.receiver_waves + self.phase
        shadowing_db: Floats = self.sigma_db * math.sqrt(2.0 / NUM_WAVES) * np.cos(phase).sum(axis=-1)
        return shadowing_db


def _draw_waves(generator: np.random.Generator) -> Floats:
    """Return wave vectors, rad / m, (2, NUM_WAVES), of a field with exponential covariance."""
    number = np.sqrt(1.0 / np.square(1.0 - generator.random(NUM_WAVES)) - 1.0) / SHADOWING_LENGTH_M
    azimuth = 2.0 * math.pi * generator.random(NUM_WAVES)
    waves: Floats = number * np.stack([np.sin(azimuth), np.cos(azimuth)])
    return waves


@dataclass(frozen=True)
class Echoes:
    """Ways beside the first: delay after it in s (E,), complex amplitude (E,); all ways together have power 1."""

    direct: complex
    delay_s: Floats
    amplitude: NDArray[np.complex128]

    def compute_response(self, frequency_hz: Floats) -> NDArray[np.complex128]:
        """Return the channel's complex gain at baseband frequencies, same shape."""
        response = np.full(frequency_hz.shape, self.direct, dtype=np.complex128)
        for delay, amplitude in zip(self.delay_s, self.amplitude, strict=True):
            response += amplitude * np.exp(-2j * math.pi * frequency_hz * delay)
        return response


def draw_echoes(generator: np.random.Generator, rician_k_db: float, delay_spread_s: float, num: int = 6) -> Echoes:
    """Return a Rician channel: a direct way of power K / (K + 1), and ``num`` echoes that share the rest.

    Their delays are exponential with mean ``delay_spread_s``, their phases random.

    Source: ITU-R P.1407-8, section 2 (exponential delay profile); Rician factor K is direct over scattered power.

    Examples:
        >>> echoes = draw_echoes(np.random.default_rng(1), rician_k_db=10.0, delay_spread_s=0.5e-6)
        >>> round(abs(echoes.direct) ** 2 / float(np.square(np.abs(echoes.amplitude)).sum()), 6)  # 10 dB
        10.0
    """
    share = 1.0 / (1.0 + 10.0 ** (rician_k_db / 10.0))
    delay = generator.exponential(delay_spread_s, num) if delay_spread_s > 0 else np.zeros(num)
    amplitude = generator.standard_normal(num) + 1j * generator.standard_normal(num)
    amplitude *= math.sqrt(share / np.square(np.abs(amplitude)).sum())
    return Echoes(math.sqrt(1.0 - share), delay, amplitude)


def draw_excess_s(generator: np.random.Generator, spec: SimulationSpec, num: int) -> tuple[NDArray[np.bool_], Floats]:
    """Return which of ``num`` receivers have no line of sight, and their extra delay in s: exponential, else 0.

    Examples:
        >>> blocked, excess_s = draw_excess_s(np.random.default_rng(1), SimulationSpec(blocked_fraction=0.0), 7)
        >>> int(blocked.sum()), float(excess_s.sum())
        (0, 0.0)
    """
    blocked = generator.random(num) < spec.blocked_fraction
    excess = generator.exponential(1.0, num) * spec.blocked_excess_s
    return blocked, np.where(blocked, excess, 0.0)
