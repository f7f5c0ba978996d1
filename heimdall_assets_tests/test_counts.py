"""Counts: one of something is no plural, in no message and no table."""

import ast
import re
from typing import Any

import pytest

from heimdall_assets.counts import say_count
from heimdall_assets.lineage.tree import _pick_counts
from heimdall_assets_tests.package_names import PACKAGE, read_modules


@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_thing_is_no_plural(number: int):
    assert say_count(number, "released model") == f"{number} released model{'' if number == 1 else 's'}"


def test_a_tree_counts_as_people_do():
    provenance: dict[str, Any] = {"num_sessions": 1, "num_sessions_without_delays": 1, "num_pairs": 2}
    assert _pick_counts(provenance) == ["2 pairs", "1 session", "1 session without delay"]


NOUNS = r"(more |released |approved |pending |usable |test |training )?(\w+ )?"
COUNTED = re.compile(
    " " + NOUNS + r"(sessions|models|releases|receivers|stations|measurements|sites|events|recordings)\b"
)
LEFT = {
    # Reasons that stand in stored results: another wording would be another result.
    "locating/classical.py", "pipeline/stages/features.py", "pipeline/releases/promotion.py", "signals/alignment.py",
    # Never one: what differs between two, or what a setting asks for.
    "stores/database/additions.py", "signals/delays.py", "learning/session_model/feed.py", "tables/receiver_list.py",
    "pipeline/retraining/policy.py", "evaluation/model_card.py", "cli/running.py",
}  # fmt: skip


def find_fixed_plurals(tree: ast.AST) -> list[int]:
    """Lines on which a value in an f-string stands before a noun in the plural, other than as in "3 of 5 sessions"."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for before, value, after in zip(["", *node.values], node.values, node.values[1:], strict=False)
        if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant)
        if not (isinstance(before, ast.Constant) and str(before.value).endswith(" of "))
        if COUNTED.match(str(after.value))
    ]


def test_no_message_counts_in_a_fixed_plural():
    found = {
        str(module.path.relative_to(PACKAGE)): find_fixed_plurals(module.tree) for module in read_modules().values()
    }
    assert {name: lines for name, lines in found.items() if lines and name not in LEFT} == {}
    assert find_fixed_plurals(ast.parse('f"{len(rows)} released models; all"')) == [1]
    assert find_fixed_plurals(ast.parse('f"found 0 of {total} sessions"')) == []
