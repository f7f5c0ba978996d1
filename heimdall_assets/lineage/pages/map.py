"""Map: where sources and receivers are, as marks of an inline SVG; no tile and no address of anybody."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from heimdall_assets.signals.geodesy import LocalFrame

MAX_MAP_POINTS = 2000
MAP_WIDTH, MAP_HEIGHT = 760.0, 460.0
SPLIT_COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#D55E00", None: "#666666"}

Place = tuple[float, float, str | None]
"""Latitude and longitude in degrees, and what the first session from there serves."""


def draw_map(places: Sequence[Place], receivers: Iterable[tuple[float, float]]) -> dict[str, Any]:
    """Return marks in pixels of the page's map: sources by split, receivers, a scale bar.

    Args:
        places: of sources, each once; at most ``MAX_MAP_POINTS`` of them are drawn, and told of how many.
        receivers: latitude and longitude in degrees.
    """
    shown, stations = places[:MAX_MAP_POINTS], list(receivers)[:MAX_MAP_POINTS]
    degrees = np.array([place[:2] for place in shown] + stations)
    if not len(degrees):
        return {"sources": [], "receivers": [], "width": MAP_WIDTH, "height": MAP_HEIGHT, "total": 0}
    frame = LocalFrame(*(0.5 * (degrees.min(axis=0) + degrees.max(axis=0))))
    east, north, _ = frame.to_local(degrees[:, 0], degrees[:, 1])
    span = max(float(np.ptp(east)) / (MAP_WIDTH - 60), float(np.ptp(north)) / (MAP_HEIGHT - 60), 1e-3)
    x = MAP_WIDTH / 2 + (east - 0.5 * (east.min() + east.max())) / span
    y = MAP_HEIGHT / 2 - (north - 0.5 * (north.min() + north.max())) / span
    step = 10.0 ** np.floor(np.log10(span * 200.0))
    count = len(shown)
    return {
        "sources": [
            {"x": round(float(x[i]), 1), "y": round(float(y[i]), 1), "colour": SPLIT_COLOURS.get(split, "#666666")}
            for i, (_, _, split) in enumerate(shown)
        ],
        "receivers": [
            {"x": round(float(a), 1), "y": round(float(b), 1)} for a, b in zip(x[count:], y[count:], strict=True)
        ],
        "width": MAP_WIDTH,
        "height": MAP_HEIGHT,
        "total": len(places),
        "bar": round(step / span, 1),
        "bar_label": f"{step / 1000:g} km" if step >= 1000 else f"{step:g} m",
        "colours": {name or "unused": colour for name, colour in SPLIT_COLOURS.items()},
    }
