"""Schema: the one shape of a profile, typed; each value says in its description what it is for.

Belongs here: fields and bounds. Does not belong here: reading files and telling what is wrong in them (``reading``).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from heimdall_assets.specs import (
    AssessmentSpec,
    DatasetSpec,
    KubernetesSpec,
    RetentionPolicy,
    RetrainPolicy,
    SearchSpec,
    SimulationSpec,
    Spec,
    list_specs,
)

KindOfTraining = Literal["scratch", "fine_tuning", "transfer"]
"""scratch: from random weights; fine_tuning: from a checkpoint of ours (``TrainingSpec.start_from``); transfer: on a
backbone with published weights (``ModelSpec.pretrained``)."""

NOT_OF_A_PROFILE: Mapping[type[Spec], str] = {
    DatasetSpec: "which data is chosen for each run, by --campaign or --set",
    KubernetesSpec: "set by HEIMDALL_KUBERNETES",
    RetrainPolicy: "set by HEIMDALL_RETRAIN",
    RetentionPolicy: "set by HEIMDALL_RETENTION",
    SearchSpec: "said by heimdall search",
    AssessmentSpec: "said by the profile's own assessment",
    SimulationSpec: "set in Python",
}
"""Specs that a profile does not set, and who does."""


def list_profile_specs() -> dict[str, type[Spec]]:
    """Return the specs that a profile may set, by name."""
    return {name: cls for name, cls in list_specs().items() if cls not in NOT_OF_A_PROFILE}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Needs(_Part):
    """What a machine must have."""

    gpus: int = Field(0, ge=0, description="GPUs that train together")
    gpu_memory_gib: float = Field(0.0, ge=0, description="memory of each of them, in GiB as its maker counts")
    memory_gib: float = Field(1.0, gt=0, description="main memory, in GiB")
    cpus: int = Field(1, ge=1, description="processors")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.gpu_memory_gib and not self.gpus:
            raise ValueError(f"gpu_memory_gib: found {self.gpu_memory_gib:g} with gpus 0, expected at least 1 GPU or 0")
        return self


class LearningRate(_Part):
    """The step size of one kind of training."""

    value: float = Field(gt=0, description="taken where TrainingSpec.learning_rate is not set")
    lowest: float = Field(gt=0, description="a smaller one is warned of")
    highest: float = Field(gt=0, description="a larger one is warned of")
    warmup_epochs: int | None = Field(None, ge=0, description="taken where TrainingSpec.warmup_epochs is not set")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.lowest <= self.value <= self.highest:
            raise ValueError(f"value: found {self.value:g}, expected {self.lowest:g} to {self.highest:g}")
        return self


class Tracking(_Part):
    """Who is told of a training as it runs."""

    mlflow: bool = Field(True, description="MLflow, where HEIMDALL_TRACKING is on")
    wandb: Literal["never", "installed", "always"] = Field(
        "never",
        description="Weights & Biases, offline; installed: where heimdall-assets[wandb] is, else one line says that it "
        "is not; always: a run without it is refused",
    )


TierFigure = Literal["max_val_loss", "max_val_error_m", "min_span_f1", "min_separation"]
"""What a tier may ask of a training's best epoch: bounds of figures of the validation split."""

TIER_FIGURES = get_args(TierFigure)


def _check_range(limits: list[float]) -> list[float]:
    if len(limits) == 2 and limits[0] >= limits[1]:
        raise ValueError(f"found [{limits[0]:g}, {limits[1]:g}], expected the smaller one first")
    return limits


class Assessment(_Part):
    """When a training has converged, and how good it is: read by heimdall runs assess."""

    tiers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")], dict[TierFigure, float]] = Field(
        min_length=1,
        description="degree of success, the best first -> what it asks of the best epoch: " + ", ".join(TIER_FIGURES),
    )
    max_val_loss_change: float = Field(0.01, gt=0, description="converged: the validation loss moves by less than this")
    over_epochs: int = Field(10, ge=2, description="... in each of so many epochs in a row, the last ones")
    gradient_norm: Annotated[list[Annotated[float, Field(gt=0)]], AfterValidator(_check_range)] = Field(
        default=[0.01, 10.0], min_length=2, max_length=2, description="healthy norms of gradients, from and to"
    )


class Profile(_Part):
    """A profile, with what it extends already in it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="what it is called by")
    purpose: str = Field(min_length=1, max_length=300, description="which machine and which work it is for")
    extends: str | None = Field(None, min_length=1, description="profile, or file beside this one, that it changes")
    needs: Needs = Field(Needs(), description="what a machine must have")
    batch_size: dict[Annotated[float, Field(ge=0)], Annotated[int, Field(ge=1)]] = Field(
        default={},
        description="memory of a GPU in GiB -> sessions a device in one step, of the largest one that is reached; "
        "0: no GPU. Times TrainingSpec.num_devices it is TrainingSpec.batch_size where that is not set",
    )
    learning_rate: dict[KindOfTraining, LearningRate] = Field(
        default={}, description="kind of training -> its step size"
    )
    tracking: Tracking = Field(Tracking(), description="who is told of a training")
    assessment: Assessment = Field(
        Assessment(tiers={"acceptable": {"max_val_error_m": 100.0}}),
        description="when a training is good",
    )
    settings: dict[str, dict[str, Any]] = Field(
        default={}, description="in a file each spec stands by its own name, such as TrainingSpec: {max_epochs: 10}"
    )
