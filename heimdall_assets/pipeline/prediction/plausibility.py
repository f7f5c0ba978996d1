"""Plausibility: what makes a position doubtful although its ellipse is small.

Belongs here: remarks on positions. Does not belong here: how far radio reaches (``locating.reach``), setting clocks
(``intake.reference_timing``), truth that somebody states (``pipeline.truth``).
"""

import json
from typing import TYPE_CHECKING

import numpy as np

from heimdall_assets.locating.estimates import describe_estimate
from heimdall_assets.locating.reach import remark_reach
from heimdall_assets.physical import Estimate

if TYPE_CHECKING:
    import pandas as pd


def remark_place(rows: "pd.DataFrame", estimate: Estimate) -> list[str]:
    """Return a line for each way in which an estimate is doubtful, none where it is in none.

    Args:
        rows: ``domain.APPROVED_COLUMNS`` of a session.
        estimate: of its position.
    """
    latitude, longitude, altitude_m, frequency_hz = (
        rows[name].to_numpy(np.float64, na_value=np.nan)
        for name in ("receiver_latitude", "receiver_longitude", "receiver_altitude_m", "frequency_hz")
    )
    places = np.stack([latitude, longitude, altitude_m], axis=1)
    names = [str(name) for name in rows["station_name"]]
    return [*remark_reach(estimate, places, frequency_hz, names), *_remark_reference(rows, estimate)]


def _remark_reference(rows: "pd.DataFrame", estimate: Estimate) -> list[str]:
    """Return what to say where the 90 % ellipse holds the place of the reference by which clocks were set.

    A tuner that did not change, or a wanted transmitter that was silent, leaves the reference in the wanted part too,
    and what is located is the reference, as confidently as anything else.
    """
    told = (json.loads(text).get("reference") for text in rows["measurement_attributes"])
    reference = next((said for said in told if said), None)
    if reference is None:
        return []
    if not describe_estimate(estimate, (reference["latitude"], reference["longitude"]))["inside_90"]:
        return []
    return [
        f"the ellipse holds the place of {reference['name']}, by which the clocks were set: the wanted part may hold "
        f"{reference['name']} itself (a tuner that did not change, or nothing else to hear)"
    ]
