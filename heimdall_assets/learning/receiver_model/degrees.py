"""Degrees to metres and back around a centre, in closed form, so that an ONNX graph can carry it.

Belongs here: the equirectangular frame of the one-receiver model. Does not belong here: distances and exact local
frames (``signals.geodesy``). The frame is linear in degrees: its inverse is exact, only its scale drifts with latitude.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SEMI_MAJOR_M = 6_378_137.0
"""Source: WGS-84, NIMA TR8350.2, table 3.1."""

ECCENTRICITY_SQUARED = 6.694_379_990_14e-3
"""First eccentricity squared. Source: WGS-84, NIMA TR8350.2, table 3.3."""


def compute_metres_per_degree(latitude: Any, xp: Any = np) -> tuple[Any, Any]:
    """Return metres per degree of latitude and per degree of longitude at ``latitude`` in degrees, shape kept.

    Args:
        latitude: array or tensor, degrees.
        xp: the library of ``latitude``: ``numpy`` or ``torch``.

    Source: meridian radius a (1 - e^2) / w^3 and prime vertical radius a / w, w = sqrt(1 - e^2 sin^2)
    (Torge, Geodesy, 4th edition, section 4.1.3).
    """
    radians = xp.deg2rad(latitude)
    root = xp.sqrt(1.0 - ECCENTRICITY_SQUARED * xp.sin(radians) ** 2)
    north = SEMI_MAJOR_M * (1.0 - ECCENTRICITY_SQUARED) / root**3
    east = SEMI_MAJOR_M / root * xp.cos(radians)
    return north * (np.pi / 180.0), east * (np.pi / 180.0)


def wrap_longitude(longitude: Any) -> Any:
    """Return ``longitude`` in degrees within [-180, 180), shape kept."""
    return (longitude + 180.0) % 360.0 - 180.0


def compute_centre(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean position in degrees; longitudes are averaged around their circular mean, so 180 is no edge."""
    radians = np.radians(longitude)
    middle = float(np.degrees(np.arctan2(np.sin(radians).mean(), np.cos(radians).mean())))
    offset = float(wrap_longitude(longitude - middle).mean())
    return float(latitude.mean()), float(wrap_longitude(middle + offset))
