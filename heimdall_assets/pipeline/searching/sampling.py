"""Sampling: which values a trial tries, from the seed, its number and the trials that ended before, and nothing else.

Belongs here: lines of a space as Optuna's distributions, Optuna's samplers without a state of their own, the points of
a grid in their order. Does not belong here: who takes which trial (``trial_book``).

A sampler as Optuna ships it draws from one generator throughout: after a kill it would begin again. Here each value of
each trial has a generator of its own, so that a search that was killed draws what it would have drawn.
"""

from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from heimdall_assets.search_space import Dimension, Value, list_grid
from heimdall_assets.specs import SearchSpec, list_specs

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial


def order_grid(search: SearchSpec) -> list[dict[str, Value]]:
    """Return the points of a grid in the order in which they are tried, which the seed decides."""
    points = list_grid(search.list_dimensions())
    return [points[place] for place in np.random.default_rng(search.seed).permutation(len(points))]


def count_trials(search: SearchSpec) -> int:
    """Return how many trials a search has: those that were asked for, of a grid no more than it has points."""
    if search.sampler != "grid":
        return search.num_trials
    points = 1
    for one in search.list_dimensions():
        points *= len(one.values)
    return min(search.num_trials, points)


def suggest(trial: "Trial", dimensions: list[Dimension]) -> dict[str, Value]:
    """Return the values that a trial tries, by setting: drawn now, or as they were drawn before a kill."""
    return {one.name: _suggest(trial, one) for one in dimensions}


def _suggest(trial: "Trial", one: Dimension) -> Value:
    if one.values:
        value: Value = trial.suggest_categorical(one.name, list(one.values))
        return value
    if list_specs()[one.spec].model_fields[one.field].annotation is int:
        return trial.suggest_int(one.name, int(one.low), int(one.high), log=one.is_log)
    return trial.suggest_float(one.name, one.low, one.high, log=one.is_log)


def count_startup(search: SearchSpec) -> int:
    """Return how many trials are drawn at random before estimators are asked: Optuna's ten, of few trials a quarter."""
    return max(1, min(10, search.num_trials // 4))


def build_sampler(search: SearchSpec) -> "BaseSampler":
    """Return the sampler of a search. Of a grid it draws nothing: each trial was given its point beforehand."""
    from optuna.samplers import BaseSampler, RandomSampler, TPESampler

    class SteadySampler(BaseSampler):
        """Optuna's sampler, made anew for each value of each trial."""

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, "BaseDistribution"]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            drawn_from = np.random.SeedSequence([search.seed, trial.number, crc32(param_name.encode())])
            seed = int(drawn_from.generate_state(1)[0])
            sampler: BaseSampler = RandomSampler(seed=seed)
            if search.sampler == "tpe":
                # Where several work at once, trials under way count as bad ones: they are not drawn twice.
                sampler = TPESampler(
                    seed=seed,
                    n_startup_trials=count_startup(search),
                    constant_liar=search.num_workers > 1,
                )
            return sampler.sample_independent(study, trial, param_name, param_distribution)

    return SteadySampler()
