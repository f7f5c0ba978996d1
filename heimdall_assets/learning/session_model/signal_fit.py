"""The signal heads fitted: losses over labels, and the loop, apart from that of positions.

Belongs here: losses, batches of signal tracks, epochs, which weights are kept. Does not belong here: the network
(``signal_heads``), labels (``evaluation.signal_labels``). Positions and signals share no weight: fitted apart, neither
stops, clips or slows the other, and a model locates the same with heads as without.
Legend of shapes: B sessions, R receiver slots.
"""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from heimdall_assets.evaluation.signal_labels import NO_TYPE, NUM_FRAMES, make_signal_labels
from heimdall_assets.learning.session_model.signal_heads import SNR_UNIT_DB, SignalHeads, mark_inside
from heimdall_assets.learning.session_model.signal_watch import SignalWatch
from heimdall_assets.learning.session_model.tracks import collect_tracks, list_tracked
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.signal_track import NUM_STEPS
from heimdall_assets.training_tables import VAL

MAX_EPOCHS, PATIENCE = 60, 15
"""Passes over the training sessions, and how many without a better validation loss are waited for."""

BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 32, 2e-3, 1e-2

RECEIVER_DROPOUT = 0.3
"""Share of receivers left out of a training batch, at least one a session staying: fewer hear the next one."""

PLACE_DELTA, SNR_DELTA = 0.3, 0.1
"""Where Huber's loss turns: parts of a recording, tens of dB."""


def fit_signal_heads(
    heads: SignalHeads, train: SessionSet, val: SessionSet, seed: int, watch: SignalWatch | None = None
) -> dict[str, Any]:
    """Fit ``heads`` in place and return how that went, JSON values; the weights of the best validation loss stay.

    Where no epoch is better than the start, or validation has no labelled session with a track, the start stays: the
    mean of the labels, which claims nothing.
    """
    train, val = (part.take(list_tracked(part)) for part in (train, val))
    tracks, tracked = collect_tracks(train)
    labels = make_signal_labels(train)
    heads.start(tracks[tracked], labels)
    facts: dict[str, Any] = {"signal_num_epochs": 0, "signal_best_epoch": None, "signal_initial_val_loss": None}
    if not len(val):
        return facts | {"signal_val_loss": None}
    batch = (torch.from_numpy(tracks), torch.from_numpy(tracked), _to_tensors(labels))
    val_tracks, val_tracked = collect_tracks(val)
    held = (torch.from_numpy(val_tracks), torch.from_numpy(val_tracked), _to_tensors(make_signal_labels(val)))
    best_epoch: int | None = None
    best_loss, best = _judge(heads, *held), copy.deepcopy(heads.state_dict())
    facts["signal_initial_val_loss"] = best_loss
    rng = np.random.default_rng([seed, len(train)])
    num_batches = -(-len(train) // BATCH_SIZE)
    heads.requires_grad_(True)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=MAX_EPOCHS * num_batches)
    epoch = 0
    for epoch in range(MAX_EPOCHS):
        for chosen in np.array_split(rng.permutation(len(train)), num_batches):
            _step(heads, optimizer, batch, chosen, rng, watch)
            schedule.step()
        loss = _judge(heads, *held, watch)
        if watch is not None:
            watch.end_epoch(epoch, float(schedule.get_last_lr()[0]))
        if loss < best_loss:
            best_loss, best_epoch, best = loss, epoch, copy.deepcopy(heads.state_dict())
        elif epoch - (0 if best_epoch is None else best_epoch) >= PATIENCE:
            break
    heads.load_state_dict(best)
    heads.requires_grad_(False)
    return facts | {
        "signal_num_epochs": epoch + 1,
        "signal_best_epoch": best_epoch,
        "signal_val_loss": best_loss,
    }


def _step(
    heads: SignalHeads,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, dict[str, Tensor]],
    chosen: NDArray[np.int64],
    rng: np.random.Generator,
    watch: SignalWatch | None = None,
) -> None:
    tracks, tracked, labels = batch
    rows = torch.from_numpy(chosen)
    kept = drop_receivers(tracked[rows].numpy(), rng)
    outputs = heads(tracks[rows], torch.from_numpy(kept))
    known = {name: values[rows] for name, values in labels.items()}
    # The SNR asked for is that of all the receivers: it is not learned where some are hidden.
    whole = torch.from_numpy((kept == tracked[rows].numpy()).all(axis=1))
    known["snr"] = torch.where(whole.unsqueeze(1), known["snr"], torch.nan)
    losses = compute_signal_losses(outputs, known)
    loss = sum(losses.values())
    assert isinstance(loss, Tensor)
    optimizer.zero_grad()
    loss.backward()
    if watch is not None:
        watch.hear_step(heads, outputs, known, losses)
    optimizer.step()


def drop_receivers(tracked: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return ``tracked`` (B, R) without some, in half of the sessions; each keeps one at least."""
    draw = np.where(tracked, rng.random(tracked.shape), -1.0)
    lost = (draw < RECEIVER_DROPOUT) & (rng.random((len(tracked), 1)) < 0.5)
    lost[np.arange(len(tracked)), draw.argmax(axis=1)] = False
    return tracked & ~lost


def _judge(
    heads: SignalHeads, tracks: Tensor, tracked: Tensor, labels: dict[str, Tensor], watch: SignalWatch | None = None
) -> float:
    with torch.no_grad():
        outputs = heads(tracks, tracked)
        losses = compute_signal_losses(outputs, labels)
        if watch is not None:
            watch.hear_outputs(VAL, outputs, labels, losses)
        return float(sum(losses.values()))


def compute_signal_losses(outputs: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return each task's mean loss over what is labelled, 0 where nothing is.

    Args:
        outputs: of ``SignalHeads``.
        labels: of ``make_signal_labels`` as tensors, ``inside`` (B, 2) of ``mark_inside`` beside them.
    """
    known = labels["type"] != NO_TYPE
    kind = functional.cross_entropy(outputs["type"], torch.where(known, labels["type"], 0), reduction="none")
    span = labels["span"].repeat_interleave(NUM_STEPS // NUM_FRAMES, 1)
    covered = functional.binary_cross_entropy_with_logits(outputs["span"], span.nan_to_num(0.0), reduction="none")
    inside = labels["inside"]
    within = functional.binary_cross_entropy_with_logits(outputs["inside"], inside.nan_to_num(0.0), reduction="none")
    true = labels["edges"].nan_to_num(0.0)
    place = functional.huber_loss(NUM_STEPS * outputs["place"], NUM_STEPS * true, reduction="none", delta=PLACE_DELTA)
    snr = labels["snr"]
    decibels = functional.huber_loss(
        outputs["snr"] / SNR_UNIT_DB, snr.nan_to_num(0.0) / SNR_UNIT_DB, reduction="none", delta=SNR_DELTA
    )
    return {
        "type": _mean_where(kind, known),
        "span": _mean_where(covered, ~span.isnan()),
        "inside": _mean_where(within, ~inside.isnan()),
        "edges": _mean_where(place, inside == 1.0),
        "snr": _mean_where(decibels, ~snr.isnan()),
    }


def _to_tensors(labels: dict[str, NDArray[Any]]) -> dict[str, Tensor]:
    tensors = {name: torch.from_numpy(values) for name, values in labels.items()}
    return tensors | {"inside": torch.from_numpy(mark_inside(labels["edges"]))}


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)
