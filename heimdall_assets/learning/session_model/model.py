"""A model of the whole session: receivers as tokens, physics as the last layer.

Belongs here: ``NetworkLocalizationNet``. Does not belong here: the solver (``gauss_newton``), tables
(``session_model.table``), features (``session_model.tokens``), losses (``session_model.loss``). All that is learned are
corrections, zero at the start: untrained, the model is the multi-started weighted least-squares solution with a wide
prior.

Legend of shapes: B sessions, R receiver slots, K ``RECEIVER_COLUMNS``, D token width, S starts. Lengths are km.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]  # public, but not in its __all__

from heimdall_assets.learning.session_model.gauss_newton import GaussNewton
from heimdall_assets.learning.session_model.pair_tokens import NUM_PAIR_TOKENS, PairEncoder
from heimdall_assets.learning.session_model.physics import (
    Delays,
    LevelLaw,
    compute_cost,
    compute_level_cost,
    compute_step,
)
from heimdall_assets.learning.session_model.receiver_order import order_receivers, reorder, reorder_pairs
from heimdall_assets.learning.session_model.ridge import reach_others, widen_ridge
from heimdall_assets.learning.session_model.signal_heads import SignalHeads
from heimdall_assets.learning.session_model.tokens import (
    LATE_SCALE_KM,
    MIN_SPREAD_KM,
    NUM_BEARING_COLUMNS,
    NUM_RECEIVER_COLUMNS,
    NUM_RECEIVER_PAIRS,
    NUM_SOLUTION_COLUMNS,
    NUM_SOLUTION_PAIRS,
    Attention,
    Session,
    compute_level_posterior,
    describe_bearings,
    describe_receivers,
    describe_solutions,
    mask_out,
    state_delays,
    take_apart,
)

if TYPE_CHECKING:
    from timm.models.convnext import ConvNeXt

SAME_POINT_KM = 1e-3
PRIOR_SPREADS, HORIZON_KM = 2.0, 50.0
"""Prior's sigma per axis: a multiple of the receivers' spread, or the radio horizon of receivers at one point."""

MISFIT = 9.0
"""Mean squared residual in sigmas above which the data contradict themselves, and the covariance grows with it."""

LARGEST_LOG = 4.0
"""Largest logarithm of a learned factor."""


class Located(NamedTuple):
    """What the model gives: position (B, 2), upper factor (B, 3) of its information; with heads, their outputs."""

    position: Tensor
    factor: Tensor
    signals: dict[str, Tensor] | None


class NetworkLocalizationNet(nn.Module):
    """Locates a session of any number of receivers in any order: it brings them into one of its own first.

    Args:
        width: of a token.
        num_layers: self-attention layers after the first solution; one more comes before it.
        num_heads: attention heads.
        dropout: of tokens, in training.
        backbone: (N, 3, mels, frames) standardised spectrograms to (N, num_features); None: they are not seen.
        level_prior: receivers (B, R, 2) km about the centre of the training split, levels (B, R) dB and their mask
            (B, R) to a mean (B, 2) and an upper factor (B, 3) 1/km, frozen; sessions without delays are left to it
            alone. None: a wide round prior around the receivers.
        trust: 0: start as weighted least squares; 1: as the likelihood that some arrivals are late.
        level_law: how levels follow distance, and how much weaker late arrivals are.
        signals: heads of the signal tasks, over signal tracks alone; None: position alone.
        pair_encoder: of what recordings have in common; None: it is not seen.
        bearings: whether bearings are looked at.
    """

    share: Tensor

    def __init__(
        self,
        width: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.0,
        backbone: "ConvNeXt | None" = None,
        level_prior: nn.Module | None = None,
        trust: float = 0.0,
        level_law: LevelLaw = LevelLaw(),  # noqa: B008 - immutable
        signals: SignalHeads | None = None,
        pair_encoder: PairEncoder | None = None,
        bearings: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.level_prior, self.signals = backbone, level_prior, signals
        self.pair_encoder, num_more = pair_encoder, 0 if pair_encoder is None else NUM_PAIR_TOKENS
        self.solver, self.level_law = GaussNewton(level_law=level_law), level_law
        self.embed_receiver = nn.Linear(NUM_RECEIVER_COLUMNS, width)
        self.embed_solution = nn.Linear(NUM_SOLUTION_COLUMNS, width)
        self.embed_spectrogram = None if backbone is None else nn.Linear(backbone.num_features, width)
        self.dropout = nn.Dropout(dropout)
        self.first = Attention(width, num_heads, NUM_RECEIVER_PAIRS + num_more)
        self.layers = nn.ModuleList(
            Attention(width, num_heads, NUM_SOLUTION_PAIRS + num_more) for _ in range(num_layers)
        )
        self.norm_first, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.prior_head, self.receiver_head = nn.Linear(width, 5), nn.Linear(width, 3)
        self.width_head = nn.Linear(width, 1)
        self.trust = nn.Parameter(torch.full((2,), float(trust)))
        # How much of the learned corrections of the position counts; chosen after training, on the validation split.
        self.register_buffer("share", torch.ones(()))
        self.embed_bearing = nn.Linear(NUM_BEARING_COLUMNS, width) if bearings else None
        self.bearing_head = nn.Linear(width, 2) if bearings else None
        for head in (self.prior_head, self.receiver_head, self.width_head, self.bearing_head):
            if head is None:
                continue
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(
        self,
        table: Tensor,
        offset: Tensor,
        spectrograms: Tensor | None = None,
        seen: Tensor | None = None,
        pairs: Tensor | None = None,
        paired: Tensor | None = None,
        bearings: Tensor | None = None,
        tracks: Tensor | None = None,
        tracked: Tensor | None = None,
    ) -> Located:
        """Return positions, the factors of their information, and what the signal heads say.

        Args:
            table: float32 (B, R, K), ``RECEIVER_COLUMNS``, NaN for what is missing.
            offset: float32 (B, 2), km, where each session's origin lies in the level prior's frame.
            spectrograms: float32 (B, R, 3, mels, frames), standardised; None: there are none.
            seen: bool (B, R), which receivers have one.
            pairs: float32 (B, R, R, C), ``pair_columns.make_pair_columns``; None: there are none.
            paired: bool (B, R, R), which of them are known.
            bearings: float32 (B, R, 2), ``BEARING_COLUMNS``, NaN for what is missing; None: there are none.
            tracks: float32 (B, R, C, T), signal tracks as they come, for signal heads; None: there are none.
            tracked: bool (B, R), which receivers have one.
        """
        signals = self._tell_signals(tracks, tracked)
        if bearings is None or self.bearing_head is None:
            order = order_receivers(table)
            table = reorder(table, order)
            session = take_apart(table)
        else:
            order = order_receivers(torch.cat([table, bearings], -1))
            table = reorder(table, order)
            session = take_apart(table, reorder(bearings, order))
        columns, apart = describe_receivers(table, session)
        tokens = self.embed_receiver(columns)
        common = None
        if self.pair_encoder is not None:
            if pairs is not None and paired is not None:
                pairs, paired = reorder_pairs(pairs, order), reorder_pairs(paired, order)
            common, told = self._encode_pairs(pairs, paired, session)
            tokens = tokens + told
        if spectrograms is not None and seen is not None and self.backbone is not None:
            tokens = tokens + self._embed_spectrograms(reorder(spectrograms, order), reorder(seen, order))
        tokens = self.first(mask_out(self.dropout(tokens), session.present), join(apart, common), session.present)
        with torch.autocast(table.device.type, enabled=False):  # heads and solver in float32: bf16 costs hundreds of m
            tokens = self.norm_first(tokens.float())
            mean, factor = self._fuse_prior(tokens, session, offset)
        if self.level_prior is not None and not is_traced() and not _find_observed(session).any():
            return Located(mean, factor, signals)  # where nothing else is known the searches below end there too
        delays = state_delays(session, mean, factor)
        with torch.no_grad():
            unit = session.spread.clamp_min(MIN_SPREAD_KM)
            direct = self.solver.search(delays, unit)
            late, odds = self.solver.search_late(delays, session.sigma, direct), torch.zeros_like(session.sigma)
            if self.level_law.late_loss_db > 0:
                odds = compute_level_posterior(session, late, self.level_law)
                late = self.solver.search_late(delays, session.sigma, direct, odds)
            found = describe_solutions(session, delays.detach(), direct, late, odds)
        tokens = tokens + self.embed_solution(found.columns)
        if self.embed_bearing is not None and session.directed is not None:
            states = torch.stack([direct[:, 0], found.late], 1)
            tokens = tokens + self.embed_bearing(describe_bearings(session, delays.detach(), states))
        for layer in self.layers:
            tokens = layer(tokens, join(found.pairs, common), session.present)
        with torch.autocast(table.device.type, enabled=False):
            tokens = mask_out(self.norm(tokens.float()), session.present)
            corrected, known = self._correct(tokens, session, delays, found.weight, found.shift)
            starts = torch.cat([found.late.unsqueeze(1), direct], 1)
            position, _ = self.solver(corrected, starts)
            # Weights of their own: what makes an ellipse honest is not what makes a position close.
            _, factor = compute_step(position.detach().unsqueeze(1), known, None)
            scale = self._scale_factor(tokens, session, corrected, position.detach())
            factor = factor[:, 0] * scale
            if not self.training:  # no gradient goes through the ridge: training knows the curvature at one place
                factor = widen_ridge(position, factor, _scale_weights(known, scale.square()))
                cost = compute_cost(direct, delays) + compute_level_cost(direct, delays, self.level_law)
                factor = reach_others(position, factor, direct, delays, cost)
        return Located(position, factor, signals)

    def _encode_pairs(self, pairs: Tensor | None, paired: Tensor | None, session: Session) -> tuple[Tensor, Tensor]:
        """Return columns (B, R, R, P) of pairs and what they add to tokens (B, R, D); zeros where there are none."""
        assert self.pair_encoder is not None
        if pairs is not None and paired is not None:
            encoded: tuple[Tensor, Tensor] = self.pair_encoder(pairs, paired)
            return encoded
        shape = session.present.shape
        return (
            session.level.new_zeros(*shape, shape[1], NUM_PAIR_TOKENS),
            session.level.new_zeros(*shape, self.embed_receiver.out_features),
        )

    def _embed_spectrograms(self, spectrograms: Tensor, seen: Tensor) -> Tensor:
        """Return (B, R, D), 0 for receivers without a spectrogram; only those that are there cost training anything."""
        assert self.backbone is not None
        assert self.embed_spectrogram is not None
        whole = is_traced()
        flat = (
            torch.where(seen[..., None, None, None], spectrograms, 0.0).flatten(0, 1) if whole else spectrograms[seen]
        )
        if not whole and not seen.any():
            return spectrograms.new_zeros(*seen.shape, self.embed_spectrogram.out_features)
        rows = self.embed_spectrogram(self.backbone(flat))
        if whole:
            return mask_out(rows.unflatten(0, seen.shape), seen)
        out = torch.zeros(*seen.shape, rows.shape[-1], device=rows.device, dtype=rows.dtype)
        return out.masked_scatter(seen.unsqueeze(-1), rows)

    def _tell_signals(self, tracks: Tensor | None, tracked: Tensor | None) -> dict[str, Tensor] | None:
        """Return what signal heads say of signal tracks; None where there are no heads, or nothing for them."""
        if self.signals is None or tracks is None or tracked is None:
            return None
        with torch.autocast(tracks.device.type, enabled=False):
            outputs: dict[str, Tensor] = self.signals(tracks.float(), tracked)
            return outputs

    def _fuse_prior(self, tokens: Tensor, session: Session, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (B, 2) and upper factor (B, 3) of where the source is likely before delays are looked at."""
        if self.level_prior is None:
            sigma = torch.where(session.spread > SAME_POINT_KM, PRIOR_SPREADS * session.spread, HORIZON_KM)
            sigma = sigma.clamp_min(0.1)
            mean = torch.zeros_like(session.receivers[:, 0, :2])
            factor = torch.stack([1.0 / sigma, torch.zeros_like(sigma), 1.0 / sigma], -1)
        else:
            place = session.receivers[..., :2] + offset.unsqueeze(1)
            mean, factor = self.level_prior(place, session.level, session.heard)
            mean = mean - offset
        head = self.share * self.prior_head(self._pool(tokens, session)) * self._find_free(session)
        push, stretch, shear = 3.0 * torch.tanh(head[:, :2] / 3.0), bound_exp(head[:, 2:4]), torch.tanh(head[:, 4])
        north = push[:, 1] / factor[:, 2]
        east = (push[:, 0] - factor[:, 1] * north) / factor[:, 0]
        u11, u12, u22 = factor.unbind(-1)
        turned = [stretch[:, 0] * u11, stretch[:, 0] * u12 + shear * u22, stretch[:, 1] * u22]
        return mean + torch.stack([east, north], -1), torch.stack(turned, -1)

    def _correct(
        self, tokens: Tensor, session: Session, delays: Delays, weight: Tensor, shift: Tensor
    ) -> tuple[Delays, Delays]:
        """Return delays with each receiver's learned weight and shift, and with weights for the information alone.

        How far the late-arrival search's own weights and shifts are trusted is learned too.
        """
        head = self.receiver_head(tokens)
        scale = (session.sigma.square() + LATE_SCALE_KM**2).sqrt()
        ratio = (weight.clamp_min(1e-12) * session.sigma.square()).log()
        base = delays.weight * torch.exp(self.trust[0] * ratio.clamp(-12.0, 12.0))
        move = self.trust[1] * shift + self.share * head[..., 1] * scale
        arrival = torch.where(session.timed, delays.arrival - move, 0.0)
        corrected = delays._replace(arrival=arrival, weight=base * bound_exp(self.share * head[..., 0]))
        known = corrected._replace(weight=base * bound_exp(head[..., 2]))
        if self.bearing_head is None or delays.bearing_weight is None:
            return corrected, known
        turned = self.bearing_head(tokens)
        position = delays.bearing_weight * bound_exp(self.share * turned[..., 0])
        ellipse = delays.bearing_weight * bound_exp(turned[..., 1])
        return corrected._replace(bearing_weight=position), known._replace(bearing_weight=ellipse)

    def _scale_factor(self, tokens: Tensor, session: Session, delays: Delays, position: Tensor) -> Tensor:
        """Return (B, 1) to multiply the information's factor by: learned, and lower where the data contradict it."""
        count = _count_observed(session).to(tokens.dtype).clamp_min(1.0)
        misfit = compute_cost(position.unsqueeze(1), delays)[:, 0] / count
        return bound_exp(self.width_head(self._pool(tokens, session)) * self._find_free(session)) * (
            misfit / MISFIT
        ).clamp_min(1.0).rsqrt().unsqueeze(-1)

    @staticmethod
    def _pool(tokens: Tensor, session: Session) -> Tensor:
        """Return the mean token (B, D) of the receivers that are there."""
        weight = session.present.to(tokens.dtype).unsqueeze(-1)
        return (tokens * weight).sum(1) / weight.sum(1).clamp_min(1.0)

    def _find_free(self, session: Session) -> Tensor:
        """Return (B, 1), 0 where nothing may be learned on top: a level prior, no delays, no bearings; else 1."""
        free = _find_observed(session).any(1, keepdim=True)
        free = free if self.level_prior is not None else torch.ones_like(free)
        return free.to(session.level.dtype)


