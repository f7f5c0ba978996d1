"""What the tokens of the network model are made of: a receivers' table taken apart, numbers of order one, attention.

Belongs here: features and layers. Does not belong here: solving (``physics``), corrections (``session_model.model``).
Legend of shapes: B sessions, R receiver slots, K table columns, D token width, H heads. Lengths are km.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from heimdall_assets.learning.session_model.physics import (
    LEVEL_EXPONENT,
    Delays,
    LevelLaw,
    compute_bearing_residuals,
    compute_cost,
    compute_mean,
    compute_ranges,
    compute_step,
    score_late_arrivals,
)
from heimdall_assets.learning.session_model.table import RECEIVER_COLUMNS

MIN_SIGMA_KM = 3e-4
"""Smallest believed sigma of an arrival (1 ns), as in ``locating``."""

MIN_SPREAD_KM = 1.0
"""Smallest unit of the grid of starts."""

LATE_SCALE_KM = 0.3
"""Unit of delay corrections (1 us), where the arrival's own sigma is not larger."""

GROUND_WAVE_LOG10_HZ = 7.4771
"""log10 of 30 MHz, below which the wave follows the ground (ITU-R P.368-10)."""

SAME_SHARE = 0.1
"""Solutions closer than this share of their sigma are one."""

MAX_ODDS = 5.0
"""Largest log likelihood ratio that a level may add."""

NUM_RECEIVER_COLUMNS, NUM_SOLUTION_COLUMNS = 22, 21
NUM_BEARING_COLUMNS = 7
NUM_RECEIVER_PAIRS, NUM_SOLUTION_PAIRS = 1, 3


class Session(NamedTuple):
    """A receivers' table taken apart; masked entries are 0 (sigma 1), masks bool (B, R)."""

    present: Tensor
    receivers: Tensor  # (B, R, 3)
    ground: Tensor
    timed: Tensor
    arrival: Tensor
    sigma: Tensor
    heard: Tensor
    level: Tensor  # dB
    spread: Tensor  # (B,), root mean square distance of the receivers from the origin
    directed: Tensor | None = None  # receivers with a bearing; None: bearings are not looked at
    bearing: Tensor | None = None  # (B, R, 2), unit vectors
    bearing_sigma: Tensor | None = None  # rad, 1 where there is none


def take_apart(table: Tensor, bearings: Tensor | None = None) -> Session:
    """Return the parts of a receivers' table (B, R, K) that the solver needs; NaN never leaves here.

    ``bearings`` (B, R, 2) are ``BEARING_COLUMNS``; None: they are not looked at.
    """
    present = ~read_column(table, "east_km").isnan()
    receivers = torch.where(present.unsqueeze(-1), table[..., :3].nan_to_num(0.0), 0.0)
    noise, clock = read_column(table, "arrival_sigma_km"), read_column(table, "timing_sigma_km")
    arrival, level = read_column(table, "arrival_km"), read_column(table, "level_db")
    timed = present & ~(arrival.isnan() | noise.isnan() | clock.isnan())
    sigma = (noise.nan_to_num(1.0).square() + clock.nan_to_num(0.0).square()).clamp_min(MIN_SIGMA_KM**2).sqrt()
    count = present.sum(1).clamp_min(1)
    spread = receivers[..., :2].square().sum((1, 2)) / count
    frequency = read_column(table, "log10_frequency_hz").nan_to_num(9.0)
    heard = present & ~level.isnan()
    return Session(
        present=present,
        receivers=receivers,
        ground=(present & (frequency < GROUND_WAVE_LOG10_HZ)).to(table.dtype),
        timed=timed,
        arrival=torch.where(timed, arrival.nan_to_num(0.0), 0.0),
        sigma=torch.where(timed, sigma, 1.0),
        heard=heard,
        level=torch.where(heard, level.nan_to_num(0.0), 0.0),
        spread=(spread + 1e-12).sqrt(),
        **({} if bearings is None else _take_bearings(bearings, present)),
    )


