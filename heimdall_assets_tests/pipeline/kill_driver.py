"""Kills each step at its state-changing calls, each time on a copy of the home before it, and runs the step again.

``python -m heimdall_assets_tests.pipeline.kill_driver FOLDER PLAN`` prints what it found as JSON. A process of its own,
in which nothing computes: forking is only safe where there are no threads. What computes is a child; it finds every
library loaded.

State-changing calls are those of ``FileSystem``, the commit of every transaction that writes, and each removal of a
file or folder of scratch.
"""

import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2.loaders  # noqa: F401
import jsonschema.validators  # noqa: F401
import onnxruntime  # noqa: F401
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401
import sqlalchemy.dialects.sqlite  # noqa: F401

import heimdall_assets.learning.export.onnx_file
import heimdall_assets.learning.fitting.training  # noqa: F401
from heimdall_assets.lineage.provenance import _load_validator
from heimdall_assets.stores.computing import Computation
from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects import shards
from heimdall_assets.stores.objects.files import FileSystem
from heimdall_assets_tests.forks import KILLED, end_child, in_child, need, start_child
from heimdall_assets_tests.pipeline.golden_world import open_stores_of, open_world
from heimdall_assets_tests.pipeline.kill_steps import (
    STEPS,
    Made,
    Work,
    describe,
    find_half_done,
    find_unfinished,
)
from heimdall_assets_tests.pipeline.kill_wrong_orders import WRONG_ORDERS
from heimdall_assets_tests.stores.faults import CHANGES

Trial = tuple[str, int, bool]
"""A step, the number of a call in it, and whether the kill comes after that call rather than before."""

SHARD_BYTES = 200_000  # several shards even of a tiny world

WRONG_STRIDE = 8
"""Calls from one kill to the next where an order is wrong: each is wrong for more calls than that, but the first."""


@dataclass
class Plan:
    """Which trials: the steps by how many of their calls (0: every one), ``after`` as well as before each of them.

    ``wrong`` gives orders of writing that must be noticed, and the step in which.
    """

    steps: dict[str, int]
    after: bool = False
    wrong: dict[str, str] = field(default_factory=dict)
    workers: int = 1


@dataclass
class Known:
    """What a step starts from, and what it comes to where nobody kills it."""

    home: Path
    made: Made
    before: dict[str, Any]
    after: dict[str, Any] = field(default_factory=dict)
    result: Made = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)


