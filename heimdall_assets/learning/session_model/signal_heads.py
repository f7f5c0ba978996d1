"""What was sent and when, beside where from: optional heads on the session model's encoder of spectrograms.

Belongs here: heads, losses, what the heads' numbers mean. Does not belong here: labels
(``evaluation.signal_labels``), figures (``evaluation.signal_figures``), positions (``session_model.loss``).
The heads see what the encoder makes of spectrograms and nothing else: a receiver's stated SNR is no input of theirs.
Untrained they give what one would say without looking: the mean of the training labels.
Legend of shapes: B sessions, R receiver slots, C features, F frames.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heimdall_assets.evaluation.signal_labels import NO_TYPE, NUM_FRAMES, SIGNAL_TYPES, TASKS

EDGE_DELTA, COUNTDOWN_DELTA, SNR_DELTA = 0.08, 1.0, 1.0
"""Where Huber's loss turns: share of the recording, frames, tens of dB."""

SNR_UNIT_DB, COUNTDOWN_UNIT = 10.0, 8.0
"""What a head's raw 1 means in dB and in frames: one layer gives numbers of one order."""

PACE = 10.0
"""An optimiser of Adam's kind moves every number by about its rate a step: the tasks' weights are to move faster."""

SMALLEST_LOSS, RAREST = 1e-4, 0.01
"""Floor of a starting loss, and of a probability that a head starts at: their logarithms stay in reach."""

OUTPUTS = {
    "signal_type": f"(batch, {len(SIGNAL_TYPES)}) float32, probability of {', '.join(SIGNAL_TYPES)}",
    "signal_span": f"(batch, {NUM_FRAMES}) float32, probability that each equal part of the recording is transmission",
    "signal_edges": "(batch, 2) float32, onset and end as shares of the recording",
    "signal_countdown": f"(batch, {NUM_FRAMES}) float32, frames from each frame to the onset, where it lies before it",
    "signal_snr_db": "(batch, 1) float32, median of the receivers' SNR in 12.5 kHz, dB",
}
"""Outputs of an exported model, in the order of ``TASKS``, and what they hold; NaN without a spectrogram."""


