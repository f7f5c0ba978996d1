"""iq_files: each recording of the snapshot read, checked and pinned by digest, or refused with its reason."""

from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES
from heimdall_assets.lineage.listings import RECORDINGS, encode_recordings
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import JSON_LINES_MEDIA_TYPE
from heimdall_assets.pipeline.results import Computed, Prepared, find_or_compute
from heimdall_assets.pipeline.stages.recordings import ingest_recordings
from heimdall_assets.pipeline.stages.refusals import refuse_if_most
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.tables import artifact_of_table, load_table


def pin_recordings(objects: ObjectStore, snapshot: Manifest, spec: RecordingSpec, progress: Progress) -> Prepared:
    """Return the snapshot's recordings, each checked and pinned by digest, or refused with its reason.

    Raises:
        Refused: more of them are unusable than ``spec`` tolerates.
    """
    num_computed = 0

    def compute() -> Computed:
        nonlocal num_computed
        found = ingest_recordings(objects, load_table(objects, snapshot.artifacts["table"]), spec, progress)
        num_computed = found.num_computed
        good = found.table["status"] == "ok"
        refuse_if_most(IQ_FILES, found.table[~good], len(found.table), spec, progress)
        return {
            "table": artifact_of_table(objects, found.table),
            RECORDINGS: objects.put_bytes(encode_recordings(found.table), JSON_LINES_MEDIA_TYPE),
        }, {
            "num_recordings": int(good.sum()),
            "num_refused": int((~good).sum()),
            "num_unread": int((found.table["status"] == "unread").sum()),
            "seconds_of_iq": float(found.table.loc[good, "duration_s"].sum()),
        }

    parents = {APPROVED_MEASUREMENTS: snapshot.digest}
    result = find_or_compute(objects, IQ_FILES, parents, [spec], compute)
    return Prepared(result, num_computed)
