"""Loss curve: how a training went, epoch by epoch, beside what it started from.

Belongs here: drawing. Dagster's own plots have the clock as their axis and mix the runs; this one has epochs, of one
training.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heimdall_assets.counts import say_count
from heimdall_assets.evaluation.drawing import COLOURS, CURVE_HEIGHT_IN, QUIET, WIDTH_IN, encode_svg, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 3.0
"""A first epoch that is this many times farther off than all later ones are apart is cut off, not they squeezed."""


def plot_losses(history: Sequence[Mapping[str, float]], facts: Mapping[str, Any]) -> bytes:
    """Return training and validation loss over epochs as SVG, the start as a line and the chosen epoch marked.

    Args:
        history: one mapping an epoch: ``epoch`` (from 0; people count from 1), ``train_loss``, ``val_loss``.
        facts: ``initial_val_loss``, ``best_epoch`` (None: no epoch was better than the start), ``best_val_loss``.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(WIDTH_IN, CURVE_HEIGHT_IN)
    axes = figure.add_subplot()
    epochs = [record["epoch"] + 1 for record in history]
    for name, label, colour, mark in (
        ("train_loss", "training", COLOURS[0], "o"),
        ("val_loss", "validation", COLOURS[1], "s"),
    ):
        values = [record[name] for record in history]
        axes.plot(epochs, values, f"{mark}-", color=colour, markersize=3, linewidth=1.4, label=label)
    start = facts.get("initial_val_loss")
    if start is not None:
        axes.axhline(start, linestyle="--", color=QUIET, linewidth=1.2, label=f"validation before training {start:.3f}")
    axes.set_title(_draw_choice(axes, facts, len(epochs)), fontsize=9, loc="left")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _cut_off(axes, history, start)
    axes.grid(True, alpha=0.3)
    axes.legend(loc="best", fontsize=7, framealpha=0.8)
    return encode_svg(figure)


def _draw_choice(axes: "Axes", facts: Mapping[str, Any], num_epochs: int) -> str:
    """Mark the epoch whose weights were kept, and return the sentence that says which."""
    best, loss = facts.get("best_epoch"), facts.get("best_val_loss")
    if best is None or loss is None:
        return f"none of {say_count(num_epochs, 'epoch')} beat the start: weights as before training"
    said = f"kept: epoch {best + 1}, {loss:.3f}"
    axes.plot([best + 1], [loss], "*", color="black", markersize=13, label=said, zorder=5)
    return f"{say_count(num_epochs, 'epoch')}, weights of epoch {best + 1} kept"


def _cut_off(axes: "Axes", history: Sequence[Mapping[str, float]], start: float | None) -> None:
    """Let a wild beginning leave the frame where it would press all that follows into a line."""
    late = [record[name] for record in history[len(history) // 4 :] for name in ("train_loss", "val_loss")]
    late += [] if start is None else [start]
    if not late:
        return
    low, high = min(late), max(late)
    everything = [record[name] for record in history for name in ("train_loss", "val_loss")]
    span = max(high - low, 1e-6)
    if max(everything) > high + SHOWN * span:
        axes.set_ylim(low - 0.1 * span, high + 0.5 * span)
