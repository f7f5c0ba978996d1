"""Drift of inputs: where new sessions differ from those that a model learned from, by more than chance and by enough.

Belongs here: rows to two-sample questions, their tests, one correction over all of them. Does not belong here: which
sessions are compared (``pipeline.monitoring.inputs``).

What is counted is a source, not a row: receivers of one transmission, and transmissions of one place, are alike for
reasons that are no drift, and as rows of their own would raise false alerts. An alert needs both: a difference that is
large enough to matter, and one that chance explains in ``alpha`` of all evaluations at most, however many questions
are asked (Holm, Scand. J. Stat. 6 (1979) 65).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.locating.path_loss import MIN_DISTANCE_M
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.specs import MonitoringSpec

GAIN, COLUMN, NULLS = "gain", "column", "nulls"
"""What a question is about: a receiver's level against the others', a column's values, how many are missing."""

DISTRIBUTED = ("frequency_hz", "signal_strength_db", "snr_db", "source_latitude", "source_longitude")
"""Columns whose distribution is compared."""

MAY_BE_MISSING = (
    "signal_strength_db", "snr_db", "frequency_offset_hz", "iq_data_location", "arrival_unix_ns", "bearing_deg",
)  # fmt: skip

MIN_COMPARED = 3
"""Levels of a session from which on the others say what one of them should be."""


@dataclass(frozen=True)
class Shift:
    """The answer to one question; fields as the columns ``drift`` of ``production_monitoring``."""

    kind: str
    name: str
    before: float
    now: float
    change: float
    p: float
    p_adjusted: float
    num_before: int
    num_now: int
    alert: bool

    def say(self, limits: MonitoringSpec) -> str:
        """Return the shift in a line, with what was expected."""
        chance = f"p {self.p_adjusted:.1e}, {self.num_now} new sources beside {self.num_before}"
        if self.kind == GAIN:
            return (
                f"receiver {self.name}: level {self.change:+.1f} dB against the others' since training ({chance}), "
                f"expected within {limits.min_gain_db:g} dB"
            )
        if self.kind == NULLS:
            return (
                f"{self.name}: {self.now:.0%} missing, {self.before:.0%} in training ({chance}), expected a change "
                f"below {limits.min_null_change:.0%}"
            )
        return (
            f"{self.name}: distance {self.change:.2f} to training, median {self.now:.6g} after {self.before:.6g} "
            f"({chance}), expected below {limits.min_distance:g}"
        )


@dataclass(frozen=True)
class _Question:
    kind: str
    name: str
    before: NDArray[np.float64]
    now: NDArray[np.float64]


def find_shifts(before: pd.DataFrame, now: pd.DataFrame, exponent: float, limits: MonitoringSpec) -> list[Shift]:
    """Return the answer to every question that enough sources can answer, alerts first.

    Args:
        before, now: ``domain.APPROVED_COLUMNS``, of what the model learned from and of what is new.
        exponent: path-loss exponent by which levels of different distances are compared.
        limits: from when on a shift counts.
    """
    asked = [
        question
        for question in _list_questions(before, now, exponent)
        if min(len(question.before), len(question.now)) >= limits.min_sources
    ]
    answers = [_answer(question) for question in asked]
    adjusted = adjust_holm([p for _, p in answers])
    shifts = []
    for question, (change, p), p_adjusted in zip(asked, answers, adjusted, strict=True):
        middle = np.mean if question.kind == NULLS else np.median
        is_far = abs(change) >= _find_limit(question.kind, limits)
        shifts.append(
            Shift(
                kind=question.kind,
                name=question.name,
                before=float(middle(question.before)),
                now=float(middle(question.now)),
                change=change,
                p=p,
                p_adjusted=p_adjusted,
                num_before=len(question.before),
                num_now=len(question.now),
                alert=bool(is_far and p_adjusted < limits.alpha),
            )
        )
    return sorted(shifts, key=lambda shift: (not shift.alert, shift.p, shift.kind, shift.name))


def tabulate_shifts(shifts: Sequence[Shift]) -> pd.DataFrame:
    """Return a row for each answer."""
    table = pd.DataFrame([asdict(shift) for shift in shifts], columns=list(Shift.__dataclass_fields__))
    return table.astype(
        {
            **dict.fromkeys(("kind", "name"), "string"),
            **dict.fromkeys(("before", "now", "change", "p", "p_adjusted"), "float64"),
            **dict.fromkeys(("num_before", "num_now"), "int64"),
            "alert": "bool",
        }
    )


