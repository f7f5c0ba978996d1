"""Distances, ranges and local metres on the WGS-84 ellipsoid.

Belongs here: what turns degrees into metres and back. Does not belong here: anything that estimates a position.
Latitude comes before longitude; arrays broadcast; every result is float64.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import Geod, Transformer

from heimdall_assets.errors import InvalidInput

FloatArray = NDArray[np.float64]

GROUND_WAVE_MAX_HZ = 30e6
"""Below it a wave follows the ground (ITU-R P.368-10 covers 10 kHz to 30 MHz); above it the path is a straight line."""


MEAN_EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of the WGS-84 ellipsoid. Source: Moritz, Geodetic Reference System 1980, R1 = (2a + b) / 3."""


@cache
def _geod() -> Geod:
    return Geod(ellps="WGS84")


@cache
def _cartesian() -> Transformer:
    return Transformer.from_pipeline("+proj=cart +ellps=WGS84")


def _broadcast(*values: ArrayLike) -> tuple[list[FloatArray], tuple[int, ...]]:
    """Return ``values`` as flat arrays of one length, and the shape they share."""
    arrays = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values))
    return [np.ascontiguousarray(array).ravel() for array in arrays], arrays[0].shape


def check_degrees(latitude: ArrayLike, longitude: ArrayLike) -> None:
    """Check that every coordinate that is known (not NaN) is one.

    Raises:
        InvalidInput: a latitude is outside [-90, 90] or a longitude outside [-180, 180] degrees.

    Examples:
        >>> check_degrees([45.0, np.nan], [7.0, 0.0])
        >>> check_degrees(91.0, 7.0)
        Traceback (most recent call last):
        heimdall_assets.errors.InvalidInput: latitude 91: expected -90 to 90 degrees
    """
    for what, values, limit in (("latitude", latitude, 90.0), ("longitude", longitude, 180.0)):
        array = np.asarray(values, dtype=np.float64)
        wrong = np.abs(array) > limit
        if wrong.any():
            raise InvalidInput(f"{what} {array[wrong].flat[0]:g}: expected -{limit:g} to {limit:g} degrees")


def compute_distance_m(
    latitude: ArrayLike, longitude: ArrayLike, other_latitude: ArrayLike, other_longitude: ArrayLike
) -> FloatArray:
    """Return the length of the shortest path on the ellipsoid in m; NaN where a coordinate is NaN.

    Raises:
        InvalidInput: a coordinate is out of range.

    Source: Karney, "Algorithms for geodesics", J. Geodesy 87 (2013), as in PROJ.

    Examples:
        One degree of latitude, and one of longitude at 45 degrees north, in km:

        >>> np.round(compute_distance_m(45.0, 7.0, [46.0, 45.0], [7.0, 8.0]) / 1000.0, 1).tolist()
        [111.1, 78.8]
    """
    check_degrees(latitude, longitude)
    check_degrees(other_latitude, other_longitude)
    (lat1, lon1, lat2, lon2), shape = _broadcast(latitude, longitude, other_latitude, other_longitude)
    distance = np.asarray(_geod().inv(lon1, lat1, lon2, lat2)[2], dtype=np.float64)
    return distance.reshape(shape)


def compute_longest_m(
    latitude: ArrayLike, longitude: ArrayLike, other_latitude: ArrayLike, other_longitude: ArrayLike
) -> FloatArray:
    """Return what the shortest path on the ellipsoid is no longer than, in m: in a tenth of the time, within 1.1 %.

    NaN where a coordinate is NaN. The great circle between the same coordinates on a sphere whose radius is the
    ellipsoid's largest radius of curvature, a^2 / b: no step of it, (M dlat)^2 + (N cos(lat) dlon)^2, is longer on the
    ellipsoid.

    Raises:
        InvalidInput: a coordinate is out of range.

    Source: the haversine formula, Sinnott, "Virtues of the Haversine", Sky and Telescope 68 (1984).

    Examples:
        >>> np.round(compute_longest_m(45.0, 7.0, [46.0, 45.0], [7.0, 8.0]) / 1000.0, 1).tolist()
        [111.7, 79.0]
    """
    check_degrees(latitude, longitude)
    check_degrees(other_latitude, other_longitude)
    first, second = np.radians(latitude), np.radians(other_latitude)
    apart = np.radians(np.subtract(other_longitude, longitude))
    haversine = np.sin((second - first) / 2.0) ** 2 + np.cos(first) * np.cos(second) * np.sin(apart / 2.0) ** 2
    angle = 2.0 * np.arcsin(np.sqrt(np.minimum(haversine, 1.0)))
    return np.asarray(_geod().a ** 2 / _geod().b * angle, dtype=np.float64)


