"""Every number that somebody may choose and that changes a result, with its bounds and its reason.

Belongs here: frozen pydantic specs; plain field types only (lists, no tuples, no nested models), so that each spec is
Dagster run configuration as it stands; the refusal of a setting that is none, which names the one that was meant. Does
not belong here: facts (``domain``), places (``variables``), what others call the same settings (``other_names``).
"""

import re
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from heimdall_assets.domain import APPROVED_COLUMNS
from heimdall_assets.manifests import compute_json_digest
from heimdall_assets.other_names import OTHER_SETTINGS, OTHER_SPECS
from heimdall_assets.physical import read_clock_sigma_s
from heimdall_assets.search_space import Dimension, parse_dimension
from heimdall_assets.suggestions import normalize_name, suggest_name

_NULL_SHARE = re.compile(r"[0-9]*\.?[0-9]+")

_PYDANTIC_SAYS = "Input should be "

UNKNOWN_SETTING = "extra_forbidden"
"""Pydantic's type of the error that tells of a field that a spec does not have."""


class Spec(BaseModel):
    """Base of the specs: frozen, closed, without NaN or infinity; two specs with equal numbers have equal digests."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    TOLERANCES: ClassVar[frozenset[str]] = frozenset()
    """Fields that say whether a result may stand, not what its parts are: parts are found again whatever they say."""

    @classmethod
    def pure_class(cls) -> "type[Spec]":
        """Return the class of this module that ``cls`` is or extends (Dagster configuration extends specs)."""
        return next(base for base in cls.__mro__ if base.__module__ == __name__ and issubclass(base, Spec))

    def pure(self) -> Self:
        """Return this spec as an instance of its pure class, without what a framework added."""
        return self.pure_class().model_validate(self.dump())  # type: ignore[return-value]  # not Self, but what it extends

    def dump(self) -> dict[str, Any]:
        """Return the fields as JSON values, without those that a framework added."""
        fields = self.pure_class().model_fields
        return {name: value for name, value in self.model_dump(mode="json").items() if name in fields}

    def digest(self) -> str:
        return compute_json_digest({self.pure_class().__name__: self.dump()})

    def digest_of_parts(self) -> str:
        """Return the digest of what decides each part of a result: equal for specs that differ in tolerances alone."""
        parts = {name: value for name, value in self.dump().items() if name not in self.TOLERANCES}
        return compute_json_digest({self.pure_class().__name__: parts})

    @model_validator(mode="wrap")
    @classmethod
    def _name_ours(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse a setting that is none with the name of the one that was probably meant."""
        try:
            return handler(given)
        except ValidationError as error:
            unknown = [line for line in error.errors() if line["type"] == UNKNOWN_SETTING]
            if not unknown:
                raise
            lines = [
                InitErrorDetails(
                    type=PydanticCustomError(UNKNOWN_SETTING, "{said}", {"said": refuse_setting(cls, *line["loc"])}),
                    loc=line["loc"],
                    input=line["input"],
                )
                for line in unknown
            ]
            raise ValidationError.from_exception_data(cls.__name__, lines) from None


def list_specs() -> dict[str, type[Spec]]:
    """Return every spec by name, in the order of this file."""
    return {cls.__name__: cls for cls in Spec.__subclasses__() if cls.__module__ == __name__}


def suggest_setting(typed: str, spec: type[Spec] | None = None) -> str | None:
    """Return the setting, as ``Spec.field``, that somebody meant who typed ``typed``; None: it is like none.

    Args:
        typed: a field as somebody called it.
        spec: where it was looked for; a setting of that very name elsewhere comes before a mere likeness here.

    >>> suggest_setting("n_mels", FeatureSpec)
    'FeatureSpec.num_mels'
    >>> suggest_setting("lr", ModelSpec)
    'TrainingSpec.learning_rate'
    """
    specs = list(list_specs().values())
    anywhere: dict[str, str] = {}
    for cls in reversed(specs):  # where several have it, the first one stays
        anywhere.update({other: f"{cls.__name__}.{name}" for other, name in OTHER_SETTINGS[cls.__name__].items()})
    for cls in reversed(specs):
        anywhere.update({name: f"{cls.__name__}.{name}" for name in cls.model_fields})
    fields = {} if spec is None else {name: name for name in spec.model_fields} | dict(OTHER_SETTINGS[spec.__name__])
    own = {other: f"{spec.__name__}.{name}" for other, name in fields.items()} if spec else {}
    name = normalize_name(typed)
    return own.get(name) or anywhere.get(name) or suggest_name(name, own) or suggest_name(name, anywhere)


def refuse_setting(spec: type[Spec], typed: str | int) -> str:
    """Return what to say of a field ``typed`` that ``spec`` does not have."""
    spec = spec.pure_class()
    meant = suggest_setting(str(typed), spec)
    return "no such setting, " + (f"did you mean {meant}?" if meant else f"expected {', '.join(spec.model_fields)}")


