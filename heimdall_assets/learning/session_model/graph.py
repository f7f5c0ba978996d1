"""The session model as it is exported: degrees and dB in, degrees and metres out, everything else inside.

Belongs here: the traced module and the way from the tangent plane back to degrees, in operations that ONNX Runtime has
in float64. Does not belong here: feeding it (``session_model.task``), tracing it (``export``).
"""

from typing import Any

import torch
from torch import Tensor, nn

from heimdall_assets.learning.session_model.feed import name_inputs
from heimdall_assets.learning.session_model.physics import EARTH_RADIUS_KM, compute_covariance
from heimdall_assets.learning.session_model.signal_heads import read_signals
from heimdall_assets.learning.session_model.table import WGS84_A_KM, WGS84_E2, WGS84_F
from heimdall_assets.learning.session_model.tokens import read_column

GROUP_EDGES = (3, 4, 5, 6)
"""Sessions are calibrated by how many delays, and bearings, they have: below 3, 3, 4, 5, 6 and more."""

LARGEST_CORRELATION = 1.0 - 1e-6
"""Of the axes of an ellipse: any nearer to 1, rounding to float32 makes covariances that are not positive definite."""

KM_PER_DEGREE = 111.195
"""Mean length of one degree of a great circle (2 pi 6371 km / 360); places a session in a level prior's frame."""


