"""Drift: how far a snapshot's distributions lie from those of the latest release's data."""

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

    releases = [record for record in stores.releases.list_releases() if not is_rejected(record)]
    if not releases:
        return {}
    released = Manifest.decode(stores.objects.read_bytes(releases[-1]["manifest"]))
    snapshot = read_parent(stores.objects, released, APPROVED_MEASUREMENTS)
    before = load_table(stores.objects, snapshot.artifacts["table"])
    distances = {}
    for name in COLUMNS:
        old, new = before[name].dropna(), rows[name].dropna()
        if len(old) and len(new):
            distances[name] = float(ks_2samp(old, new).statistic)
    gone = set(before["session_id"]) - set(rows["session_id"])
    distances["volume"] = len(gone) / max(before["session_id"].nunique(), 1)
    return distances
