"""Datasets: tables of results at rest, and sessions assembled from everything that was computed of them.

Belongs here: from manifests or rows to a ``SessionSet``. Does not belong here: reading recordings
(``stages.recordings``), computing features (``features``), what a model takes of a session (``learning.assembly``).
"""

import pandas as pd

from heimdall_assets.errors import NotFound
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, SPECTROGRAM_FEATURES
from heimdall_assets.learning.assembly import assemble_sessions
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import read_parent, read_result
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import TimingSpec
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.shards import load_rows
from heimdall_assets.stores.objects.tables import load_table


def join_recordings(rows: pd.DataFrame, checked: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose recording is usable, each with what was found out about it.

    Args:
        rows: ``domain.APPROVED_COLUMNS``.
        checked: ``recordings.RECORDING_COLUMNS``, at most one row a measurement.
    """
    good = checked[checked["status"] == "ok"].drop(columns=["session_id", "duration_s", "reason"])
    return rows.merge(good, on="measurement_id", how="inner", validate="one_to_one")


def load_sessions(objects: ObjectStore, split: Manifest, members: pd.DataFrame | None = None) -> SessionSet:
    """Return the sessions of a split manifest with everything that was computed of them.

    Args:
        objects: where they rest.
        split: its manifest.
        members: rows of the split's table, where not all of them are wanted.

    Raises:
        NotFound: something the split was computed from is gone.
        CorruptObject: it is damaged.
    """
    features = read_parent(objects, split, SPECTROGRAM_FEATURES)
    approved = load_table(objects, read_parent(objects, features, APPROVED_MEASUREMENTS).artifacts["table"])
    members = load_table(objects, split.artifacts["table"]) if members is None else members
    rows = approved[approved["session_id"].isin(members["session_id"])]
    index = load_table(objects, features.artifacts["index"])
    used, images = load_rows(objects, index[index["measurement_id"].isin(rows["measurement_id"])])
    tracked, tracks = None, None
    if "tracks" in features.artifacts:  # features that were computed before recordings were demodulated have none
        listed = load_table(objects, features.artifacts["tracks"])
        tracked, tracks = load_rows(objects, listed[listed["measurement_id"].isin(rows["measurement_id"])])
    arrivals = load_table(objects, features.artifacts["arrivals"])
    pairs, correlations = None, None
    if "pairs" in features.artifacts:  # features that were computed before pairs were kept have none
        known = load_table(objects, features.artifacts["pairs"])
        pairs, correlations = load_rows(objects, known[known["session_id"].isin(rows["session_id"])])
    timing = TimingSpec(**split.specs["TimingSpec"])
    return assemble_sessions(
        rows, used, arrivals, images, timing, members, pairs, correlations, tracks_index=tracked, tracks=tracks
    )


def list_examples(objects: ObjectStore, split: Manifest) -> pd.DataFrame:
    """Return a row for each receiver of a split that has a spectrogram and a known source, by session and station.

    Columns: ``measurement_id``, ``session_id``, ``station_id``, ``source_latitude``, ``source_longitude`` in degrees,
    ``source_error_margin_m``, and ``shard`` and ``row`` where its spectrogram lies. In the order of
    ``receiver_model.task.SingleReceiverTask.list_examples`` on the same sessions.

    Raises:
        NotFound: something the split was computed from is gone.
        CorruptObject: it is damaged.
    """
    features = read_parent(objects, split, SPECTROGRAM_FEATURES)
    approved = load_table(objects, read_parent(objects, features, APPROVED_MEASUREMENTS).artifacts["table"])
    members = load_table(objects, split.artifacts["table"])
    index = load_table(objects, features.artifacts["index"])[["measurement_id", "shard", "row"]]
    known = approved["source_latitude"].notna() & approved["source_longitude"].notna()
    rows = approved.loc[known & approved["session_id"].isin(members["session_id"]), EXAMPLE_COLUMNS]
    joined = rows.merge(index, on="measurement_id", how="inner", validate="one_to_one")
    return joined.sort_values(["session_id", "station_id"], kind="stable", ignore_index=True)


EXAMPLE_COLUMNS = [
    "measurement_id",
    "session_id",
    "station_id",
    "source_latitude",
    "source_longitude",
    "source_error_margin_m",
]


def find_sibling(objects: ObjectStore, split: Manifest, kind: str) -> Manifest:
    """Return the split of another ``kind`` that the decision behind ``split`` made.

    Raises:
        NotFound: it is not there any more.
    """
    if split.kind == kind:
        return split
    name = split.model_copy(update={"kind": kind}).reference
    found = read_result(objects, name)
    if found is None:
        raise NotFound(f"{kind} beside {split.kind} {split.digest}: found none; heimdall train makes it again")
    return found