def _find_observed(session: Session) -> Tensor:
    """Return which receivers (B, R) have a delay or a bearing."""
    return session.timed if session.directed is None else session.timed | session.directed


def _count_observed(session: Session) -> Tensor:
    """Return how many delays and bearings (B,) there are."""
    timed = session.timed.sum(1)
    return timed if session.directed is None else timed + session.directed.sum(1)


def _scale_weights(delays: Delays, scale: Tensor) -> Delays:
    """Return delays with the weights of arrivals and bearings times ``scale`` (B, 1)."""
    scaled = delays._replace(weight=delays.weight * scale)
    if delays.bearing_weight is None:
        return scaled
    return scaled._replace(bearing_weight=delays.bearing_weight * scale)


def join(pairs: Tensor, more: Tensor | None) -> Tensor:
    """Return columns of pairs (B, R, R, P), with more of them where there are more."""
    return pairs if more is None else torch.cat([pairs, more], -1)


def is_traced() -> bool:
    """Return whether a graph is being drawn: it must hold every way that data may take, and branch on none."""
    return bool(is_tracing())


def bound_exp(value: Tensor) -> Tensor:
    """Return the exponential of ``value`` bounded smoothly to +-``LARGEST_LOG``."""
    return torch.exp(LARGEST_LOG * torch.tanh(value / LARGEST_LOG))
