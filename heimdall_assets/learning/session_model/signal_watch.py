"""What is seen of the fit of signal heads: its epochs as rows of ``training_tables``.

Belongs here: which of the heads' numbers make which row. Does not belong here: the fit (``signal_fit``), sums
(``fitting.measures``).
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

from heimdall_assets.learning.fitting.measures import Gradients, Mean, Spread
from heimdall_assets.signals.signal_track import NUM_STEPS
from heimdall_assets.training_tables import (
    EPOCHS,
    GRADIENTS,
    LOSSES,
    PROBABILITY,
    SIGNALS,
    TRAIN,
    UNCERTAINTY,
    VAL,
    Record,
    Row,
)

WEIGHTS = {"weight_type": 1.0, "weight_ptr": 1.0, "weight_span": 1.0}
"""Of the losses in their sum."""


class SignalWatch:
    """Takes note of steps and validation of an epoch, and records its rows when it ends."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._begin()

    def _begin(self) -> None:
        self._gradients = Gradients(1)
        self._losses: dict[str, Mean] = defaultdict(Mean)
        self._inside: dict[str, Spread] = defaultdict(Spread)
        self._outside: dict[str, Spread] = defaultdict(Spread)
        self._counts = torch.zeros(3, dtype=torch.float64)  # found rightly, found, there

    def hear_step(
        self, heads: nn.Module, outputs: dict[str, Tensor], labels: dict[str, Tensor], losses: dict[str, Tensor]
    ) -> None:
        """Take note of one step after its gradients are known and before they are used."""
        self._gradients.add(heads.named_parameters())
        self.hear_outputs(TRAIN, outputs, labels, losses)

    def hear_outputs(
        self, phase: str, outputs: dict[str, Tensor], labels: dict[str, Tensor], losses: dict[str, Tensor]
    ) -> None:
        """Take note of what the heads say of some sessions."""
        self._losses[phase].add(losses, len(labels["type"]))
        share = labels["span"].repeat_interleave(NUM_STEPS // labels["span"].shape[1], 1)
        probability = outputs["span"].detach().sigmoid()
        inside, outside = share >= 0.5, share < 0.5  # NaN is neither
        self._inside[phase].add(probability[inside])
        self._outside[phase].add(probability[outside])
        if phase == VAL:
            found = probability > 0.5
            parts = (found & inside, found & (inside | outside), inside)
            self._counts += torch.stack([part.sum().double().cpu() for part in parts])

    def end_epoch(self, epoch: int, learning_rate: float) -> None:
        """Record the rows of an epoch and begin the next."""
        losses = {phase: mean.describe() for phase, mean in self._losses.items()}
        totals = {phase: sum(parts.values()) for phase, parts in losses.items()}
        row: Row = {f"{phase}_loss": total for phase, total in totals.items()}
        self._tell(epoch, EPOCHS, {**row, **self._score(), "learning_rate": learning_rate})
        for phase, parts in losses.items():
            told = {
                "loss_type": parts["type"],
                "loss_ptr": parts["inside"] + parts["edges"],
                "loss_span": parts["span"],
                "loss_snr": parts["snr"],
                "total_loss": totals[phase],
            }
            self._tell(epoch, LOSSES, {"phase": phase, **told})
            self._tell(epoch, PROBABILITY, {"phase": phase, **self._describe_span(phase)})
        self._tell(epoch, UNCERTAINTY, dict(WEIGHTS))
        for gradient in self._gradients.describe():
            self._tell(epoch, GRADIENTS, gradient)
        self._begin()

    def _score(self) -> Row:
        right, found, there = self._counts.tolist()
        precision = right / found if found else None
        recall = right / there if there else None
        score = 2.0 * right / (found + there) if found + there else None
        return {"span_f1": score, "span_precision": precision, "span_recall": recall}

    def _describe_span(self, phase: str) -> Row:
        inside, outside = self._inside[phase].describe(), self._outside[phase].describe()
        means = inside["mean"], outside["mean"]
        known = [value for value in means if isinstance(value, float)]
        return {
            "in_span_mean": means[0],
            "in_span_std": inside["std"],
            "out_span_mean": means[1],
            "out_span_std": outside["std"],
            "separation": known[0] - known[1] if len(known) == 2 else None,
        }

    def _tell(self, epoch: int, table: str, row: Row) -> None:
        self._record(table, {"epoch": epoch, **row, "part": SIGNALS})
