"""One estimate as people read it: position, ellipse, and the error where the truth is known."""

from typing import Any

import numpy as np

from heimdall_assets.domain import Estimate
from heimdall_assets.errors import CannotLocate
from heimdall_assets.session_set import Predictions
from heimdall_assets.signals.geodesy import LocalFrame, compute_distance_m


def describe_estimate(
    estimate: Estimate, truth: tuple[float, float] | None = None, error_margin_m: float = 0.0
) -> dict[str, Any]:
    """Return position, 90 % ellipse and, where the truth is known, the error and whether the ellipse holds the truth.

    The truth's own error margin is added to the covariance before it is asked whether the ellipse contains it.

    Examples:
        The truth lies 0.01 degrees (1.1 km) north of an answer whose sigma is 1 km:

        >>> answer = Estimate(45.0, 7.0, 1e6, 1e6, covariance_en_m2=0.0, method="guess")
        >>> described = describe_estimate(answer, truth=(45.01, 7.0))
        >>> round(described["error_m"]), described["inside_90"], round(described["ellipse_90"]["semi_major_m"])
        (1111, True, 2146)
    """
    ellipse = estimate.ellipse(0.90)
    described: dict[str, Any] = {
        "latitude": estimate.latitude,
        "longitude": estimate.longitude,
        "method": estimate.method,
        "ellipse_90": {
            "semi_major_m": ellipse.semi_major_m,
            "semi_minor_m": ellipse.semi_minor_m,
            "azimuth_deg": ellipse.azimuth_deg,
        },
        "sigma_east_m": float(np.sqrt(estimate.variance_east_m2)),
        "sigma_north_m": float(np.sqrt(estimate.variance_north_m2)),
        "error_m": None,
        "inside_90": None,
    }
    if truth is not None:
        east, north, _ = LocalFrame(estimate.latitude, estimate.longitude).to_local(truth[0], truth[1])
        covariance = np.array(
            [
                [estimate.variance_east_m2, estimate.covariance_en_m2],
                [estimate.covariance_en_m2, estimate.variance_north_m2],
            ]
        ) + error_margin_m**2 * np.eye(2)
        offset = np.array([float(east), float(north)])
        described["error_m"] = float(compute_distance_m(estimate.latitude, estimate.longitude, *truth))
        described["inside_90"] = bool(offset @ np.linalg.solve(covariance, offset) <= -2.0 * np.log(0.10))
    return described


def take_estimate(predictions: Predictions, index: int) -> Estimate:
    """Return one row of ``predictions``.

    Raises:
        CannotLocate: the row was refused.

    Examples:
        >>> answers = Predictions(np.array([45.0]), np.array([7.0]), np.array([[1e4, 4e4, 0.0]]), "guess")
        >>> estimate = take_estimate(answers, 0)
        >>> estimate.latitude, estimate.longitude, estimate.variance_north_m2
        (45.0, 7.0, 40000.0)
    """
    if predictions.refused is not None and predictions.refused[index]:
        raise CannotLocate(f"{predictions.method}: the session holds nothing from which this model can tell a position")
    east, north, both = (float(value) for value in predictions.covariance_m2[index])
    return Estimate(
        latitude=float(predictions.latitude[index]),
        longitude=float(predictions.longitude[index]),
        variance_east_m2=east,
        variance_north_m2=north,
        covariance_en_m2=both,
        method=predictions.method,
    )
