"""Range curve: what the learning-rate finder saw, the loss over the rate, and the rate that it chose.

Belongs here: drawing. Does not belong here: the test (``learning.fitting.range_test``), whose facts are drawn.
"""

from collections.abc import Mapping
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.evaluation.drawing import COLOURS, CURVE_HEIGHT_IN, WIDTH_IN, encode_svg, new_figure


def plot_range(search: Mapping[str, Any]) -> bytes:
    """Return the loss over the learning rate as SVG, the chosen rate marked.

    Args:
        search: the fact ``learning_rate_search`` of a checkpoint: ``learning_rates``, ``losses`` (their running mean)
            and ``chosen``.
    """
    figure = new_figure(WIDTH_IN, CURVE_HEIGHT_IN)
    axes = figure.add_subplot()
    rates, losses, chosen = search["learning_rates"], search["losses"], search["chosen"]
    axes.semilogx(rates, losses, "-", color=COLOURS[0], linewidth=1.4, label="running mean of the loss")
    label = f"chosen: {chosen:.3g}, where it falls steepest"
    axes.axvline(chosen, linestyle="--", color=COLOURS[1], linewidth=1.2, label=label)
    axes.set(xlabel="learning rate", ylabel="loss")
    axes.set_title(f"range test of {say_count(len(rates), 'step')}", fontsize=9, loc="left")
    axes.grid(True, alpha=0.3)
    axes.legend(loc="best", fontsize=7, framealpha=0.8)
    return encode_svg(figure)
