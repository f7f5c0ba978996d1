"""Figures and tables as metadata that Dagster's page shows without a click.

The page draws Markdown where it stands only if it is shorter than 1000 characters, and behind a button else. A picture
is therefore the address of one that the lineage pages serve, which also keeps the events of a run small.
"""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import dagster as dg

from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import SVG_MEDIA_TYPE

INLINE_LENGTH = 1000
"""Characters of Markdown from which on Dagster's page hides it behind "Show Markdown"."""
EACH, LAST_EPOCHS, VERDICT_WIDTH = 10, 12, 60
FIRST = ("error_vectors", "error_map", "error_cdf", "reliability")
"""Figures in the order in which they are shown; others follow."""


def show_comparison(metrics: Mapping[str, Any]) -> dict[str, dg.MarkdownMetadataValue]:
    """Return the model beside baselines and bound as a table, and in a sentence how it compares."""
    from heimdall_assets.evaluation.model_card import describe_verdict, render_short_table

    shown = {"comparison": dg.MetadataValue.md(render_short_table(metrics))}
    # Broken by hand: the longest entry of the page's table decides how wide the others become, cut off or not.
    verdict = "  \n".join(wrap(" ".join(describe_verdict(metrics)), VERDICT_WIDTH))
    return {**shown, "verdict": dg.MetadataValue.md(verdict[: INLINE_LENGTH - 1])} if verdict else shown


def show_picture(title: str, address: str) -> dg.MarkdownMetadataValue:
    """Return the picture at ``address``, which the page draws where it stands."""
    return dg.MetadataValue.md(f"![{title}: served by heimdall ui]({address})")


def is_told(epoch: int) -> bool:
    """Return whether the page hears of ``epoch`` (from 0): of the first ten, then of each tenth.

    The page draws an asset's last hundred events: were every epoch one, its curves would hold two or three trainings.
    """
    return epoch < EACH or (epoch + 1) % EACH == 0


def show_epochs(seen: Sequence[Mapping[str, float]], epoch: int, total: int) -> dict[str, Any]:
    """Return how a training stands after ``epoch`` (from 0) of at most ``total``, its last epochs as a table.

    As text: a number would be drawn over the clock, in one curve with the epochs of every run before.

    Args:
        seen: metrics of the epochs of this process, the newest last.
    """
    first = epoch + 1 - len(seen)
    lines = ["| epoch | training loss | validation loss |", "|---|---|---|"]
    for number, metrics in list(enumerate(seen, first))[-LAST_EPOCHS:]:
        lines.append(f"| {number} | {metrics['train_loss']:.4f} | {metrics['val_loss']:.4f} |")
    best = min(range(len(seen)), key=lambda place: seen[place]["val_loss"])
    return {
        "epochs": f"{epoch + 1} of at most {total}",
        "best_so_far": f"epoch {first + best}, validation loss {seen[best]['val_loss']:.4f}",
        "losses_so_far": dg.MetadataValue.md("\n".join(lines)),
    }


def show_figures(address: str, manifest: Manifest) -> dict[str, dg.MarkdownMetadataValue]:
    """Return each SVG artifact of ``manifest`` as a picture below ``address``."""
    names = [
        name.removesuffix(".svg") for name, part in manifest.artifacts.items() if part.media_type == SVG_MEDIA_TYPE
    ]
    ordered = [*(name for name in FIRST if name in names), *(name for name in names if name not in FIRST)]
    return {name: show_picture(name.replace("_", " "), f"{address}/{name}.svg") for name in ordered}
