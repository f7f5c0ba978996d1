"""Watching (production_monitoring): what is new, and the champion on it, against limits; each one passed is an alert.

Belongs here: which figures are held against which limits, and the line of each alert. Does not belong here: tests of
inputs (``evaluation.drift``), the age of what is judged (a clock is needed: ``defs``), who is told (``defs``).

Each figure passes its limit only where chance does not explain it: few sessions are no reason to wake anybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.counts import say_count
from heimdall_assets.evaluation.drift import Shift, tabulate_shifts
from heimdall_assets.evaluation.judged import COVERAGE_LEVEL, summarize_judged
from heimdall_assets.evaluation.residuals import compute_chi_square_quantile
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    CHAMPION_ON_NEW_DATA,
    JSON_MEDIA_TYPE,
    PRODUCTION_MONITORING,
    TEST_SPLIT,
)
from heimdall_assets.lineage.walk import JUDGED_MODEL
from heimdall_assets.manifests import Manifest, compute_json_digest, encode_canonical_json
from heimdall_assets.pipeline.drift import count_gone
from heimdall_assets.pipeline.monitoring.inputs import compare_with_training
from heimdall_assets.pipeline.monitoring.judging import read_judged, read_snapshot
from heimdall_assets.pipeline.releases.promotion import CHAMPION, find_alias
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.specs import MonitoringSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import artifact_of_table, load_table
from heimdall_assets.stores.releases.status import is_rejected

DRIFT, ERROR, CALIBRATION, REFUSALS, VOLUME = "drift", "error", "calibration", "refusals", "volume"
"""Kinds of alerts."""

NUM_BOOTSTRAP = 2000


@dataclass(frozen=True)
class Alert:
    """A limit that is passed: its kind, and a line that names what was found and what was expected."""

    kind: str
    line: str

    @property
    def subject(self) -> str:
        """What it is about: the same alert of a later evaluation differs in its figures alone."""
        return f"{self.kind} {self.line.partition(':')[0]}" if self.kind == DRIFT else self.kind


def watch_production(stores: Stores, snapshot: Manifest, judged: Manifest, limits: MonitoringSpec) -> Result:
    """Return how what is new, and the champion on it, stand to ``limits``.

    The champion is the one that ``judged`` names, whatever was promoted since; where it names none, that of now.

    Raises:
        HeimdallError: something that the champion was made from, or its judgements, cannot be read.
    """
    parents = {APPROVED_MEASUREMENTS: snapshot.digest, CHAMPION_ON_NEW_DATA: judged.digest}
    rows = load_table(stores.objects, snapshot.artifacts["table"])
    newest = {"newest_approval": _find_newest(rows)}

    def keep(content: dict[str, str], compute: Callable[[], Computed]) -> Result:
        return find_or_compute(stores.objects, PRODUCTION_MONITORING, parents, [limits], compute, content)

    record = _find_release(stores, judged.content.get(JUDGED_MODEL))
    if record is None:
        return keep({}, lambda: _encode(stores, [], [], {"num_new": 0, **newest}))
    version, model = str(record["version"]), Manifest.decode(stores.objects.read_bytes(record["manifest"]))
    known = [one.result for one in stores.releases.list_judgements() if one.version == version]
    before = load_table(stores.objects, read_snapshot(stores, record).artifacts["table"])
    new = take_newest(rows[~rows["session_id"].isin(set(before["session_id"]))], limits.max_sessions)
    gone = count_gone(before, rows)
    if not (len(new) or known or gone):  # whoever is champion: the same as before
        return keep({}, lambda: _encode(stores, [], [], {"num_new": 0, **newest}))

    def compute() -> Computed:
        shifts = compare_with_training(stores, model, new, limits) if len(new) else []
        table = read_judged(stores, version)
        figures = {**summarize_judged(table), "num_new": int(new["session_id"].nunique()), "gone_share": gone}
        alerts = [Alert(DRIFT, shift.say(limits)) for shift in shifts if shift.alert]
        alerts += judge_figures(table, read_own_errors(stores, record, model), limits)
        if gone > limits.max_gone_share:
            said = f"{gone:.0%} of the champion's sessions withdrawn, expected at most {limits.max_gone_share:.0%}"
            alerts.append(Alert(VOLUME, said))
        return _encode(stores, shifts, alerts, {**figures, **newest})

    return keep({JUDGED_MODEL: model.digest, "judged": compute_json_digest([version, *known])}, compute)


def read_alerts(manifest: Manifest) -> list[Alert]:
    """Return the alerts of a result."""
    return [Alert(**found) for found in manifest.summary["alerts"]]


def take_newest(rows: pd.DataFrame, max_sessions: int) -> pd.DataFrame:
    """Return the rows of the sessions that were approved last, at most so many; where nobody noted that, began last."""
    first = rows.drop_duplicates("session_id")
    order = first.sort_values(["approval_event_id", "session_start", "session_id"], na_position="first")
    return rows[rows["session_id"].isin(order["session_id"].tail(max_sessions))].reset_index(drop=True)


def read_own_errors(stores: Stores, record: dict[str, Any], model: Manifest) -> NDArray[np.float64]:
    """Return a release's errors on its own test split, metres; of what it refused there is none."""
    evaluation = Manifest.decode(stores.objects.read_bytes(record["evaluation"]))
    assert evaluation.parents[TEST_SPLIT] == model.parents[TEST_SPLIT]
    table = load_table(stores.objects, evaluation.artifacts["predictions"])
    places = ("latitude", "longitude", "source_latitude", "source_longitude")
    known = table[~table["refused"].astype(bool)].dropna(subset=list(places))
    error_m: NDArray[np.float64] = compute_distance_m(*(known[name].to_numpy(np.float64) for name in places))
    return error_m


