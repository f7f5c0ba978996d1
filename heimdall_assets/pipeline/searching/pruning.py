"""Pruning: whether a trial that does worse than others after as many epochs is stopped.

Belongs here: asking Optuna's pruners so that a kill changes no answer. Does not belong here: what is stopped
(``stages.search_trials``).

Optuna's pruners write what they saw into the study before they answer: one that is killed in between would see itself
among its rivals and answer otherwise. They are therefore asked on a copy of the study in memory, from which a trial's
own looks at this epoch and later ones are left out, and what they wrote is kept with the epoch at which they did.
"""

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from heimdall_assets.specs import SearchSpec

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial, Trial

LOOKS = "looks"
"""Attribute of a trial: what pruners wrote of it -> [epoch at which they did, what they wrote]."""


def build_pruner(search: SearchSpec, max_epochs: int) -> "BasePruner | None":
    """Return the pruner of a search whose trials have so many epochs; None: no trial is stopped."""
    from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner

    if search.pruner == "asha":
        return SuccessiveHalvingPruner(min_resource=search.min_epochs, reduction_factor=search.reduction_factor)
    if search.pruner == "hyperband":
        return HyperbandPruner(
            min_resource=search.min_epochs,
            max_resource=max(max_epochs, search.min_epochs),
            reduction_factor=search.reduction_factor,
        )
    return None


def judge(study: "Study", trial: "Trial", pruner: "BasePruner", num_epochs: int) -> bool:
    """Return whether a trial is to be stopped after so many epochs, whose losses were reported before."""
    import optuna

    trials = study.get_trials()
    seen = dict(trials[trial.number].user_attrs.get(LOOKS, {}))
    before = {name: look for name, look in seen.items() if look[0] < num_epochs}
    copy = optuna.create_study(study_name=study.study_name, sampler=study.sampler)
    for other in trials:
        looks = before if other.number == trial.number else other.user_attrs.get(LOOKS, {})
        copy.add_trial(_show(other, looks, num_epochs if other.number == trial.number else None))
    shown = copy.get_trials()[trial.number]
    stops = bool(pruner.prune(copy, shown))
    wrote = copy.get_trials()[trial.number].system_attrs
    new = {name: [num_epochs, value] for name, value in wrote.items() if wrote[name] != shown.system_attrs.get(name)}
    if new:
        trial.set_user_attr(LOOKS, {**before, **new})
    return stops


def _show(trial: "FrozenTrial", looks: dict[str, Any], until: int | None) -> "FrozenTrial":
    """Return a trial as a pruner is to see it: with what pruners wrote of it, its own losses up to one epoch."""
    shown = deepcopy(trial)
    shown.system_attrs = {**trial.system_attrs, **{name: value for name, (_, value) in looks.items()}}
    if until is not None:
        shown.intermediate_values = {step: value for step, value in trial.intermediate_values.items() if step <= until}
    return shown
