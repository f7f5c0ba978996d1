"""Where a transmitter is, judged from received levels alone: a radio map turned round by Bayes' rule.

For every candidate position the module predicts the level at each receiver and how far it may be off; the likelihoods
of all receivers, blunted because their shadowing is alike, and the prior give a posterior whose mean and covariance are
the answer. Candidates are the points of the trained area, where receivers at known sites have maps of their own, and a
polar grid about the session's receivers, where the path loss alone speaks: far from the trained area only that one has
weight, so the answer is wide there, and right.

Belongs here: the module. Does not belong here: fitting (``level_prior.field``, ``level_prior.fit``).
Legend of shapes: B sessions, R receiver slots, K sites, G points of the trained area, Q points of the polar grid.
East, north in km in the azimuthal equidistant frame about the training split's centre (``settings["centre_deg"]``).
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heimdall_assets.learning.level_prior.field import LevelField
from heimdall_assets.learning.level_prior.likelihood import (
    LOG_MAD,
    TUNING,
    Expected,
    Reading,
    compute_log_likelihood,
    compute_square,
    make_polar_grid,
    pick,
    summarise,
)
from heimdall_assets.learning.level_prior.links import MIN_DISTANCE_KM

POLAR_SHARE, POLAR_SESSIONS = 0.01, 10.0
"""Prior share of transmitters outside the trained points: with S of them known, 0.01 + 10 / (10 + S), at most 0.9."""

PEAK_DB = 8.0
"""How much weaker a receiver may be and still pull the polar grid's centre towards itself."""

CACHE_SESSIONS = 4
"""Sessions judged at once: more of them leave the processor's cache and take three times as long each."""

NOWHERE_KM = 9e5
"""Farther away than any receiver."""

LAW = ("exponent", "offset_db", "reach_km", "cell_km", "farthest_km", "share_elsewhere", "site_radius_km")
"""Scalars of a fitted field, in the order of the ``law`` buffer."""


