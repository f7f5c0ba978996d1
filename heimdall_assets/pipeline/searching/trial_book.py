"""Trial book: the trials of one search, each given out once, in order of their numbers, to whoever works on it.

Belongs here: what stands in the study and how it changes. Does not belong here: what a trial does
(``stages.search_trials``).

All trials of a search are entered before the first begins, waiting. One that was under way when its worker was killed
waits again under its number and with the values it was given: none is lost, none is made twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heimdall_assets.pipeline.searching.sampling import build_sampler, count_trials, order_grid
from heimdall_assets.specs import SearchSpec
from heimdall_assets.stores.studies import Studies

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, Trial

OWNER, CHECKPOINT, REASON = "owner", "checkpoint", "reason"
"""Attributes of a trial: who works on it, the manifest of its fit, why it failed."""


@dataclass(frozen=True)
class TrialBook:
    """The trials of one search.

    Attributes:
        name: of its study.
        search: what is searched.
        storage: Optuna's.
    """

    name: str
    search: SearchSpec
    storage: "RDBStorage"

    @property
    def num_trials(self) -> int:
        """How many there are in the end."""
        return count_trials(self.search)

    def load(self) -> "Study":
        """Return the study as it stands now."""
        import optuna

        return optuna.create_study(
            storage=self.storage,
            study_name=self.name,
            sampler=build_sampler(self.search),
            pruner=optuna.pruners.NopPruner(),
            direction="minimize",
            load_if_exists=True,
        )

    def list_trials(self) -> "list[FrozenTrial]":
        """Return the trials that count, by number."""
        return self.load().get_trials()[: self.num_trials]

    def enter_all(self) -> None:
        """Enter every trial that is not there yet, waiting; those of a grid with their points."""
        study = self.load()
        known = len(study.get_trials(deepcopy=False))
        points = order_grid(self.search) if self.search.sampler == "grid" else []
        for number in range(known, self.num_trials):
            study.enqueue_trial(points[number] if points else {})

    def free(self, is_left: Callable[[str], bool]) -> int:
        """Have trials under way wait again whose owner has left; return how many.

        Args:
            is_left: whether an owner does not work any more; of one that never said so, the owner is "".
        """
        from optuna.trial import TrialState

        freed = 0
        for trial in self.load().get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if is_left(str(trial.user_attrs.get(OWNER, ""))):
                self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                freed += 1
        return freed

    def claim(self, owner: str) -> "Trial | None":
        """Return the first trial that waits, given to ``owner`` alone; None: none waits."""
        from optuna.trial import Trial, TrialState

        study = self.load()
        for waiting in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if waiting.number >= self.num_trials:
                break
            if self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                self.storage.set_trial_user_attr(waiting._trial_id, OWNER, owner)
                return Trial(study, waiting._trial_id)
        return None


@contextmanager
def open_book(studies: Studies, name: str, search: SearchSpec) -> Iterator[TrialBook]:
    """Give the trials of a search.

    Raises:
        StorageError: their database cannot be opened, or fails while it is used.
    """
    with studies.opened(name) as storage:
        yield TrialBook(name, search, storage)


def describe_state(trial: "FrozenTrial") -> str:
    """Return the state of a trial in our words."""
    named = {"FAIL": "failed", "RUNNING": "under way"}
    return named.get(trial.state.name, trial.state.name.lower())


def count_states(trials: "list[FrozenTrial]") -> dict[str, int]:
    """Return how many trials are in which state."""
    counts = dict.fromkeys(("complete", "pruned", "failed", "under way", "waiting"), 0)
    for trial in trials:
        counts[describe_state(trial)] += 1
    return counts


def find_best(trials: "list[FrozenTrial]") -> "FrozenTrial | None":
    """Return the trial with the lowest value, the first of equals; None: none is complete."""
    complete = [trial for trial in trials if describe_state(trial) == "complete"]
    return min(complete, key=_get_value, default=None)


def _get_value(trial: Any) -> float:
    return float(trial.value)
