"""Graph: what was reached in the index of lineage, as sets of numbers in memory, and steps within it."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.database.edges import Reached
from heimdall_assets.things import PART, Thing


@dataclass
class Graph:
    """What was reached, as sets of numbers.

    Attributes:
        things: number -> thing.
        children, parents: number -> those one step on, one step back.
        through: (used, used for) -> measurements through which it was.
    """

    things: dict[int, Thing] = field(default_factory=dict)
    children: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    parents: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    through: dict[tuple[int, int], set[int]] = field(default_factory=lambda: defaultdict(set))

    def add(self, reached: Reached) -> None:
        """Take in what was reached."""
        self.things |= reached.things
        for used, by, way in reached.edges:
            self.children[used].add(by)
            self.parents[by].add(used)
            if way:
                self.through[used, by].add(way)

    def list_of(self, kinds: Collection[str]) -> set[int]:
        """Return the things of some kinds."""
        return {number for number, (kind, _) in self.things.items() if kind in kinds}

    def name(self, number: int) -> str:
        """Return the name of a thing."""
        return self.things[number][1]

    def find_results(self, member: int) -> set[int]:
        """Return the results whose tables hold a member, or a session, in one of their parts."""
        parts = {part for part in self.children[member] if self.things[part][0] == PART}
        return {result for part in parts for result in self.children[part]}

    def find_behind(self, roots: Iterable[int]) -> set[int]:
        """Return the results that roots were made from, they themselves too."""
        found, pending = set(), list(roots)
        while pending:
            number = pending.pop()
            if number not in found and self.things[number][0] in STAGES:
                found.add(number)
                pending += self.parents[number]
        return found
