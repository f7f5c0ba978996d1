"""Session map: receivers, the place that is claimed and the one that is computed, as marks of an inline SVG.

Two views: the network, and close by, where an ellipse of some metres can be seen beside the claim. No tile and no
address of anybody. Belongs here: geometry in pixels. Does not belong here: the template that draws them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.drawing import describe_length, round_down
from heimdall_assets.signals.geodesy import LocalFrame

WIDTH, HEIGHT, EDGE = 440.0, 360.0, 44.0
_CORNERS = 72
_LETTER = 6.3
"""Pixels that a letter of a name takes."""
_SMALLEST_M = 20.0
"""Half a width of the closest view: below it nothing is known."""

Degrees = tuple[float, float]


@dataclass(frozen=True)
class Claim:
    """Where a transmitter is said to be: latitude and longitude in degrees, and one sigma of doubt in metres."""

    place: Degrees
    margin_m: float


@dataclass(frozen=True)
class _View:
    frame: LocalFrame
    east_m: float
    north_m: float
    m_per_px: float

    def place(self, east_m: Any, north_m: Any) -> list[tuple[float, float]]:
        x = WIDTH / 2 + (np.atleast_1d(east_m) - self.east_m) / self.m_per_px
        y = HEIGHT / 2 - (np.atleast_1d(north_m) - self.north_m) / self.m_per_px
        return [(round(float(a), 1), round(float(b), 1)) for a, b in zip(x, y, strict=True)]


def draw_views(
    receivers: Sequence[tuple[str, Degrees]], claim: Claim | None, found: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return the views that can be drawn, each with ``title`` and marks in pixels: two, one, or none.

    Args:
        receivers: name and place of each.
        claim: where the transmitter is said to be; None: nowhere.
        found: ``latitude``, ``longitude`` and ``ellipse_90`` of the estimate; None: there is none.
    """
    places = [place for _, place in receivers]
    ends = [*([claim.place] if claim else []), *([(found["latitude"], found["longitude"])] if found else [])]
    if not [*places, *ends]:
        return []
    frame = LocalFrame(*np.mean([*places, *ends], axis=0))
    views = []
    if places:
        view = _fit(frame, [_to_local(frame, place) for place in [*places, *ends]], _SMALLEST_M)
        views.append({"title": "The network", **_draw(view, receivers, claim, found)})
    if ends:
        shown = [_to_local(frame, place) for place in ends]
        shown += [tuple(point) for point in _trace(frame, found).T] if found else []
        if claim:
            east_m, north_m = _to_local(frame, claim.place)
            reach_m = claim.margin_m
            shown += [(east_m - reach_m, north_m - reach_m), (east_m + reach_m, north_m + reach_m)]
        view = _fit(frame, shown, _SMALLEST_M)
        views.append({"title": "Claim and estimate", **_draw(view, receivers, claim, found)})
    return views


def _to_local(frame: LocalFrame, place: Degrees) -> tuple[float, float]:
    east, north, _ = frame.to_local(*place)
    return float(east), float(north)


def _trace(frame: LocalFrame, found: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the outline of the 90 % ellipse, (2, N), east and north in metres."""
    ellipse, turn = found["ellipse_90"], np.linspace(0.0, 2.0 * np.pi, _CORNERS, endpoint=False)
    azimuth = np.deg2rad(ellipse["azimuth_deg"])
    along, across = ellipse["semi_major_m"] * np.cos(turn), ellipse["semi_minor_m"] * np.sin(turn)
    east, north = _to_local(frame, (found["latitude"], found["longitude"]))
    return np.stack(
        [
            east + along * np.sin(azimuth) + across * np.cos(azimuth),
            north + along * np.cos(azimuth) - across * np.sin(azimuth),
        ]
    )


def _fit(frame: LocalFrame, points: Sequence[tuple[float, float]], smallest_m: float) -> _View:
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    span_m = np.maximum(high - low, 2.0 * smallest_m)
    scale = max(float(span_m[0]) / (WIDTH - 2 * EDGE), float(span_m[1]) / (HEIGHT - 2 * EDGE))
    middle = 0.5 * (low + high)
    return _View(frame, float(middle[0]), float(middle[1]), scale)


def _draw(
    view: _View, receivers: Sequence[tuple[str, Degrees]], claim: Claim | None, found: Mapping[str, Any] | None
) -> dict[str, Any]:
    bar_m = round_down(0.3 * WIDTH * view.m_per_px)
    marks: dict[str, Any] = {
        "width": WIDTH,
        "height": HEIGHT,
        "bar": round(bar_m / view.m_per_px, 1),
        "bar_label": describe_length(bar_m),
        "receivers": _label(
            [
                (name, x, y)
                for name, place in receivers
                for x, y in view.place(*_to_local(view.frame, place))
                if 0 <= x <= WIDTH and 0 <= y <= HEIGHT
            ]
        ),
        "claim": None,
        "found": None,
    }
    if claim is not None:
        ((x, y),) = view.place(*_to_local(view.frame, claim.place))
        marks["claim"] = {"x": x, "y": y, "r": round(claim.margin_m / view.m_per_px, 1)}
    if found is not None:
        ((x, y),) = view.place(*_to_local(view.frame, (found["latitude"], found["longitude"])))
        outline = view.place(*_trace(view.frame, found))
        marks["found"] = {"x": x, "y": y, "outline": " ".join(f"{a},{b}" for a, b in outline)}
    return marks


def _label(points: Sequence[tuple[str, float, float]]) -> list[dict[str, Any]]:
    """Return marks with their names where these cover neither each other nor a mark; one that fits nowhere has none."""
    taken = [(x - 6.0, y - 7.0, x + 6.0, y + 5.0) for _, x, y in points]
    marks = []
    for name, x, y in points:
        length, label = _LETTER * len(name), None
        for anchor, at_x, at_y, left in (
            ("start", x + 9, y + 4, x + 9),
            ("end", x - 9, y + 4, x - 9 - length),
            ("middle", x, y - 10, x - length / 2),
            ("middle", x, y + 17, x - length / 2),
        ):
            box = (left, at_y - 9.0, left + length, at_y + 2.0)
            inside = box[0] >= 0 and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - 26
            if inside and not any(_overlap(box, other) for other in taken):
                label = {"anchor": anchor, "x": round(at_x, 1), "y": round(at_y, 1)}
                taken.append(box)
                break
        marks.append({"name": name, "x": x, "y": y, "label": label})
    return marks


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