class LevelPrior(nn.Module):
    """Posterior mean and information factor of a transmitter from levels; frozen once fitted (``fit``).

    Args:
        centre_deg: latitude, longitude of the frame's centre.
        num_points: G.
        num_sites: K.
    """

    points: Tensor
    density: Tensor
    site: Tensor
    site_offset: Tensor
    site_floor: Tensor
    site_variance: Tensor
    residual: Tensor
    doubt: Tensor
    law: Tensor
    log_mad: Tensor
    polar_points: Tensor
    polar_log_weight: Tensor
    polar_cell: Tensor

    def __init__(self, centre_deg: tuple[float, float], num_points: int, num_sites: int) -> None:
        super().__init__()
        self.centre_deg = (float(centre_deg[0]), float(centre_deg[1]))
        shapes = {
            "points": (num_points, 2),
            "density": (num_points,),
            "site": (num_sites, 2),
            "site_offset": (num_sites,),
            "site_floor": (num_sites,),
            "site_variance": (num_sites,),
            "residual": (num_sites, num_points),
            "doubt": (num_sites, num_points),
            "law": (len(LAW),),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape))
        self.tuning = nn.Parameter(torch.tensor(list(TUNING.values())), requires_grad=False)
        self.register_buffer("log_mad", torch.tensor(LOG_MAD), persistent=False)
        for name, value in make_polar_grid()._asdict().items():
            self.register_buffer(f"polar_{name}", value, persistent=False)

    @classmethod
    def create(cls, settings: dict[str, Any]) -> "LevelPrior":
        """Return a module of the shapes in ``settings``, ready for ``load_state_dict``."""
        return cls(tuple(settings["centre_deg"]), settings["num_points"], settings["num_sites"])

    @classmethod
    def from_field(
        cls, field: LevelField, centre_deg: tuple[float, float], farthest_km: float, tuning: Tensor | None = None
    ) -> "LevelPrior":
        """Return a module that holds ``field``; ``farthest_km`` from the centre is how far known ground reaches."""
        prior = cls(centre_deg, len(field.points_km), max(len(field.site_km), 1))
        prior.site.fill_(NOWHERE_KM)  # where there are no sites, one that nobody stands at: empty tensors do not export
        values = {"points": field.points_km, "density": field.density}
        if len(field.site_km):
            values |= {
                "site": field.site_km,
                "site_offset": field.site_offset_db,
                "site_floor": field.site_floor_db,
                "site_variance": field.site_variance,
                "residual": field.residual_db,
                "doubt": field.doubt,
            }
        share = min(POLAR_SHARE + POLAR_SESSIONS / (POLAR_SESSIONS + field.num_sources), 0.9)
        law = [field.exponent, field.offset_db, field.reach_km, field.cell_km, farthest_km, share]
        law += [field.site_radius_km]
        for name, value in (values | {"law": np.array(law)}).items():
            getattr(prior, name).copy_(torch.as_tensor(value, dtype=torch.float32))
        if tuning is None:
            prior.tuning[list(TUNING).index("roaming")] = 2.0 * math.log(field.spread_db)
        else:
            prior.tuning.copy_(tuning)
        return prior

    @property
    def settings(self) -> dict[str, Any]:
        """What ``create`` needs, JSON values."""
        return {
            "centre_deg": list(self.centre_deg),
            "num_points": self.points.shape[0],
            "num_sites": self.site.shape[0],
        }

    def number(self, name: str) -> Tensor:
        """Return one of ``TUNING``'s numbers, a scalar that carries its gradient."""
        return pick(self.tuning, name)

    def fact(self, name: str) -> Tensor:
        """Return one of ``LAW``'s scalars."""
        return self.law[LAW.index(name)]

    def forward(self, receiver_en_km: Tensor, level_db: Tensor, level_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transmitter's mean position (B, 2) in km and upper information factor (B, 3) in 1/km.

        Args:
            receiver_en_km: (B, R, 2), in the frame about ``settings["centre_deg"]``.
            level_db: (B, R).
            level_mask: bool (B, R), True where there is a level; other slots may hold anything.

        Returns:
            ``mu`` and ``factor`` = u11, u12, u22 with U^T U the inverse covariance, both finite for any input.
        """
        num_sessions = receiver_en_km.shape[0]
        exporting = torch.onnx.is_in_onnx_export()
        if not exporting and num_sessions > CACHE_SESSIONS:
            links = (value.split(CACHE_SESSIONS) for value in (receiver_en_km, level_db, level_mask))
            means, factors = zip(*(self._locate(*part) for part in zip(*links, strict=True)), strict=True)
            return torch.cat(means), torch.cat(factors)
        return self._locate(receiver_en_km, level_db, level_mask)

    def _locate(self, receiver_en_km: Tensor, level_db: Tensor, level_mask: Tensor) -> tuple[Tensor, Tensor]:
        place, level, heard = self._clean(receiver_en_km, level_db, level_mask)
        centre, scale = self._find_scale(place, level, heard)
        polar = centre.unsqueeze(1) + scale[:, None, None] * self.polar_points
        links = self._match_sites(place, heard)
        near = self._compute_point_likelihood(place, level, heard, links)
        far = self._compute_polar_likelihood(polar, place, level, heard, links)
        near_prior, far_prior = self._weigh(place, heard)
        posterior = torch.cat([near + near_prior, far + far_prior], 1).softmax(1)
        points = torch.cat([self.points.expand(place.shape[0], -1, -1), polar], 1)
        cell = torch.cat([self.fact("cell_km").expand(near.shape), scale.unsqueeze(1) * self.polar_cell], 1)
        return summarise(posterior, points, cell, self.number("width").exp())

    def _clean(self, place: Tensor, level: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Masked and absurd entries (NaN compares false) become zeros that carry no weight."""
        heard = mask & (level.abs() < 1e3) & (place[..., 0].abs() < 1e5) & (place[..., 1].abs() < 1e5)
        return torch.where(heard.unsqueeze(-1), place, 0.0), torch.where(heard, level, 0.0), heard

    def _find_scale(self, place: Tensor, level: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the polar grid stands (B, 2) and its unit of length (B,): the receivers' spread about it."""
        top = torch.where(heard, level, -1e3).amax(1, keepdim=True)
        pull = torch.exp((level - top).clamp(-80.0, 0.0) / PEAK_DB) * heard
        centre = (pull.unsqueeze(-1) * place).sum(1) / pull.sum(1, keepdim=True).clamp_min(1e-6)
        square = ((place - centre.unsqueeze(1)).square().sum(-1) * heard).sum(1)
        count = heard.sum(1).to(level.dtype)
        scale = ((square + self.fact("reach_km").square()) / (count + 1.0)).sqrt()
        return centre, scale

    def _match_sites(self, place: Tensor, heard: Tensor) -> Tensor:
        """Return how much each receiver belongs to each site, (B, R, K), 1 within metres of one, 0 far from all."""
        square = compute_square(place, self.site)
        near = torch.exp(-((square / (0.75 * self.fact("site_radius_km")).square()).square())) * heard.unsqueeze(-1)
        return near / near.sum(-1, keepdim=True).clamp_min(1.0)

    def _compute_point_likelihood(self, place: Tensor, level: Tensor, heard: Tensor, links: Tensor) -> Tensor:
        """Return the log-likelihood of the trained points, (B, G)."""
        loss = self._compute_path_loss(compute_square(place, self.points))
        known = links.sum(-1, keepdim=True)
        spread = self.number("noise").exp() + self.number("doubt").exp() * self.doubt
        mean = loss + links @ self.residual + (1.0 - known) * self.number("shift")
        variance = links @ (self.site_variance.unsqueeze(1) * spread)
        return self._compute_likelihood(mean, variance, level, heard, links, known)

    def _compute_polar_likelihood(
        self, polar: Tensor, place: Tensor, level: Tensor, heard: Tensor, links: Tensor
    ) -> Tensor:
        """Return the same of the polar grid, (B, Q): sites keep their offsets, but have no maps there."""
        square = (place.unsqueeze(2) - polar.unsqueeze(1)).square().sum(-1)
        known = links.sum(-1, keepdim=True)
        mean = self._compute_path_loss(square) + (links @ self.site_offset).unsqueeze(-1)
        mean = mean + (1.0 - known) * self.number("shift")
        variance = (links @ self.site_variance).unsqueeze(-1).expand_as(mean)
        return self._compute_likelihood(mean, variance, level, heard, links, known)

    def _compute_path_loss(self, square: Tensor) -> Tensor:
        return self.fact("offset_db") - (5.0 / math.log(10.0)) * self.fact("exponent") * torch.log(
            square + MIN_DISTANCE_KM**2
        )

    def _compute_likelihood(
        self, mean: Tensor, variance: Tensor, level: Tensor, heard: Tensor, links: Tensor, known: Tensor
    ) -> Tensor:
        """Return the log-likelihood of the candidates; where a site hears only its own noise, levels scatter less."""
        floor = (links @ self.site_floor).unsqueeze(-1) + (1.0 - known) * -1e3
        signal = 1.0 - torch.exp(((floor - mean) * (math.log(10.0) / 10.0)).clamp(-60.0, 0.0))
        quiet = torch.sigmoid(self.number("quiet"))
        variance = variance * (quiet + (1.0 - quiet) * signal)
        variance = variance + (1.0 - known) * self.number("roaming").exp() + self.number("floor").exp()
        count = heard.sum(1, keepdim=True).clamp(min=1)
        strange = ((1.0 - known.squeeze(-1)) * heard).sum(1, keepdim=True) / count
        expected, reading = Expected(mean, variance, signal), Reading(level, heard, strange)
        return compute_log_likelihood(expected, reading, self.tuning, self.log_mad)

    def _weigh(self, place: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """Return log prior weights of the trained points (B, G) and of the polar grid (B, Q).

        The trained points count where the nearest receiver stands on known ground, and fade out beyond.
        """
        away = torch.where(heard, (place.square().sum(-1) + 1e-9).sqrt(), 1e6).amin(1)
        away = torch.where(heard.any(1), away, 0.0) / self.fact("farthest_km")
        trust = torch.sigmoid(8.0 * (2.0 - away)).unsqueeze(1)
        elsewhere = torch.sigmoid(self.number("elsewhere"))
        density = (1.0 - elsewhere) * self.density + elsewhere / self.density.shape[0]
        trust = trust * (1.0 - self.fact("share_elsewhere"))
        near = density.log() + (trust + 1e-30).log()
        far = self.polar_log_weight + (1.0 - trust).log()
        return near, far