def describe_invalid(name: str, error: ValidationError) -> str:
    """Return the first thing that is wrong with the settings called ``name`` as one line."""
    first = error.errors()[0]
    where = ".".join([name, *(str(part) for part in first["loc"])])
    if first["type"] == UNKNOWN_SETTING:
        return f"{where}: {first['msg']}"
    if first["type"] == "value_error":  # of a spec's own check, which says what it found
        return f"{where}: {first['ctx']['error']}"
    found, (_, ours, expected) = f"found {first['input']!r:.80}", first["msg"].partition(_PYDANTIC_SAYS)
    return f"{where}: {found}, expected {expected}" if ours else f"{where}: {first['msg']}; {found}"


def suggest_spec(typed: str) -> str | None:
    """Return the name of the spec that somebody meant who typed ``typed``; None: it is like none.

    >>> suggest_spec("features"), suggest_spec("TrainerSpec"), suggest_spec("Model")
    ('FeatureSpec', 'TrainingSpec', 'ModelSpec')
    """
    names = {}
    for name in list_specs():
        short = name.removesuffix("Spec")
        names.update(dict.fromkeys([*OTHER_SPECS.get(name, ()), name, short, f"{short}Config"], name))
    return suggest_name(typed, names)


class DatasetSpec(Spec):
    """Which approved sessions make a snapshot. Simulated and measured ones mix only when ``origin`` says ``both``."""

    campaigns: list[str] = Field(default_factory=list, description="campaigns to take; empty: every campaign")
    origin: Literal["measured", "simulated", "both"] = Field(
        "both", description="'both' mixes measured and simulated sessions; the realised mix is recorded"
    )


class TimingSpec(Spec):
    """One-sigma timing error of each clock class, in seconds."""

    gnss_calibrated_s: float = Field(76e-9, gt=0, description="30 ns station bias and 70 ns jitter, in quadrature")
    gnss_s: float = Field(
        30e-6, gt=0, description="uncalibrated receive filters and sky wave: 12 to 73 us seen on KiwiSDR at 77.5 kHz"
    )
    ntp_s: float = Field(10e-3, gt=0, description="network time over the internet")
    reference_s: float = Field(
        0.3e-6, gt=0, description="echoes on the way from the reference: 0.1 us of spread in open land, 1 us in cities"
    )

    def sigma_s(self, clock_class: str) -> float:
        """Return the sigma of ``clock_class`` in seconds; infinity for a free-running clock."""
        return read_clock_sigma_s(self, clock_class)


class FeatureSpec(Spec):
    """Spectrogram of one recording: (3, 128, 32) float32 in dB of full scale."""

    n_fft: int = Field(2048, ge=64, le=65536, description="samples in one transform")
    hop: int = Field(512, ge=1, description="samples between transforms")
    num_mels: int = Field(128, ge=8, le=512, description="mel bands of the picture, its height")
    num_frames: int = Field(32, ge=1, le=4096, description="time steps of the picture, its width")
    f_min_hz: float = Field(0.0, ge=0, description="lower edge of the lowest mel band, from the carrier")
    f_max_hz: float = Field(6000.0, gt=0, description="half a 12.5 kHz channel; needs a rate of at least twice this")
    floor_db: float = Field(-100.0, lt=0, description="whatever is weaker, in dB of full scale, is shown as this")
    frames: Literal["pooled", "strict"] = Field(
        "pooled", description="pooled: mean power of the whole recording in num_frames parts; strict: first frames"
    )
    channels: Literal["signed", "iq"] = Field(
        "signed", description="signed: f >= 0, f < 0, total; iq: |STFT(I)|^2, |STFT(Q)|^2, their sum"
    )
    max_refused_fraction: float = Field(
        0.5, ge=0, le=1, description="a larger share of recordings without a spectrogram stops the stage; 1: none does"
    )

    TOLERANCES: ClassVar[frozenset[str]] = frozenset({"max_refused_fraction"})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.f_max_hz <= self.f_min_hz:
            raise ValueError(f"f_max_hz {self.f_max_hz}: expected more than f_min_hz {self.f_min_hz}")
        if self.hop > self.n_fft:
            raise ValueError(f"hop {self.hop}: expected at most n_fft {self.n_fft}, else samples are skipped")
        return self


class RecordingSpec(Spec):
    """What makes a recording unusable."""

    max_clipped_fraction: float = Field(0.01, ge=0, le=1, description="share of samples at full scale")
    max_rate_error: float = Field(1e-3, ge=0, description="relative difference between row's and file's rate")
    min_duration_s: float = Field(0.1, gt=0, description="a shorter recording is refused")
    max_samples: int = Field(200_000_000, gt=0, description="longest recording that is read at all")
    max_refused_fraction: float = Field(
        0.5, ge=0, le=1, description="a larger share of unusable recordings stops the stage; 1: none does"
    )

    TOLERANCES: ClassVar[frozenset[str]] = frozenset({"max_refused_fraction"})


