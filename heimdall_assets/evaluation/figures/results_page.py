"""Results page: an evaluation with all its figures, or a model card, as one page that opens offline.

Belongs here: wording and layout. Every number and every picture was made before; the page has styles inside, pictures
as data, no script and no address but the links it is handed.
"""

import base64
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from heimdall_assets.evaluation.figures.templates import load_template
from heimdall_assets.evaluation.model_card import (
    render_accuracy_table,
    render_calibration_table,
    render_metrics_table,
    render_strata_table,
)
from heimdall_assets.evaluation.signals_table import render_signals_table

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

PAGE = "results_page.html.jinja"

CAPTIONS = {
    "error_cdf": "Share of test sessions below each error, beside every baseline and the physical bound.",
    "losses": "How the training went: loss over epochs, what it started from, and the epoch that was kept.",
    "rates": "The range test before it: the loss over the learning rate, and the rate that was taken.",
    "error_vectors": "Estimate minus truth of each test session, the truth in the middle.",
    "error_map": "Receivers and the sources of the test sessions, each in the colour of its error.",
    "reliability": "Stated against found error: an honest model lies on the line, one below it is too careful.",
}
"""Known figures in the order in which they are read; others follow."""


def render_results(
    title: str, metrics: Mapping[str, Any], figures: Mapping[str, bytes], links: Mapping[str, str]
) -> str:
    """Return the page of an evaluation: how the model compares, all figures, the tables behind them.

    Args:
        title: what is judged, such as v1.0.0.
        metrics: what ``evaluate_predictions`` gave.
        figures: name -> SVG bytes.
        links: text -> address, shown below the title.
    """
    tables = {
        "How good it is": render_metrics_table(metrics),
        "Within which radius": render_accuracy_table(metrics),
        "How honest its uncertainty is": render_calibration_table(metrics),
        "Where it is better and worse": render_strata_table(metrics),
        "What was sent and when": render_signals_table(metrics),
    }
    order = [*(name for name in CAPTIONS if name in figures), *(name for name in figures if name not in CAPTIONS)]
    return load_template(PAGE).render(
        title=f"Results of {title}",
        links=links,
        tables={name: _load_markdown().render(table) for name, table in tables.items() if table},
        figures=[
            {"data": base64.b64encode(figures[name]).decode(), "caption": CAPTIONS.get(name, name.replace("_", " "))}
            for name in order
        ],
    )


def render_card_page(version: str, card: str, links: Mapping[str, str]) -> str:
    """Return the page of a release's model card, which is Markdown."""
    body = _load_markdown().render(card)
    return load_template(PAGE).render(title=f"Model card of {version}", links=links, tables={"": body}, figures=[])


@cache
def _load_markdown() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    # HTML in it stays text: names of stations and campaigns come from outside.
    return MarkdownIt("commonmark", {"html": False}).enable("table")
