"""Red flags: what looks wrong in a training, the numbers behind it, and what to set then, in the names of our settings.

Belongs here: reading curves for one trouble each. Does not belong here: verdicts (``assessment``), measuring (the
tables are ``training_tables``). What a training did not measure raises no flag.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.specs import AssessmentSpec
from heimdall_assets.training_tables import (
    EPOCHS,
    FEATURES,
    GRADIENTS,
    LOSSES,
    POSITIONS,
    PROBABILITY,
    SIGNALS,
    UNCERTAINTY,
    VAL,
    Row,
    take,
    take_numbers,
)

Tables = Mapping[str, list[Row]]

WINDOW = 5
"""Epochs at the end, and at the beginning, that a trend is read off."""

MIN_RISE = 0.02
"""Of a loss, a share of the range it went through: less is noise."""

SMALLEST_Z, LARGEST_Z = 0.01, 25.0
"""Median squared error in stated ellipses, honest at 1.39: beyond, sigma is ten times too large or four too small."""

SIGMA_FALL = 0.01
"""A stated error that fell to this share of its first while the error did not: it collapsed."""

MIN_SEPARATION = 0.1
"""Of probabilities inside and outside of spans: below, the heads tell nothing apart."""

STEADY = {"log10_frequency_hz", "timing_sigma_km", "arrival_sigma_km", "bearing_sigma_rad", "up_km"}
"""Columns that are rightly the same everywhere: of one frequency, one kind of clock, one plain."""

JUMP = 0.5
"""A loss that jumps by this share of its range from epoch to epoch, again and again, is thrown about."""

TOO_LITTLE = 0.01
"""A training loss that falls by less than this share of its size over all epochs did not move."""


@dataclass(frozen=True)
class Flag:
    """Something that looks wrong: what it is called, what was seen, what to set."""

    name: str
    seen: str
    advice: str


@dataclass(frozen=True)
class Curves:
    """The curves of one training, of positions unless it says otherwise."""

    train: list[float]
    val: list[float]
    error_m: list[float]
    rates: list[float]
    sigma: list[float]
    squared_z: list[float]
    norms: list[float]
    largest_norms: list[float]
    separation: list[float]
    span_f1: list[float]
    channels: list[Row]
    every_number: list[float]
    told: Mapping[str, Any]
    spec: AssessmentSpec


def collect_curves(tables: Tables, told: Mapping[str, Any], spec: AssessmentSpec) -> Curves:
    """Return the curves of a training from its tables, its metadata and the thresholds."""
    epochs = take(tables.get(EPOCHS, []))
    stated = take(tables.get(UNCERTAINTY, []))
    gradients = {row["epoch"]: row for row in take(tables.get(GRADIENTS, []))}  # the same total in each layer's row
    numbers = [
        value
        for table in (EPOCHS, LOSSES, UNCERTAINTY, GRADIENTS)
        for row in tables.get(table, [])
        for value in row.values()
        if isinstance(value, float)
    ]
    return Curves(
        train=take_numbers(epochs, "train_loss"),
        val=take_numbers(epochs, "val_loss"),
        error_m=take_numbers(epochs, "val_error_m"),
        rates=take_numbers(epochs, "learning_rate"),
        sigma=take_numbers(stated, "sigma_position"),
        squared_z=take_numbers(stated, "squared_z"),
        norms=take_numbers(list(gradients.values()), "total_grad_norm"),
        largest_norms=take_numbers(list(gradients.values()), "max_grad_norm"),
        separation=take_numbers(take(tables.get(PROBABILITY, []), SIGNALS, VAL), "separation"),
        span_f1=take_numbers(take(tables.get(EPOCHS, []), SIGNALS), "span_f1"),
        channels=take(tables.get(FEATURES, []), POSITIONS),
        every_number=numbers,
        told=told,
        spec=spec,
    )


def find_flags(curves: Curves) -> list[Flag]:
    """Return what looks wrong, the worst first."""
    return [flag for check in _CHECKS if (flag := check(curves)) is not None]


def _find_not_finite(seen: Curves) -> Flag | None:
    wrong = [value for value in seen.every_number if not math.isfinite(value)]
    if not wrong:
        return None
    return Flag(
        "not finite",
        f"NaN or infinite: {say_count(len(wrong), 'number')} of its tables",
        "lower TrainingSpec.learning_rate or TrainingSpec.gradient_clip; with 16-mixed try bf16-mixed "
        "(TrainingSpec.precision); heimdall runs show says in which epoch it began",
    )


def _find_exploding(seen: Curves) -> Flag | None:
    high = seen.spec.gradient_norm[1]
    worst = max(seen.norms, default=0.0)
    if not worst >= high:
        return None
    return Flag(
        "exploding gradients",
        f"mean norm of an epoch's gradients up to {worst:.3g}, expected below {high:g}",
        "lower TrainingSpec.learning_rate, raise TrainingSpec.warmup_epochs, or lower TrainingSpec.gradient_clip",
    )


def _find_vanishing(seen: Curves) -> Flag | None:
    low = seen.spec.gradient_norm[0]
    if not seen.norms or not compute_mean(seen.norms[-WINDOW:]) <= low:
        return None
    return Flag(
        "vanishing gradients",
        f"mean norm of the last gradients {compute_mean(seen.norms[-WINDOW:]):.2g}, expected above {low:g}",
        "raise TrainingSpec.learning_rate; with 16-mixed try bf16-mixed (TrainingSpec.precision); fewer layers "
        "(ModelSpec.num_layers); gradient_stats.csv says which layer hears nothing",
    )


def _find_overfitting(seen: Curves) -> Flag | None:
    if len(seen.val) < 2 * WINDOW or len(seen.train) != len(seen.val):
        return None
    best = min(range(len(seen.val)), key=seen.val.__getitem__)
    rise = compute_mean(seen.val[-WINDOW:]) - seen.val[best]
    falls = compute_mean(seen.train[-WINDOW:]) < seen.train[best]
    if best > len(seen.val) - WINDOW or not falls or not rise > MIN_RISE * _span(seen.val):
        return None
    return Flag(
        "overfitting",
        f"since epoch {best + 1} val_loss rose by {rise:.3g} while train_loss fell",
        "raise ModelSpec.dropout, TrainingSpec.weight_decay or AugmentationSpec.max_gain_db; fewer weights "
        "(ModelSpec.width, ModelSpec.backbone_size) or more sessions; TrainingSpec.early_stopping_patience spares the "
        "epochs after the best one",
    )


def _find_collapse(seen: Curves) -> Flag | None:
    z = seen.squared_z[-1] if seen.squared_z else None
    fell = len(seen.sigma) > 1 and seen.sigma[-1] < SIGMA_FALL * seen.sigma[0]
    better = len(seen.error_m) > 1 and seen.error_m[-1] < 0.1 * seen.error_m[0]
    if z is not None and z > LARGEST_Z:
        said = f"errors of {math.sqrt(z):.1f} stated sigmas in the median, expected 1.2"
    elif fell and not better:
        said = f"the stated error fell from {seen.sigma[0]:.3g} m to {seen.sigma[-1]:.3g} m, the error did not follow"
    else:
        return None
    return Flag(
        "uncertainty collapse",
        said,
        "raise ModelSpec.uncertainty_min (single_receiver) or TrainingSpec.warmup_epochs, or lower "
        "TrainingSpec.learning_rate; margins of the labels that are too small do it too",
    )


def _find_too_unsure(seen: Curves) -> Flag | None:
    if not seen.squared_z or not seen.squared_z[-1] < SMALLEST_Z:
        return None
    return Flag(
        "stated errors far too large",
        f"errors of {math.sqrt(seen.squared_z[-1]):.2g} stated sigmas in the median, expected 1.2",
        "train longer (TrainingSpec.max_epochs), or lower ModelSpec.uncertainty_max (single_receiver)",
    )


def _find_no_separation(seen: Curves) -> Flag | None:
    if not seen.separation or max(seen.separation) >= MIN_SEPARATION:
        return None
    return Flag(
        "spans not told apart",
        f"probability of transmission inside and outside of spans differs by {max(seen.separation):.2g}, expected at "
        f"least {MIN_SEPARATION:g}",
        "look at the labels span_start_s and span_end_s: recordings that are transmission throughout teach no span; "
        "more sessions with an onset or an end within",
    )


def _find_dead_channel(seen: Curves) -> Flag | None:
    same = {str(row["channel"]) for row in seen.channels if row["std"] == 0} - STEADY
    dead = sorted(same | {str(row["channel"]) for row in seen.channels if row["mean"] is None})
    alive = {str(row["channel"]) for row in seen.channels} - set(dead)
    if not dead or not alive:
        return None
    return Flag(
        "dead input channels",
        f"{', '.join(dead)}: never known, or the same everywhere",
        "look at what was imported (heimdall inspect): a column that says nothing costs nothing, one that should say "
        "something was lost on its way; ModelSpec.use_spectrograms, ModelSpec.use_correlations switch inputs",
    )


def _find_rate_too_high(seen: Curves) -> Flag | None:
    values = seen.train
    if len(values) < 2 * WINDOW:
        return None
    jumps = [new - old for old, new in pairwise(values)]
    large = [jump for jump in jumps if jump > JUMP * _span(values)]
    if len(large) < 2 and not compute_mean(values[-WINDOW:]) > values[0]:
        return None
    return Flag(
        "learning rate too high",
        f"train_loss went up by more than half of its range {say_count(len(large), 'time')}, and ended at "
        f"{compute_mean(values[-WINDOW:]):.3g} from {values[0]:.3g}",
        f"lower TrainingSpec.learning_rate{_say_rate(seen)}, by a factor of 3 to 10; raise TrainingSpec.warmup_epochs; "
        "TrainingSpec.find_learning_rate measures one",
    )


def _find_rate_too_low(seen: Curves) -> Flag | None:
    values = seen.train
    if len(values) < 2 * WINDOW:
        return None
    fall = values[0] - compute_mean(values[-WINDOW:])
    steps = [old - new for old, new in pairwise(values)]
    steady = sum(step > 0 for step in steps) >= 0.8 * len(steps)
    if fall < 0 or not fall < TOO_LITTLE * max(abs(values[0]), 1e-9) or not steady:
        return None
    return Flag(
        "learning rate too low",
        f"train_loss fell steadily, but by {fall:.2g} of {values[0]:.3g} only",
        f"raise TrainingSpec.learning_rate{_say_rate(seen)}, by a factor of 3 to 10; "
        "TrainingSpec.find_learning_rate measures one",
    )


def _find_val_below_train(seen: Curves) -> Flag | None:
    pairs = list(zip(seen.train, seen.val, strict=False))[-WINDOW:]
    if len(pairs) < WINDOW or not all(train - val > MIN_RISE * max(abs(train), 1e-9) for train, val in pairs):
        return None
    gap = compute_mean([train - val for train, val in pairs])
    return Flag(
        "validation easier than training",
        f"val_loss below train_loss by {gap:.3g} in each of the last {say_count(WINDOW, 'epoch')}",
        "expected where disturbances and dropout act on training alone (AugmentationSpec, ModelSpec.dropout: lower "
        "them if the gap is large) or TrainingSpec.num_simulated_sessions adds harder sessions; else validation is "
        "too small or too like one site (SplitSpec.val_fraction)",
    )


def _find_stopped_falling(seen: Curves) -> Flag | None:
    asked = seen.told.get("settings", {}).get("TrainingSpec", {}).get("max_epochs")
    if asked is None or len(seen.val) < int(asked) or len(seen.val) < WINDOW + 1:
        return None
    best = min(range(len(seen.val)), key=seen.val.__getitem__)
    gain = (seen.val[-WINDOW - 1] - seen.val[-1]) / WINDOW
    if best < len(seen.val) - 2 or not gain > seen.spec.max_val_loss_change:
        return None
    return Flag(
        "stopped while still falling",
        f"val_loss fell by {gain:.3g} an epoch up to the last of {say_count(len(seen.val), 'epoch')}",
        "raise TrainingSpec.max_epochs (the schedule stretches with it), or TrainingSpec.learning_rate",
    )


_CHECKS: Sequence[Callable[[Curves], Flag | None]] = (
    _find_not_finite,
    _find_exploding,
    _find_vanishing,
    _find_overfitting,
    _find_collapse,
    _find_too_unsure,
    _find_no_separation,
    _find_dead_channel,
    _find_rate_too_high,
    _find_rate_too_low,
    _find_val_below_train,
    _find_stopped_falling,
)


def _say_rate(seen: Curves) -> str:
    return f" (it reached {max(seen.rates):g})" if seen.rates else ""


def compute_mean(values: Sequence[float]) -> float:
    """Return the mean of one value or more."""
    return sum(values) / len(values)


def _span(values: Sequence[float]) -> float:
    """Return the range that a curve went through, of its finite values."""
    finite = [value for value in values if math.isfinite(value)]
    return max(finite) - min(finite) if finite else 0.0