class DelaySpec(Spec):
    """Delays between the receivers of a session from raw IQ."""

    max_baseline_slack: float = Field(1.2, ge=1, description="lags searched, as multiple of the longest baseline")
    min_coherence: float = Field(0.05, ge=0, le=1, description="a pair below it carries no delay")
    num_lags: int = Field(33, ge=5, le=257, description="complex lags kept around a pair's peak, an odd number")
    bandwidth_hz: float = Field(12_500.0, gt=0, description="channel that holds the signal")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.num_lags % 2 == 0:
            raise ValueError(f"num_lags {self.num_lags}: expected an odd number, as many before the peak as after it")
        return self


class AugmentationSpec(Spec):
    """Training-only disturbances that match what fails in the field; never cached."""

    dropout: float = Field(0.1, ge=0, le=1, description="probability that a receiver (or a mel band) is dropped")
    max_shift_frames: int = Field(4, ge=0, description="largest shift of a spectrogram in time, either way")
    max_gain_db: float = Field(6.0, ge=0, le=40, description="largest change of a receiver's gain, either sign")


class SplitSpec(Spec):
    """Which session serves what. Groups are transmitting sites; a keyed hash assigns each, so growth moves nobody."""

    salt: str = Field("42", min_length=1, description="key of the hash: another one, another split")
    val_fraction: float = Field(
        0.15, gt=0, lt=1, description="share of sites that choose when training stops; with folds: a fold is that"
    )
    test_fraction: float = Field(0.15, gt=0, lt=1, description="share of sites that training never sees")
    site_size_m: float = Field(250.0, gt=0, description="sources closer than about this share a site")
    group_by: Literal["site", "session"] = Field(
        "site", description="site: sessions of one transmitting site stay together; session: unseen sites not promised"
    )
    column: str | None = Field(
        None, description="session attribute that holds 1 on test sessions (a publisher's split); None: hash decides"
    )
    num_folds: int | None = Field(
        None,
        ge=2,
        le=100,
        description="deal what is no test into so many folds, each of which validates once; None: no",
    )
    fold: int = Field(0, ge=0, description="which of num_folds validates, from 0")
    stratify_by: Literal["none", "region"] = Field(
        "none", description="region: each region holds its share of every split; growth then moves a site over a border"
    )
    region_size_m: float = Field(25_000.0, gt=0, description="side of a region of stratify_by")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction: expected less than 1, or nothing is left to train on")
        if self.fold and self.fold >= (self.num_folds or 1):
            folds = "num_folds, which is not set" if self.num_folds is None else f"num_folds {self.num_folds}"
            raise ValueError(f"fold {self.fold}: expected less than {folds}")
        if self.stratify_by == "region" and self.region_size_m < self.site_size_m:
            raise ValueError(
                f"region_size_m {self.region_size_m:g}: expected at least site_size_m {self.site_size_m:g}, "
                "for a region holds whole sites"
            )
        return self


BACKBONES = ("atto", "femto", "pico", "nano", "tiny", "small", "base", "medium", "large")


class ModelSpec(Spec):
    """Architecture. ``network`` locates from a whole session, ``single_receiver`` from one receiver's spectrogram."""

    kind: Literal["network", "single_receiver"] = Field(
        "network", description="network: a whole session gives one position; single_receiver: one spectrogram does"
    )
    backbone_size: Literal["atto", "femto", "pico", "nano", "tiny", "small", "base", "medium", "large"] = Field(
        "atto", description="timm ConvNeXt; 'medium' is 'base'"
    )
    pretrained: bool = Field(
        False, description="start the backbone from published weights: weights_file, else timm's own, from its hub"
    )
    weights_file: str | None = Field(
        None, description="local file with the backbone's pretrained weights (safetensors)"
    )
    freeze_backbone: bool = Field(False, description="keep the backbone as it starts; fit what stands on it")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of activations dropped while training")
    uncertainty_min: float = Field(0.01, gt=0, description="single_receiver: smallest sigma in normalised target units")
    uncertainty_max: float = Field(1.0, gt=0, description="single_receiver: largest sigma in normalised target units")
    width: int = Field(64, ge=8, le=1024, description="network: token width")
    num_layers: int = Field(2, ge=0, le=24, description="network: self-attention layers")
    num_heads: int = Field(4, ge=1, le=32, description="network: attention heads")
    use_spectrograms: bool = Field(True, description="network: receiver tokens see the spectrogram where there is one")
    use_correlations: bool = Field(
        True, description="network: pairs of receivers see how their recordings correlate where there is IQ"
    )
    multi_target: bool = Field(
        False,
        description="network: add the signal heads (type, span, countdown, SNR), read off the demodulated recordings",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.uncertainty_max <= self.uncertainty_min:
            raise ValueError("uncertainty_max: expected more than uncertainty_min")
        if self.multi_target and self.kind != "network":
            raise ValueError(f"multi_target: found kind {self.kind}, expected network: signals are of a whole session")
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width}: expected a multiple of num_heads {self.num_heads}")
        return self


