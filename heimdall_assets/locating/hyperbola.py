"""Where three arrival times put a source, in closed form: both places, when there are two."""

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.signals.geodesy import FloatArray

MIN_SINE = 1e-4
"""Three receivers closer to one line than this sine leave no closed form in float64."""


def intersect_hyperbolas(
    east_m: FloatArray, north_m: FloatArray, up_m: FloatArray, arrival_m: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the places at up 0 from which a wave arrives at three receivers with the given differences.

    Args:
        east_m, north_m, up_m: float64 (..., 3), the receivers.
        arrival_m: float64 (..., 3), arrival times in m, from any zero.

    Returns:
        Places float64 (..., 2, 2), root then east and north; and which of them are real and earlier than the first
        arrival, bool (..., 2). Others hold finite numbers without meaning.

    Source: squared ranges, differenced, are linear in position and emission time (Bancroft, IEEE Trans. AES 21 (1985)
    56; Chan and Ho, IEEE Trans. Signal Processing 42 (1994) 1905); the first receiver's own range closes them.

    Examples:
        Three receivers, a source 3 km east and 4 km north of the first; emission 1 km before the zero of arrivals:

        >>> east, north = np.array([0.0, 20_000.0, 0.0]), np.array([0.0, 0.0, 20_000.0])
        >>> arrival_m = np.hypot(east - 3_000.0, north - 4_000.0) - 1_000.0
        >>> places, real = intersect_hyperbolas(east, north, np.zeros(3), arrival_m)
        >>> places[real].round(3).tolist()
        [[3000.0, 4000.0]]
    """
    de, dn = east_m[..., 1:] - east_m[..., :1], north_m[..., 1:] - north_m[..., :1]
    delay = arrival_m[..., 1:] - arrival_m[..., :1]
    height = np.square(up_m[..., 0])
    half = 0.5 * (de * de + dn * dn + np.square(up_m[..., 1:]) - height[..., None] - delay * delay)
    determinant = de[..., 0] * dn[..., 1] - de[..., 1] * dn[..., 0]
    size = np.hypot(de[..., 0], dn[..., 0]) * np.hypot(de[..., 1], dn[..., 1])
    regular = np.abs(determinant) > np.maximum(MIN_SINE * size, 1e-6)
    divisor = np.where(regular, determinant, 1.0)

    def solve(right: FloatArray) -> FloatArray:
        east = (dn[..., 1] * right[..., 0] - dn[..., 0] * right[..., 1]) / divisor
        north = (de[..., 0] * right[..., 1] - de[..., 1] * right[..., 0]) / divisor
        return np.where(regular[..., None], np.stack([east, north], axis=-1), 0.0)

    base, slope = solve(half), solve(delay)
    a = np.square(slope).sum(axis=-1) - 1.0
    b = (base * slope).sum(axis=-1)
    c = np.square(base).sum(axis=-1) + height
    discriminant = b * b - a * c
    q = -(b + np.copysign(np.sqrt(np.maximum(discriminant, 0.0)), b))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        emission = np.stack([q / a, c / q], axis=-1)
    found = np.isfinite(emission) & (np.abs(emission) < 1e9)
    emission = np.where(found, emission, 0.0)
    places = base[..., None, :] + emission[..., None] * slope[..., None, :]
    places += np.stack([east_m[..., 0], north_m[..., 0]], axis=-1)[..., None, :]
    return places, found & (emission <= 0.0) & (regular & (discriminant >= 0.0))[..., None]
