"""Reproduction: a released model made again from its frozen snapshot, settings and seeds, stage by stage.

Each stage is computed anew from the inputs that the release recorded, and what comes out is compared with what it
recorded. Where every stage agrees, the whole does; where one does not, it alone is to blame, and not what came before.
The manifests are those of the frozen provenance: neither Dagster nor the references of the store are asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.errors import HeimdallError, InvalidSetting, OutOfReach
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    EVALUATION_METRICS,
    IQ_FILES,
    MODEL_RELEASE,
    ONNX_MODEL,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.learning.task import PretrainedWeights
from heimdall_assets.lineage.environments import compare_environments
from heimdall_assets.lineage.provenance import find_facts
from heimdall_assets.manifests import Manifest, show_value
from heimdall_assets.media_types import JSON_MEDIA_TYPE, NPY_MEDIA_TYPE
from heimdall_assets.pipeline.pretrained import read_pretrained
from heimdall_assets.pipeline.recipe import STAGES, list_needed
from heimdall_assets.pipeline.releases.comparison import PACKED, Packed, Unlike, compare_packed
from heimdall_assets.pipeline.releases.deviation import (
    ARRAYS,
    TOLERANCES,
    Measure,
    Remade,
    Verdict,
    judge_stages,
)
from heimdall_assets.pipeline.releases.measuring import measure_stage
from heimdall_assets.pipeline.releases.reading import read_provenance
from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint
from heimdall_assets.pipeline.stages.iq_files import pin_recordings
from heimdall_assets.pipeline.stages.onnx_model import export_checkpoint
from heimdall_assets.pipeline.stages.spectrogram_features import extract_features
from heimdall_assets.pipeline.stages.splits import split_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import PRETRAINED, train_checkpoint
from heimdall_assets.pipeline.starts import RESUMED, ReadFile, Start, read_kept_start
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.specs import ModelSpec, Spec, TrainingSpec
from heimdall_assets.stores.computing import read_facts
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.overlay import RecomputingStore
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets.stores.scratch import lend_folder

REMADE = [kind for kind in list_needed(MODEL_RELEASE) if kind not in (APPROVED_MEASUREMENTS, MODEL_RELEASE)]
"""The snapshot is where reproduction starts; a release carries its own version and date."""


@dataclass(frozen=True)
class Reproduction:
    """A model made again.

    Attributes:
        stages: in the order in which they were computed.
        environment: name -> [then, now] of what is not as it was when the model was trained.
        restored: digests that were damaged or missing, came out the same, and are stored again.
        skipped: stage -> why it cannot be made again: recordings were erased; what it gave then was taken as it is.
    """

    version: str
    stages: list[Remade]
    environment: dict[str, list[Any]]
    restored: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def first_difference(self) -> Remade | None:
        """The first stage that comes out otherwise, in the order of the graph."""
        return next((stage for stage in self.stages if stage.differences), None)

    @property
    def verdict(self) -> Verdict:
        return judge_stages(self.stages, self.environment)


def reproduce_release(
    stores: Stores, version: str, chosen: Sequence[Spec], progress: Progress, repair: bool = False
) -> Reproduction:
    """Return how the model of a release comes out when it is made again here and now.

    Args:
        stores: the opened stores; nothing in them is changed, unless ``repair``.
        version: of a published release.
        chosen: specs whose set fields take the place of the recorded ones, to see what they change; others stay.
        progress: called with what is done, how many are done, how many there are.
        repair: store again what is damaged or missing and came out with the recorded digest.

    Raises:
        InvalidSetting: a chosen spec decides none of these stages.
        HeimdallError: something needed is gone: a recording, the snapshot.
    """
    allowed = {spec for kind in REMADE for spec in STAGES[kind].specs}
    for spec in chosen:
        if spec.pure_class() not in allowed:
            raise InvalidSetting(f"{spec.pure_class().__name__}: decides no stage that is made again")
    provenance = read_provenance(stores, version)
    with lend_folder(stores.scratch) as folder:
        remaking = _Remaking(stores.objects, provenance, chosen, folder, progress)
        remaking.skip_erased(_read_erased(stores))
        stages = list(remaking.run())
        restored = remaking.restore() if repair else []
        then = find_facts(provenance, TRAINED_CHECKPOINT)
        environment = compare_environments(then and then["environment"], remaking.environment)
    return Reproduction(version, stages, environment, restored, remaking.skipped)


class _Remaking:
    """The stages of one model, each from the recorded manifests of its inputs."""

    def __init__(
        self,
        base: ObjectStore,
        provenance: Mapping[str, Any],
        chosen: Sequence[Spec],
        folder: Path,
        progress: Progress,
    ):
        nodes = [{name: node[name] for name in Manifest.model_fields} for node in provenance["nodes"]]
        self.recorded = {node["kind"]: Manifest.model_validate(node) for node in nodes}
        self.environment: dict[str, Any] = {}
        self._base = base
        self._chosen = {
            spec.pure_class(): {name: getattr(spec, name) for name in spec.model_fields_set} for spec in chosen
        }
        self._progress = progress
        self._folder = folder
        apart = FolderObjectStore(folder / "objects")
        for manifest in self.recorded.values():  # as frozen: those at rest may be damaged
            apart.put_bytes(manifest.encode(), JSON_MEDIA_TYPE)
        pinned = self._list_pinned(apart)
        self._pinned = set(pinned.values())
        self.skipped: dict[str, str] = {}
        self.objects = RecomputingStore(base, apart, pinned)

    def skip_erased(self, erased: Mapping[str, str]) -> None:
        """Begin after the stages that read recordings where some are gone because somebody erased them.

        Args:
            erased: digest -> when, by whom and why.
        """
        gone = {digest for digest in self._pinned if digest in erased and not self._base.exists(digest)}
        if gone:
            why = f"{say_count(len(gone), 'recording')} of it {erased[min(gone)]}"
            self.skipped = dict.fromkeys((IQ_FILES, SPECTROGRAM_FEATURES), why)

    def _list_pinned(self, apart: ObjectStore) -> dict[str, str]:
        """Return location -> digest of the recordings as they were read then."""
        plain = RecomputingStore(self._base, apart, {})
        rows = load_table(plain, self.recorded[APPROVED_MEASUREMENTS].artifacts["table"])
        try:
            pinned = load_table(plain, self.recorded[IQ_FILES].artifacts["table"])
        except OutOfReach:
            raise
        except HeimdallError:
            return {}  # damaged: recordings are read where the rows say, and the stage tells whether they are the same
        joined = rows.merge(pinned[pinned["status"] == "ok"], on="measurement_id")
        return dict(zip(joined["iq_data_location"].astype(str), joined["digest"].astype(str), strict=True))

    def run(self) -> Iterator[Remade]:
        """Yield each stage as it comes out; those of one decision together."""
        if not self.skipped:
            yield self._compare(IQ_FILES, self._make_recordings())
            yield self._compare_features(self._make_features())
        for kind, made in self._make_splits().items():
            yield self._compare(kind, made)
        checkpoint = self._make_checkpoint()
        facts = read_facts(self.objects, checkpoint.digest)
        self.environment = facts["environment"] if facts else {}
        yield self._compare(TRAINED_CHECKPOINT, checkpoint)
        judged = (self.objects, self.recorded[TRAINED_CHECKPOINT], self.recorded[TEST_SPLIT])
        for kind, make in ((EVALUATION_METRICS, evaluate_checkpoint), (ONNX_MODEL, export_checkpoint)):
            (spec,) = self._specs(kind)
            self._progress(kind, 0, 1)
            yield self._compare(kind, make(*judged, spec).manifest)
            self._progress(kind, 1, 1)

    def restore(self) -> list[str]:
        """Store again what the release hangs on, is damaged or missing, and was made again with the same digest."""
        restored = []
        for recorded in self.recorded.values():
            digests = [artifact.digest for artifact in recorded.artifacts.values()]
            for digest in [*recorded.summary.get("shards", []), *digests, recorded.digest]:
                if self.objects.apart.exists(digest) and not _is_whole(self._base, digest):
                    self._base.put_bytes(self.objects.apart.read_bytes(digest), NPY_MEDIA_TYPE)
                    restored.append(digest)
        return restored

    def _specs(self, kind: str) -> list[Any]:
        recorded = self.recorded[kind].specs
        return [cls(**recorded[cls.__name__] | self._chosen.get(cls, {})) for cls in STAGES[kind].specs]

    def _make_recordings(self) -> Manifest:
        (spec,) = self._specs(IQ_FILES)
        made = pin_recordings(self.objects, self.recorded[APPROVED_MEASUREMENTS], spec, self._progress)
        return made.result.manifest

    def _make_features(self) -> Manifest:
        features, delays = self._specs(SPECTROGRAM_FEATURES)
        made = extract_features(self.objects, self.recorded[IQ_FILES], features, delays, self._progress)
        return made.result.manifest

    def _make_splits(self) -> dict[str, Manifest]:
        split, timing = self._specs(TRAIN_SPLIT)
        made = split_sessions(self.objects, self.recorded[SPECTROGRAM_FEATURES], split, timing)
        return {kind: result.manifest for kind, result in made.items()}

    def _make_checkpoint(self) -> Manifest:
        model, training, augmentation = self._specs(TRAINED_CHECKPOINT)
        total = training.max_epochs
        result = train_checkpoint(
            self.objects,
            self._folder / "training",
            self.recorded[TRAIN_SPLIT],
            self.recorded[VAL_SPLIT],
            model,
            training,
            augmentation,
            pretrained=self._read_pretrained,
            on_epoch=lambda epoch, _: self._progress("epochs trained", epoch + 1, total),
            start=self._find_start(training),
            earlier=self._find_earlier(),
        )
        return result.manifest

    def _find_start(self, training: TrainingSpec) -> Start | None:
        """Return the model it started from as its files were kept; where another one is asked for, that."""
        recorded = self.recorded[TRAINED_CHECKPOINT]
        same = training.start_from == recorded.specs[TrainingSpec.__name__].get("start_from")
        return read_kept_start(recorded) if same else None

    def _find_earlier(self) -> ReadFile | None:
        """Return what reads the shorter training that it went on from; None: it began."""
        kept = self.recorded[TRAINED_CHECKPOINT].artifacts
        if not any(name.startswith(RESUMED) for name in kept):
            return None
        return lambda name: self._base.read_bytes(kept[f"{RESUMED}{name}"].digest)

    def _read_pretrained(self, model: ModelSpec) -> PretrainedWeights | None:
        """Return the weights as they were kept then; where other ones are asked for, those of today."""
        recorded = self.recorded[TRAINED_CHECKPOINT]
        if PRETRAINED not in recorded.artifacts or model.dump() != recorded.specs[ModelSpec.__name__]:
            return read_pretrained(model)
        return PretrainedWeights("kept weights", self._base.read_bytes(recorded.artifacts[PRETRAINED].digest))

    def _compare(self, kind: str, made: Manifest) -> Remade:
        rules, results = list(self._compare_rules(kind, made)), list(self._compare_artifacts(kind, made))
        measures = list(measure_stage(self.objects, self.recorded, made)) if results else []
        node = (self.recorded[kind].digest, made.digest)
        return Remade(kind, rules, results, node, measures, bool(measures))

    def _compare_rules(self, kind: str, made: Manifest) -> Iterator[str]:
        recorded = self.recorded[kind]
        if made.code_version != recorded.code_version:
            yield f"code version {recorded.code_version} then, {made.code_version} now"
        for name, fields in made.specs.items():
            for part, value in fields.items():
                before = recorded.specs.get(name, {}).get(part)
                if before != value:
                    yield f"{name}.{part} {show_value(before)} then, {show_value(value)} now"
        then, now = recorded.content, made.content
        for name in sorted({*then, *now}):
            if then.get(name) != now.get(name):
                yield f"{name}: SHA-256 {then.get(name, 'none')} then, {now.get(name, 'none')} now"

    def _compare_artifacts(self, kind: str, made: Manifest, aside: Sequence[str] = ()) -> Iterator[str]:
        recorded = self.recorded[kind].artifacts
        for name in sorted({*recorded, *made.artifacts} - set(aside)):
            then, now = (part[name].digest if name in part else "none" for part in (recorded, made.artifacts))
            if then != now:
                yield f"{name}: SHA-256 {then} then, {now} now"

    def _compare_features(self, made: Manifest) -> Remade:
        """Compare what lies in shards one by one, the rest whole."""
        kind = SPECTROGRAM_FEATURES
        rules = list(self._compare_rules(kind, made))
        others = list(self._compare_artifacts(kind, made, [packed.artifact for packed in PACKED]))
        unlike: list[Unlike] = []
        for packed in PACKED:
            try:
                unlike += self._compare_packed(packed, made)
            except OutOfReach:
                raise
            except HeimdallError as error:
                unlike.append(Unlike(f"{packed.arrays} cannot be compared: {error}"))
        results = [*others, *(each.text for each in unlike)]
        unit, tolerance = "of the largest value", TOLERANCES[ARRAYS]
        measures = [Measure(each.text, each.share, unit, tolerance=tolerance) for each in unlike]
        # How shards are packed decides the manifest's digest too: where nothing differs, that says nothing.
        node = (self.recorded[kind].digest, made.digest if rules or results else self.recorded[kind].digest)
        return Remade(kind, rules, results, node, measures, not others)

    def _compare_packed(self, packed: Packed, made: Manifest) -> Iterator[Unlike]:
        recorded = self.recorded[SPECTROGRAM_FEATURES].artifacts
        if packed.artifact not in recorded:
            yield Unlike(f"{packed.artifact}: none then")
            return
        before, again = (load_table(self.objects, part[packed.artifact]) for part in (recorded, made.artifacts))
        yield from compare_packed(self.objects, packed, before, again)


def _read_erased(stores: Stores) -> dict[str, str]:
    return {digest: erasure.describe() for erasure in stores.measurements.list_erasures() for digest in erasure.objects}


def _is_whole(objects: ObjectStore, digest: str) -> bool:
    try:
        objects.at_rest().local_path(digest)
    except OutOfReach:
        raise
    except HeimdallError:
        return False
    return True