class TrainingSpec(Spec):
    """How a model is fitted. CPU results are the same bytes for the same spec, data, thread count and processor."""

    seed: int = Field(
        42, ge=0, lt=2**32, description="of the first weights, the order of sessions and all disturbances"
    )
    max_epochs: int = Field(40, ge=1, description="passes over the training sessions, unless stopped early")
    batch_size: int = Field(
        64, ge=1, description="sessions in one batch, of all devices together (single_receiver: recordings)"
    )
    learning_rate: float = Field(1e-3, gt=0, description="largest step size, at the end of the warm-up")
    weight_decay: float = Field(1e-4, ge=0, description="of AdamW")
    warmup_epochs: int = Field(5, ge=0, description="epochs in which the step size rises to learning_rate")
    early_stopping_patience: int = Field(10, ge=1, description="epochs without a better validation loss to wait for")
    early_stopping_min_delta: float = Field(1e-4, ge=0, description="a smaller gain in validation loss is none")
    gradient_clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")
    num_threads: int = Field(2, ge=1, description="part of the result: other counts give other bits")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true", description="number format of the fit, in Lightning's words; 16-mixed needs a GPU"
    )
    accumulate_batches: int = Field(1, ge=1, description="batches whose gradients make one step of the optimiser")
    schedule: Literal["cosine", "one_cycle", "plateau", "constant"] = Field(
        "cosine", description="of the step size, after the warm-up (one_cycle has its own)"
    )
    ema_decay: float | None = Field(
        None, ge=0, lt=1, description="judge and keep a moving average of the weights, of this decay a step; null: none"
    )
    activation_checkpointing: bool = Field(
        False, description="compute activations again on the way back instead of keeping them: less memory, more time"
    )
    channels_last: bool = Field(False, description="spectrograms in memory with channels last, as convolutions like it")
    compile: bool = Field(False, description="torch.compile: a minute at the start, faster steps after it")
    fused_optimizer: bool = Field(False, description="AdamW's update of all weights in one piece")
    num_devices: int = Field(1, ge=1, description="processes that share each batch, one a GPU; on processors by gloo")
    find_learning_rate: bool = Field(
        False, description="take the step size from a range test before training instead of learning_rate"
    )
    start_from: str | None = Field(
        None,
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="manifest of the checkpoint whose weights the fit starts from (heimdall train --from)",
    )
    found_by: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="manifest of the search whose best settings these are (heimdall train --search)",
    )
    teacher: str | None = Field(
        None,
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="manifest of the checkpoint, of the same splits, whose answers the fit learns beside the labels",
    )
    teacher_share: float = Field(
        0.5, ge=0, le=1, description="share of the loss that is distance to the teacher's answers; the rest: to labels"
    )
    num_simulated_sessions: int = Field(
        0, ge=0, description="network: simulated sessions (delays and levels, no IQ) added to training; recorded as mix"
    )


class MachineSpec(Spec):
    """How a fit uses the machine it runs on; no result depends on it."""

    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: a GPU where there is one")
    num_workers: int = Field(0, ge=0, description="processes that make batches beside the one that trains")
    prefetch_batches: int = Field(2, ge=1, description="batches that each worker makes ahead")
    pin_memory: bool = Field(False, description="batches in page-locked memory: faster on their way to a GPU")
    checkpoint_every_epochs: int = Field(1, ge=1, description="epochs between checkpoints to go on from")
    checkpoint_every_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints within an epoch; null: none"
    )
    max_power_w: float | None = Field(None, gt=0, description="a GPU that draws more is warned of; null: any")
    max_temperature_c: float | None = Field(None, gt=0, description="a GPU that is hotter is warned of; null: any")