@dataclass
class Calls:
    """The state-changing calls of this process: listed, and deadly at number ``at``."""

    at: int = 0
    after: bool = False
    names: list[str] = field(default_factory=list)

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        self.names.append(name)
        if len(self.names) != self.at:
            return call()
        if self.after:
            call()
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Have every such call of this process, which ends soon, pass through ``around``."""
        for name in CHANGES:
            self._replace(FileSystem, name, name)
        plain_commit = Database._commit_sqlite

        def commit(database: Database, connection: Any) -> None:
            if connection.get_execution_options().get("heimdall_writes"):
                self.around("commit", lambda: plain_commit(database, connection))
            else:
                plain_commit(database, connection)

        Database._commit_sqlite = commit
        plain_rmtree = shutil.rmtree

        def rmtree(*arguments: Any, **options: Any) -> None:
            with_unlink, with_rmdir = os.unlink, os.rmdir
            self._replace(os, "unlink", "scratch: remove")
            self._replace(os, "rmdir", "scratch: remove_folder")
            try:
                plain_rmtree(*arguments, **options)
            finally:
                os.unlink, os.rmdir = with_unlink, with_rmdir

        shutil.rmtree = rmtree

    def _replace(self, holder: Any, attribute: str, name: str) -> None:
        plain = getattr(holder, attribute)

        def counted(*arguments: Any, **options: Any) -> Any:
            return self.around(name, lambda: plain(*arguments, **options))

        setattr(holder, attribute, counted)


def _run(step: str, home: Path, made: Made, calls: Calls | None = None) -> Made:
    stores = open_stores_of(home)
    if calls is not None:
        stores.measurements.close()
        calls.watch()
        stores = open_stores_of(home)  # its engines listen to what is watched now
    return STEPS[step](Work(stores, made))


def _begin(home: Path) -> dict[str, Any]:
    return describe(open_world(home))


def _run_counted(step: str, home: Path, made: Made) -> tuple[Made, list[str], dict[str, Any]]:
    calls = Calls()
    result = _run(step, home, made, calls)
    return result, calls.names, describe(open_stores_of(home))


def prepare(folder: Path, last: str) -> dict[str, Known]:
    """Return what is known of each step up to ``last``, with a copy of the home before it."""
    home, made = folder / "untouched", {}
    state = need(in_child(_begin, home))
    known = {}
    for step in STEPS:
        known[step] = Known(folder / f"before-{step}", dict(made), state)
        shutil.copytree(home, known[step].home)
        known[step].result, known[step].calls, state = need(in_child(_run_counted, step, home, made))
        known[step].after = state
        made.update(known[step].result)
        if step == last:
            break
    return known


def _run_deadly(step: str, home: Path, made: Made, calls: Calls, wrong: str) -> None:
    if wrong:
        WRONG_ORDERS[wrong]()
    _run(step, home, made, calls)


def _judge(step: str, home: Path, known: Known, put_right: bool) -> list[str]:
    """Return what is wrong with a home whose step was killed: as it lies, and after the step ran again."""
    stores: Stores = open_stores_of(home)
    broken = find_half_done(stores, known.before, known.after)
    if put_right:  # as every door does before a run
        stores.releases.put_right()
        broken += [f"after putting right: {line}" for line in find_half_done(stores, known.before, known.after)]
        published = {record["version"] for record in stores.releases.list_releases()}
        broken += [f"half made: {name}" for name in describe(stores)["folders"] if name not in published]
    found = _run(step, home, known.made)
    if found != known.result:
        broken.append(f"run again it made {found}, expected {known.result}")
    return broken + find_unfinished(open_stores_of(home), home, known.after)


def choose(count: int, wanted: int) -> list[int]:
    """Return which calls of ``count`` are deadly: each (``wanted`` 0), or some, the first and the last among them."""
    if not wanted or wanted >= count:
        return list(range(1, count + 1))
    if wanted == 1:
        return [(count + 1) // 2]
    return sorted({1 + round(number * (count - 1) / (wanted - 1)) for number in range(wanted)})


def list_trials(plan: Plan, known: dict[str, Known]) -> list[Trial]:
    """Return every trial: step, call, whether after it."""
    trials = []
    for step, wanted in plan.steps.items():
        count = len(known[step].calls)
        chosen = choose(count, wanted)
        # Right after a call is right before the next one, but for what happens in memory between the two.
        trials += [(step, at, False) for at in chosen]
        trials += [(step, at, True) for at in (chosen if plan.after else [count])]
    return trials


def try_one(trial: Trial, known: Known, home: Path, wrong: str = "") -> list[str]:
    """Return what one kill broke."""
    step, at, after = trial
    shutil.copytree(known.home, home)
    try:
        status, said = in_child(_run_deadly, step, home, known.made, Calls(at, after), wrong)
        if status != KILLED:
            return [f"was not killed but ended with {status}: {said}"]
        status, found = in_child(_judge, step, home, known, at % 2 == 0)
        return list(found) if status == 0 else [f"run again it ended with {status}: {found}"]
    finally:
        shutil.rmtree(home)


def find_noticed(wrong: str, step: str, known: Known, home: Path) -> list[str]:
    """Return what a kill broke in a step that writes in a wrong order, the latest such kill; empty: none broke any."""
    kills = ((step, at, False) for at in range(len(known.calls), 0, -WRONG_STRIDE))
    return next((found for kill in kills if (found := try_one(kill, known, home, wrong))), [])


def try_each(trials: list[Trial], known: dict[str, Known], home: Path) -> dict[str, list[str]]:
    """Return what each of some kills broke, by step and call; those that broke nothing are not in it."""
    broken = {}
    for trial in trials:
        step, at, after = trial
        if found := try_one(trial, known[step], home):
            name = f"{step}, {'after' if after else 'before'} call {at} ({known[step].calls[at - 1]})"
            broken[name] = [line[-2000:] for line in found]
    return broken


def main(folder: Path, plan: Plan) -> dict[str, Any]:
    """Do every trial of a plan; return the calls of each step, how many trials there were, and what they broke."""
    told = Computation().describe()
    Computation.describe = lambda _: told  # asks clock and git, whose answers change from trial to trial
    shards.SHARD_BYTES = SHARD_BYTES
    _load_validator()  # kept for the children, none of which needs another
    gc.freeze()  # what is loaded is not looked through in every child, which would copy its pages
    known = prepare(folder, max(plan.steps, key=list(STEPS).index))
    trials = list_trials(plan, known)
    workers = [
        start_child(try_each, trials[number :: plan.workers], known, folder / f"trial-{number}")
        for number in range(plan.workers)
    ]
    broken = {}
    for worker in workers:
        broken |= need(end_child(*worker))
    noticed = {
        wrong: find_noticed(wrong, step, known[step], folder / "trial-wrong") for wrong, step in plan.wrong.items()
    }
    calls = {step: known[step].calls for step in plan.steps}
    return {"calls": calls, "num_trials": len(trials), "broken": broken, "noticed": noticed}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Plan(**json.loads(sys.argv[2])))))