def judge_figures(judged: pd.DataFrame, own_error_m: NDArray[np.float64], limits: MonitoringSpec) -> list[Alert]:
    """Return the alerts that judged sessions give: error, calibration, refusals.

    Args:
        judged: rows of ``champion_on_new_data``.
        own_error_m: errors on the model's own test split.
        limits: when they are too large.
    """
    from scipy.stats import binomtest  # slow to load

    alerts = []
    if len(judged) >= limits.min_sessions:
        refused = int(judged["refused"].sum())
        if binomtest(refused, len(judged), limits.max_refused_share, "greater").pvalue < limits.alpha:
            alerts.append(
                Alert(REFUSALS, f"refused {refused} of {say_count(len(judged), 'new session')}, expected at most "
                                f"{limits.max_refused_share:.0%}")
            )  # fmt: skip
    error_m = judged["error_m"].dropna().to_numpy(np.float64)
    if min(len(error_m), len(own_error_m)) >= limits.min_sessions:
        ratio = float(np.median(error_m) / np.median(own_error_m))
        low = bound_ratio(error_m, own_error_m, limits.alpha)
        if low > limits.max_error_ratio:
            alerts.append(
                Alert(
                    ERROR,
                    f"median error {np.median(error_m):,.3g} m on {say_count(len(error_m), 'new session')}, "
                    f"{ratio:.2f} times the {np.median(own_error_m):,.3g} m of its test split (surely {low:.2f}), "
                    f"expected at most {limits.max_error_ratio:g} times",
                )
            )
    squared = judged["squared_sigmas"].dropna().to_numpy(np.float64)
    if len(squared) >= limits.min_sessions:
        held = int((squared <= compute_chi_square_quantile(COVERAGE_LEVEL)).sum())
        low, high = COVERAGE_LEVEL - limits.max_coverage_gap, min(COVERAGE_LEVEL + limits.max_coverage_gap, 1.0)
        below = binomtest(held, len(squared), low, "less").pvalue
        above = binomtest(held, len(squared), high, "greater").pvalue
        if min(below, above) < limits.alpha / 2.0:
            alerts.append(
                Alert(
                    CALIBRATION,
                    f"{held} of {say_count(len(squared), 'truth')} within the {COVERAGE_LEVEL:.0%} ellipse, expected "
                    f"{low:.0%} to {high:.0%}",
                )
            )
    return alerts


def bound_ratio(new_m: NDArray[np.float64], own_m: NDArray[np.float64], alpha: float, seed: int = 42) -> float:
    """Return what the ratio of medians, new / own, surely exceeds: the ``alpha`` quantile over resamples of both."""
    rng = np.random.default_rng(seed)
    medians = [
        np.median(values[rng.integers(0, len(values), (NUM_BOOTSTRAP, len(values)))], axis=1)
        for values in (new_m, own_m)
    ]
    return float(np.quantile(medians[0] / np.maximum(medians[1], 1e-9), alpha))


def _find_release(stores: Stores, model: str | None) -> dict[str, Any] | None:
    """Return the record of the release of an exported model, the one in use where several are of it; None: of none.

    Args:
        stores: of this home.
        model: digest of its manifest; None: whichever the champion is.
    """
    if model is None:
        champion = find_alias(stores, CHAMPION)
        return None if champion is None else stores.releases.find_record(champion)
    found = [
        record for record in stores.releases.list_releases() if record["manifest"] == model and not is_rejected(record)
    ]
    return max(found, key=lambda record: bool(record["aliases"])) if found else None


def _find_newest(rows: pd.DataFrame) -> str | None:
    newest = rows["approved_at"].max()
    return None if pd.isna(newest) else str(newest.isoformat())


def _encode(stores: Stores, shifts: list[Shift], alerts: list[Alert], figures: dict[str, Any]) -> Computed:
    told = [{"kind": alert.kind, "line": alert.line} for alert in alerts]
    artifacts = {
        "drift": artifact_of_table(stores.objects, tabulate_shifts(shifts)),
        "alerts.json": stores.objects.put_bytes(encode_canonical_json(told), JSON_MEDIA_TYPE),
    }
    return artifacts, {**figures, "num_questions": len(shifts), "num_alerts": len(alerts), "alerts": told}
