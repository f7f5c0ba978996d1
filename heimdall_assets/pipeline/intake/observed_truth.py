"""Observed truth: whether arrivals and bearings put transmitters where somebody says they are.

Belongs here: the comparison at import, as a remark: late arrivals and reflections may be why it fails. Does not belong
here: what is physically impossible, which is refused (``pipeline.truth``).
"""

from typing import TYPE_CHECKING

import numpy as np

from heimdall_assets.counts import say_count
from heimdall_assets.domain import ImportBatch
from heimdall_assets.errors import CannotLocate
from heimdall_assets.locating.estimates import measure_offset
from heimdall_assets.physical import Estimate
from heimdall_assets.specs import TimingSpec
from heimdall_assets.stores.database.measurements import MeasurementStore

if TYPE_CHECKING:
    from heimdall_assets.session_set import SessionSet

MOST_SESSIONS = 200
"""Sessions that are looked at, spread evenly over an import: mistakes of places seldom come alone."""

FAR_SIGMAS, FAR_ELLIPSES = 5.0, 3.0
"""A place that many sigmas away, and that many half axes of the 90 % ellipse, is none that the doubt would explain."""


def compare_truth(measurements: MeasurementStore, batch: ImportBatch) -> list[str]:
    """Return a line where arrivals and bearings of sessions contradict their stated places, none where they do not.

    Args:
        measurements: that the sessions were added to.
        batch: what was added.
    """
    # Slow to load, and wanted only here.
    import pandas as pd

    from heimdall_assets.learning.assembly import assemble_sessions
    from heimdall_assets.locating.classical import locate_session

    chosen = np.unique(np.linspace(0, len(batch.sessions) - 1, min(MOST_SESSIONS, len(batch.sessions))).astype(int))
    named = {batch.sessions[index].id: batch.sessions[index].name for index in chosen.tolist()}
    rows = pd.concat([measurements.read_session_rows(session) for session in named], ignore_index=True)
    if not len(rows):
        return []
    sessions = assemble_sessions(rows, None, None, None, TimingSpec())
    far: list[tuple[float, float, str]] = []
    for index, session in enumerate(sessions.session_id.tolist()):
        try:
            found = _measure_error(locate_session(sessions, index), sessions, index)
        except CannotLocate:
            continue
        if found is not None:
            far.append((*found, named[session]))
    if not far:
        return []
    error_m, sigmas, name = max(far)
    return [
        f"arrivals and bearings put {len(far)} of {say_count(len(named), 'session')} that were looked at elsewhere "
        f"than stated; farthest: {name}, {error_m / 1000.0:,.3g} km away, {sigmas:,.0f} sigma"
    ]


def _measure_error(estimate: Estimate, sessions: "SessionSet", index: int) -> tuple[float, float] | None:
    """Return by how many m and by how many sigmas the stated place is missed; None: as doubt explains."""
    truth = float(sessions.source_latitude[index]), float(sessions.source_longitude[index])
    error_m, sigmas = measure_offset(estimate, truth, float(sessions.error_margin_m[index]))
    is_far = sigmas > FAR_SIGMAS and error_m > FAR_ELLIPSES * estimate.ellipse(0.90).semi_major_m
    return (error_m, sigmas) if is_far else None