def _take_bearings(bearings: Tensor, present: Tensor) -> dict[str, Tensor]:
    directed = present & ~bearings.isnan().any(-1)
    direction, sigma = torch.where(directed.unsqueeze(-1), bearings.nan_to_num(0.0), 0.0).unbind(-1)
    return {
        "directed": directed,
        "bearing": torch.stack([direction.sin(), direction.cos()], -1),
        "bearing_sigma": torch.where(directed, sigma, 1.0),
    }


def state_delays(session: Session, mean: Tensor, factor: Tensor) -> Delays:
    """Return what the solver knows of sessions; their prior has a mean (B, 2), km, and an upper factor (B, 3), 1/km."""
    weight = torch.where(session.timed, session.sigma.square().reciprocal(), 0.0)
    heard = session.heard.to(weight.dtype)
    known = (session.receivers, session.ground, session.arrival, weight, mean, factor, session.level, heard)
    if session.directed is None or session.bearing_sigma is None:
        return Delays(*known)
    bearing_weight = torch.where(session.directed, session.bearing_sigma.square().reciprocal(), 0.0)
    return Delays(*known, session.bearing, bearing_weight)


def describe_bearings(session: Session, delays: Delays, states: Tensor) -> Tensor:
    """Return what is known of each receiver's bearing (B, R, C), and how it fits two states (B, 2, 2)."""
    assert session.directed is not None
    assert session.bearing is not None
    assert session.bearing_sigma is not None
    residual, _ = compute_bearing_residuals(states, delays)
    directed = session.directed.to(residual.dtype)
    columns = [directed, session.bearing_sigma.log() / 4.0, session.bearing[..., 0], session.bearing[..., 1]]
    columns += [squash(residual[:, number] / session.bearing_sigma) for number in range(2)]
    columns += [directed.sum(1, keepdim=True).expand_as(directed) / 8.0]
    return mask_out(torch.stack(columns, -1), session.directed)


def read_column(table: Tensor, name: str) -> Tensor:
    """Return one column (B, R) of a receivers' table."""
    return table[..., RECEIVER_COLUMNS.index(name)]


def describe_receivers(table: Tensor, session: Session) -> tuple[Tensor, Tensor]:
    """Return what is known of each receiver before anything is solved (B, R, C), and of each pair (B, R, R, P).

    Levels and carrier offsets are given relative to the session's mean too: a receiver knows its own scale only.
    """
    unit = session.spread.clamp_min(MIN_SPREAD_KM)
    columns = [session.receivers[..., 0] / unit[:, None], session.receivers[..., 1] / unit[:, None]]
    columns += [session.receivers[..., 2], unit.log()[:, None].expand_as(session.level) / 4.0]
    for name, scale, centred in (
        ("level_db", 10.0, True),
        ("level_db", 50.0, False),
        ("snr_db", 15.0, False),
        ("carrier_offset_hz", 50.0, True),
        ("coherence", 1.0, False),
        ("log10_frequency_hz", 3.0, False),
    ):
        value = read_column(table, name)
        known = session.present & ~value.isnan()
        value = torch.where(known, value.nan_to_num(0.0), 0.0)
        if centred:
            value = value - compute_mean(value, known.to(value.dtype)).unsqueeze(-1)
        columns += [torch.where(known, squash(value / scale), 0.0), known.to(value.dtype)]
    timed = session.timed.to(session.level.dtype)
    noise = read_column(table, "arrival_sigma_km").nan_to_num(1.0).clamp_min(MIN_SIGMA_KM)
    arrival = session.arrival - compute_mean(session.arrival, timed).unsqueeze(-1)
    columns += [timed, timed * session.sigma.log() / 4.0, timed * noise.log() / 4.0]
    columns += [timed * squash(arrival / unit[:, None]), session.present.sum(1, keepdim=True).expand_as(timed) / 8.0]
    columns += [timed.sum(1, keepdim=True).expand_as(timed) / 8.0]
    apart = session.receivers[..., :2].unsqueeze(2) - session.receivers[..., :2].unsqueeze(1)
    pairs = ((apart.square().sum(-1) + 1e-6).sqrt() / unit[:, None, None]).unsqueeze(-1)
    return mask_out(torch.stack(columns, -1), session.present), pairs


