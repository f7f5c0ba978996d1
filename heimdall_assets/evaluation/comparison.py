"""Comparison of two methods on the same sessions: paired bootstrap of medians, and whether any answer differs.

Belongs here: is a difference real? Does not belong here: what a method scores (``metrics``).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput
from heimdall_assets.session_set import Predictions
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.specs import EvaluationSpec

_CHUNK_CELLS = 2_000_000  # counts held at once: bounds memory at any number of sessions

SAME_PLACE_M = 1e-3
SAME_VARIANCE = 1e-5
"""Answers closer than this, the variances by their share, are the same: rounding moves them as far."""


def count_changes(now: Predictions, before: Predictions) -> dict[str, int]:
    """Return how two models' answers to the same S sessions differ.

    Returns:
        ``num_moved``: sessions whose position differs, or that one of them refuses; ``num_resized``: others, whose
        ellipse differs.

    Examples:
        >>> place, sigma = np.array([45.0, 46.0]), np.full((2, 3), [1e4, 1e4, 0.0])
        >>> first = Predictions(place, place, sigma, "first")
        >>> count_changes(Predictions(place + [0.0, 1e-4], place, 2.0 * sigma, "second"), first)
        {'num_moved': 1, 'num_resized': 1}
    """
    refused = [np.zeros(len(one.latitude), bool) if one.refused is None else one.refused for one in (now, before)]
    both = ~(refused[0] | refused[1])
    away_m = np.zeros(len(both))
    away_m[both] = compute_distance_m(
        now.latitude[both], now.longitude[both], before.latitude[both], before.longitude[both]
    )
    moved = (refused[0] != refused[1]) | (away_m > SAME_PLACE_M)
    scale = np.abs(before.covariance_m2[:, :2]).max(axis=1, keepdims=True)
    same = np.abs(now.covariance_m2 - before.covariance_m2) <= SAME_VARIANCE * scale
    resized = both & ~(same | (now.covariance_m2 == before.covariance_m2)).all(axis=1)  # infinite ones are equal too
    return {"num_moved": int(moved.sum()), "num_resized": int((resized & ~moved).sum())}


def compare_paired(
    errors_a: NDArray[np.float64],
    errors_b: NDArray[np.float64],
    spec: EvaluationSpec,
    groups: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Return how much larger the median error of ``a`` is than that of ``b``, with a bootstrap interval.

    Sessions are drawn with replacement and both methods judged on each draw, so what makes a session hard for both
    cancels. Where ``groups`` says that sessions belong together (one transmitting site), whole groups are drawn:
    sessions of one site are not independent.

    Args:
        errors_a: float64 (S,), metres; infinity: refused, which ranks behind every answer.
        errors_b: float64 (S,), the same sessions.
        spec: number of draws, confidence, seed.
        groups: (S,) labels; None: each session stands for itself.

    Returns:
        JSON values: ``num_sessions``, ``median_a_m``, ``median_b_m``, ``difference_m`` (a - b), ``ratio`` (a / b),
        each of the last two with ``_low`` and ``_high``; ``is_worse`` and ``is_better``: the whole interval of the
        difference lies above or below zero. None stands where a median is not finite.

    Raises:
        InvalidInput: shapes differ, no session, or an error is NaN or negative.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), percentile interval, section 13.3.

    Examples:
        Twice the error in every session is twice the median, whichever sessions are drawn:

        >>> errors_m = np.linspace(10.0, 1000.0, 100)
        >>> found = compare_paired(2.0 * errors_m, errors_m, EvaluationSpec())
        >>> found["ratio"], found["ratio_low"], found["ratio_high"], found["is_worse"]
        (2.0, 2.0, 2.0, True)
    """
    errors_a, errors_b = np.asarray(errors_a, np.float64), np.asarray(errors_b, np.float64)
    if errors_a.ndim != 1 or errors_a.shape != errors_b.shape or len(errors_a) == 0:
        raise InvalidInput(
            f"paired errors: found shapes {errors_a.shape} and {errors_b.shape}, expected equal, not empty"
        )
    if not ((errors_a >= 0).all() and (errors_b >= 0).all()):
        raise InvalidInput("paired errors: found NaN or negative metres, expected metres, or infinity for a refusal")
    _, group = np.unique(np.arange(len(errors_a)) if groups is None else groups, return_inverse=True)
    medians = np.concatenate(
        [
            np.stack([_compute_medians(errors_a, counts), _compute_medians(errors_b, counts)])
            for counts in _draw_counts(group, spec)
        ],
        axis=1,
    )
    differences, ratios = _subtract(*medians), _divide(*medians)
    median_a, median_b = float(np.median(errors_a)), float(np.median(errors_b))
    tails = [0.5 * (1.0 - spec.confidence), 0.5 * (1.0 + spec.confidence)]
    # Order statistics, not interpolation: a tail may be infinite.
    low, high = np.quantile(differences, tails, method="inverted_cdf")
    ratio_low, ratio_high = np.quantile(ratios, tails, method="inverted_cdf")
    return {
        "num_sessions": len(errors_a),
        "num_groups": int(group.max()) + 1,
        "confidence": spec.confidence,
        "median_a_m": _finite(median_a),
        "median_b_m": _finite(median_b),
        "difference_m": _finite(float(_subtract(median_a, median_b))),
        "difference_low_m": _finite(low),
        "difference_high_m": _finite(high),
        "ratio": _finite(float(_divide(median_a, median_b))),
        "ratio_low": _finite(ratio_low),
        "ratio_high": _finite(ratio_high),
        "is_worse": bool(low > 0),
        "is_better": bool(high < 0),
    }