class SignalHeads(nn.Module):
    """Type, span, edges, countdown and SNR of a transmission from the encoded spectrograms of its receivers.

    ``uncertainty`` weighs the tasks against each other: exp(-s) loss + s is least where s is the loss's own logarithm.

    Source: Kendall, Gal and Cipolla 2018, "Multi-task learning using uncertainty to weigh losses", eq. 7.
    """

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.sizes = {"type": len(SIGNAL_TYPES), "span": NUM_FRAMES, "edges": 2, "countdown": NUM_FRAMES, "snr": 1}
        self.embed = nn.Sequential(nn.LayerNorm(num_features), nn.Linear(num_features, 2 * width), nn.GELU())
        self.rank = nn.Linear(2 * width, 1)  # how much each receiver's picture counts; alike at first
        self.mix = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU())
        self.answer = nn.Linear(2 * width, sum(self.sizes.values()))
        self.uncertainty = nn.Parameter(torch.zeros(len(TASKS)))
        for layer in (self.rank, self.answer):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def log_variance(self) -> Tensor:
        """The logarithm of each task's variance, s above, (T,)."""
        return PACE * self.uncertainty

    def forward(self, features: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return logits of type (B, 3) and span (B, F), edges (B, 2), countdown (B, F) and SNR (B, 1) of sessions.

        Args:
            features: (B, R, C), what the encoder made of each spectrogram; finite also where there is none.
            seen: bool (B, R), receivers that have a spectrogram; a session without any gives a number without meaning.
        """
        hidden = self.embed(features)
        weight = torch.where(seen, self.rank(hidden).squeeze(-1), -1e9).softmax(1)
        raw = self.answer(self.mix((weight.unsqueeze(-1) * hidden).sum(1)))
        outputs = dict(zip(self.sizes, raw.split(list(self.sizes.values()), dim=1), strict=True))
        outputs["countdown"] = COUNTDOWN_UNIT * outputs["countdown"]
        outputs["snr"] = SNR_UNIT_DB * outputs["snr"]
        return outputs

    def start(self, labels: dict[str, NDArray[np.generic]]) -> None:
        """Set the heads to the mean of ``labels`` and the tasks' weights to the losses of that answer."""
        counts = np.bincount(labels["type"][labels["type"] != NO_TYPE], minlength=len(SIGNAL_TYPES))
        share = np.clip(counts / max(counts.sum(), 1), RAREST, 1.0)
        span = np.clip(_compute_mean(labels["span"]), RAREST, 1.0 - RAREST)
        means = {
            "type": np.log(share),
            "span": np.log(span / (1.0 - span)),
            "edges": _compute_mean(labels["edges"]),
            "countdown": _compute_mean(labels["countdown"]) / COUNTDOWN_UNIT,
            "snr": _compute_mean(labels["snr"]) / SNR_UNIT_DB,
        }
        with torch.no_grad():
            self.answer.bias.copy_(torch.from_numpy(np.concatenate([means[name] for name in self.sizes])))
            tensors = {name: torch.from_numpy(values) for name, values in labels.items()}
            num = len(tensors["type"])
            outputs = self(torch.zeros(num, 1, self.num_features), torch.ones(num, 1, dtype=torch.bool))
            losses = compute_signal_losses(self, outputs, tensors)
            for number, name in enumerate(TASKS):
                self.uncertainty[number] = math.log(max(float(losses[name]), SMALLEST_LOSS)) / PACE


def compute_signal_losses(
    heads: SignalHeads, outputs: dict[str, Tensor], labels: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return each task's mean loss over what is labelled, 0 where nothing is, and ``signal``, their weighted sum."""
    losses = {"type": _compute_type_loss(outputs["type"], labels["type"])}
    span = functional.binary_cross_entropy_with_logits(
        outputs["span"], labels["span"].nan_to_num(0.0), reduction="none"
    )
    losses["span"] = _mean_where(span, ~labels["span"].isnan())
    for name, delta, unit in (
        ("edges", EDGE_DELTA, 1.0),
        ("countdown", COUNTDOWN_DELTA, 1.0),
        ("snr", SNR_DELTA, SNR_UNIT_DB),
    ):
        target = labels[name]
        wanted = target.nan_to_num(0.0) / unit
        loss = functional.huber_loss(outputs[name] / unit, wanted, reduction="none", delta=delta)
        losses[name] = _mean_where(loss, ~target.isnan())
    total = torch.zeros_like(losses["type"])
    for number, name in enumerate(TASKS):
        labelled = (labels["type"] != NO_TYPE).any() if name == "type" else (~labels[name].isnan()).any()
        weighted = torch.exp(-heads.log_variance[number]) * losses[name] + heads.log_variance[number]
        total = total + torch.where(labelled, weighted, 0.0 * weighted)
    return losses | {"signal": total}


def mask_unseen(labels: dict[str, Tensor], seen: Tensor) -> dict[str, Tensor]:
    """Return ``labels`` of B sessions as unknown where no receiver (B, R) has a spectrogram: nothing was looked at."""
    some = seen.any(1)
    floats = {name: torch.where(some.unsqueeze(1), labels[name], torch.nan) for name in TASKS if name != "type"}
    return {"type": torch.where(some, labels["type"], NO_TYPE), **floats}


def read_signals(outputs: dict[str, Tensor], seen: Tensor, tasks: Sequence[str]) -> list[Tensor]:
    """Return the values of ``OUTPUTS``: probabilities, shares within 0 and 1, frames, dB.

    Args:
        outputs: of ``SignalHeads``.
        seen: bool (B, R); a session without any spectrogram gets NaN.
        tasks: what training had labels of; the others are NaN.
    """
    values = {
        "type": outputs["type"].softmax(1),
        "span": outputs["span"].sigmoid(),
        "edges": outputs["edges"].clamp(0.0, 1.0),
        "countdown": outputs["countdown"],
        "snr": outputs["snr"],
    }
    some = seen.to(outputs["span"].dtype).sum(1, keepdim=True) > 0.0
    known = (values[name] if name in tasks else torch.full_like(values[name], torch.nan) for name in TASKS)
    return [torch.where(some, value, torch.nan) for value in known]


def _compute_type_loss(logits: Tensor, kind: Tensor) -> Tensor:
    known = kind != NO_TYPE
    loss = functional.cross_entropy(logits, torch.where(known, kind, 0), reduction="none")
    return _mean_where(loss, known)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


def _compute_mean(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the mean of each column over the rows that are known, 0 where none is, float32."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = total / np.maximum(known.sum(axis=0), 1)
    return mean.astype(np.float32)
