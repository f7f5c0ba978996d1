"""Warning checks: what people should know of a result that may stand all the same; no run stops for them.

Each says in its description what it found and what it expected: the command line prints that of those that failed, and
the model card keeps it. Does not belong here: what must hold (``checks``).
"""

from typing import Any

import dagster as dg

from heimdall_assets.defs.tables import preview
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    EVALUATION_METRICS,
    IQ_FILES,
    SPECTROGRAM_FEATURES,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.drift import compare_with_release
from heimdall_assets.specs import FeatureSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

StoresParam = dg.ResourceParam[Stores]

LARGEST_REFUSED_SHARE = 0.5
LARGEST_DRIFT = 0.3
"""Kolmogorov-Smirnov distance: 0 for equal distributions, 1 for disjoint ones."""

RATE_DIGITS = 3
"""Significant digits by which sample rates are one: receivers differ from their nominal rate by parts in a million."""


def _warn(passed: bool, description: str, **metadata: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, severity=dg.AssetCheckSeverity.WARN, description=description, metadata=metadata
    )


@dg.asset_check(asset=APPROVED_MEASUREMENTS)
def few_rows_left_out(approved_measurements: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Most rows of approved sessions can be used; the others are listed with their reason."""
    left_out = load_table(stores.objects, approved_measurements.artifacts["left_out"])
    total = len(left_out) + approved_measurements.summary["num_measurements"]
    share = len(left_out) / total if total else 0.0
    reasons = {str(name): int(count) for name, count in left_out["reason"].value_counts().head(20).items()}
    commonest = f"; most often: {next(iter(reasons))}" if reasons else ""
    return _warn(
        share <= LARGEST_REFUSED_SHARE,
        f"{len(left_out)} of {total} measurements cannot be used, expected at most {LARGEST_REFUSED_SHARE:.0%}"
        + commonest,
        share_left_out=share,
        reasons=reasons,
    )


@dg.asset_check(asset=APPROVED_MEASUREMENTS)
def snapshot_resembles_release(approved_measurements: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Volume, frequency, level and SNR are distributed as in the data of the latest release."""
    table = load_table(stores.objects, approved_measurements.artifacts["table"])
    distances = compare_with_release(stores, table)
    far = [f"{name} {distance:.2f}" for name, distance in distances.items() if distance > LARGEST_DRIFT]
    found = ", ".join(far) or ("none above" if distances else "no release yet")
    return _warn(
        not far,
        f"Kolmogorov-Smirnov distances to the latest release's data: {found}, expected at most {LARGEST_DRIFT}",
        **{name: float(distance) for name, distance in distances.items()},
    )


@dg.asset_check(asset=IQ_FILES)
def recordings_are_usable(iq_files: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Recordings are present, whole, finite, not silent, not clipped and of the stated rate."""
    table = load_table(stores.objects, iq_files.artifacts["table"])
    refused = table[table["status"] != "ok"]
    share = len(refused) / len(table) if len(table) else 0.0
    return _warn(
        share <= LARGEST_REFUSED_SHARE,
        f"{len(refused)} of {len(table)} recordings are unusable, expected at most {LARGEST_REFUSED_SHARE:.0%}",
        num_refused=len(refused),
        share_refused=share,
        refused=preview(refused, ["measurement_id", "session_id", "reason"]),
    )


@dg.asset_check(asset=SPECTROGRAM_FEATURES)
def recordings_become_features(spectrogram_features: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Most usable recordings have a spectrogram: else the model quietly learns from delays and levels alone."""
    refused = load_table(stores.objects, spectrogram_features.artifacts["refused"])
    refused = refused[refused["what"] == "spectrogram"]
    total = spectrogram_features.summary["num_features"] + len(refused)
    share = len(refused) / total if total else 0.0
    return _warn(
        share <= LARGEST_REFUSED_SHARE,
        f"{len(refused)} of {total} recordings have no spectrogram, expected at most {LARGEST_REFUSED_SHARE:.0%}: the "
        "model learns from delays and levels alone where there is none",
        num_refused=len(refused),
        share_refused=share,
        refused=preview(refused, ["measurement_id", "session_id", "reason"]),
    )


@dg.asset_check(asset=SPECTROGRAM_FEATURES, additional_ins={IQ_FILES: dg.AssetIn(IQ_FILES)})
def mel_rows_hold_signal(
    spectrogram_features: Manifest, iq_files: Manifest, stores: StoresParam
) -> dg.AssetCheckResult:
    """Every mel row holds a frequency of the transform: one between two of them is the same in all spectrograms."""
    from heimdall_assets.signals.spectrogram import count_empty_rows, find_full_transform

    spec = FeatureSpec(**spectrogram_features.specs["FeatureSpec"])
    table = load_table(stores.objects, iq_files.artifacts["table"])
    rates = {float(f"{rate:.{RATE_DIGITS}g}") for rate in table["sample_rate_hz"].dropna()}
    empty = {rate: count_empty_rows(rate, spec) for rate in rates}
    worst = max(empty, key=empty.__getitem__, default=0.0)
    found = empty.get(worst, 0)
    mended = find_full_transform(worst, spec) if found else None
    advice = "lower FeatureSpec.num_mels" if mended is None else f"FeatureSpec.n_fft={mended} fills them"
    said = (
        f"{found} of {spec.num_mels} mel rows are constant at {worst:,.0f} Hz, expected 0: they lie between two "
        f"frequencies of a transform of {spec.n_fft} samples; {advice}"
    )
    return _warn(not found, said if found else "every mel row holds a frequency", num_constant_rows=found)


@dg.asset_check(asset=TRAINED_CHECKPOINT)
def training_improved(trained_checkpoint: Manifest) -> dg.AssetCheckResult:
    """An epoch did better on validation than the network that training started from."""
    from heimdall_assets.pipeline.stages.trained_checkpoint import read_outcome  # slow to load

    outcome = read_outcome(trained_checkpoint)
    return _warn(outcome.trained, str(outcome), trained=outcome.trained)


@dg.asset_check(asset=EVALUATION_METRICS)
def better_than_baselines(evaluation_metrics: Manifest) -> dg.AssetCheckResult:
    """The model's median error is no worse than that of any classical estimator; if it is, this names them."""
    worse = list(evaluation_metrics.summary["worse_than"])
    said = f"the model's median error is above that of {', '.join(worse)}" if worse else "no baseline is better"
    return _warn(not worse, said, worse_than=worse)


WARNING_CHECKS = [
    few_rows_left_out,
    snapshot_resembles_release,
    recordings_are_usable,
    recordings_become_features,
    mel_rows_hold_signal,
    training_improved,
    better_than_baselines,
]
