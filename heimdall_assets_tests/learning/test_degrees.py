import numpy as np
import pytest
import torch
from pyproj import Geod

from heimdall_assets.learning.receiver_model.degrees import compute_centre, compute_metres_per_degree, wrap_longitude


@pytest.mark.parametrize("latitude", [-80.0, -45.0, 0.0, 30.0, 45.0, 70.0])
def test_metres_per_degree_agree_with_geodesics(latitude: float) -> None:
    north, east = compute_metres_per_degree(np.float64(latitude))
    geod, step = Geod(ellps="WGS84"), 1e-4
    assert geod.inv(8.0, latitude - step / 2, 8.0, latitude + step / 2)[2] / step == pytest.approx(north, rel=1e-6)
    assert geod.inv(8.0, latitude, 8.0 + step, latitude)[2] / step == pytest.approx(east, rel=1e-6)


def test_numpy_and_torch_agree() -> None:
    latitude = np.linspace(-89.0, 89.0, 50)
    expected = compute_metres_per_degree(latitude)
    found = compute_metres_per_degree(torch.from_numpy(latitude), torch)
    for one, other in zip(expected, found, strict=True):
        assert other.numpy() == pytest.approx(one, rel=1e-13)


def test_centre_does_not_see_the_antimeridian() -> None:
    latitude, longitude = compute_centre(np.array([10.0, 12.0]), np.array([179.0, -178.0]))
    assert latitude == pytest.approx(11.0)
    assert longitude == pytest.approx(-179.5)


def test_longitude_wraps() -> None:
    assert wrap_longitude(np.array([190.0, -190.0, 180.0, 8.0])) == pytest.approx([-170.0, 170.0, -180.0, 8.0])