def compute_azimuth_deg(
    latitude: ArrayLike, longitude: ArrayLike, other_latitude: ArrayLike, other_longitude: ArrayLike
) -> FloatArray:
    """Return the azimuth of the shortest path at the first points, in degrees from north over east, 0 to 360.

    NaN where a coordinate is NaN.

    Raises:
        InvalidInput: a coordinate is out of range.

    Source: Karney, "Algorithms for geodesics", J. Geodesy 87 (2013), as in PROJ.

    Examples:
        East of a point at 60 degrees north the great circle sets out to the north of east:

        >>> np.round(compute_azimuth_deg(60.0, 10.0, [60.0, 59.0, 61.0], [12.0, 10.0, 10.0]), 2).tolist()
        [89.13, 180.0, 0.0]
    """
    check_degrees(latitude, longitude)
    check_degrees(other_latitude, other_longitude)
    (lat1, lon1, lat2, lon2), shape = _broadcast(latitude, longitude, other_latitude, other_longitude)
    azimuth = np.asarray(_geod().inv(lon1, lat1, lon2, lat2)[0], dtype=np.float64) % 360.0
    return azimuth.reshape(shape)


def compute_straight_range_m(
    latitude: ArrayLike,
    longitude: ArrayLike,
    altitude_m: ArrayLike,
    other_latitude: ArrayLike,
    other_longitude: ArrayLike,
    other_altitude_m: ArrayLike,
) -> FloatArray:
    """Return the length of the straight line between two points in space, in m.

    Raises:
        InvalidInput: a coordinate is out of range.

    Examples:
        >>> round(float(compute_straight_range_m(45.0, 7.0, 0.0, 45.0, 7.0, 600.0)), 3)  # straight up
        600.0
    """
    check_degrees(latitude, longitude)
    check_degrees(other_latitude, other_longitude)
    (lat1, lon1, alt1, lat2, lon2, alt2), shape = _broadcast(
        latitude, longitude, altitude_m, other_latitude, other_longitude, other_altitude_m
    )
    one = np.stack(_cartesian().transform(lon1, lat1, alt1))
    other = np.stack(_cartesian().transform(lon2, lat2, alt2))
    distance = np.sqrt(np.square(one - other).sum(axis=0))
    return np.where(np.isfinite(distance), distance, np.nan).reshape(shape)


def compute_range_m(
    latitude: ArrayLike,
    longitude: ArrayLike,
    altitude_m: ArrayLike,
    other_latitude: ArrayLike,
    other_longitude: ArrayLike,
    other_altitude_m: ArrayLike,
    frequency_hz: ArrayLike = np.nan,
) -> FloatArray:
    """Return the length of the way a wave takes between two points, in m.

    Along the ground below ``GROUND_WAVE_MAX_HZ``, else, or where the frequency is NaN, the straight line. The bending
    of VHF rays in air lengthens them by d^3 / (24 * 16 R^2), 0.5 m in 200 km, and is left out.

    Raises:
        InvalidInput: a coordinate is out of range.

    Examples:
        How much longer than its chord the arc of one degree is, L^3 / (24 R^2), in m:

        >>> medium_wave, vhf = compute_range_m(45.0, 7.0, 0.0, [46.0, 46.0], 7.0, 0.0, [1e6, 145e6])
        >>> round(float(medium_wave - vhf), 1)
        1.4
    """
    straight = compute_straight_range_m(
        latitude, longitude, altitude_m, other_latitude, other_longitude, other_altitude_m
    )
    follows_ground = np.broadcast_to(np.asarray(frequency_hz) < GROUND_WAVE_MAX_HZ, straight.shape)
    if not follows_ground.any():
        return straight
    along = compute_distance_m(latitude, longitude, other_latitude, other_longitude)
    climb = np.asarray(altitude_m, dtype=np.float64) - np.asarray(other_altitude_m, dtype=np.float64)
    return np.where(follows_ground, np.hypot(along, climb), straight)