class NetworkGraph(nn.Module):
    """Network, statistics and calibration as one module with plain tensors in and out.

    Args:
        network: ``NetworkLocalizationNet`` or what stands in for it.
        statistics: of ``NetworkTask.fit_statistics``.
        calibration: of ``NetworkTask.calibrate``; empty: none.
    """

    variance_scale: Tensor
    shrink: Tensor
    centre_deg: Tensor
    mean_db: Tensor
    std_db: Tensor

    def __init__(self, network: nn.Module, statistics: dict[str, Any], calibration: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.signal_tasks = network, statistics.get("signal_tasks") or []
        self.more = name_inputs(statistics)[2:]
        scale = calibration.get("variance_scale", [1.0] * (len(GROUP_EDGES) + 1))
        self.register_buffer("variance_scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("shrink", torch.tensor([1.0, 1.0, LARGEST_CORRELATION]))
        centre = (statistics.get("level_prior") or {}).get("centre_deg", [0.0, 0.0])
        self.register_buffer("centre_deg", torch.tensor(centre, dtype=torch.float64))
        for name, default in (("mean_db", 0.0), ("std_db", 1.0)):
            values = statistics.get(f"feature_{name}") or [default] * 3
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(3, 1, 1))

    def forward(self, origin: Tensor, receivers: Tensor, *more: Tensor | None) -> tuple[Tensor, ...]:
        """Return positions (B, 2) degrees float64, north and east sigma (B, 2) m, covariance (B, 3) m^2, and signals.

        Signals are ``tracks.OUTPUTS``, from a network with such heads where there are signal tracks.

        Args:
            origin: float64 (B, 2), latitude and longitude of the tangent plane that ``receivers`` stand in.
            receivers: float32 (B, R, K), ``RECEIVER_COLUMNS``, NaN for what is missing.
            more: the other ``name_inputs``, in their order; None: there are none. ``spectrograms`` float32 (B, R, 3,
                mels, frames), dB of full scale, ``seen`` bool (B, R), which receivers have one; ``pairs`` float32
                (B, R, R, C) of ``pair_columns.make_pair_columns``, ``paired`` bool (B, R, R), which of them are known;
                ``bearings`` float32 (B, R, 2), ``BEARING_COLUMNS``, NaN for none.
                ``tracks`` float32 (B, R, C, T) of ``signal_track.compute_track``, ``tracked`` bool (B, R).
        """
        given = dict(zip(self.more, more, strict=True))
        if (spectrograms := given.get("spectrograms")) is not None:
            given["spectrograms"] = (spectrograms - self.mean_db) / self.std_db
        located = self.network(receivers, place_origin(origin, self.centre_deg), **given)
        tracked = given.get("tracked")
        timed = read_column(receivers, "arrival_km") + read_column(receivers, "arrival_sigma_km")
        timed = timed + read_column(receivers, "timing_sigma_km")
        num = (~timed.isnan()).sum(1)
        if (bearings := given.get("bearings")) is not None:
            num = num + (~bearings.isnan().any(-1)).sum(1)
        scale = choose_scale(num, self.variance_scale)
        covariance = compute_covariance(located.factor) * scale.unsqueeze(-1) * self.shrink * 1e6
        latitude, longitude = to_degrees(located.position.double(), origin)
        covariance = turn_covariance(covariance, torch.stack([latitude, longitude], -1), origin)
        uncertainties = torch.stack([covariance[:, 1], covariance[:, 0]], -1).sqrt()
        signals = []
        if located.signals is not None and tracked is not None:
            signals = read_signals(located.signals, tracked, self.signal_tasks)
        return torch.stack([latitude, longitude], -1), uncertainties, covariance, *signals


def choose_scale(num_timed: Tensor, variance_scale: Tensor) -> Tensor:
    """Return each session's variance factor (B,) by its number of delays and bearings (B,)."""
    scale = variance_scale[0].expand(num_timed.shape)
    for group, edge in enumerate(GROUP_EDGES):
        scale = torch.where(num_timed >= edge, variance_scale[group + 1], scale)
    return scale


def place_origin(origin: Tensor, centre_deg: Tensor) -> Tensor:
    """Return where origins (B, 2) in degrees lie in the plane about ``centre_deg`` (2,), float32 (B, 2) in km.

    On a sphere and without the frames' turn against each other: levels do not tell the difference.
    """
    away = origin - centre_deg
    east = torch.where(away[:, 1] > 180.0, away[:, 1] - 360.0, away[:, 1])
    east = torch.where(east < -180.0, east + 360.0, east) * torch.cos(
        torch.deg2rad(0.5 * (origin[:, 0] + centre_deg[0]))
    )
    return (torch.stack([east, away[:, 0]], -1) * KM_PER_DEGREE).float()


def to_degrees(plane_km: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Return latitude and longitude (B,) in degrees of points (B, 2) east, north under tangent planes; float64.

    The point lies on the sphere under the plane, as in ``physics.compute_ranges``; height changes neither angle by
    more than it moves the foot of the perpendicular, centimetres at 100 km.

    Source: topocentric to geocentric and Bowring's formula, IOGP Guidance Note 7-2 (2019), sections 4.1.1 and 4.1.2.
    Bowring 1976, "Transformation from spatial to geographical coordinates".
    """
    phi, lam = torch.deg2rad(origin[:, 0]), torch.deg2rad(origin[:, 1])
    sin, cos = torch.sin(phi), torch.cos(phi)
    east, north = plane_km[:, 0], plane_km[:, 1]
    up = -(east.square() + north.square()) / (2.0 * EARTH_RADIUS_KM)
    radius = WGS84_A_KM / (1.0 - WGS84_E2 * sin.square()).sqrt()
    along = radius * cos - sin * north + cos * up  # towards the origin's meridian, in the equator's plane
    z = radius * (1.0 - WGS84_E2) * sin + cos * north + sin * up
    flat = (along.square() + east.square()).sqrt()
    minor = WGS84_A_KM * (1.0 - WGS84_F)
    reduced = ((z * WGS84_A_KM).square() + (flat * minor).square()).sqrt()
    above, beside = z * WGS84_A_KM / reduced, flat * minor / reduced
    second = WGS84_E2 / (1.0 - WGS84_E2)
    rise = z + second * minor * above**3
    run = flat - WGS84_E2 * WGS84_A_KM * beside**3
    latitude = phi + _compute_angle(rise * cos - run * sin, run * cos + rise * sin)
    longitude = torch.rad2deg(lam + _compute_angle(east, along))
    longitude = torch.where(longitude > 180.0, longitude - 360.0, longitude)
    return torch.rad2deg(latitude), torch.where(longitude < -180.0, longitude + 360.0, longitude)


def turn_covariance(covariance: Tensor, place: Tensor, origin: Tensor) -> Tensor:
    """Return covariances (B, 3) of the tangent planes at ``origin`` (B, 2) as east and north at ``place`` (B, 2).

    Meridians converge: 600 km to the east of 46 degrees north, north is turned by 5.6 degrees, more than a long
    ellipse is wide.

    Source: unit vectors to the east and north of a sphere, projected on those of another place.
    """
    phi, phi0 = torch.deg2rad(place[:, 0]), torch.deg2rad(origin[:, 0])
    turn = torch.deg2rad(place[:, 1] - origin[:, 1])
    # Columns: what a metre to the east and to the north at the place is in the plane.
    ee, en = torch.cos(turn), -torch.sin(phi) * torch.sin(turn)
    ne = torch.sin(phi0) * torch.sin(turn)
    north_north = torch.sin(phi) * torch.sin(phi0) * torch.cos(turn) + torch.cos(phi) * torch.cos(phi0)
    inverse = 1.0 / (ee * north_north - en * ne).clamp_min(0.1)
    a, b, c, d = north_north * inverse, -en * inverse, -ne * inverse, ee * inverse
    east, north, both = covariance.double().unbind(-1)
    turned = [
        a * a * east + 2.0 * a * b * both + b * b * north,
        c * c * east + 2.0 * c * d * both + d * d * north,
        a * c * east + (a * d + b * c) * both + b * d * north,
    ]
    return torch.stack(turned, -1).to(covariance.dtype)


def _compute_angle(opposite: Tensor, adjacent: Tensor) -> Tensor:
    """Return the angle (B,) in radians of a direction, within +-pi, by halving it three times and a series.

    ONNX Runtime has no arc tangent in float64. The series' first dropped term is below 1e-13.

    Source: tan(x / 2) = sin x / (1 + cos x); arc tangent's Taylor series.
    """
    length = (opposite.square() + adjacent.square()).sqrt().clamp_min(1e-12)
    sin, cos = opposite / length, adjacent / length
    for _ in range(2):
        half_cos = (0.5 * (1.0 + cos)).clamp_min(1e-24).sqrt()
        sin, cos = 0.5 * sin / half_cos, half_cos
    tangent = sin / (1.0 + cos)
    square = tangent.square()
    series = torch.zeros_like(square)
    for power in range(17, -1, -1):
        series = series * square + (-1.0) ** power / (2 * power + 1)
    return 8.0 * tangent * series
