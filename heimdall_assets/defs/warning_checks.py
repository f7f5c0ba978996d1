"""Warning checks: what people should know of a result that may stand all the same; no run stops for them.

Each says in its description what it found and what it expected: the command line prints that of those that failed, and
the model card keeps it. Does not belong here: what must hold (``checks``).
"""

from typing import Any

import dagster as dg

from heimdall_assets.counts import say_count
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
def truth_agrees_with_receivers(approved_measurements: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Receivers can have heard each source where it is said to be; sessions of which that is not so are left out."""
    from heimdall_assets.pipeline.truth import REASON, list_waived  # slow to load

    left_out = load_table(stores.objects, approved_measurements.artifacts["left_out"])
    left_out = left_out[left_out["reason"].str.startswith(REASON)].drop_duplicates("session_id")
    table = load_table(stores.objects, approved_measurements.artifacts["table"])
    waived = list_waived(table)
    said = f"{say_count(len(left_out), 'session')} left out whose source no receiver can have heard there, expected 0"
    if len(left_out):
        said += f"; session {left_out['session_id'].iloc[0]}: {str(left_out['reason'].iloc[0]).removeprefix(REASON)}"
    told: dict[str, Any] = {"left_out": preview(left_out, ["session_id", "reason"])} if len(left_out) else {}
    if waived:
        said += f"; {say_count(len(waived), 'session')} waived"
        told["waived"] = dict(list(waived.items())[:20])
    return _warn(not len(left_out), said, **told)


@dg.asset_check(asset=APPROVED_MEASUREMENTS)
def levels_follow_stated_places(approved_measurements: Manifest, stores: StoresParam) -> dg.AssetCheckResult:
    """Levels fit the place that is stated for their session better than that of another one, or coordinates turned."""
    from heimdall_assets.pipeline.truth import compare_levels  # slow to load

    table = load_table(stores.objects, approved_measurements.artifacts["table"])
    preference, turned = compare_levels(table)
    if not preference.is_known:
        return _warn(True, f"levels at {say_count(preference.num_sites, 'site')}: too few to compare places by")
    said = (
        f"levels fit the place stated for their session better than another session's in {preference.share:.0%} of "
        f"comparisons ({say_count(preference.num_sites, 'site')}), expected over 60 %"
    )
    if not preference.is_usual:
        said += ": rows joined wrongly, or numbers that are no levels"
    told = said if turned is None else f"{turned}; {said}"
    return _warn(preference.is_usual and turned is None, told, share=preference.share)


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


@dg.asset_check(asset=EVALUATION_METRICS)
def no_better_than_its_bound(evaluation_metrics: Manifest) -> dg.AssetCheckResult:
    """The model's median error is not below what physics allows on its sessions; else something other helped it."""
    figures = {name: value for name, value in evaluation_metrics.summary.items() if name.startswith("bound_")}
    model_m, bound_m = figures.get("bound_method_median_m"), figures.get("bound_median_m")
    low_m = figures.get("bound_median_low_m")
    if model_m is None or bound_m is None or low_m is None:
        return _warn(True, "no session has a bound")
    said = f"the model's median error is {model_m:,.3g} m and that of the physical bound {bound_m:,.3g} m"
    if model_m < low_m:
        said += (
            f" on the same sessions, expected at least the {low_m:,.3g} m that chance explains: numbers that are no "
            "levels (heimdall import rss-table --not-heard), sites that training knew, or ground and area of which the "
            "bound knows nothing"
        )
    return _warn(model_m >= low_m, said)


WARNING_CHECKS = [
    few_rows_left_out,
    truth_agrees_with_receivers,
    levels_follow_stated_places,
    snapshot_resembles_release,
    recordings_are_usable,
    recordings_become_features,
    mel_rows_hold_signal,
    training_improved,
    better_than_baselines,
    no_better_than_its_bound,
]