class SearchSpec(Spec):
    """Which settings are searched, how, and by what they are judged: on the validation split, never on the test one."""

    space: list[str] = Field(
        default_factory=lambda: [
            "TrainingSpec.learning_rate=3e-4|1e-3|3e-3",
            "TrainingSpec.batch_size=32|64|128",
            "TrainingSpec.weight_decay=1e-5|1e-4|1e-3",
            "ModelSpec.dropout=0|0.1|0.3",
        ],
        min_length=1,
        description="settings that are tried: Spec.field=a|b|c, =log(low,high) or =uniform(low,high); 81 points",
    )
    sampler: Literal["grid", "tpe", "random"] = Field(
        "grid", description="grid: each point once; tpe: Parzen estimators of what did well; random: anything"
    )
    num_trials: int = Field(81, ge=1, le=100_000, description="fits; a grid ends with its last point")
    pruner: Literal["none", "asha", "hyperband"] = Field(
        "none", description="stops trials that do worse than others after as many epochs"
    )
    min_epochs: int = Field(1, ge=1, description="asha, hyperband: no trial is stopped before this epoch")
    reduction_factor: int = Field(3, ge=2, description="asha, hyperband: one trial in so many goes on at each look")
    max_epochs: int | None = Field(None, ge=1, description="of a trial; null: TrainingSpec.max_epochs")
    objective: Literal["val_loss", "val_median_m"] = Field(
        "val_loss", description="val_loss: lowest of the epochs; val_median_m: median error in metres on validation"
    )
    num_workers: int = Field(
        1, ge=1, le=64, description="steps that share the trials; with more than one, their order is not repeatable"
    )
    seed: int = Field(42, ge=0, lt=2**32, description="of what is drawn, and of the order of a grid's points")

    def list_dimensions(self) -> list[Dimension]:
        """Return what the lines of ``space`` say."""
        return [parse_dimension(line) for line in self.space]

    @model_validator(mode="after")
    def _check(self) -> Self:
        dimensions = self.list_dimensions()
        names = [one.name for one in dimensions]
        for one in dimensions:
            _check_dimension(one)
            if names.count(one.name) > 1:
                raise ValueError(f"space: found {one.name} twice, expected each setting once")
            if self.sampler == "grid" and not one.values:
                raise ValueError(f"space: found a range for {one.name} with sampler grid, expected values a|b|c")
        return self


SEARCHED: dict[str, frozenset[str]] = {
    "ModelSpec": frozenset({"weights_file"}),
    "TrainingSpec": frozenset({"found_by", "start_from", "max_epochs", "num_threads"}),
    "AugmentationSpec": frozenset(),
}
"""Spec -> its fields that no search may try: what an input is, and what a trial costs."""


def _check_dimension(one: Dimension) -> None:
    """Raise ``ValueError`` where a search cannot try the values of a setting."""
    if one.spec not in SEARCHED:
        raise ValueError(f"space: found {one.name}, expected a setting of {', '.join(SEARCHED)}")
    cls = list_specs()[one.spec]
    if one.field not in cls.model_fields:
        raise ValueError(f"space: {one.name}: {refuse_setting(cls, one.field)}")
    if one.field in SEARCHED[one.spec]:
        raise ValueError(f"space: found {one.name}, which no search tries")
    if not one.values and cls.model_fields[one.field].annotation not in (int, float):
        raise ValueError(f"space: found a range for {one.name}, expected values a|b|c: it is no number")
    for value in one.tried:
        try:
            cls.model_validate({one.field: value})
        except ValidationError as error:
            if any(line["loc"][:1] == (one.field,) for line in error.errors()):
                raise ValueError(f"space: {describe_invalid(one.spec, error)}") from None


class EvaluationSpec(Spec):
    """How a model is judged."""

    coverage_levels: list[float] = Field(
        default_factory=lambda: [0.50, 0.68, 0.90, 0.95], description="ellipses whose coverage is counted"
    )
    accuracy_radii_m: list[float] = Field(
        default_factory=lambda: [30.0, 50.0, 100.0, 1000.0, 10_000.0],
        description="errors below which sessions are counted",
    )
    num_bootstrap: int = Field(1000, ge=100, description="resamples behind each interval")
    confidence: float = Field(0.95, gt=0, lt=1, description="of each interval")
    seed: int = Field(42, ge=0, lt=2**32, description="of the resampling")


TIER_FIGURES = ("max_val_loss", "max_val_error_m", "min_span_f1", "min_separation")
"""What a tier of ``AssessmentSpec`` may ask for: bounds of figures in the tables of a training."""


class AssessmentSpec(Spec):
    """What a training is judged by when it is looked at; no result depends on it."""

    tiers: dict[str, dict[str, float]] = Field(
        default_factory=lambda: {
            "excellent": {"max_val_error_m": 30.0, "min_span_f1": 0.95},
            "good": {"max_val_error_m": 50.0, "min_span_f1": 0.9},
            "acceptable": {"max_val_error_m": 100.0, "min_span_f1": 0.8},
        },
        description="name of a degree of success, the best first, to what it asks of the best epoch: "
        f"{', '.join(TIER_FIGURES)}",
    )
    max_val_loss_change: float = Field(
        0.01, gt=0, description="converged: val_loss changes by less from epoch to epoch ..."
    )
    over_epochs: int = Field(10, ge=1, description="... for so many epochs")
    gradient_norm: list[float] = Field(
        default_factory=lambda: [0.01, 10.0], description="healthy: mean norm of an epoch's gradients lies in between"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.gradient_norm) != 2 or not 0 <= self.gradient_norm[0] < self.gradient_norm[1]:
            raise ValueError(f"gradient_norm: found {self.gradient_norm}, expected [SMALLEST, LARGEST]")
        strange = {name for asked in self.tiers.values() for name in asked} - set(TIER_FIGURES)
        if strange:
            raise ValueError(f"tiers: found {min(strange)}, expected one of {', '.join(TIER_FIGURES)}")
        return self


