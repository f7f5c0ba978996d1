"""Drawing: figures as small SVG files, the same bytes each time, in colours that every kind of vision tells apart.

Belongs here: what all plots share. Does not belong here: what is drawn.
"""

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito, colours that every kind of colour vision tells apart.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#666666"]
QUIET = "#666666"
WIDTH_IN, CURVE_HEIGHT_IN, MAP_HEIGHT_IN = 5.2, 3.4, 4.9
"""Inches; a picture in the page has some 510 pixels of width on a common screen."""


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of so many inches that lays itself out."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def encode_svg(figure: "Figure") -> bytes:
    """Return the figure as SVG without date, tool or random ids; text stays text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    with rc_context({"svg.hashsalt": "heimdall", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)
    return buffer.getvalue()


def encode_png(figure: "Figure") -> bytes:
    """Return the figure as PNG without date or tool."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def round_down(value: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not above ``value`` > 0.

    Examples:
        >>> [round_down(value) for value in (1.0, 3.7, 0.06, 990.0)]
        [1.0, 2.0, 0.05, 500.0]
    """
    power = 10.0 ** math.floor(math.log10(value))
    return float(max(step * power for step in (1.0, 2.0, 5.0) if step * power <= value * (1 + 1e-9)))


def describe_length(metres: float) -> str:
    """Return a round length with its unit.

    Examples:
        >>> [describe_length(value) for value in (0.5, 200.0, 50_000.0)]
        ['0.5 m', '200 m', '50 km']
    """
    return f"{metres / 1e3:g} km" if metres >= 1e3 else f"{metres:g} m"


def draw_scale_bar(axes: "Axes", metres_per_unit: float) -> None:
    """Draw a bar of a round length, a fifth to a half of the width, into the lower right corner of a map."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    metres = round_down(0.35 * (right - left) * metres_per_unit)
    end, start = right - 0.05 * (right - left), right - 0.05 * (right - left) - metres / metres_per_unit
    height = low + 0.05 * (high - low)
    axes.plot([start, end], [height, height], "-", color="black", linewidth=2.5, solid_capstyle="butt")
    axes.annotate(
        describe_length(metres), (0.5 * (start + end), height), xytext=(0, 3), textcoords="offset points",
        ha="center", va="bottom", fontsize=8,
    )  # fmt: skip


def put_legend(axes: "Axes") -> None:
    """Put the legend above the axes, where it covers nothing."""
    options: dict[str, Any] = {
        "loc": "lower left",
        "bbox_to_anchor": (0.0, 1.0),
        "frameon": False,
        "borderaxespad": 0.2,
    }
    axes.legend(**options, ncols=4, fontsize=8, handletextpad=0.3, columnspacing=1.2)


def pick_evenly(rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return at most ``limit`` of ``rows``, first and last among them; none of none."""
    if not len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), limit)).astype(np.int64)]