class LocalFrame:
    """Local east, north and up around a centre: azimuthal equidistant, so distance and azimuth *from* it are exact.

    Between two points at most r metres from the centre distances are stretched by at most r^2 / (6 R^2), 4e-5 at
    100 km; up is the altitude as it stands. The centre may be an array: one frame for each of its elements, which
    then broadcast against the points.

    Args:
        latitude, longitude: the centre in degrees.

    Raises:
        InvalidInput: the centre is not finite or out of range.

    Source: Snyder, "Map Projections: A Working Manual", USGS 1395 (1987), chapter 25; scale at angular distance
    c across the ray: c / sin c.
    """

    def __init__(self, latitude: ArrayLike, longitude: ArrayLike) -> None:
        self.latitude = np.asarray(latitude, dtype=np.float64)
        self.longitude = np.asarray(longitude, dtype=np.float64)
        if not (np.isfinite(self.latitude).all() and np.isfinite(self.longitude).all()):
            raise InvalidInput("centre of a local frame: found NaN or infinity, expected degrees")
        check_degrees(self.latitude, self.longitude)

    def to_local(
        self, latitude: ArrayLike, longitude: ArrayLike, altitude_m: ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return east, north and up of points in m, float64; NaN where a coordinate is NaN.

        Raises:
            InvalidInput: a coordinate is out of range.

        Examples:
            >>> east, north, up = LocalFrame(45.0, 7.0).to_local([45.0, 46.0], [8.0, 7.0], [250.0, 0.0])
            >>> np.round([east[0] / 1000.0, north[1] / 1000.0, up[0]], 1).tolist()  # km, km, m
            [78.8, 111.1, 250.0]
        """
        check_degrees(latitude, longitude)
        (lat0, lon0, lat, lon, up), shape = _broadcast(self.latitude, self.longitude, latitude, longitude, altitude_m)
        azimuth_deg, _, distance_m = _geod().inv(lon0, lat0, lon, lat)
        azimuth = np.radians(np.asarray(azimuth_deg, dtype=np.float64))
        distance = np.asarray(distance_m, dtype=np.float64)
        east, north = distance * np.sin(azimuth), distance * np.cos(azimuth)
        return east.reshape(shape), north.reshape(shape), up.reshape(shape).copy()

    def to_geodetic(
        self, east_m: ArrayLike, north_m: ArrayLike, up_m: ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return latitude and longitude in degrees and altitude in m of local points; the inverse of ``to_local``.

        Examples:
            >>> frame = LocalFrame(45.0, 7.0)
            >>> latitude, longitude, altitude_m = frame.to_geodetic(*frame.to_local(45.5, 8.25, 100.0))
            >>> np.round([latitude, longitude, altitude_m], 6).tolist()
            [45.5, 8.25, 100.0]
        """
        (lat0, lon0, east, north, up), shape = _broadcast(self.latitude, self.longitude, east_m, north_m, up_m)
        known = np.isfinite(east) & np.isfinite(north)
        azimuth_deg = np.degrees(np.arctan2(np.where(known, east, 0.0), np.where(known, north, 0.0)))
        distance_m = np.hypot(np.where(known, east, 0.0), np.where(known, north, 0.0))
        lon, lat, _ = _geod().fwd(lon0, lat0, azimuth_deg, distance_m)
        latitude = np.where(known, np.asarray(lat, dtype=np.float64), np.nan)
        longitude = np.where(known, np.asarray(lon, dtype=np.float64), np.nan)
        return latitude.reshape(shape), longitude.reshape(shape), up.reshape(shape).copy()


def compute_centre(
    latitude: FloatArray, longitude: FloatArray, group: NDArray[np.int64], num_groups: int
) -> tuple[FloatArray, FloatArray]:
    """Return the mean position of each group's points, right across the date line and at the poles too.

    Args:
        latitude, longitude: float64 (M,), degrees; NaN ones are left out.
        group: int64 (M,), which group each belongs to.
        num_groups: G.

    Returns:
        Latitude and longitude, float64 (G,), degrees; NaN for a group without points. The same whatever order points
        come in, to the last bit: sums run in one order of places.

    Examples:
        The middle of 179 degrees east and 179 degrees west is the date line, not Greenwich:

        >>> latitude, longitude = compute_centre(np.zeros(2), np.array([179.0, -179.0]), np.zeros(2, dtype=np.int64), 1)
        >>> abs(round(float(longitude[0])))
        180
    """
    known = np.flatnonzero(np.isfinite(latitude) & np.isfinite(longitude))
    known = known[np.lexsort((longitude[known], latitude[known], group[known]))]
    phi, lam = np.radians(latitude[known]), np.radians(longitude[known])
    x, y, z = (
        np.bincount(group[known], weights=part, minlength=num_groups)
        for part in (np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi))
    )
    count = np.bincount(group[known], minlength=num_groups)
    centre_latitude = np.degrees(np.arctan2(z, np.hypot(x, y)))
    centre_longitude = np.degrees(np.arctan2(y, x))
    return np.where(count > 0, centre_latitude, np.nan), np.where(count > 0, centre_longitude, np.nan)


