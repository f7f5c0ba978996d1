"""Findings: what the trials of a search say, as a table and as the weight of each setting.

Belongs here: from Optuna's trials to plain values. Does not belong here: where they rest, how they are drawn.
"""

import json
from typing import TYPE_CHECKING

from heimdall_assets.kinds import HYPERPARAMETER_SEARCH
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.pipeline.searching.trial_book import CHECKPOINT, REASON, describe_state
from heimdall_assets.specs import SearchSpec

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study
    from optuna.trial import FrozenTrial

FEWEST = 4
"""Complete trials below which no setting's weight can be told."""


def tabulate_trials(trials: "list[FrozenTrial]") -> "pd.DataFrame":
    """Return one row per trial, with nothing in it that differs between two searches that find the same."""
    import pandas as pd

    columns = STAGES[HYPERPARAMETER_SEARCH].columns["trials"]
    rows = [
        {
            "number": trial.number,
            "state": describe_state(trial),
            "value": trial.value if describe_state(trial) == "complete" else None,
            "params": json.dumps(trial.params, sort_keys=True),
            "val_losses": json.dumps([trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]),
            "checkpoint": trial.user_attrs.get(CHECKPOINT) if describe_state(trial) == "complete" else None,
            "reason": trial.user_attrs.get(REASON),
        }
        for trial in trials
    ]
    return pd.DataFrame(rows, columns=list(columns)).astype(dict(columns))


def describe_best(best: "FrozenTrial") -> str:
    """Return what the best trial tried, as people set it."""
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(best.params.items()))


def compute_importance(study: "Study", trials: "list[FrozenTrial]", search: SearchSpec) -> dict[str, float]:
    """Return how much of the differences between complete trials each setting explains, adding up to 1.

    By functional analysis of variance of a forest of trees (Hutter et al., 2014), as Optuna computes it. Empty where
    fewer than four trials are complete, or all came out the same.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    values = {trial.value for trial in trials if describe_state(trial) == "complete"}
    count = sum(describe_state(trial) == "complete" for trial in trials)
    if count < FEWEST or len(values) < 2:
        return {}
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=search.seed))
    return {name: float(found[name]) for name in sorted(found)}
