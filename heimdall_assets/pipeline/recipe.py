"""The recipe: what each result of the graph is computed from, with which specs, by which version of its code.

One table, read by the assets, by the lookup of earlier results, by the plan of what would run, by reproduction, by the
checks and by the page. ``golden.json`` beside it records what each version gives on a fixed small world: a result that
changes while its version does not fails the tests.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from heimdall_assets import specs
from heimdall_assets.domain import APPROVED_COLUMNS
from heimdall_assets.errors import NotFound
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    CHAMPION_MODEL,
    CHAMPION_ON_NEW_DATA,
    EVALUATION_METRICS,
    HYPERPARAMETER_SEARCH,
    IQ_FILES,
    MEASUREMENT_DATABASE,
    MODEL_RELEASE,
    ONNX_MODEL,
    PRODUCTION_MONITORING,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.specs import Spec

Columns = Mapping[str, str]
"""Column -> pandas dtype."""


@dataclass(frozen=True)
class Stage:
    """One kind of result.

    Attributes:
        code_version: raised by hand when the same inputs and specs give another result; part of the cache key of the
            result and of every index that the stage keeps (``name_index``).
        parents: kinds it is computed from.
        specs: every number that decides it.
        columns: its tables, artifact -> columns.
        is_decided: it is a decision of the moment, made anew each time and never found again.
        handling: specs that say how it is computed and change no result: no part of its cache key.
        is_aside: no release needs it: it is computed where somebody asks for it.
        after: kinds that are made before it in the same run, and are no input of it.
    """

    code_version: str
    parents: tuple[str, ...]
    specs: tuple[type[Spec], ...] = ()
    columns: Mapping[str, Columns] = field(default_factory=dict)
    is_decided: bool = False
    handling: tuple[type[Spec], ...] = ()
    is_aside: bool = False
    after: tuple[str, ...] = ()


_SPLIT = Stage(
    "3",
    (SPECTROGRAM_FEATURES,),
    (specs.SplitSpec, specs.TimingSpec),
    {"table": {"session_id": "string", "site": "string", "split": "string"}},
    after=(CHAMPION_ON_NEW_DATA,),  # what a training sees was judged before
)

STAGES: dict[str, Stage] = {
    APPROVED_MEASUREMENTS: Stage(
        "5",
        (MEASUREMENT_DATABASE,),
        (specs.DatasetSpec,),
        {
            "table": APPROVED_COLUMNS,
            "left_out": {"measurement_id": "string", "session_id": "string", "reason": "string"},
        },
    ),
    CHAMPION_ON_NEW_DATA: Stage(
        "1",
        (APPROVED_MEASUREMENTS,),
        (),
        {
            "table": {
                "session_id": "string",
                "approval_event_id": "Int64",
                "latitude": "float64",
                "longitude": "float64",
                "variance_east_m2": "float64",
                "variance_north_m2": "float64",
                "covariance_en_m2": "float64",
                "refused": "bool",
                "source_latitude": "float64",
                "source_longitude": "float64",
                "error_margin_m": "float64",
                "error_m": "float64",  # none where it is refused or nobody knows the truth
                "squared_sigmas": "float64",  # Mahalanobis distance of the truth, the label's error added
                "baseline": "string",  # the classical estimator that answered; null: none did
                "baseline_error_m": "float64",
            }
        },
        is_aside=True,
    ),
    PRODUCTION_MONITORING: Stage(
        "1",
        (APPROVED_MEASUREMENTS, CHAMPION_ON_NEW_DATA),
        (specs.MonitoringSpec,),
        {
            "drift": {
                "kind": "string",  # gain | column | nulls
                "name": "string",  # station, or column of the snapshot
                "before": "float64",  # median, or share of missing values
                "now": "float64",
                "change": "float64",  # dB; Kolmogorov-Smirnov distance; share
                "p": "float64",
                "p_adjusted": "float64",  # Holm, over all questions of one evaluation
                "num_before": "int64",  # sources
                "num_now": "int64",
                "alert": "bool",
            }
        },
        is_aside=True,
    ),
    IQ_FILES: Stage(
        "7",
        (APPROVED_MEASUREMENTS,),
        (specs.RecordingSpec,),
        {
            "table": {
                "measurement_id": "string",
                "session_id": "string",
                "status": "string",  # ok | refused | unread
                "reason": "string",
                "digest": "string",
                "media_format": "string",
                "sample_rate_hz": "float64",
                "num_samples": "Int64",
                "start_unix_ns": "Int64",
                "timing_sigma_s": "float64",
                "duration_s": "float64",
                "level_dbfs": "float64",
                "clipped_fraction": "float64",
            }
        },
    ),
    SPECTROGRAM_FEATURES: Stage(
        "8",
        (IQ_FILES,),
        (specs.FeatureSpec, specs.DelaySpec),
        {
            "index": {"measurement_id": "string", "key": "string", "shard": "string", "row": "int64"},
            "tracks": {"measurement_id": "string", "key": "string", "shard": "string", "row": "int64"},
            "arrivals": {
                "measurement_id": "string",
                "session_id": "string",
                "key": "string",
                "arrival_s": "float64",
                "arrival_sigma_s": "float64",
                "start_sigma_s": "float64",  # of the recording's time axis, which adds to its clock's
                "coherence": "float64",
                "reason": "string",  # why there is no arrival; null: there is one
            },
            "pairs": {
                "session_id": "string",
                "key": "string",  # of the session's delays
                "first": "string",  # measurement, as is the second
                "second": "string",
                "coherence": "float64",
                "curvature": "float64",  # 1/s^2
                "lag_step_s": "float64",
                "shard": "string",  # where its correlation lies, complex64 (num_lags,)
                "row": "int64",
            },
            "refused": {"measurement_id": "string", "session_id": "string", "what": "string", "reason": "string"},
        },
    ),
    TRAIN_SPLIT: _SPLIT,
    VAL_SPLIT: _SPLIT,
    TEST_SPLIT: _SPLIT,
    HYPERPARAMETER_SEARCH: Stage(
        "1",
        (TRAIN_SPLIT, VAL_SPLIT),
        (specs.SearchSpec, specs.ModelSpec, specs.TrainingSpec, specs.AugmentationSpec),
        {
            "trials": {
                "number": "int64",
                "state": "string",  # complete | pruned | failed
                "value": "float64",  # of the objective; none where pruned or failed
                "params": "string",  # JSON: setting -> value
                "val_losses": "string",  # JSON: of each epoch
                "checkpoint": "string",  # manifest of the fit; null: none
                "reason": "string",  # why it failed; null: it did not
            }
        },
        handling=(specs.MachineSpec,),
        is_aside=True,
    ),
    TRAINED_CHECKPOINT: Stage(
        "10",
        (TRAIN_SPLIT, VAL_SPLIT),
        (specs.ModelSpec, specs.TrainingSpec, specs.AugmentationSpec),
        handling=(specs.MachineSpec,),
    ),
    EVALUATION_METRICS: Stage("7", (TRAINED_CHECKPOINT, TEST_SPLIT), (specs.EvaluationSpec,)),
    ONNX_MODEL: Stage("9", (TRAINED_CHECKPOINT, TEST_SPLIT), (specs.ExportSpec,)),
    MODEL_RELEASE: Stage("7", (ONNX_MODEL, EVALUATION_METRICS), (specs.GateSpec,)),
    CHAMPION_MODEL: Stage("1", (MODEL_RELEASE,), (specs.PromotionSpec,), is_decided=True),
}
"""In the order in which they are computed."""


SPECS: dict[str, type[Spec]] = {cls.__name__: cls for stage in STAGES.values() for cls in stage.specs}
"""Every spec that decides a result, by name."""

SETTINGS: dict[str, type[Spec]] = SPECS | {cls.__name__: cls for stage in STAGES.values() for cls in stage.handling}
"""Every spec that a run of the graph takes, by name."""


def list_needed(kind: str) -> list[str]:
    """Return the kinds that ``kind`` is computed from, however many steps back, and itself, in order."""
    needed = {kind}
    for name in reversed(STAGES):
        if name in needed:
            needed.update(STAGES[name].parents)
    return [name for name in STAGES if name in needed]


def find_kind(spec: type[Spec], within: Collection[str] | None = None) -> str:
    """Return the kind of result that a spec is a setting of; of the three splits, which are one decision, the first.

    Args:
        spec: the spec.
        within: kinds that are looked at first, the last of them before all; None: those that a release needs.

    Raises:
        NotFound: it is one of none.
    """
    wanted = [kind for kind, stage in STAGES.items() if (kind in within if within else not stage.is_aside)]
    for kind in [*([wanted.pop()] if within else []), *wanted, *STAGES]:
        if spec.pure_class() in (*STAGES[kind].specs, *STAGES[kind].handling):
            return kind
    raise NotFound(f"{spec.pure_class().__name__}: decides no stage of the pipeline")


def name_index(kind: str, part: str, spec: Spec) -> str:
    """Return the reference of a cumulative index that a stage keeps: what of it is known under one spec.

    It holds the stage's code version, so that whoever raises that recomputes all of it; what a spec tolerates is no
    part of it, so that whoever allows more finds again what there is.
    """
    return f"{part}/{spec.digest_of_parts()}-{STAGES[kind].code_version}"
