"""Deviation: how far a stage made again may lie from what was recorded, where another machine makes it.

Belongs here: the tolerances and where they come from, the verdict. Does not belong here: measuring (``measuring``),
making stages again (``reproduction``).

Bits are promised where the recorded kind of processor, packages and threads are at hand. Elsewhere sums are taken in
another order and round otherwise, and training carries that on from step to step. How far, was measured
(``benchmarks/reproduction.md``): the same releases made again with other thread counts and instruction sets. A
tolerance is ten times the largest that was seen, rounded up to one figure; both errors have the larger of theirs, for
each hangs on one or two sessions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

ARRAYS, WEIGHTS, POSITIONS, MEDIAN, P90 = "arrays", "weights", "positions", "median_m", "p90_m"

TOLERANCES = {ARRAYS: 2e-5, WEIGHTS: 3e-3, POSITIONS: 2e-2, MEDIAN: 8e-3, P90: 8e-3}
"""Largest difference that another thread count or instruction set may make.

``arrays``: of features, as a share of the largest value; ``weights``: as a share of the largest weight; ``positions``:
distance between two answers to a test session, in standard deviations of the recorded one (root of the mean variance);
``median_m``, ``p90_m``: of the error on the test sessions, as a share.
"""

MACHINE = (
    "accelerator", "cpu_capability", "instruction_limits", "machine", "num_processors", "package ", "processor",
    "python", "system", "threads",
)  # fmt: skip
"""How the names of what explains other bits begin; another commit or another container does not."""

THREADS_SETTING = "TrainingSpec.num_threads "
"""Begins the line about the one setting that is asked of the machine and decides nothing but the order of sums."""


class Verdict(StrEnum):
    """How a model came out again."""

    SAME = "same"
    WITHIN = "within"
    DIFFERS = "differs"


@dataclass(frozen=True)
class Measure:
    """One figure of how far a stage made again lies from what was recorded.

    Attributes:
        name: what was compared.
        difference: how far, in ``unit``; infinite: no number says.
        unit: of the difference.
        then, now: the figure itself, where there is one.
        tolerance: largest difference that another machine may make; None: told, not judged.
    """

    name: str
    difference: float
    unit: str
    then: float | None = None
    now: float | None = None
    tolerance: float | None = None

    @property
    def is_within(self) -> bool:
        return self.tolerance is None or self.difference <= self.tolerance

    def describe(self) -> str:
        """Return one line."""
        values = "" if self.then is None or self.now is None else f" {self.then:.6g} then, {self.now:.6g} now;"
        judged = "" if self.tolerance is None else f" (tolerance {self.tolerance:g})"
        return f"{self.name}:{values} difference {self.difference:.3g} {self.unit}{judged}"


@dataclass(frozen=True)
class Remade:
    """One stage made again.

    Attributes:
        stage: its name.
        rules: in words, what decided it otherwise: settings, code version, rows that were read.
        results: in words, what came out otherwise.
        node: digest of its manifest then and now.
        measures: by how much it differs.
        is_measured: whether ``measures`` are of everything in ``results``.
    """

    stage: str
    rules: list[str]
    results: list[str]
    node: tuple[str, str] = ("", "")
    measures: list[Measure] = field(default_factory=list)
    is_measured: bool = False

    @property
    def differences(self) -> list[str]:
        """All that differs, in words; empty: it is the same."""
        return [*self.rules, *self.results]

    @property
    def is_within(self) -> bool:
        """Whether it differs by no more than another machine may make it."""
        decided = [line for line in self.rules if not line.startswith(THREADS_SETTING)]
        measured = self.is_measured and all(measure.is_within for measure in self.measures)
        return not decided and (measured or not self.results)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; an infinite difference is null."""
        measures = [{**asdict(measure), "is_within": measure.is_within} for measure in self.measures]
        then, now = self.node
        node = {"then": then, "now": now}
        return {"stage": self.stage, "differences": self.differences, "node": node, "measures": measures}


def judge_stages(stages: Sequence[Remade], environment: Mapping[str, Any]) -> Verdict:
    """Return how a model came out.

    Args:
        stages: all that were made again.
        environment: name -> what is not as it was when the model was trained.
    """
    other = [stage for stage in stages if stage.differences]
    if not other:
        return Verdict.SAME
    threads = any(line.startswith(THREADS_SETTING) for stage in other for line in stage.rules)
    explained = threads or any(name.startswith(MACHINE) for name in environment)
    return Verdict.WITHIN if explained and all(stage.is_within for stage in other) else Verdict.DIFFERS
