"""The Lightning module: what one step, one validation and one epoch are, for any task and any network.

Belongs here: steps of several batches and pieces, the optimiser, means over an epoch, what a checkpoint holds of all
that. Does not belong here: what a loss is (the task), batches (``batches``), when to stop and what to keep
(``keepers``).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.fitting.averaging import MovingAverage
from heimdall_assets.learning.fitting.batches import Batch, Steps
from heimdall_assets.learning.fitting.checkpoints import AVERAGE, PROGRESS
from heimdall_assets.learning.fitting.memory import Pieces
from heimdall_assets.learning.fitting.ranks import ALONE, Ranks
from heimdall_assets.learning.fitting.schedule import Schedule
from heimdall_assets.learning.task import Task
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import TrainingSpec

EpochCallback = Callable[[int, dict[str, float]], None]

NUM_NAMED = 20
"""Sessions that a message names at most."""


class Means:
    """Means over examples of what batches give, each batch by how many it has; float32, as Lightning's own are."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.count = 0

    def add(self, losses: dict[str, Tensor], count: int) -> None:
        for name, value in losses.items():
            value = value.detach().float() * count
            self.totals[name] = self.totals[name] + value if name in self.totals else value
        self.count += count

    def merge(self, other: "Means") -> None:
        for name, value in other.totals.items():
            self.totals[name] = self.totals[name] + value if name in self.totals else value
        self.count += other.count

    def compute(self, ranks: Ranks, device: torch.device) -> dict[str, Tensor]:
        """Return the means over what all processes have."""
        if ranks.size == 1:
            return {name: value / self.count for name, value in self.totals.items()}
        names = sorted(self.totals)
        held = torch.stack([*(self.totals[name] for name in names), torch.tensor(float(self.count), device=device)])
        *totals, count = ranks.add_up(held)
        return {name: value / count for name, value in zip(names, totals, strict=True)}


