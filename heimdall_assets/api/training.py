"""A training in Python: the run of the graph that ``heimdall train`` starts, and what it left.

Belongs here: ``TrainingPipeline`` and ``TrainingResult``. Does not belong here: the run itself (``running.graph_run``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heimdall_assets.api.home import Home, open_home
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.profiles.reading import Read, read_profile
from heimdall_assets.specs import DatasetSpec, Spec


@dataclass(frozen=True)
class TrainingResult:
    """What a training left.

    Attributes:
        version: number of the release.
        checkpoint_path: weights as safetensors, in the object store: read it, do not write it.
        onnx_path: the model as ONNX, as released; where releases are in a bucket, as exported, without their number.
        mlflow_run_id: the run in MLflow that made the checkpoint; None: MLflow was told nothing.
        final_metrics: figures on the test split, as ``heimdall evaluate --json`` names them.
        run_id: of the graph, in Dagster's history.
        is_champion: whether the release became champion.
        training: what came of gradient descent, in a line; ``is_trained`` whether it bettered its start.
        warnings: of checks that failed without stopping the run.
        computed: asset -> how much of it was computed now; 0: found again.
        manifests: asset -> digest of its manifest.
    """

    version: str
    checkpoint_path: Path
    onnx_path: Path
    mlflow_run_id: str | None
    final_metrics: dict[str, Any]
    run_id: str
    is_champion: bool
    is_trained: bool
    training: str
    warnings: list[str]
    computed: dict[str, int]
    manifests: dict[str, str]


class TrainingPipeline:
    """Materializes the graph on the approved sessions of a home and releases the model, as ``heimdall train`` does.

    The same assets, cache keys and lineage: what an earlier run computed of the same data and numbers is found again,
    whoever asked for it.

    Args:
        home: opened, or its folder; None: where the environment says.
        specs: settings; those that are not given are as by default, or as the profile has them.
        campaigns: only their sessions; none: all.
        start_from: a released model, the digest of a checkpoint's manifest or a file that a training left, whose
            weights this one starts from; architecture and what else of ``ModelSpec`` nobody set are that model's.
            ``ModelSpec(freeze_backbone=True)`` beside it fine-tunes what stands on the backbone.
        profile: settings for a kind of machine, by name or file; ``specs`` win over it.
        reason: why you train; it stands in the lineage of what is made.
        progress: write a line for each piece of work that is done; otherwise nothing is written.

    Raises:
        InvalidSetting: a spec twice, one that decides nothing of a run, campaigns chosen twice over, another
            architecture than that of ``start_from``, no such profile, or one that this machine is not enough for.
        NotFound: there is no such model or file.
        InvalidInput: the file is a pickle, truncated, or no safetensors.
    """

    def __init__(
        self,
        home: Home | Path | str | None = None,
        *,
        specs: Sequence[Spec] = (),
        campaigns: Sequence[str] = (),
        start_from: str | Path | None = None,
        profile: str | Path | None = None,
        reason: str | None = None,
        progress: bool = False,
    ) -> None:
        self.home = home if isinstance(home, Home) else open_home(home)
        self.specs = choose_specs(specs, campaigns)
        if start_from is not None:
            from heimdall_assets.pipeline.trainings import starting

            named = str(start_from)
            self.specs = starting.start_from(named, starting.find_checkpoint(self.home.stores, named), self.specs).specs
        self._read = None if profile is None else read_profile(str(profile))
        if self._read is not None:
            self.specs = lay_over_profile(self._read, self.specs, self.home.places.executor)
        self.reason, self.progress = reason, progress

    def run(self) -> TrainingResult:
        """Train and release.

        Raises:
            NotFound: a campaign has no sessions, or no session is approved.
            GraphFailed: a step or a blocking check failed (``running.graph_run``); its message is the first cause.
            StorageError: a database or a bucket could not be asked.
            Stopped: a signal ended it; what was done is kept, and the same call goes on from there.
        """
        from heimdall_assets.defs.origins import tag_profile
        from heimdall_assets.evaluation.outcome import Outcome
        from heimdall_assets.kinds import CHAMPION_MODEL, EVALUATION_METRICS, MODEL_RELEASE, ONNX_MODEL
        from heimdall_assets.kinds import TRAINED_CHECKPOINT as CHECKPOINT
        from heimdall_assets.pipeline.stages.evaluation_metrics import load_metrics
        from heimdall_assets.pipeline.stages.trained_checkpoint import read_outcome
        from heimdall_assets.running.graph_run import run_job
        from heimdall_assets.running.trainable import check_trainable
        from heimdall_assets.stores.experiments import find_run

        places, stores = self.home.places, self.home.stores
        dataset = next((spec for spec in self.specs if isinstance(spec, DatasetSpec)), DatasetSpec())
        check_trainable(stores, dataset, f"home {places.home}")
        listener = _write_line if self.progress else _keep_silent
        with places.spread_work():
            made = run_job(places, "release", self.specs, listener, self.reason, tag_profile(self._read))
        objects, manifests = stores.objects, made.manifests
        checkpoint, exported, version = manifests[CHECKPOINT], manifests[ONNX_MODEL], manifests[MODEL_RELEASE].summary
        released = Path(stores.releases.locate(version["version"])) / "model.onnx"
        outcome: Outcome = read_outcome(checkpoint)
        return TrainingResult(
            version=version["version"],
            checkpoint_path=objects.local_path(checkpoint.artifacts["weights.safetensors"].digest),
            onnx_path=released if released.is_file() else objects.local_path(exported.artifacts["model.onnx"].digest),
            mlflow_run_id=find_run(objects, checkpoint.digest),
            final_metrics=load_metrics(objects, manifests[EVALUATION_METRICS]),
            run_id=made.run_id,
            is_champion=manifests[CHAMPION_MODEL].summary["champion"] == version["version"],
            is_trained=outcome.trained,
            training=outcome.said,
            warnings=made.warnings,
            computed=made.count_computed(),
            manifests={name: manifest.digest for name, manifest in manifests.items()},
        )


def choose_specs(specs: Sequence[Spec], campaigns: Sequence[str]) -> list[Spec]:
    """Return the specs of a run, checked to be such.

    Raises:
        InvalidSetting: a spec twice, one that decides nothing of a run, or campaigns chosen twice over.
    """
    from heimdall_assets.pipeline.recipe import SETTINGS

    chosen: dict[str, Spec] = {}
    for spec in specs:
        name = type(spec).__name__
        if not isinstance(spec, Spec) or name not in SETTINGS:
            raise InvalidSetting(f"specs: found {name}, expected some of {', '.join(SETTINGS)}")
        if name in chosen:
            raise InvalidSetting(f"specs: found {name} twice, expected one")
        chosen[name] = spec
    if campaigns:
        if DatasetSpec.__name__ in chosen:
            raise InvalidSetting("campaigns and DatasetSpec: expected one of them")
        chosen[DatasetSpec.__name__] = DatasetSpec(campaigns=list(campaigns))
    return list(chosen.values())


def lay_over_profile(read: Read, specs: Sequence[Spec], backend: str) -> list[Spec]:
    """Return ``specs`` on top of what a profile sets, and what it asks of a machine that is not this one.

    Raises:
        InvalidSetting: this machine is to train and is not enough.
    """
    from heimdall_assets.defs.accelerator import ask_machine
    from heimdall_assets.pipeline.recipe import SETTINGS
    from heimdall_assets.profiles.machines import describe_lack
    from heimdall_assets.profiles.resolving import Setting, find_needs, group, resolve
    from heimdall_assets.stores.capacity import find_machine

    given = {type(spec): spec.dump() for spec in specs}
    others = {
        f"{cls.__name__}.{name}": Setting(fields[name], "specs")
        for cls, fields in given.items()
        if cls is not DatasetSpec
        for name in next(spec for spec in specs if type(spec) is cls).model_fields_set
    }
    memory_gib = None
    if backend in ("in_process", "local"):
        machine = find_machine()
        memory_gib = machine.gpu_memory_gib
        if lack := describe_lack(machine, find_needs(read.profile, resolve(read, others, memory_gib))):
            raise InvalidSetting(f"profile {read.profile.name}: this machine: {lack}")
    settings = resolve(read, others, memory_gib)
    chosen = group(settings)
    asked = ask_machine(find_needs(read.profile, settings), chosen.pop("AcceleratorSpec", {}), backend)
    made: list[Spec] = [SETTINGS[name].model_validate(fields) for name, fields in chosen.items()]
    return [*made, *asked, *(spec for spec in specs if isinstance(spec, DatasetSpec))]


def _keep_silent(asset: str, what: str, done: int, total: int) -> None:
    """Tell nobody."""


def _write_line(asset: str, what: str, done: int, total: int) -> None:
    if done >= total:
        print(f"{asset}: {what}" if asset else what, flush=True)
