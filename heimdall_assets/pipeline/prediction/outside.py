"""Outside: how what a released model is asked about differs from all that it was trained on, a line each.

Belongs here: frequency, place, receivers and clocks of a training beside those of a session. Does not belong here:
drift of whole data sets (``pipeline.drift``), what the model answers.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from heimdall_assets.counts import say_count
from heimdall_assets.errors import CannotLocate
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, TRAIN_SPLIT
from heimdall_assets.pipeline.prediction.released import Released
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.signals.geodesy import FloatArray, compute_centre, compute_distance_m
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

if TYPE_CHECKING:
    import pandas as pd

BAND_RATIO = 1.25
"""Frequencies this far apart belong to another band: what waves meet, antennas and noise are others."""

SAME_PLACE_M = 1000.0
"""A receiver this near to one of the training stands where that stood."""

AREA_RATIO = 2.0
"""Receivers farther from the middle of the training than this many times its radius are of another area."""

PLACE_DECIMALS = 3
"""Of degrees, about 100 m: places of moving receivers closer together than this are one."""


@dataclass(frozen=True)
class Outside:
    """What is outside of a training, a line each, and whether the whole area is."""

    remarks: list[str]
    is_other_area: bool


def remark_outside(stores: Stores, released: Released, rows: "pd.DataFrame") -> list[str]:
    """Return a line for each way in which ``rows`` are outside of what a released model was trained on.

    Args:
        stores: where its training rests.
        released: the model.
        rows: ``domain.APPROVED_COLUMNS`` of what it is asked about.

    Raises:
        CannotLocate: a model of one receiver is asked about another area.
    """
    found = find_outside(read_trained(stores, released), rows)
    return tell_outside(found, released.version, released.graph.kind)


def read_trained(stores: Stores, released: Released) -> "pd.DataFrame":
    """Return the rows, ``domain.APPROVED_COLUMNS``, that a released model was trained on."""
    snapshot = read_parent(stores.objects, released.manifest, APPROVED_MEASUREMENTS)
    split = read_parent(stores.objects, released.manifest, TRAIN_SPLIT)
    table = load_table(stores.objects, snapshot.artifacts["table"])
    chosen = load_table(stores.objects, split.artifacts["table"])["session_id"]
    return table[table["session_id"].isin(set(chosen))]


def tell_outside(found: Outside, version: str, kind: str) -> list[str]:
    """Return what is said of a model of ``kind`` that is asked about what is outside of its training.

    A model of whole sessions is carried by the delays between receivers, wherever they stand, and answers, with a doubt
    that was calibrated inside. A model of one receiver has its training's places alone to answer with.

    Raises:
        CannotLocate: a model of one receiver is asked about another area.
    """
    if found.is_other_area and kind == "single_receiver":
        raise CannotLocate(
            f"model {version}: a single_receiver model knows no places but those of its training; "
            + "; ".join(found.remarks)
        )
    if not found.remarks:
        return []
    return [
        *(f"outside of the training of {version}: {remark}" for remark in found.remarks),
        "its ellipse was calibrated inside of its training and may be too small here; heimdall locate learned nothing",
    ]


def find_outside(trained: "pd.DataFrame", rows: "pd.DataFrame") -> Outside:
    """Return how ``rows`` differ from those that a model was trained on, both ``domain.APPROVED_COLUMNS``."""
    remarks = _compare_frequency(trained, rows)
    place = _compare_place(trained, rows)
    clocks = sorted(set(trained["clock_class"]))
    other = sorted(set(rows["clock_class"]) - set(clocks))
    if other:
        remarks.append(f"clock {', '.join(other)}, trained with {', '.join(clocks)}")
    return Outside([*remarks, *_compare_observed(trained, rows), *place.remarks], place.is_other_area)


def _compare_observed(trained: "pd.DataFrame", rows: "pd.DataFrame") -> list[str]:
    """Return what is observed that nothing was learned from: a model reads bearings where its training had some."""
    remarks = []
    if _has_any(rows, "bearing_deg") and not _has_any(trained, "bearing_deg"):
        remarks.append("bearings, trained without: they are not looked at (heimdall locate does)")
    timed = _has_any(trained, "arrival_unix_ns") or _has_any(trained, "iq_data_location")
    if _has_any(rows, "arrival_unix_ns") and not timed:
        remarks.append("arrival times, trained without")
    return remarks


def _has_any(rows: "pd.DataFrame", column: str) -> bool:
    return column in rows and bool(rows[column].notna().any())


def _compare_frequency(trained: "pd.DataFrame", rows: "pd.DataFrame") -> list[str]:
    lowest, highest = float(trained["frequency_hz"].min()), float(trained["frequency_hz"].max())
    asked = rows["frequency_hz"].to_numpy(np.float64)
    far = asked[(asked < lowest / BAND_RATIO) | (asked > highest * BAND_RATIO)]
    if not len(far):
        return []
    low, high = f"{lowest / 1e6:.6g}", f"{highest / 1e6:.6g}"
    return [f"frequency {far[0] / 1e6:.6g} MHz, trained at {low if low == high else f'{low} to {high}'} MHz"]


def _compare_place(trained: "pd.DataFrame", rows: "pd.DataFrame") -> Outside:
    known = _list_places(trained, "receiver")
    asked = rows[["receiver_latitude", "receiver_longitude"]].to_numpy(np.float64)
    nearest_m = compute_distance_m(asked[:, :1], asked[:, 1:], known[None, :, 0], known[None, :, 1]).min(axis=1)
    if (nearest_m <= SAME_PLACE_M).all():
        return Outside([], is_other_area=False)
    new = nearest_m > SAME_PLACE_M
    names = sorted(set(rows["station_name"][new].astype(str)))
    listed = ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
    remarks = [
        f"{say_count(int(new.sum()), 'receiver')} of {len(rows)} where it was trained with none: {listed}, "
        f"{nearest_m[new].min() / 1000.0:,.0f} km or more from the nearest that it knows"
    ]
    sources = _list_places(trained, "source")
    latitude, longitude = compute_centre(sources[:, 0], sources[:, 1], np.zeros(len(sources), dtype=np.int64), 1)
    places = np.concatenate([known, sources])
    radius_m = float(compute_distance_m(latitude, longitude, places[:, 0], places[:, 1]).max())
    away_m = float(compute_distance_m(latitude, longitude, asked[:, 0], asked[:, 1]).min())
    is_other_area = away_m > AREA_RATIO * radius_m
    if is_other_area:
        remarks.append(
            f"area: the nearest receiver is {away_m / 1000.0:,.0f} km from the middle of its training, whose sources "
            f"and receivers lie within {radius_m / 1000.0:,.0f} km"
        )
    return Outside(remarks, is_other_area)


def _list_places(rows: "pd.DataFrame", who: str) -> FloatArray:
    places = rows[[f"{who}_latitude", f"{who}_longitude"]].round(PLACE_DECIMALS).drop_duplicates()
    return places.to_numpy(np.float64)
