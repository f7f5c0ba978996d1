"""What was sent and when, beside where from: optional heads on the session model's tokens, and how they are judged.

Belongs here: heads, labels, losses and figures of the signal tasks. Does not belong here: positions (``network_loss``).
A label that is missing is masked, never guessed. Frames are the ``NUM_FRAMES`` equal parts of a recording.
Legend of shapes: B sessions, R receiver slots, D token width, F frames.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heimdall_assets.domain import SessionSet, SignalType

NUM_FRAMES = 32
SIGNAL_TYPES = (SignalType.VOICE, SignalType.TONE, SignalType.DTMF)
NO_TYPE = -1

TASKS = ("type", "span", "edges", "countdown", "snr")
EDGE_DELTA, COUNTDOWN_DELTA, SNR_DELTA = 0.08, 1.0, 1.0
"""Where Huber's loss turns: share of the recording, frames, tens of dB."""

SNR_UNIT_DB = 10.0


class SignalHeads(nn.Module):
    """Type, span, edges, countdown and SNR of a transmission from the tokens of receivers that have a spectrogram.

    ``log_variance`` weighs the tasks against each other: exp(-s) loss + s is least where s is the loss's own logarithm.

    Source: Kendall, Gal and Cipolla 2018, "Multi-task learning using uncertainty to weigh losses", eq. 7.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = {"type": len(SIGNAL_TYPES), "span": NUM_FRAMES, "edges": 2, "countdown": NUM_FRAMES, "snr": 1}
        self.project = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, sum(self.sizes.values())))
        self.log_variance = nn.Parameter(torch.zeros(len(TASKS)))

    def forward(self, tokens: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return logits of type (B, 3) and span (B, F), edges (B, 2), countdown (B, F) and SNR (B, 1) of sessions.

        Args:
            tokens: (B, R, D).
            seen: bool (B, R), receivers that have a spectrogram; a session without any gives what a zero token gives.
        """
        weight = seen.to(tokens.dtype).unsqueeze(-1)
        pooled = (tokens * weight).sum(1) / weight.sum(1).clamp_min(1.0)
        return dict(zip(self.sizes, self.project(pooled).split(list(self.sizes.values()), dim=1), strict=True))


def make_signal_labels(sessions: SessionSet) -> dict[str, Tensor]:
    """Return labels of S sessions: type int64 (S,), span (S, F), edges (S, 2), countdown (S, F), snr (S, 1).

    Span is the share of each frame that the transmission covers, edges are onset and end as shares of the recording,
    countdown is the number of frames until the onset, in frames before it. NaN, or ``NO_TYPE``, where not known: spans
    need the strata ``span_start_s``, ``span_end_s`` and ``duration_s``.
    """
    num = len(sessions)
    names = sessions.strata.get("signal_type", np.full(num, ""))
    kind = np.full(num, NO_TYPE)
    for number, signal in enumerate(SIGNAL_TYPES):
        kind[names == signal.value] = number
    start, end, duration = (
        np.asarray(sessions.strata.get(name, np.full(num, np.nan)), dtype=np.float64)
        for name in ("span_start_s", "span_end_s", "duration_s")
    )
    known = np.isfinite(start) & np.isfinite(end) & (np.nan_to_num(duration) > 0.0)
    edges = np.where(known[:, None], np.stack([start, end], 1) / np.where(known, duration, 1.0)[:, None], np.nan)
    frame = np.arange(NUM_FRAMES)
    onset, stop = (edges[:, [0]] * NUM_FRAMES, edges[:, [1]] * NUM_FRAMES)
    span = np.clip(np.minimum(stop, frame + 1) - np.maximum(onset, frame), 0.0, 1.0)
    left = onset - frame
    snr = np.array([_compute_median(sessions.snr_db[sessions.receivers(row)]) for row in range(num)]).reshape(num, 1)
    floats = {"span": span, "edges": edges, "countdown": np.where(left > 0, left, np.nan), "snr": snr / SNR_UNIT_DB}
    return {"type": torch.from_numpy(kind), **{k: torch.from_numpy(v.astype(np.float32)) for k, v in floats.items()}}


def compute_signal_losses(
    heads: SignalHeads, outputs: dict[str, Tensor], labels: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return each task's mean loss over what is labelled, 0 where nothing is, and ``signal``, their weighted sum."""
    losses = {"type": _compute_type_loss(outputs["type"], labels["type"])}
    known = ~labels["span"].isnan()
    span = functional.binary_cross_entropy_with_logits(
        outputs["span"], labels["span"].nan_to_num(0.0), reduction="none"
    )
    losses["span"] = _mean_where(span, known)
    for name, delta in (("edges", EDGE_DELTA), ("countdown", COUNTDOWN_DELTA), ("snr", SNR_DELTA)):
        target = labels[name]
        loss = functional.huber_loss(outputs[name], target.nan_to_num(0.0), reduction="none", delta=delta)
        losses[name] = _mean_where(loss, ~target.isnan())
    total = torch.zeros(())
    for number, name in enumerate(TASKS):
        labelled = (labels["type"] != NO_TYPE).any() if name == "type" else (~labels[name].isnan()).any()
        weighted = torch.exp(-heads.log_variance[number]) * losses[name] + heads.log_variance[number]
        total = total + torch.where(labelled, weighted, 0.0 * weighted)
    return losses | {"signal": total}


def judge_spans(probability: NDArray[np.floating[Any]], covered: NDArray[np.floating[Any]]) -> dict[str, float]:
    """Return precision, recall and F1 of frames at 0.5, and mean probability inside minus outside the transmission.

    Args:
        probability: (S, F), predicted.
        covered: (S, F), share of each frame that the transmission covers; rows with NaN are left out.
    """
    known = np.isfinite(covered).all(axis=1)
    said, true = probability[known] > 0.5, covered[known] > 0.5
    hits = float((said & true).sum())
    precision, recall = hits / max(float(said.sum()), 1.0), hits / max(float(true.sum()), 1.0)
    inside, outside = probability[known][true], probability[known][~true]
    return {
        "num_sessions": float(known.sum()),
        "precision": precision,
        "recall": recall,
        "f1": 2.0 * precision * recall / max(precision + recall, 1e-12),
        "separation": float(inside.mean() - outside.mean()) if len(inside) and len(outside) else float("nan"),
    }


def _compute_type_loss(logits: Tensor, kind: Tensor) -> Tensor:
    known = kind != NO_TYPE
    loss = functional.cross_entropy(logits, torch.where(known, kind, 0), reduction="none")
    return _mean_where(loss, known)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


def _compute_median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
