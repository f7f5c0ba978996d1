"""Places on a sphere as unit vectors: ways of waves to them at any distance, and one seen from another.

Legend of shapes: P places, N nodes about each, R receiver slots.
"""

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.signals.geodesy import MEAN_EARTH_RADIUS_M, FloatArray


def measure_way(vector: FloatArray, receivers: FloatArray, ground: NDArray[np.bool_]) -> FloatArray:
    """Return ways (P, N, R) in m on the sphere from unit vectors (P, N, 3) to receivers (P, R, 3)."""
    height = receivers[:, None, :, 2]
    place = _point_to(receivers[..., 0], receivers[..., 1])
    chord = np.maximum(2.0 - 2.0 * np.einsum("pni,pri->pnr", vector, place), 0.0)
    straight = MEAN_EARTH_RADIUS_M * np.sqrt(chord * np.maximum(1.0 + height / MEAN_EARTH_RADIUS_M, 0.0))
    arc = 2.0 * MEAN_EARTH_RADIUS_M * np.arcsin(np.minimum(0.5 * np.sqrt(chord), 1.0))
    way: FloatArray = np.hypot(np.where(ground[:, None], arc, straight), height)
    return way


def compute_sphere_way_m(degrees: FloatArray, receivers: FloatArray, ground: NDArray[np.bool_]) -> FloatArray:
    """Return the ways (P, R) on the sphere from places (P, 2) in degrees to receivers (P, R, 3)."""
    return measure_way(_point_to(degrees[:, :1], degrees[:, 1:]), receivers, ground)[:, 0]


def measure_azimuth(vector: FloatArray, receivers: FloatArray) -> FloatArray:
    """Return azimuths (P, N, R) in rad at receivers (P, R, 3) of great circles to unit vectors (P, N, 3)."""
    east, north = _find_axes(_point_to(receivers[..., 0], receivers[..., 1]))
    azimuth: FloatArray = np.arctan2(np.einsum("pni,pri->pnr", vector, east), np.einsum("pni,pri->pnr", vector, north))
    return azimuth


def compute_sphere_azimuth_rad(degrees: FloatArray, receivers: FloatArray) -> FloatArray:
    """Return the azimuths (P, R) on the sphere at receivers (P, R, 3) of places (P, 2) in degrees."""
    return measure_azimuth(_point_to(degrees[:, :1], degrees[:, 1:]), receivers)[:, 0]


def _point_to(latitude: FloatArray, longitude: FloatArray) -> FloatArray:
    """Return unit vectors (..., 3) of places in degrees."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def _find_axes(up: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return unit vectors to the east and north at unit vectors (..., 3)."""
    level = np.maximum(np.hypot(up[..., 0], up[..., 1]), 1e-12)
    east = np.stack([-up[..., 1] / level, up[..., 0] / level, np.zeros_like(level)], axis=-1)
    return east, np.cross(up, east)


def raise_plane(latitude: FloatArray, longitude: FloatArray, plane: FloatArray) -> FloatArray:
    """Return unit vectors (P, N, 3) of places (P, N, 2) in m about centres (P, 1) in degrees."""
    up = _point_to(latitude, longitude)
    east, north = _find_axes(up)
    distance = np.hypot(plane[..., 0], plane[..., 1])[..., None]
    turn = distance / MEAN_EARTH_RADIUS_M
    out = (plane[..., :1] * east + plane[..., 1:] * north) / np.maximum(distance, 1e-9)
    vector: FloatArray = np.cos(turn) * up + np.sin(turn) * out
    return vector


def see_from(latitude: FloatArray, longitude: FloatArray, plane: FloatArray, place: FloatArray) -> FloatArray:
    """Return places (P, N, 2) in m about the receivers' centres as east and north about another place (P, 2)."""
    centre = latitude[:, None], longitude[:, None]
    vector, up = raise_plane(*centre, plane), raise_plane(*centre, place[:, None])
    east, north = _find_axes(up)
    side = np.stack([(vector * east).sum(-1), (vector * north).sum(-1)], axis=-1)
    length = np.hypot(side[..., 0], side[..., 1])
    turn = np.arctan2(length, (vector * up).sum(-1))
    seen: FloatArray = side * (MEAN_EARTH_RADIUS_M * turn / np.maximum(length, 1e-12))[..., None]
    return seen
