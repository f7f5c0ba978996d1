"""spectrogram_features: spectrograms, signal tracks, arrivals and pairs of pinned recordings; only what is new."""

from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES, SPECTROGRAM_FEATURES
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import Computed, Prepared, find_or_compute, read_parent
from heimdall_assets.pipeline.stages.datasets import join_recordings
from heimdall_assets.pipeline.stages.features import compute_features
from heimdall_assets.pipeline.stages.refusals import refuse_if_most
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.specs import DelaySpec, FeatureSpec
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.tables import artifact_of_table, load_table


def extract_features(
    objects: ObjectStore, iq_files: Manifest, features: FeatureSpec, delays: DelaySpec, progress: Progress
) -> Prepared:
    """Return spectrograms, signal tracks, arrivals and pairs of the pinned recordings; only what is new is computed.

    Raises:
        Refused: more recordings lack a spectrogram than ``features`` tolerates.
    """
    num_computed = 0

    def compute() -> Computed:
        nonlocal num_computed
        approved = load_table(objects, read_parent(objects, iq_files, APPROVED_MEASUREMENTS).artifacts["table"])
        recordings = load_table(objects, iq_files.artifacts["table"])
        made = compute_features(objects, join_recordings(approved, recordings), features, delays, progress)
        num_computed = made.num_computed
        without = made.refused[made.refused["what"] == "spectrogram"]
        refuse_if_most(SPECTROGRAM_FEATURES, without, len(without) + len(made.index), features, progress)
        artifacts = {
            "index": artifact_of_table(objects, made.index),
            "tracks": artifact_of_table(objects, made.tracks),
            "arrivals": artifact_of_table(objects, made.arrivals),
            "pairs": artifact_of_table(objects, made.pairs),
            "refused": artifact_of_table(objects, made.refused),
        }
        return artifacts, {**made.count(), "shards": made.list_shards()}

    parents = {IQ_FILES: iq_files.digest}
    result = find_or_compute(objects, SPECTROGRAM_FEATURES, parents, [features, delays], compute)
    return Prepared(result, num_computed)
