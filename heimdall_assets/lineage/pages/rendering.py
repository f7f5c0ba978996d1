"""Rendering: templates of pages, which escape whatever comes from outside, and what each page of a release tells."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from heimdall_assets.counts import say_count
from heimdall_assets.lineage.tree import describe_facts, draw_branches, show

if TYPE_CHECKING:
    from jinja2 import Environment

FIGURES = ("num_sessions", "median_m", "p90_m", "coverage_90", "median_error_over_bound")


def render(name: str, **told: Any) -> str:
    """Return the page that template ``name`` makes of what it is told."""
    return _load_environment().get_template(f"{name}.html.jinja").render(**told)


def describe_release(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the two halves of a release's page show beside its data."""
    return {
        "provenance": provenance,
        "tree": "\n".join(draw_branches(provenance)),
        "figures": {name: provenance["metrics"].get(name) for name in FIGURES},
        "baselines": provenance["metrics"].get("baselines", {}),
        "released": ", ".join(describe_facts(provenance["released"], "released")),
    }


def show_moment(time: str | None) -> str:
    """Return a time in UTC to the second, for a table.

    Examples:
        >>> show_moment("2026-01-01T13:17:00.230204+00:00"), show_moment(None)
        ('2026-01-01 13:17:00', '-')
    """
    return "-" if time is None else time[:19].replace("T", " ")


@cache
def _load_environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("heimdall_assets.lineage.pages", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": show, "count": say_count, "moment": show_moment}
    environment.filters["facts"] = lambda facts: ", ".join(describe_facts(facts)) or "-"
    return environment