def adjust_holm(p: Sequence[float]) -> list[float]:
    """Return p-values of which one below alpha is false in alpha of all families at most, whatever they have in common.

    Examples:
        >>> adjust_holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, highest = [1.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def _find_limit(kind: str, limits: MonitoringSpec) -> float:
    return {GAIN: limits.min_gain_db, COLUMN: limits.min_distance, NULLS: limits.min_null_change}[kind]


def _answer(question: _Question) -> tuple[float, float]:
    """Return how far the two samples lie apart, and the chance of that where nothing differs."""
    from scipy.stats import ks_2samp, mannwhitneyu  # slow to load

    before, now = question.before, question.now
    if question.kind == COLUMN:
        found = ks_2samp(before, now)
        return float(found.statistic), float(found.pvalue)
    middle = np.mean if question.kind == NULLS else np.median
    change = float(middle(now) - middle(before))
    if np.ptp(np.concatenate([before, now])) == 0.0:
        return 0.0, 1.0
    return change, float(mannwhitneyu(before, now).pvalue)


def _list_questions(before: pd.DataFrame, now: pd.DataFrame, exponent: float) -> Iterable[_Question]:
    gains = [_average(compute_gains(rows, exponent), ["station_id", "source"]) for rows in (before, now)]
    for station in sorted(set(gains[0]["station_id"]) & set(gains[1]["station_id"])):
        values = [table.loc[table["station_id"] == station, "value"].to_numpy(np.float64) for table in gains]
        yield _Question(GAIN, str(station), *values)
    sources = [name_sources(rows) for rows in (before, now)]
    for column in DISTRIBUTED:
        yield _Question(COLUMN, column, *(_average_column(rows[column], source)
                                          for rows, source in zip((before, now), sources, strict=True)))  # fmt: skip
    for column in MAY_BE_MISSING:
        yield _Question(NULLS, column, *(_average_column(_find_missing(rows, column), source)
                                         for rows, source in zip((before, now), sources, strict=True)))  # fmt: skip


def _find_missing(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return which rows lack a value; a column of which no row has one may not be in the table."""
    return rows[column].isna() if column in rows else pd.Series(True, index=rows.index)


def name_sources(rows: pd.DataFrame) -> pd.Series:
    """Return what each row's source is called: its place to some 10 m, or its session where nobody knows the place."""
    latitude, longitude = rows["source_latitude"].round(4), rows["source_longitude"].round(4)
    named = latitude.astype("string") + " " + longitude.astype("string")
    return named.fillna(rows["session_id"].astype("string"))


def compute_gains(rows: pd.DataFrame, exponent: float) -> pd.DataFrame:
    """Return each receiver's level without what distance and the source's power explain, ``value`` in dB.

    The median over the receivers of a session stands for the source's power; what is left is the station's gain and
    the shadowing of one link. Rows without level or truth, and sessions of fewer than ``MIN_COMPARED``, have none.
    """
    places = ("source_latitude", "source_longitude", "receiver_latitude", "receiver_longitude")
    rows = rows.dropna(subset=["signal_strength_db", *places])
    rows = rows[rows.groupby("session_id")["session_id"].transform("size") >= MIN_COMPARED]
    distance_m = compute_distance_m(*(rows[name].to_numpy(np.float64) for name in places))
    level_db = rows["signal_strength_db"].to_numpy(np.float64)
    value = level_db + 10.0 * exponent * np.log10(np.maximum(distance_m, MIN_DISTANCE_M))
    table = pd.DataFrame({"station_id": rows["station_id"].to_numpy(str), "session": rows["session_id"].to_numpy(str),
                          "source": name_sources(rows).to_numpy(str), "value": value})  # fmt: skip
    table["value"] -= table.groupby("session")["value"].transform("median")
    return table


def _average(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return table.groupby(by)["value"].mean().reset_index()


def _average_column(values: Any, source: pd.Series) -> NDArray[np.float64]:
    numbers = pd.Series(values.to_numpy(np.float64, na_value=np.nan), index=source.index)
    found: NDArray[np.float64] = numbers.groupby(source).mean().dropna().to_numpy(np.float64)
    return found
