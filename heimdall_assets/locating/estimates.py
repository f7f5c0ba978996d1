"""One estimate as people read it: position, ellipse, and the error where the truth is known."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from heimdall_assets.errors import CannotLocate
from heimdall_assets.physical import Alternative, AreaWeight, Estimate
from heimdall_assets.session_set import Predictions
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame, compute_distance_m


def describe_estimate(
    estimate: Estimate, truth: tuple[float, float] | None = None, error_margin_m: float = 0.0
) -> dict[str, Any]:
    """Return position, 90 % ellipse and, where the truth is known, the error and whether the ellipse holds the truth.

    The truth's own error margin is added to the covariance before it is asked whether the ellipse contains it.
    ``alternatives`` name the places that explain the session alike, where there are several, with their probabilities;
    ``area`` tells what the area that was assumed did to the position (``physical.AreaWeight``).

    Examples:
        The truth lies 0.01 degrees (1.1 km) north of an answer whose sigma is 1 km:

        >>> answer = Estimate(45.0, 7.0, 1e6, 1e6, covariance_en_m2=0.0, method="guess")
        >>> described = describe_estimate(answer, truth=(45.01, 7.0))
        >>> round(described["error_m"]), described["inside_90"], round(described["ellipse_90"]["semi_major_m"])
        (1111, True, 2146)
    """
    described: dict[str, Any] = {
        "latitude": estimate.latitude,
        "longitude": estimate.longitude,
        "method": estimate.method,
        "ellipse_90": _describe_ellipse(estimate),
        "sigma_east_m": float(np.sqrt(estimate.variance_east_m2)),
        "sigma_north_m": float(np.sqrt(estimate.variance_north_m2)),
        "error_m": None,
        "inside_90": None,
        "alternatives": [
            {
                "latitude": one.estimate.latitude,
                "longitude": one.estimate.longitude,
                "weight": one.weight,
                "ellipse_90": _describe_ellipse(one.estimate),
            }
            for one in estimate.alternatives
        ],
        "area": None if estimate.area is None else asdict(estimate.area),
    }
    if truth is not None:
        described["error_m"] = float(compute_distance_m(estimate.latitude, estimate.longitude, *truth))
        described["inside_90"] = bool(measure_offset(estimate, truth, error_margin_m)[1] ** 2 <= -2.0 * np.log(0.10))
    return described


def measure_offset(estimate: Estimate, place: tuple[float, float], error_margin_m: float = 0.0) -> tuple[float, float]:
    """Return how far a place lies from an estimate: in m, and in sigmas, the place's own doubt among them.

    Args:
        estimate: a position with its covariance.
        place: latitude and longitude, degrees.
        error_margin_m: one-sigma doubt of the place in either direction.

    Examples:
        >>> answer = Estimate(45.0, 7.0, 1e6, 1e6, covariance_en_m2=0.0, method="guess")
        >>> [round(value, 2) for value in measure_offset(answer, (45.01, 7.0))]  # of a degree of 111 km
        [1111.32, 1.11]
    """
    east, north, _ = LocalFrame(estimate.latitude, estimate.longitude).to_local(*place)
    offset = np.array([float(east), float(north)])
    covariance = to_matrix(estimate) + error_margin_m**2 * np.eye(2)
    return float(np.hypot(*offset)), float(np.sqrt(offset @ np.linalg.solve(covariance, offset)))


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
    estimate = _make_estimate(
        predictions.latitude[index], predictions.longitude[index], predictions.covariance_m2[index], predictions.method
    )
    return replace(
        estimate, alternatives=_take_alternatives(predictions, index), area=_weigh_area(predictions, index, estimate)
    )


def _make_estimate(latitude: float, longitude: float, covariance_m2: FloatArray, method: str) -> Estimate:
    east, north, both = (float(value) for value in covariance_m2)
    return Estimate(
        latitude=float(latitude),
        longitude=float(longitude),
        variance_east_m2=east,
        variance_north_m2=north,
        covariance_en_m2=both,
        method=method,
    )


def _take_alternatives(predictions: Predictions, index: int) -> tuple[Alternative, ...]:
    """Return the places between which a session is left open, most probable first."""
    branches = predictions.branches
    if branches is None:
        return ()
    rows = np.flatnonzero(branches.session == index)
    rows = rows[np.argsort(-branches.weight[rows], kind="stable")]
    return tuple(
        Alternative(
            _make_estimate(
                branches.latitude[row], branches.longitude[row], branches.covariance_m2[row], predictions.method
            ),
            float(branches.weight[row]),
        )
        for row in rows
    )


def _weigh_area(predictions: Predictions, index: int, estimate: Estimate) -> AreaWeight | None:
    """Return what the area did to an estimate; None where that was not looked for."""
    if predictions.without_area_deg is None:
        return None
    latitude, longitude = (float(value) for value in predictions.without_area_deg[index])
    if not np.isfinite(latitude):
        return AreaWeight(None, None, None, None)
    return AreaWeight(latitude, longitude, *measure_offset(estimate, (latitude, longitude)))


def to_matrix(estimate: Estimate) -> FloatArray:
    """Return the covariance of an estimate, float64 (2, 2), m^2."""
    return np.array(
        [
            [estimate.variance_east_m2, estimate.covariance_en_m2],
            [estimate.covariance_en_m2, estimate.variance_north_m2],
        ]
    )


def _describe_ellipse(estimate: Estimate) -> dict[str, float]:
    ellipse = estimate.ellipse(0.90)
    return {
        "semi_major_m": ellipse.semi_major_m,
        "semi_minor_m": ellipse.semi_minor_m,
        "azimuth_deg": ellipse.azimuth_deg,
    }
