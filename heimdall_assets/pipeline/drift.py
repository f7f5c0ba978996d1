"""Drift: how far a snapshot's distributions lie from those of a release's data.

Belongs here: how far. Does not belong here: whether chance explains it (``evaluation.drift``), what follows from it
(``stages.gates``, ``monitoring.watching``).
"""

from typing import TYPE_CHECKING

from heimdall_assets.kinds import APPROVED_MEASUREMENTS
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets.stores.releases.status import is_rejected

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("frequency_hz", "signal_strength_db", "snr_db", "source_latitude", "source_longitude")


def compare_with_release(stores: Stores, rows: "pd.DataFrame") -> dict[str, float]:
    """Return the Kolmogorov-Smirnov distance of each column to the latest release's snapshot; empty: no release yet.

    ``volume`` is the share of the release's sessions that are gone.
    """
    from scipy.stats import ks_2samp  # slow to load: only who compares needs it

    before = read_released_rows(stores)
    if before is None:
        return {}
    distances = {}
    for name in COLUMNS:
        old, new = before[name].dropna(), rows[name].dropna()
        if len(old) and len(new):
            distances[name] = float(ks_2samp(old, new).statistic)
    distances["volume"] = count_gone(before, rows)
    return distances


def read_released_rows(stores: Stores) -> "pd.DataFrame | None":
    """Return the snapshot of the latest release that is not rejected; None: there is none."""
    releases = [record for record in stores.releases.list_releases() if not is_rejected(record)]
    if not releases:
        return None
    released = Manifest.decode(stores.objects.read_bytes(releases[-1]["manifest"]))
    return load_table(stores.objects, read_parent(stores.objects, released, APPROVED_MEASUREMENTS).artifacts["table"])


def count_gone(before: "pd.DataFrame", now: "pd.DataFrame") -> float:
    """Return the share of the sessions of ``before`` that are not in ``now``."""
    gone = set(before["session_id"]) - set(now["session_id"])
    return len(gone) / max(before["session_id"].nunique(), 1)
