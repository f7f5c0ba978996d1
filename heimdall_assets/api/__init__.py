"""The door for Python: a home opened, its sessions as a torch ``Dataset``, a training through the graph.

    from heimdall_assets.api import SessionDataset, TrainingPipeline, open_home

Belongs here: what a notebook or a program of others calls, each a thin layer on what the commands call too. Does not
belong here: anything that the commands cannot do. Importing this loads nothing else: each name is loaded when it is
first used, and torch with ``SessionDataset`` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heimdall_assets.api.datasets import SessionDataset
    from heimdall_assets.api.home import Home, open_home
    from heimdall_assets.api.training import TrainingPipeline, TrainingResult

__all__ = ["Home", "SessionDataset", "TrainingPipeline", "TrainingResult", "open_home"]

_PARTS = {
    "Home": "home",
    "SessionDataset": "datasets",
    "TrainingPipeline": "training",
    "TrainingResult": "training",
    "open_home": "home",
}


def __getattr__(name: str) -> Any:
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: expected one of {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_PARTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
