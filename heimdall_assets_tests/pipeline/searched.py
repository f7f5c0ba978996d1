"""A small home to search in, and searches of tiny models on it, stage by stage without Dagster."""

from pathlib import Path
from typing import Any

from heimdall_assets.kinds import TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import Result
from heimdall_assets.pipeline.stages.hyperparameter_search import finish_search, plan_search, work_on_search
from heimdall_assets.pipeline.stages.search_trials import SearchOrder
from heimdall_assets.specs import AugmentationSpec, ModelSpec, SearchSpec, TrainingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import SIMULATION, fill_home, split_home

TINY_MODEL = ModelSpec(use_spectrograms=False, use_correlations=False, width=8, num_layers=1, num_heads=1)
TINY_TRAINING = TrainingSpec(max_epochs=3, num_threads=1, batch_size=8, warmup_epochs=1)
RATES = "TrainingSpec.learning_rate=1e-4|1e-3|1e-2"
GRID = [RATES, "ModelSpec.dropout=0|0.1"]
RANGES = [
    "TrainingSpec.learning_rate=log(1e-4,3e-2)",
    "ModelSpec.dropout=uniform(0,0.5)",
    "TrainingSpec.batch_size=4|8",
]


def fill_searched(folder: Path) -> Places:
    """Return the places of a home with approved sessions."""
    return fill_home(folder, SIMULATION)


def make_order(splits: dict[str, Manifest], search: SearchSpec, **training: Any) -> SearchOrder:
    """Return a search of tiny models."""
    fit = TINY_TRAINING.model_copy(update=training)
    return SearchOrder(splits[TRAIN_SPLIT], splits[VAL_SPLIT], search, TINY_MODEL, fit, AugmentationSpec())


def run_search(stores: Stores, order: SearchOrder, owner: str = "run/0") -> tuple[Result, list[int]]:
    """Return what a search comes to with one worker, and the numbers of the trials that ended here, in order."""
    ended: list[int] = []
    plan_search(stores, order, lambda owner: False)
    work_on_search(stores, order, owner, lambda trial: ended.append(trial.number))
    return finish_search(stores, order), ended


def open_searched(places: Places) -> tuple[Stores, dict[str, Manifest]]:
    """Return the opened stores of a home and its splits."""
    return split_home(places)
