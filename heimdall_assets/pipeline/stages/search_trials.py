"""Search trials: each a fit as any other, through the same cache, judged on the validation split.

Belongs here: from what a trial tries to its value, epoch by epoch, resumed where it was killed. Does not belong here:
which trial comes next (``searching.trial_book``), what becomes of all of them (``stages.hyperparameter_search``).

The test split is no argument of anything here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.searching.pruning import build_pruner, judge
from heimdall_assets.pipeline.searching.sampling import suggest
from heimdall_assets.pipeline.searching.trial_book import CHECKPOINT, REASON, TrialBook
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import (
    Surroundings,
    load_checkpoint,
    read_training,
    train_checkpoint,
)
from heimdall_assets.search_space import Value
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import (
    AugmentationSpec,
    MachineSpec,
    ModelSpec,
    SearchSpec,
    Spec,
    TrainingSpec,
    describe_invalid,
)
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.scratch import CheckpointFolder

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

TrialReport = Callable[["FrozenTrial"], None]
"""Called with each trial that has ended."""


class TrialPruned(Exception):
    """A trial does worse than others after as many epochs: its fit ends here."""


@dataclass(frozen=True)
class SearchOrder:
    """What is searched, and on what.

    Attributes:
        train_split: sessions that trials are fitted on.
        val_split: sessions that judge them.
        search: which settings are tried.
        model: settings that are not tried, as are the next two.
        training: of the fit.
        augmentation: of its batches.
        machine: how each fit uses its machine; decides nothing.
    """

    train_split: Manifest
    val_split: Manifest
    search: SearchSpec
    model: ModelSpec
    training: TrainingSpec
    augmentation: AugmentationSpec
    machine: MachineSpec = field(default_factory=MachineSpec)

    @property
    def specs(self) -> list[Spec]:
        """Every number that decides the result."""
        return [self.search, self.model, self.training, self.augmentation]

    @property
    def max_epochs(self) -> int:
        """Epochs of a trial that nothing stops."""
        return self.search.max_epochs or self.training.max_epochs

    def apply(self, params: Mapping[str, Value]) -> list[Any]:
        """Return model, training and augmentation of the trial that tries ``params``.

        Raises:
            InvalidSetting: two of the values contradict each other.
        """
        base = (self.model, self.training.model_copy(update={"max_epochs": self.max_epochs}), self.augmentation)
        return [apply_params(spec, params) for spec in base]


def apply_params(spec: Spec, params: Mapping[str, Value]) -> Spec:
    """Return ``spec`` with those of ``params`` that are its settings.

    Raises:
        InvalidSetting: a value is out of its bounds, or contradicts another.
    """
    cls = spec.pure_class()
    own = {name.partition(".")[2]: value for name, value in params.items() if name.partition(".")[0] == cls.__name__}
    try:
        return cls.model_validate({**spec.dump(), **own})
    except ValidationError as error:
        raise InvalidSetting(describe_invalid(cls.__name__, error)) from None


class TrialRunner:
    """Fits trials one after another in this process; the splits are read once."""

    def __init__(self, objects: ObjectStore, work: Path, order: SearchOrder):
        """Read nothing yet.

        Args:
            objects: where splits and fits rest.
            work: local folder; holds the checkpoints of trials under way.
            order: what is searched.
        """
        self._objects, self._work, self._order = objects, work, order
        self._load = cache(self._read)
        self._splits = {split.digest: split for split in (order.train_split, order.val_split)}

    def run_all(self, book: TrialBook, owner: str, on_end: TrialReport) -> int:
        """Fit trials until none waits; return how many ended here.

        Raises:
            StorageError: the study or the objects are away; the trial waits for the next start.
            KeyboardInterrupt: it was stopped; so does the trial.
        """
        count = 0
        while (trial := book.claim(owner)) is not None:
            self._run(book, trial)
            count += 1
            on_end(book.load().get_trials()[trial.number])
        return count

    def _run(self, book: TrialBook, trial: "Trial") -> None:
        """Bring one trial to its end, and say in the study how it ended."""
        from optuna.trial import TrialState

        study = book.load()
        folder = self._work / f"trial-{trial.number}"
        value, state = None, TrialState.COMPLETE
        try:
            value = self._fit(trial, folder)
        except TrialPruned:
            state = TrialState.PRUNED
        except (InvalidInput, InvalidSetting) as error:  # it diverged, or its values contradict each other
            trial.set_user_attr(REASON, " ".join(str(error).split())[:500])
            state = TrialState.FAIL
        CheckpointFolder(folder).discard()
        study.tell(trial.number, None if state is not TrialState.COMPLETE else value, state)

    def _fit(self, trial: "Trial", folder: Path) -> float:
        order = self._order
        model, training, augmentation = order.apply(suggest(trial, order.search.list_dimensions()))
        epochs = _Epochs(trial, order)
        result = train_checkpoint(
            self._objects,
            folder,
            order.train_split,
            order.val_split,
            model,
            training,
            augmentation,
            on_epoch=lambda epoch, metrics: epochs.hear(epoch, metrics["val_loss"]),
            load=self._load_split,
            around=Surroundings(order.machine),
        )
        history, facts = read_training(self._objects, result.manifest)
        epochs.hear_found(history)
        trial.set_user_attr(CHECKPOINT, result.manifest.digest)
        if order.search.objective == "val_loss":
            return float(facts["best_val_loss"])
        return self._measure(result.manifest)

    def _load_split(self, _: ObjectStore, split: Manifest) -> SessionSet:
        return self._load(split.digest)

    def _read(self, digest: str) -> SessionSet:
        return load_sessions(self._objects, self._splits[digest])

    def _measure(self, checkpoint: Manifest) -> float:
        """Return the median error in metres on the validation split."""
        from heimdall_assets.evaluation.residuals import compute_residuals

        sessions = self._load(self._order.val_split.digest)
        residuals = compute_residuals(sessions, load_checkpoint(self._objects, checkpoint).predict(sessions))
        if not residuals.answered.any():
            raise InvalidInput("validation split: found no session with a truth and an answer, expected at least one")
        return float(np.median(residuals.error_m[residuals.answered]))


class _Epochs:
    """The epochs of one trial as the study and its pruner hear of them."""

    def __init__(self, trial: "Trial", order: SearchOrder):
        self._trial = trial
        self._pruner = build_pruner(order.search, order.max_epochs)
        self._reported = set(trial.study.get_trials()[trial.number].intermediate_values)
        self._last = max(self._reported, default=0)
        self._heard_any = False

    def hear(self, epoch: int, val_loss: float) -> None:
        """Tell the study of one epoch (from 0), which is counted from 1 there.

        Raises:
            TrialPruned: others did better after as many.
        """
        self._heard_any = True
        num_epochs = epoch + 1
        if num_epochs not in self._reported:
            self._reported.add(num_epochs)
            self._trial.report(val_loss, num_epochs)
        if self._pruner is not None and judge(self._trial.study, self._trial, self._pruner, num_epochs):
            raise TrialPruned(f"trial {self._trial.number}: stopped after {say_count(num_epochs, 'epoch')}")

    def hear_found(self, history: Sequence[Mapping[str, float]]) -> None:
        """Tell the study of a fit that was found rather than made: a trial ends as if it had been made.

        The last epoch that was told before a kill is judged again, for nobody knows whether it was.
        """
        if self._heard_any:
            return
        for epoch, record in enumerate(history):
            if epoch + 1 >= self._last:
                self.hear(epoch, record["val_loss"])
