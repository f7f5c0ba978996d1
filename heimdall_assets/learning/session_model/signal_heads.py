"""What was sent and when, beside where from: a small network on the signal tracks of a session's receivers.

Belongs here: the network, what its numbers mean. Does not belong here: how it is fitted (``signal_fit``), the tracks
(``signals.signal_track``), labels (``evaluation.signal_labels``), figures (``evaluation.signal_figures``), positions
(``session_model.model``), which share nothing with it.
Tracks are looked at in time by convolutions, one receiver like the other; at each moment receivers are averaged by
weights that follow their SNR and what the network makes of them, so that neither order nor number matters.
Edges, whether they lie within, and SNR start at the classical answer (``signals.detectors``), which is corrected; type
and span start at what one would say without looking, the mean of the training labels.
Legend of shapes: B sessions, R receiver slots, C rows of a track, T parts, F frames.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heimdall_assets.evaluation.signal_labels import NO_TYPE, NUM_FRAMES, SIGNAL_TYPES, TASKS
from heimdall_assets.physical import CHANNEL_HZ
from heimdall_assets.signals.detectors import compute_quieting_hz3
from heimdall_assets.signals.signal_track import LEVEL, NOISE, NUM_ROWS, NUM_STEPS, ON, SHORTEST_S, STEP

WIDTH, KERNEL, DILATIONS = 48, 5, (1, 2, 4)
"""Channels, taps and spacings of the convolutions: the last one sees 29 parts, 0.45 s of a recording of a second."""

SNR_UNIT_DB, EDGE_UNIT_S = 10.0, 0.01
"""What a raw 1 means in dB, and in seconds: one layer gives numbers of one order."""

TRUST_DB = 3.0
"""A receiver with so much more SNR counts e times as much, at first."""

FARTHEST_S = 0.1
"""An edge is moved no farther than this from where a change was detected: ramps, clocks and filters take their time in
seconds, whatever share of a recording that is."""

TRUSTED_LOGIT, RIM_STEPS = 3.0, 0.5
"""How sure one is at first that an edge lies within where detection puts it so many parts off the rim, or more."""

RAREST = 0.01
"""Floor of a probability that a head starts at: its logarithm stays in reach."""


class SignalHeads(nn.Module):
    """Type, span, edges and SNR of a transmission from its receivers' signal tracks.

    An edge is whether it lies within the recording, and where; the countdown follows from the onset, so that the two
    never contradict each other.
    """

    row_mean: Tensor
    row_std: Tensor
    told: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("row_mean", torch.zeros(NUM_ROWS, 1))
        self.register_buffer("row_std", torch.ones(NUM_ROWS, 1))
        told = torch.ones(NUM_ROWS, 1)
        told[STEP] = 0.0  # a length says nothing of what was sent; it turns seconds into shares
        self.register_buffer("told", told, persistent=False)
        self.embed = nn.Conv1d(NUM_ROWS, WIDTH, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=spacing * (KERNEL // 2), dilation=spacing) for spacing in DILATIONS
        )
        self.rank = nn.Conv1d(WIDTH, 1, 1)  # how much each receiver counts at each moment, beside its SNR
        self.trust = nn.Parameter(torch.ones(()))
        self.mix = nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2)
        self.moment = nn.Conv1d(WIDTH, 1, 1)
        self.whole = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, len(SIGNAL_TYPES) + 4))
        self.loudness = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1))
        last = self.whole[2], self.loudness[2]
        for layer in (self.rank, self.moment, *last):
            assert isinstance(layer, (nn.Conv1d, nn.Linear))
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, tracks: Tensor, tracked: Tensor) -> dict[str, Tensor]:
        """Return what ``read_signals`` reads and losses compare.

        ``type`` (B, 3) logits; ``span`` (B, T) logits; ``inside`` (B, 2) logits that onset and end lie within;
        ``place`` (B, 2) where, as shares of the recording; ``snr`` (B, 1) dB.

        Args:
            tracks: float32 (B, R, C, T), finite also where there is none.
            tracked: bool (B, R), receivers that have one; a session without any gives numbers without meaning.
        """
        flat = tracks.flatten(0, 1)
        peak = flat[:, LEVEL : LEVEL + 1].amax(2, keepdim=True)
        # A recording's own gain says nothing: its power counts from its loudest part down.
        flat = torch.cat([flat[:, :LEVEL], flat[:, LEVEL : LEVEL + 1] - peak, flat[:, LEVEL + 1 :]], 1)
        hidden = functional.gelu(self.embed(self.told * (flat - self.row_mean) / self.row_std))
        for layer in self.layers:
            hidden = hidden + functional.gelu(layer(hidden))
        on = tracks.flatten(0, 1)[:, ON]
        quieted = read_snr_db(tracks.flatten(0, 1)[:, NOISE], on).unflatten(0, tracked.shape)
        snr = quieted + SNR_UNIT_DB * self.loudness(_pool(hidden)).unflatten(0, tracked.shape).squeeze(-1)
        rank = self.rank(hidden).unflatten(0, tracked.shape) + self.trust * quieted[..., None, None] / TRUST_DB
        weight = torch.where(tracked[..., None, None], rank, -1e9).softmax(1)
        mixed = (weight * hidden.unflatten(0, tracked.shape)).sum(1)
        mixed = mixed + functional.gelu(self.mix(mixed))
        kind, inside, shift = self.whole(_pool(mixed)).split([len(SIGNAL_TYPES), 2, 2], 1)
        # Recordings of a session are of one length but for their clocks; empty slots have none.
        step_s = torch.where(tracked, tracks[:, :, STEP, 0], 0.0).amax(1, keepdim=True)
        duration_s = (step_s * NUM_STEPS).clamp_min(SHORTEST_S)
        edges = (weight.mean(3) * find_edges(on).unflatten(0, tracked.shape)).sum(1)
        off_rim = torch.stack([edges[:, 0], 1.0 - edges[:, 1]], 1)
        return {
            "type": kind,
            "span": self.moment(mixed)[:, 0],
            "inside": inside + TRUSTED_LOGIT * torch.tanh((off_rim * NUM_STEPS - RIM_STEPS) / RIM_STEPS),
            "place": edges + FARTHEST_S * torch.tanh(EDGE_UNIT_S / FARTHEST_S * shift) / duration_s,
            "snr": _compute_median(snr, tracked),
        }

    def start(self, tracks: NDArray[np.float32], labels: dict[str, NDArray[Any]]) -> None:
        """Set the scale of a track's rows, and the heads of type and span to the mean of ``labels``.

        Args:
            tracks: (N, C, T), of training recordings.
            labels: of training sessions, as ``make_signal_labels`` gives them.
        """
        relative = tracks.astype(np.float64)
        relative[:, LEVEL] -= relative[:, LEVEL].max(axis=1, keepdims=True)
        counts = np.bincount(labels["type"][labels["type"] != NO_TYPE], minlength=len(SIGNAL_TYPES))
        share = np.clip(counts / max(counts.sum(), 1), RAREST, 1.0)
        covered = np.clip(_compute_mean(labels["span"].reshape(-1, 1)), RAREST, 1.0 - RAREST)
        with torch.no_grad():
            self.row_mean.copy_(torch.from_numpy(relative.mean(axis=(0, 2))).unsqueeze(1))
            spread = relative.std(axis=(0, 2))
            self.row_std.copy_(torch.from_numpy(np.where(spread > 1e-3, spread, 1.0)).unsqueeze(1))
            start = np.concatenate([np.log(share), np.zeros(4)])
            _last_bias(self.whole).copy_(torch.from_numpy(start))
            assert self.moment.bias is not None
            self.moment.bias[0] = float(np.log(covered / (1.0 - covered))[0])


def read_snr_db(noise_db: Tensor, on: Tensor) -> Tensor:
    """Return SNR (N,) in dB from how far the carrier quiets the discriminator, as ``detectors.estimate_snr_db`` does.

    The mean of the parts' dB stands in the place of their median, which no gradient likes.
    """
    share = on.mean(1).clamp_min(1e-3)
    quieted_db = (on * noise_db).mean(1) / share
    law_db = 10.0 * math.log10(compute_quieting_hz3() / CHANNEL_HZ)
    return torch.where(on.amax(1) > 0.0, law_db - quieted_db, law_db - noise_db.mean(1)) + 10.0 * share.log10()


def find_edges(on: Tensor) -> Tensor:
    """Return onset and end (N, 2), as shares of the recording, of a carrier that covers ``on`` (N, T) of each part.

    What lies before the onset is what no part up to there was covered of, and so for the end, backwards.
    """
    before = torch.ones(NUM_STEPS, NUM_STEPS, device=on.device).tril() > 0.0
    so_far = torch.where(before, on.unsqueeze(1), 0.0).amax(2)
    from_here = torch.where(before.T, on.unsqueeze(1), 0.0).amax(2)
    return torch.stack([1.0 - so_far.mean(1), from_here.mean(1)], 1)


def read_signals(outputs: dict[str, Tensor], tracked: Tensor, tasks: Sequence[str]) -> list[Tensor]:
    """Return the values of ``tracks.OUTPUTS``: probabilities, shares within 0 and 1, frames, dB.

    Args:
        outputs: of ``SignalHeads``.
        tracked: bool (B, R); a session without any signal track gets NaN.
        tasks: what training had labels of; the others are NaN.
    """
    inside = outputs["inside"] > 0.0
    onset, end = outputs["place"][:, :1], outputs["place"][:, 1:]
    edges = [torch.where(inside[:, :1], onset, 0.0), torch.where(inside[:, 1:], end, 1.0)]
    frame = torch.arange(NUM_FRAMES, dtype=onset.dtype, device=onset.device)
    values = {
        "type": outputs["type"].softmax(1),
        "span": outputs["span"].sigmoid().unflatten(1, (NUM_FRAMES, NUM_STEPS // NUM_FRAMES)).mean(2),
        "edges": torch.cat(edges, 1),
        "countdown": (onset * NUM_FRAMES - frame).clamp_min(0.0),
        "snr": outputs["snr"],
    }
    some = tracked.to(outputs["span"].dtype).sum(1, keepdim=True) > 0.0
    # multiplied, not filled: the exporter would write down a filled one as the constant of the batch that it traced
    known = (values[name] if name in tasks else values[name] * torch.nan for name in TASKS)
    return [torch.where(some, value, torch.nan) for value in known]


def mark_inside(edges: NDArray[Any]) -> NDArray[np.float32]:
    """Return whether onset and end (S, 2) lie within the recording, 1 or 0, NaN where nobody knows."""
    inside = np.stack([edges[:, 0] > 0.0, edges[:, 1] < 1.0], axis=1).astype(np.float32)
    return np.where(np.isfinite(edges), inside, np.nan).astype(np.float32)


def _pool(hidden: Tensor) -> Tensor:
    """Return mean and maximum over time (N, 2 D) of (N, D, T)."""
    return torch.cat([hidden.mean(2), hidden.amax(2)], 1)


def _compute_median(values: Tensor, known: Tensor) -> Tensor:
    """Return the median (B, 1) of the known ones of ``values`` (B, R); without meaning where none is known."""
    ordered = torch.where(known, values, 1e9).sort(1).values
    count = known.sum(1, keepdim=True).clamp_min(1)
    low, high = ordered.gather(1, (count - 1) // 2), ordered.gather(1, count // 2)
    return 0.5 * (low + high)


def _last_bias(layers: nn.Sequential) -> Tensor:
    bias = layers[-1].bias
    assert isinstance(bias, Tensor)
    return bias


def _compute_mean(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean of each column over the rows that are known, 0 where none is, float32."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = total / np.maximum(known.sum(axis=0), 1)
    return mean.astype(np.float32)
