"""What varies between runs of one test: the seed its random world is drawn from; and how far it was from its bound.

A bound that one machine's rounding, or one lucky seed, happens to meet says nothing. ``pytest --seed-offset N`` draws
every world anew, ``--margins FILE`` writes down how much room each statistical bound had; ``variations`` runs both.
"""

import json
import os
from pathlib import Path

import numpy as np


class _Run:
    seed_offset = 0
    margins: Path | None = None


def start_run(seed_offset: int, margins: Path | None) -> None:
    """Set what this run varies; called once, before test modules are imported, as some draw worlds on import."""
    _Run.seed_offset, _Run.margins = seed_offset, margins


def get_seed_offset() -> int:
    """Return the offset of this run, for a process that a test starts."""
    return _Run.seed_offset


def shift_seed(seed: int) -> int:
    """Return the seed to use where a test was written with ``seed``: another one in each run of another offset."""
    return seed + 1000 * _Run.seed_offset


def make_rng(seed: int) -> np.random.Generator:
    """Return a generator of ``shift_seed(seed)``."""
    return np.random.default_rng(shift_seed(seed))


def assert_below(value: float, bound: float, name: str) -> None:
    """Assert ``value < bound`` (positive) and write down the room: the share of the bound that was not used."""
    _write_room(name, float(value), float(bound), 1.0 - float(value) / float(bound))
    assert value < bound, f"{name}: {value:.4g}, expected below {bound:.4g}"


def assert_above(value: float, bound: float, name: str) -> None:
    """Assert ``value > bound`` (positive) and write down the room: the share by which the value could fall."""
    room = 1.0 - float(bound) / float(value) if value > 0 else -1.0
    _write_room(name, float(value), float(bound), room)
    assert value > bound, f"{name}: {value:.4g}, expected above {bound:.4g}"


def _write_room(name: str, value: float, bound: float, room: float) -> None:
    if _Run.margins is None:
        return
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
    row = {"test": test, "name": name, "value": value, "bound": bound, "room": room}
    with _Run.margins.open("a") as file:  # one short write a row: workers share the file
        file.write(json.dumps(row) + "\n")