def bound_median(
    errors: NDArray[np.float64], spec: EvaluationSpec, groups: NDArray[Any] | None = None
) -> tuple[float | None, float | None]:
    """Return the interval of the median error by bootstrap, whole groups drawn as in ``compare_paired``, metres.

    Args:
        errors: float64 (S,), metres; infinity: refused.
        spec: number of draws, confidence, seed.
        groups: (S,) labels; None: each session stands for itself.

    Examples:
        >>> bound_median(np.full(20, 70.0), EvaluationSpec())
        (70.0, 70.0)
    """
    errors = np.asarray(errors, np.float64)
    _, group = np.unique(np.arange(len(errors)) if groups is None else groups, return_inverse=True)
    medians = np.concatenate([_compute_medians(errors, counts) for counts in _draw_counts(group, spec)])
    tails = [0.5 * (1.0 - spec.confidence), 0.5 * (1.0 + spec.confidence)]
    low, high = np.quantile(medians, tails, method="inverted_cdf")
    return _finite(low), _finite(high)


def _draw_counts(group: NDArray[np.int64], spec: EvaluationSpec) -> Iterator[NDArray[np.int64]]:
    """Yield how often each session stands in each draw, int64 (draws, S), chunk by chunk."""
    num_groups = int(group.max()) + 1
    generator = np.random.default_rng(spec.seed)
    step = max(1, _CHUNK_CELLS // max(len(group), num_groups))
    for start in range(0, spec.num_bootstrap, step):
        draws = min(step, spec.num_bootstrap - start)
        picks = generator.integers(0, num_groups, size=(draws, num_groups))
        picks += np.arange(draws)[:, None] * num_groups
        counts = np.bincount(picks.ravel(), minlength=draws * num_groups).reshape(draws, num_groups)
        yield counts[:, group]


def _compute_medians(errors: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the median of each draw, float64 (draws,): the same as ``np.median`` of the repeated errors."""
    order = np.argsort(errors, kind="stable")
    cumulative = np.cumsum(counts[:, order], axis=1)
    total = cumulative[:, -1]
    lower = np.argmax(cumulative > ((total - 1) // 2)[:, None], axis=1)
    upper = np.argmax(cumulative > (total // 2)[:, None], axis=1)
    medians: NDArray[np.float64] = 0.5 * (errors[order[lower]] + errors[order[upper]])
    return medians


def _subtract(a: Any, b: Any) -> NDArray[np.float64]:
    """Return a - b; two refusals are equal."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    both = np.isinf(a) & np.isinf(b)
    return np.where(both, 0.0, np.where(both, 0.0, a) - np.where(both, 0.0, b))


def _divide(a: Any, b: Any) -> NDArray[np.float64]:
    """Return a / b; equal values, infinite and zero ones too, give 1."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    same = a == b
    with np.errstate(divide="ignore"):
        return np.where(same, 1.0, np.where(same, 1.0, a) / np.where(same, 1.0, b))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
