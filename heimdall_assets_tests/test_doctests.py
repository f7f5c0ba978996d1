"""What docstrings show is what the code does: every example of the words and of the work without torch runs."""

import doctest
import os
import subprocess
import sys
from importlib import import_module
from io import StringIO
from types import ModuleType

import pytest

from heimdall_assets_tests.test_house import FLOORS, HEAVY, MODULES, PACKAGE, room_of

WITH_TORCH = {"learning"}
ROOMS = (FLOORS["words"] | FLOORS["work"]) - WITH_TORCH
NAMES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in MODULES
    if room_of(path) in ROOMS
)
ROOMS_OF_NUMBERS = ("signals", "locating", "simulation", "evaluation")
FEWEST_FUNCTIONS = 8
"""Functions with an example in each room of numeric work: a finder that finds nothing proves nothing."""


def find_examples(module: ModuleType) -> list[doctest.DocTest]:
    """Return the module's docstrings that hold examples; those of imported names belong to their own module."""
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]


def run_examples(module: ModuleType) -> str:
    """Return a report of the examples that fail, "" where none does."""
    report = StringIO()
    runner = doctest.DocTestRunner(verbose=False)
    for test in find_examples(module):
        runner.run(test, out=report.write)
    return report.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_true(name: str):
    assert run_examples(import_module(name)) == ""


@pytest.mark.parametrize("room", ROOMS_OF_NUMBERS)
def test_each_room_of_numeric_work_shows_examples(room: str):
    names = [name for name in NAMES if name.startswith(f"heimdall_assets.{room}.")]
    assert sum(len(find_examples(import_module(name))) for name in names) >= FEWEST_FUNCTIONS


def test_a_false_example_is_found():
    module = ModuleType("shown")
    module.__doc__ = ">>> 1 + 1\n3\n"
    assert "Expected:\n    3\nGot:\n    2" in run_examples(module)
    module.__doc__ = ">>> 1 + 1\n2\n"
    assert run_examples(module) == ""


def test_examples_load_nothing_heavy():
    program = f"""
import sys
from importlib import import_module
from heimdall_assets_tests.test_doctests import run_examples
for name in {NAMES!r}:
    run_examples(import_module(name))
print(*{{name.split(".")[0] for name in sys.modules}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=PACKAGE.parent,
        timeout=120,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert not set(done.stdout.split()) & set(HEAVY)