class Solutions(NamedTuple):
    """What the two searches found; all without gradient.

    Attributes:
        direct: (B, S, 2), local minima of least squares.
        late: (B, 2), the best state where some arrivals may be late.
        weight, shift: (B, R), weights (1/km^2) and delay corrections (km) with which least squares gives ``late``.
        columns: (B, R, C), what each receiver's token learns of the solutions.
        pairs: (B, R, R, P).
    """

    direct: Tensor
    late: Tensor
    weight: Tensor
    shift: Tensor
    columns: Tensor
    pairs: Tensor


def describe_solutions(
    session: Session, delays: Delays, direct: Tensor, late_states: tuple[Tensor, Tensor, Tensor], odds: Tensor
) -> Solutions:
    """Return the best of the late-arrival states (B, S, 2), with emission (B, S) and cost (B, S), and its residuals.

    ``odds`` (B, R) is what levels said of being late.
    """
    states, emission, costs = late_states
    timed = session.timed.to(costs.dtype)
    best = costs.argmin(1, keepdim=True)
    late = states.gather(1, best.unsqueeze(-1).expand(-1, -1, 2))
    ranges, unit = compute_ranges(torch.cat([late, direct[:, :1]], 1), session.receivers, session.ground)
    residual = session.arrival - ranges[:, 0] - emission.gather(1, best)
    cost, slope, curvature, probability = score_late_arrivals(residual, session.sigma, odds)
    shift = residual - slope / curvature
    plain = session.arrival - ranges[:, 1]
    plain = plain - compute_mean(plain, delays.weight).unsqueeze(-1)
    _, factor = compute_step(late, delays._replace(weight=curvature * timed), None)
    # Where the other states lie, and how much worse they are, says whether this one can be trusted.
    share = torch.softmax(-0.5 * (costs - costs.gather(1, best)), 1).unsqueeze(-1)
    away = states - late
    size = (factor[:, 0, 0].reciprocal().square() + factor[:, 0, 2].reciprocal().square() + 1e-12).sqrt()
    # Searches end within a small part of a sigma of their minimum, and the logarithm of what is left is rounding's own.
    same = (SAME_SHARE * size).square()
    scatter = ((share * away.square()).sum((1, 2)) + same).sqrt()
    jump = ((late[:, 0] - direct[:, 0]).square().sum(-1) + same).sqrt()
    scale = (session.sigma.square() + LATE_SCALE_KM**2).sqrt()
    count = timed.sum(1).clamp_min(1.0)
    loss_db = 30.0 * ranges[:, 0].clamp_min(0.01).log10() + session.level
    heard = session.heard.to(costs.dtype)
    loss_db = heard * (loss_db - compute_mean(loss_db, heard).unsqueeze(-1))
    direct_cost = compute_cost(direct[:, :1], delays)[:, 0]
    per_session = [scatter.log() / 4.0, size.log() / 4.0, jump.log() / 4.0, (direct_cost / count).log1p() / 4.0]
    per_session += [(timed * cost).sum(1) / count / 8.0, session.spread.clamp_min(MIN_SPREAD_KM).log() / 4.0]
    columns = [
        timed,
        timed * squash(residual / session.sigma),
        timed * squash(residual / LATE_SCALE_KM),
        timed * squash(plain / session.sigma),
        timed * squash(plain / LATE_SCALE_KM),
        timed * probability,
        timed * (curvature.clamp_min(1e-12) * session.sigma.square()).log() / 4.0,
        timed * shift / scale,
        unit[:, 0, :, 0],
        unit[:, 0, :, 1],
        ranges[:, 0].clamp_min(0.01).log() / 4.0,
        squash(loss_db / 6.0),
        heard,
        timed * session.sigma.log() / 4.0,
        odds / 4.0,
        *(item.unsqueeze(-1).expand_as(timed) for item in per_session),
    ]
    both = timed.unsqueeze(2) * timed.unsqueeze(1)
    spread = (session.sigma.square().unsqueeze(2) + session.sigma.square().unsqueeze(1)).sqrt()
    pairs = torch.stack(
        [
            both * squash((residual.unsqueeze(2) - residual.unsqueeze(1)) / spread),
            both * squash((plain.unsqueeze(2) - plain.unsqueeze(1)) / spread),
            (unit[:, 0].unsqueeze(2) * unit[:, 0].unsqueeze(1)).sum(-1),
        ],
        -1,
    )
    weight = torch.where(session.timed, curvature, 0.0)
    shift = torch.where(session.timed, shift, 0.0)
    columns_BRC = mask_out(torch.stack(columns, -1), session.present)
    found = Solutions(direct, late[:, 0], weight, shift, columns_BRC, pairs)
    return Solutions(*(item.detach() for item in found))