VARIANTS = ("fp32", "fp16", "int8_dynamic", "int8_static", "int4", "pruned")


class ExportSpec(Spec):
    """The ONNX file and what it must match; of the variants, the smallest that keeps its accuracy is released."""

    opset: int = Field(20, ge=18, le=23, description="version of the ONNX operators")
    max_position_error_sigma: float = Field(0.02, gt=0, description="largest |ONNX - PyTorch| in units of sigma")
    max_signal_error: float = Field(
        0.01, gt=0, description="largest |ONNX - PyTorch| of a signal task: share, frame, dB"
    )
    max_uncertainty_error: float = Field(
        0.05, gt=0, description="largest relative difference of a sigma; three receivers in a row reach 3 % in float32"
    )
    variants: list[str] = Field(
        default_factory=lambda: ["fp32"],
        min_length=1,
        description="files to make of the model and choose from: " + ", ".join(VARIANTS),
    )
    max_size_mb: float = Field(100.0, gt=0, description="largest file that is released, in MB of 1,000,000 bytes")
    max_variant_median_ratio: float = Field(
        1.05, ge=1, description="largest median error of a variant on validation sessions, over that of the model"
    )
    max_variant_p90_ratio: float = Field(
        1.10, ge=1, description="the same of the error that 90 % of validation sessions stay below"
    )
    max_variant_coverage_change: float = Field(
        0.05, ge=0, le=1, description="by how much its 90 % ellipses may cover another share of validation sessions"
    )
    pruned_share: float = Field(
        0.25, gt=0, lt=1, description="pruned: share of the hidden units of each block of the backbone that is removed"
    )
    num_calibration_examples: int = Field(
        256, ge=1, description="int8_static, pruned: training examples whose activations are measured; fewer: all"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if unknown := [name for name in self.variants if name not in VARIANTS]:
            raise ValueError(f"variants: found {unknown[0]!r:.60}, expected some of {', '.join(VARIANTS)}")
        if twice := sorted({name for name in self.variants if self.variants.count(name) > 1}):
            raise ValueError(f"variants: found {', '.join(twice)} twice, expected each once")
        return self


class GateSpec(Spec):
    """What a model must reach; one that does not is kept as rejected: never latest, champion or challenger."""

    max_median_m: float | None = Field(None, gt=0, description="largest median error on the test split; null: any")
    min_skill: float | None = Field(
        None, lt=1, description="smallest 1 - model / best baseline of median errors; 0: no worse than it; null: any"
    )
    max_drift: float | None = Field(
        None,
        ge=0,
        le=1,
        description="largest Kolmogorov-Smirnov distance of its data to the latest release's; null: any",
    )
    min_accuracy: float | None = Field(
        None, gt=0, le=1, description="smallest share of test sessions within accuracy_radius_m; null: any"
    )
    accuracy_radius_m: float = Field(1000.0, gt=0, description="that share's radius, one of EvaluationSpec's")
    min_sessions: int | None = Field(None, ge=1, description="fewest sessions of its data; null: any")
    max_age_days: float | None = Field(
        None, gt=0, description="since the newest recording of its data, when it is released; null: any"
    )
    max_null_shares: list[str] = Field(
        default_factory=list, description="COLUMN=SHARE, largest share of a column's values missing in its data"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = [one.partition("=")[0] for one in self.max_null_shares]
        for one in self.max_null_shares:
            column, _, share = one.partition("=")
            if not _NULL_SHARE.fullmatch(share) or not 0.0 <= float(share) <= 1.0:
                raise ValueError(f"max_null_shares: found {one!r:.60}, expected COLUMN=SHARE with a share of 0 to 1")
            if column not in APPROVED_COLUMNS:
                near = suggest_name(column, {name: name for name in APPROVED_COLUMNS})
                raise ValueError(
                    f"max_null_shares: found {column!r:.60}, expected a column of the snapshot"
                    + (f", such as {near}" if near else "")
                )
        if twice := sorted({name for name in found if found.count(name) > 1}):
            raise ValueError(f"max_null_shares: found {twice[0]} twice, expected each column once")
        return self

    def read_null_shares(self) -> dict[str, float]:
        """Return column -> largest share of missing values."""
        return {column: float(share) for column, _, share in (one.partition("=") for one in self.max_null_shares)}


class PromotionSpec(Spec):
    """When a challenger becomes champion."""

    max_median_ratio: float = Field(
        1.05, ge=1, description="upper end of the interval of challenger / champion median error on the same sessions"
    )
    min_sessions: int = Field(10, ge=1, description="fewer common test sessions prove nothing: the champion stays")
    num_bootstrap: int = Field(2000, ge=100, description="resamples behind the interval of the ratio")
    confidence: float = Field(0.90, gt=0, lt=1, description="of that interval")
    seed: int = Field(42, ge=0, lt=2**32, description="of the resampling")


class MonitoringSpec(Spec):
    """When the champion in use, or what it is given, is no longer as it was released."""

    max_error_ratio: float = Field(
        1.10, ge=1, description="median error on new sessions / on its own test split, surely above: an alert"
    )
    max_refused_share: float = Field(0.20, ge=0, lt=1, description="new sessions refused, surely above: an alert")
    max_coverage_gap: float = Field(
        0.10, ge=0, lt=0.9, description="new truths within the 90 % ellipses, surely so far from 90 %: an alert"
    )
    min_gain_db: float = Field(3.0, gt=0, description="a receiver's level moved so far against the others': an alert")
    min_distance: float = Field(
        0.30, gt=0, le=1, description="Kolmogorov-Smirnov distance of a column to the champion's training: an alert"
    )
    min_null_change: float = Field(0.10, gt=0, le=1, description="share of a column's values missing, moved: an alert")
    alpha: float = Field(
        0.01, gt=0, lt=0.5, description="largest chance of a false alert of each kind in one evaluation"
    )
    min_sources: int = Field(5, ge=3, description="transmitters on either side of a comparison; fewer say nothing")
    min_sessions: int = Field(10, ge=1, description="judged sessions; fewer say nothing of errors and refusals")
    max_sessions: int = Field(200, ge=10, description="newest new sessions that are compared")
    max_gone_share: float = Field(0.20, ge=0, le=1, description="champion's sessions withdrawn since: an alert")
    max_age_days: float | None = Field(
        30.0, gt=0, description="since the newest approval: what is judged says little of today; null: any"
    )


class RetrainPolicy(Spec):
    """When approved data has changed enough to train again."""

    min_changed_sessions: int = Field(10, ge=1, description="approved or withdrawn since the latest release ...")
    min_changed_fraction: float = Field(0.05, gt=0, le=1, description="... or this share of its sessions")
    min_withdrawn_sessions: int = Field(1, ge=1, description="what must not be learned from any more does not wait")
    max_wait_s: float = Field(7 * 86_400.0, gt=0, description="a smaller change is trained on after this long")
    quiet_period_s: float = Field(60.0, ge=0, description="no retraining while approvals are still coming in")
    max_attempts: int = Field(3, ge=1, description="runs asked for one approved set before giving up")


class RetentionPolicy(Spec):
    """What a home keeps of runs that ended; results, releases and what their lineage names are always kept."""

    unchanged_runs: int = Field(3, ge=1, description="newest runs kept of those in which every result was found")
    run_days: float = Field(365.0, gt=0, description="any other run leaves the graph's history after this long")
    scratch_days: float = Field(30.0, gt=0, description="checkpoints of a training that nobody took up again")
    training_folders: int = Field(200, ge=1, description="newest trainings whose folder is kept (runs/ID) ...")
    training_days: float = Field(365.0, gt=0, description="... for so long; its tables stay beside its checkpoint")
    checkpoint_days: float = Field(30.0, gt=0, description="checkpoints that a training's folder keeps beside the best")
    object_days: float = Field(
        30.0, ge=2, description="heimdall gc leaves what was stored or used so lately, whoever may need it"
    )


class AcceleratorSpec(Spec):
    """What the GPU-tagged step asks of the machine it runs on; no result depends on it."""

    gpu_type: str | None = Field(
        None,
        min_length=1,
        description="kind of GPU in the backend's words: k8s the value of a node's gpu_label, ray an accelerator "
        "type, local a part of the name that nvidia-smi prints; null: any",
    )
    num_gpus: int = Field(1, ge=0, description="GPUs of one machine; 0: the step trains on processors")
    num_cpus: int = Field(2, ge=1, description="processors that are kept free for it")
    memory_gib: float | None = Field(None, gt=0, description="main memory kept free for it, in GiB; null: any")
    spot: bool = Field(False, description="k8s: on a machine that may be taken away; a training goes on after that")
    time_limit_s: float | None = Field(
        None, gt=0, description="an attempt is stopped this long after its launch and keeps what it has; null: never"
    )
    wait_limit_s: float = Field(1800.0, gt=0, description="ray, k8s: a step that found no machine by then has failed")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.gpu_type is not None and self.num_gpus == 0:
            raise ValueError(f"gpu_type: found {self.gpu_type} with num_gpus 0, expected at least 1")
        return self


class KubernetesSpec(Spec):
    """The cluster whose pods run steps. Secrets are named here, and their values stay in the cluster."""

    image: str | None = Field(None, min_length=1, description="container image whose entrypoint runs its arguments")
    namespace: str = Field("default", min_length=1, description="where the jobs of steps are made")
    cpu_steps: Literal["local", "pods"] = Field("local", description="where steps run that want no GPU")
    service_account: str | None = Field(None, min_length=1, description="that pods run under; null: the namespace's")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="when a node fetches the image"
    )
    image_pull_secrets: list[str] = Field(default_factory=list, description="names of secrets that open the registry")
    env_config_maps: list[str] = Field(default_factory=list, description="names of config maps that become variables")
    env_secrets: list[str] = Field(
        default_factory=list, description="names of secrets that become variables, such as HEIMDALL_DATABASE_URL"
    )
    claims: list[str] = Field(
        default_factory=list, description="NAME:/FOLDER, persistent volume claims and where pods find the home in them"
    )
    gpu_label: str = Field(
        "nvidia.com/gpu.product", min_length=1, description="node label that says which GPU a node has"
    )
    spot_label: str = Field(
        "cloud.google.com/gke-spot=true",
        pattern=r"^[^=\s]+=[^=\s]+$",
        description="LABEL=VALUE of nodes that may be taken away, which is their taint too",
    )
    patience_s: float = Field(300.0, gt=0, description="a step has failed when the API server was away for this long")
    machine_patience_s: float = Field(
        300.0,
        gt=0,
        description="a step is lost when its machine was silent for this long, or its pod outlived its end by as much",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for claim in self.claims:
            name, _, folder = claim.partition(":")
            if not name or not folder.startswith("/"):
                raise ValueError(f"claims: found {claim!r}, expected NAME:/FOLDER")
        return self


class SimulationSpec(Spec):
    """A simulated network and its traffic. Every nuisance parameter drawn is recorded as truth."""

    seed: int = Field(42, ge=0, lt=2**32, description="of everything drawn")
    num_sessions: int = Field(140, ge=1, le=10**7, description="transmissions")
    min_receivers: int = Field(7, ge=1, le=64, description="each session is heard by this many receivers ...")
    max_receivers: int = Field(7, ge=1, le=64, description="... to this many")
    duration_s: float = Field(1.0, gt=0, le=600, description="of each recording")
    sample_rate_hz: float = Field(24_000.0, ge=12_500, description="complex samples a second")
    carrier_hz: float = Field(145_500_000.0, gt=0, description="radio frequency")
    voice_fraction: float = Field(0.90, ge=0, le=1, description="sessions that carry voice")
    tone_fraction: float = Field(0.05, ge=0, le=1, description="sessions that carry a tone; the rest is DTMF")
    snr_min_db: float | None = Field(
        None, description="with snr_max_db: SNR drawn uniformly; None: link budget decides"
    )
    snr_max_db: float | None = Field(None, description="upper end of that draw")
    clock_class: Literal["gnss_calibrated", "gnss", "ntp", "none"] = Field(
        "gnss_calibrated", description="what the recordings say of their clocks"
    )
    clock_bias_s: float = Field(30e-9, ge=0, description="one-sigma station bias")
    clock_jitter_s: float = Field(70e-9, ge=0, description="one-sigma error of one session")
    blocked_fraction: float = Field(0.0, ge=0, le=1, description="receivers without line of sight")
    blocked_excess_s: float = Field(1e-6, ge=0, description="mean of their exponential excess delay")
    blocked_loss_db: float = Field(
        0.0, ge=0, le=60, description="level they lose; 0: levels do not tell who; in IQ their SNR falls with it"
    )
    rician_k_db: float | None = Field(None, description="multipath; None: line of sight alone")
    delay_spread_s: float = Field(0.5e-6, ge=0, description="of that multipath")
    path_loss: Literal["log_distance", "free_space", "two_ray"] = Field(
        "log_distance", description="law of the mean level; two_ray: over flat reflecting ground"
    )
    path_loss_exponent: float = Field(3.0, ge=1.5, le=6, description="of the log-distance law")
    shadowing_db: float = Field(6.6, ge=0, description="one-sigma deviation of levels from the law")
    source_power_dbm: float = Field(37.0, description="5 W")
    area_margin_deg: float = Field(0.3, ge=0, description="sources lie within the network's box widened by this")
    impairments: bool = Field(True, description="IQ imbalance, DC offset, AGC, ADC bits, frequency offsets")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.voice_fraction + self.tone_fraction > 1:
            raise ValueError("voice_fraction + tone_fraction: expected at most 1; the rest is DTMF")
        if (self.snr_min_db is None) != (self.snr_max_db is None):
            raise ValueError("snr_min_db and snr_max_db: expected both or neither")
        if self.max_receivers < self.min_receivers:
            raise ValueError("max_receivers: expected at least min_receivers")
        return self


DEMO = SimulationSpec(
    num_sessions=400, source_power_dbm=57.0, blocked_fraction=0.5, blocked_excess_s=5e-6, blocked_loss_db=15.0
)
"""The world of the demo: strong transmitters among mountains. Half of the receivers have no line of sight: what reaches
them went 1.5 km further on average, and lost 15 dB. Arrival times alone do not tell who they are; levels help to.

Source: echoes of hilly terrain come some microseconds late, COST 207 (1989), section 2.4.
"""

DEMO_MODEL = ModelSpec(use_spectrograms=False)
"""The model of the demo: positions come from delays, levels and correlations, and spectrograms would cost minutes."""
