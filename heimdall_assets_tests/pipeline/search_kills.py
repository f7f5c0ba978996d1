"""Kills a search at its state-changing calls, each time on a copy of the home, and runs it again.

``python -m heimdall_assets_tests.pipeline.search_kills FOLDER PLAN`` prints what it found as JSON: the result where
nobody kills, and what came of each kill. A process of its own, in which nothing computes, so that it may fork.

State-changing calls are the commits of the study and each write of a fit's checkpoint. A kill comes before the call or,
for a checkpoint, after it too.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import optuna.importance
import sklearn.ensemble  # noqa: F401
import sqlalchemy.dialects.sqlite  # noqa: F401
from sqlalchemy import event
from sqlalchemy.engine import Engine

import heimdall_assets.learning.fitting.training  # noqa: F401
from heimdall_assets.pipeline.stages.hyperparameter_search import list_trials
from heimdall_assets.specs import SearchSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.forks import KILLED, in_child, need
from heimdall_assets_tests.homes import make_places
from heimdall_assets_tests.pipeline.searched import fill_searched, make_order, open_searched, run_search


class Calls:
    """The state-changing calls of this process, which ends soon: listed, and deadly at number ``at``."""

    def __init__(self, at: int = 0) -> None:
        self.names: list[str] = []
        self._at = at

    def watch(self) -> None:
        event.listen(Engine, "commit", lambda _: self.hear("commit"))
        plain = CheckpointFolder.write

        def write(folder: CheckpointFolder, name: str, data: bytes | memoryview) -> None:
            self.hear("before a checkpoint")
            plain(folder, name, data)
            self.hear("after a checkpoint")

        CheckpointFolder.write = write  # type: ignore[method-assign]

    def hear(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def fill(home: Path) -> None:
    open_searched(fill_searched(home))


def search(home: Path, spec: dict[str, Any], at: int) -> dict[str, Any]:
    """Search, killed at call ``at`` (0: never); return what came of it."""
    stores, splits = open_searched(make_places(home))
    order = make_order(splits, SearchSpec(**spec))
    before = [trial.number for trial in list_trials(stores, order) if trial.state.is_finished()]
    calls = Calls(at)
    calls.watch()
    result, ended = run_search(stores, order, f"run-{at}/0")
    left = [str(path) for path in stores.scratch.rglob("*.ckpt")]
    return {
        "manifest": result.manifest.digest,
        "summary": result.manifest.summary,
        "before": before,
        "ended": ended,
        "calls": calls.names,
        "left": left,
    }


def main(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    home = folder / "home"
    need(in_child(fill, home))
    whole = folder / "whole"
    shutil.copytree(home, whole)
    expected = need(in_child(search, whole, plan["search"], 0))
    shutil.rmtree(whole)
    count = len(expected["calls"])
    wanted = min(int(plan["kills"]), count)
    trials = []
    for place in range(wanted):
        at = 1 + (2 * place + 1) * count // (2 * wanted)
        copy = folder / f"killed-{at}"
        shutil.copytree(home, copy)
        status, said = in_child(search, copy, plan["search"], at)
        if status != KILLED:
            raise SystemExit(f"call {at} of {count} was not reached: {said}")
        again = need(in_child(search, copy, plan["search"], 0))
        trials.append({"at": at, "call": expected["calls"][at - 1], **again})
        shutil.rmtree(copy)
    return {"expected": expected, "trials": trials}


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(json.dumps(main(Path(sys.argv[1]), json.loads(sys.argv[2]))))