def compute_level_posterior(session: Session, late_states: tuple[Tensor, Tensor, Tensor], known: LevelLaw) -> Tensor:
    """Return log likelihood ratios (B, R) of each receiver being late, from how much weaker it is than the others.

    At the best state each level is compared with the log-distance law, the power being the mean of what is known of it
    and of the receivers that are not late, by their variances. Bounded, as one level is never proof.

    Args:
        session: levels and places.
        late_states: states (B, S, 2), emission (B, S), cost (B, S).
        known: what training sessions say.

    Source: ratio of two normal densities of one spread, means 0 and -loss.
    """
    states, emission, costs = late_states
    best = costs.argmin(1, keepdim=True)
    state = states.gather(1, best.unsqueeze(-1).expand(-1, -1, 2))
    ranges, _ = compute_ranges(state, session.receivers, session.ground)
    residual = session.arrival - ranges[:, 0] - emission.gather(1, best)
    _, _, _, probability = score_late_arrivals(residual, session.sigma)
    power = session.level + 10.0 * LEVEL_EXPONENT * ranges[:, 0].clamp_min(0.01).log10()
    both = session.heard & session.timed
    clear = (1.02 - probability) * both.to(power.dtype) / known.sigma_db**2
    prior = 1.0 / known.power_sigma_db**2
    mean = ((clear * power).sum(-1) + prior * known.power_db) / (clear.sum(-1) + prior)
    loss_db = known.late_loss_db
    ratio = -(loss_db * (power - mean.unsqueeze(-1)) + 0.5 * loss_db**2) / known.sigma_db**2
    return torch.where(both, ratio.clamp(-MAX_ODDS, MAX_ODDS), 0.0)


def squash(value: Tensor) -> Tensor:
    """Return ``value`` near zero and its signed logarithm far out: one layer sees residuals of 1 and of 1000 sigmas."""
    return value.sign() * (value.abs()).log1p()


def mask_out(value: Tensor, mask: Tensor) -> Tensor:
    """Return (B, R, C) with 0 where the mask (B, R) is False."""
    return torch.where(mask.unsqueeze(-1), value, 0.0)


class Attention(nn.Module):
    """Pre-norm self-attention over receivers, biased by what is known of each pair; absent ones are not listened to.

    Products and softmax are written out: fused attention with a trainable bias cannot be exported.
    """

    def __init__(self, width: int, num_heads: int, num_pair_columns: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_first, self.norm_second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.pair = nn.Sequential(nn.Linear(num_pair_columns, 16), nn.GELU(), nn.Linear(16, num_heads))
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, pairs: Tensor, present: Tensor) -> Tensor:
        """Return tokens (B, R, D) from tokens, pair columns (B, R, R, P) and the mask (B, R)."""
        bias = self.pair(pairs).permute(0, 3, 1, 2)
        bias = torch.where(present[:, None, None, :], bias, -1e9)  # finite: a session of no receivers stays so
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.project(self.norm_first(tokens)).chunk(3, -1)
        )
        score = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias
        tokens = tokens + self.join((score.softmax(-1) @ value).transpose(1, 2).flatten(2))
        mixed: Tensor = self.mix(self.norm_second(tokens))
        return tokens + mixed