def compute_sites(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64], site_size_m: float
) -> NDArray[np.str_]:
    """Return the name of the tile that holds each position, str (N,): ``row:column`` of a tiling fixed to the globe.

    Rows are bands of latitude ``site_size_m`` high; a band is cut into whole columns about as wide at its middle. The
    tiling depends on ``site_size_m`` alone. Two sources closer than ``site_size_m`` share a tile unless an edge runs
    between them; then they are neighbours with two names: no tiling that data cannot move avoids that.

    Raises:
        InvalidInput: a position is missing or out of range.
    """
    # What rows may say: only splits ask for sites, and whoever locates loads no schema.
    from heimdall_assets.domain import Latitude, Longitude
    from heimdall_assets.fields import read_bounds

    latitude, longitude = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    bounds = read_bounds(Latitude), read_bounds(Longitude)
    usable = bounds[0].hold(latitude) & bounds[1].hold(longitude)
    if not usable.all():
        first = int(np.flatnonzero(~usable)[0])
        raise InvalidInput(
            f"source position {first}: latitude {latitude[first]}, longitude {longitude[first]}: expected {bounds[0]} "
            f"and {bounds[1]} degrees ({int((~usable).sum())} of {len(usable)} cannot be placed)"
        )
    num_rows = _count_rows(site_size_m)
    rows = np.minimum(np.floor((latitude + 90.0) / 180.0 * num_rows), num_rows - 1)
    num_columns = _count_columns(rows, num_rows, site_size_m)
    columns = np.floor((longitude + 180.0) / 360.0 * num_columns) % num_columns
    return np.array([f"{int(row)}:{int(column)}" for row, column in zip(rows, columns, strict=True)], dtype=np.str_)


def locate_sites(sites: Sequence[str], site_size_m: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return latitude and longitude (N,) of the middle of each tile that ``compute_sites`` named, degrees."""
    places = np.array([[int(part) for part in site.split(":")] for site in sites], dtype=np.float64).reshape(-1, 2)
    num_rows = _count_rows(site_size_m)
    num_columns = _count_columns(places[:, 0], num_rows, site_size_m)
    return (places[:, 0] + 0.5) / num_rows * 180.0 - 90.0, (places[:, 1] + 0.5) / num_columns * 360.0 - 180.0


def _count_rows(site_size_m: float) -> int:
    return max(1, math.ceil(math.pi * MEAN_EARTH_RADIUS_M / site_size_m))


def _count_columns(rows: NDArray[np.float64], num_rows: int, site_size_m: float) -> NDArray[np.float64]:
    """Return how many tiles each band of latitude is cut into."""
    middle = np.radians((rows + 0.5) * 180.0 / num_rows - 90.0)
    return np.maximum(1.0, np.ceil(2.0 * math.pi * MEAN_EARTH_RADIUS_M * np.cos(middle) / site_size_m))