class TaskModule(lightning.LightningModule):
    """Trains a task's network with AdamW and keeps the history of its epochs.

    Args:
        task: says what a loss is.
        network: what is trained.
        training: the settings.
        steps_per_epoch: steps of the optimiser.
        pieces: in how many pieces each batch is taken.
        ranks: the processes that share each batch.
        on_epoch: called after each epoch with its number and its metrics.
    """

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        training: TrainingSpec,
        steps_per_epoch: int,
        pieces: Pieces,
        ranks: Ranks = ALONE,
        on_epoch: EpochCallback | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task, self.network, self.training_spec = task, network, training
        self.steps_per_epoch, self.pieces, self.ranks, self.on_epoch = steps_per_epoch, pieces, ranks, on_epoch
        self.schedule = Schedule(training, steps_per_epoch)
        self.peak_rate = training.learning_rate
        self.average = None if training.ema_decay is None else MovingAverage(network, training.ema_decay)
        self.after_epoch: list[Callable[[dict[str, float]], None]] = []
        self.history: list[dict[str, float]] = []
        self.num_steps = 0
        self.steps_in_epoch = 0
        self.sessions: dict[str, SessionSet] = {}
        self.set_called(network)
        self._means = {"train": Means(), "val": Means()}
        self._random: Tensor | None = None

    def set_called(self, called: Callable[..., Any]) -> None:
        """Let ``called`` compute in place of the network: the same one, compiled."""
        self._called = (cast(nn.Module, called),)  # in a tuple, for a module of its own would have weights of its own

    # -- a step ---------------------------------------------------------------------------------------------------

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return the step as it is: pieces move one by one."""
        return batch

    def on_train_start(self) -> None:
        if self.average is not None:
            self.average.move_to(self.device)

    def on_train_epoch_start(self) -> None:
        # dropout draws from here, so that a resumed run continues with the bits of an uninterrupted one
        torch.manual_seed(_draw_seed(self.training_spec.seed, self.current_epoch))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.ranks.size > 1:  # each process draws for its own examples, wherever it begins
            drawn = (self.training_spec.seed, self.current_epoch, self.steps_in_epoch, self.ranks.rank)
            torch.manual_seed(_draw_seed(*drawn))
        elif self._random is not None:
            _set_random(self._random)
        self._random = None

    def training_step(self, step: list[Batch], number: int) -> Tensor:
        """Take one step of the optimiser; return its loss."""
        optimizer = cast(LightningOptimizer, self.optimizers())  # there is one
        means = self.pieces.compute(lambda count: self._add_gradients(optimizer, step, count))
        weights = self.list_trained()
        self.ranks.add_up_gradients(weights)
        self.pieces.count = self.ranks.find_largest(self.pieces.count, self.device)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and self.training_spec.fused_optimizer:
            scaler.unscale_(optimizer.optimizer)  # it would do so itself, after the gradient was clipped
        for group in optimizer.param_groups:
            group["lr"] = self.compute_rate()
        optimizer.step()
        if self.average is not None:
            self.average.update()
        self.num_steps += 1
        self.steps_in_epoch += 1
        self._means["train"].merge(means)
        return means.totals["loss"] / max(means.count, 1) if means.totals else torch.zeros((), device=self.device)

    def _add_gradients(self, optimizer: Any, step: list[Batch], num_pieces: int) -> Means:
        """Leave the gradient of the mean loss over a step's examples; return the losses."""
        optimizer.zero_grad()
        total = sum(batch.total for batch in step)
        means = Means()
        for piece in (piece for batch in step for piece in batch.split(num_pieces)):
            losses = self.compute_losses(piece, "train")
            self.manual_backward(losses["loss"] * (len(piece.examples) / total))
            means.add(losses, len(piece.examples))
        return means

    def compute_losses(self, piece: Batch, split: str) -> dict[str, Tensor]:
        """Return what the task computes of some examples.

        Raises:
            InvalidInput: the loss is not finite.
        """
        tensors = {name: value.to(self.device, non_blocking=True) for name, value in piece.tensors.items()}
        losses = self.task.compute_loss(self._called[0], tensors, self.current_epoch)
        if not torch.isfinite(losses["loss"]):
            raise InvalidInput(
                f"training: {split}_loss is {float(losses['loss'].detach())} in epoch {self.current_epoch} after "
                f"{self.num_steps} steps, of {self._name_examples(piece, split)}: expected a finite number; lower "
                "TrainingSpec.learning_rate or gradient_clip, or look for values that are not finite"
            )
        return losses

    def _name_examples(self, piece: Batch, split: str) -> str:
        if split not in self.sessions:
            return f"examples {', '.join(map(str, piece.examples[:NUM_NAMED]))}"
        names = self.task.name_examples(self.sessions[split], piece.examples)
        more = len(names) - NUM_NAMED
        return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, self.training_spec.gradient_clip)

    # -- validation and epochs --------------------------------------------------------------------------------------

    def judge_average(self, wanted: bool) -> None:
        """Let the network hold its moving average, or the weights that are trained again."""
        if self.average is not None:
            self.average.put_in_place(wanted)

    def on_validation_epoch_start(self) -> None:
        self.judge_average(True)
        self._means["val"] = Means()

    def validation_step(self, step: list[Batch], number: int) -> None:
        self._means["val"].merge(self.pieces.compute(lambda count: self._measure(step, count)))

    def _measure(self, step: list[Batch], num_pieces: int) -> Means:
        means = Means()
        for piece in (piece for batch in step for piece in batch.split(num_pieces)):
            means.add(self.compute_losses(piece, "val"), len(piece.examples))
        return means

    def on_validation_epoch_end(self) -> None:
        self.judge_average(False)
        self._log_means("val")

    def _log_means(self, split: str) -> dict[str, float]:
        found = self._means[split].compute(self.ranks, self.device)
        found = {f"{split}_{name}": value for name, value in found.items()}
        self.log_dict(found)
        return {name: float(value) for name, value in found.items()}

    def on_train_epoch_end(self) -> None:
        metrics = self._log_means("train")
        means = self._means["val"].compute(self.ranks, self.device)
        metrics |= {f"val_{name}": float(value) for name, value in means.items()}
        self._means, self.steps_in_epoch = {"train": Means(), "val": Means()}, 0
        losses = [*(record["val_loss"] for record in self.history), metrics["val_loss"]]
        metrics["learning_rate"] = self.peak_rate * self.schedule.compute_factor(self.num_steps, losses)
        self.history.append({"epoch": self.current_epoch, **dict(sorted(metrics.items()))})
        for watch in self.after_epoch:
            watch(dict(metrics))
        if self.on_epoch is not None:
            self.on_epoch(self.current_epoch, dict(metrics))

    def compute_mean_loss(self, steps: Steps) -> float:
        """Return the mean loss over all examples of ``steps``, as validation computes it, where the network is."""
        total, count = 0.0, 0
        training = self.network.training
        self.network.eval()
        with torch.no_grad():
            for batch in (batch for step in steps for batch in step):
                for loss, size in self.pieces.compute(partial(self._list_losses, batch)):
                    total += loss * size
                    count += size
        self.network.train(training)
        return total / count

    def _list_losses(self, batch: Batch, num_pieces: int) -> list[tuple[float, int]]:
        pieces = batch.split(num_pieces)
        return [(float(self.compute_losses(piece, "val")["loss"]), len(piece.examples)) for piece in pieces]

    # -- the optimiser, and what is kept ----------------------------------------------------------------------------

    def list_trained(self) -> list[nn.Parameter]:
        """Return the weights that are trained."""
        return [weight for weight in self.network.parameters() if weight.requires_grad]

    def configure_optimizers(self) -> Any:
        return build_optimizer(self.list_trained(), self.training_spec, self.peak_rate)

    def compute_rate(self) -> float:
        """Return the step size of the next step."""
        losses = [record["val_loss"] for record in self.history]
        return self.peak_rate * self.schedule.compute_factor(self.num_steps, losses)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        train = self._means["train"]
        checkpoint[PROGRESS] = {
            "num_steps": self.num_steps,
            "steps_in_epoch": self.steps_in_epoch,
            "totals": dict(train.totals),
            "count": train.count,
            "pieces": self.pieces.count,
            "peak_rate": self.peak_rate,
            "random": _get_random(self.device) if self.steps_in_epoch else None,
        }
        if self.average is not None:
            checkpoint[AVERAGE] = {name: value.clone() for name, value in self.average.values.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])
        progress = checkpoint[PROGRESS]
        self.num_steps, self.steps_in_epoch = progress["num_steps"], progress["steps_in_epoch"]
        self._means["train"].totals = {name: value.to(self.device) for name, value in progress["totals"].items()}
        self._means["train"].count = progress["count"]
        self.pieces.count = max(self.pieces.count, progress["pieces"])
        self.peak_rate = progress["peak_rate"]
        self._random = progress["random"]
        if self.average is not None:
            self.average.load(checkpoint.get(AVERAGE, {}))


def build_optimizer(weights: list[nn.Parameter], training: TrainingSpec, rate: float) -> torch.optim.Optimizer:
    """Return AdamW as the settings have it."""
    fused = True if training.fused_optimizer else None  # None: torch's own choice among the others
    return torch.optim.AdamW(weights, lr=rate, weight_decay=training.weight_decay, fused=fused)


def _draw_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(list(parts)).generate_state(1)[0])


def _get_random(device: torch.device) -> Tensor:
    """Return the state that dropout draws from: the processor's, then the GPU's where it trains on one."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


def _set_random(state: Tensor) -> None:
    length = len(torch.get_rng_state())
    torch.set_rng_state(state[:length].cpu())
    if len(state) > length:
        torch.cuda.set_rng_state(state[length:].cpu())
