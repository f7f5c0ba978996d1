"""Judging (champion_on_new_data): the champion on each newly approved session once, before any training saw it.

Belongs here: which sessions are new, judging them, and the entry of the log that keeps it for ever. Does not belong
here: the figures (``evaluation.judged``), limits on them (``watching``).

New is what is approved, what the champion's data did not hold, what no release was made from, and what was not judged
before. What cannot be judged now is told, and stops no training: it is new until a training has seen it.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import HeimdallError, OutOfReach, StorageError
from heimdall_assets.evaluation.judged import judge_sessions, summarize_judged
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, CHAMPION_ON_NEW_DATA, JSON_MEDIA_TYPE, TRAIN_SPLIT
from heimdall_assets.lineage.walk import JUDGED_MODEL
from heimdall_assets.manifests import Manifest, compute_digest, encode_canonical_json
from heimdall_assets.pipeline.prediction.released import Released, read_released
from heimdall_assets.pipeline.prediction.stored import keep_silent, observe_stored
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.pipeline.releases.promotion import CHAMPION, find_alias
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, read_parent
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.columns import read_values
from heimdall_assets.stores.objects.tables import artifact_of_table, load_table

NOT_JUDGED = "not_judged"
"""In the summary: why new sessions were not judged. Not there where they were, or there were none."""

_ATTEMPTS = 5


def judge_new_sessions(stores: Stores, snapshot: Manifest, progress: Progress = keep_silent) -> Result:
    """Return what the champion of this moment says of the sessions of ``snapshot`` that are new.

    Raises:
        OutOfReach: nobody can say what an object holds.
        StorageError: others judged, or changed the champion, each time that this was about to be kept.
    """
    for _ in range(_ATTEMPTS):
        champion = find_alias(stores, CHAMPION)
        if champion is None:
            return _keep_nothing(stores, snapshot, {}, {})
        model = str(stores.releases.find_record(champion)["manifest"])
        try:
            new, num_trained_on = find_new(stores, snapshot, champion)
            if not new and not num_trained_on:
                return _keep_nothing(stores, snapshot, {}, {})  # whoever is champion: the same as before
            if not new:
                content = {JUDGED_MODEL: model, "trained_on": compute_digest(str(num_trained_on).encode())}
                return _keep_nothing(stores, snapshot, content, {"num_trained_on": num_trained_on})
            result = _judge(stores, snapshot, read_released(stores, champion), new, num_trained_on, progress)
        except OutOfReach:
            raise
        except HeimdallError as error:
            why = " ".join(str(error).split())
            content = {JUDGED_MODEL: model, NOT_JUDGED: compute_digest(why.encode())}
            return _keep_nothing(stores, snapshot, content, {NOT_JUDGED: why})
        if stores.releases.note_judgement(CHAMPION, champion, result.manifest.digest, new):
            return result
    raise StorageError(
        f"{CHAMPION_ON_NEW_DATA}: {_ATTEMPTS} times somebody else judged new sessions or changed the champion "
        "meanwhile; trying again goes on"
    )


def find_new(stores: Stores, snapshot: Manifest, champion: str) -> tuple[list[str], int]:
    """Return the sessions that are new to ``champion``, ascending, and how many others a release was made from.

    Raises:
        HeimdallError: what a release was made from cannot be told.
    """
    approved = {str(row["id"]) for row in stores.measurements.list_sessions(approval_status=ApprovalStatus.APPROVED)}
    judged = {name for one in stores.releases.list_judgements() for name in one.sessions}
    candidates = (list_sessions(stores, snapshot) & approved) - judged
    candidates -= list_sessions(stores, read_snapshot(stores, stores.releases.find_record(champion)))
    if not candidates:
        return [], 0
    held: set[str] = set()
    for digest in {read_snapshot(stores, record).digest for record in stores.releases.list_releases()}:
        held |= list_sessions(stores, Manifest.decode(stores.objects.read_bytes(digest)))
    return sorted(candidates - held), len(candidates & held)


def read_snapshot(stores: Stores, record: dict[str, Any]) -> Manifest:
    """Return the snapshot of approved measurements that a release was made from."""
    released = Manifest.decode(stores.objects.read_bytes(record["manifest"]))
    return read_parent(stores.objects, released, APPROVED_MEASUREMENTS)


def list_sessions(stores: Stores, snapshot: Manifest) -> set[str]:
    """Return the sessions of a snapshot."""
    column = ("session_id",)
    values = read_values(stores.objects.read_bytes(snapshot.artifacts["table"].digest), column)
    return {str(name) for name in values["session_id"]}


def read_judged(stores: Stores, version: str | None = None) -> pd.DataFrame:
    """Return every row that was kept of judgements, oldest first, with the ``version`` that was judged.

    Args:
        stores: of this home.
        version: of that release alone; None: of all.

    Raises:
        HeimdallError: one of them cannot be read.
    """
    tables = []
    for one in stores.releases.list_judgements():
        if version in (None, one.version):
            manifest = Manifest.decode(stores.objects.read_bytes(one.result))
            table = load_table(stores.objects, manifest.artifacts["table"])
            tables.append(table.assign(version=pd.array([one.version] * len(table), dtype="string")))
    return pd.concat(tables, ignore_index=True) if tables else _make_empty().assign(version=pd.array([], "string"))


def _judge(
    stores: Stores, snapshot: Manifest, released: Released, new: Sequence[str], num_trained_on: int, progress: Progress
) -> Result:
    listed = stores.objects.put_bytes(encode_canonical_json(list(new)), JSON_MEDIA_TYPE)

    def compute() -> Computed:
        rows = load_table(stores.objects, snapshot.artifacts["table"])
        rows = rows[rows["session_id"].isin(list(new))].reset_index(drop=True)
        sessions, _ = observe_stored(stores, rows, progress, released.manifest)
        reference = load_sessions(stores.objects, read_parent(stores.objects, released.manifest, TRAIN_SPLIT))
        judged = judge_sessions(released.predict, sessions, reference)
        decisions = rows.drop_duplicates("session_id").set_index("session_id")["approval_event_id"]
        numbers = decisions.reindex(judged["session_id"]).to_numpy()
        judged.insert(1, "approval_event_id", pd.Series(numbers, dtype="Int64"))
        table = judged.sort_values("session_id", ignore_index=True)
        figures = summarize_judged(table)
        return (
            {"table": artifact_of_table(stores.objects, table), "sessions": listed},
            {**figures, "num_trained_on": num_trained_on},
        )

    parents = {APPROVED_MEASUREMENTS: snapshot.digest}
    content = {JUDGED_MODEL: released.manifest.digest, "sessions": listed.digest}
    return find_or_compute(stores.objects, CHAMPION_ON_NEW_DATA, parents, [], compute, content)


def _keep_nothing(stores: Stores, snapshot: Manifest, content: dict[str, str], told: dict[str, Any]) -> Result:
    """Return the result that no session was judged."""

    def compute() -> Computed:
        table = artifact_of_table(stores.objects, _make_empty())
        return {"table": table}, {**summarize_judged(_make_empty()), **told}

    parents = {APPROVED_MEASUREMENTS: snapshot.digest}
    return find_or_compute(stores.objects, CHAMPION_ON_NEW_DATA, parents, [], compute, content)


def _make_empty() -> pd.DataFrame:
    columns = STAGES[CHAMPION_ON_NEW_DATA].columns["table"]
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()})
