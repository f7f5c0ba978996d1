"""The champion's inputs and figures against limits: what is planted is alerted in one evaluation, nothing else is."""

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import text

from heimdall_assets.defs.monitoring.checks import MONITORING_CHECKS, data_is_fresh, new_sessions_are_judged
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.kinds import CHAMPION_ON_NEW_DATA, PRODUCTION_MONITORING
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.monitoring.judging import judge_new_sessions
from heimdall_assets.pipeline.monitoring.watching import (
    CALIBRATION,
    DRIFT,
    ERROR,
    REFUSALS,
    VOLUME,
    judge_figures,
    read_alerts,
    read_own_errors,
    watch_production,
)
from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
from heimdall_assets.running.graph_run import run_job
from heimdall_assets.specs import DatasetSpec, MonitoringSpec, SimulationSpec
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets_tests.homes import SIMULATION, fill_home, ignore, make_places, release

LIMITS = MonitoringSpec()


def draw(count, median_m=500.0, stated=1.0, refused=0, seed=1):
    """Judged sessions whose errors are Rayleigh, with ellipses that state ``stated`` times the true sigma."""
    rng = np.random.default_rng(seed)
    sigma_m = median_m / np.sqrt(2.0 * np.log(2.0))
    error_m = rng.rayleigh(sigma_m, count)
    squared = np.square(error_m / (sigma_m * stated))
    left = np.arange(count) < refused
    return pd.DataFrame(
        {
            "refused": left,
            "error_m": np.where(left, np.nan, error_m),
            "squared_sigmas": np.where(left, np.nan, squared),
            "baseline_error_m": error_m * 1.2,
        }
    )


OWN_M = draw(60, seed=0)["error_m"].to_numpy()


@pytest.mark.parametrize(
    ("judged", "kinds"),
    [
        (draw(40), []),
        (draw(40, median_m=1000.0), [ERROR]),
        (draw(9, median_m=5000.0), []),  # too few to say
        (draw(40, stated=0.4), [CALIBRATION]),
        (draw(40, refused=20), [REFUSALS]),
        (draw(40, refused=8), []),  # 20 % is what is allowed
        (draw(0), []),
    ],
)
def test_each_figure_is_held_against_its_limit(judged, kinds):
    alerts = judge_figures(judged, OWN_M, LIMITS)
    assert [alert.kind for alert in alerts] == kinds
    assert all("expected" in alert.line for alert in alerts)


def test_an_error_ten_per_cent_larger_is_alerted_once_there_are_enough_to_say():
    own_m, worse = draw(5000, seed=3)["error_m"].to_numpy(), draw(5000, median_m=600.0, seed=4)
    (alert,) = judge_figures(worse, own_m, LIMITS)
    assert alert.kind == ERROR
    assert judge_figures(draw(5000, median_m=530.0, seed=5), own_m, LIMITS) == []


@pytest.mark.long
def test_figures_of_an_unchanged_model_raise_few_alerts():
    """400 evaluations of a model that is as it was: 1 % of each of three kinds is allowed, 12 expected at most."""
    false = sum(
        bool(judge_figures(draw(30, seed=seed, refused=3), draw(40, seed=10_000 + seed)["error_m"].to_numpy(), LIMITS))
        for seed in range(400)
    )
    assert false <= 20


WORLD = SimulationSpec(num_sessions=70, min_receivers=5, max_receivers=5, duration_s=0.8)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A home with a champion, and thirty sessions of the same world that were approved after it."""
    places = fill_home(tmp_path_factory.mktemp("watched") / "home", WORLD)
    stores = places.open_stores()
    names = sorted(row["id"] for row in stores.measurements.list_sessions())
    later = names[40:]
    stores.measurements.decide(later, ApprovalStatus.REJECTED, "auditor", "not yet")
    release(places)
    stores.measurements.decide(later, ApprovalStatus.APPROVED, "auditor", "heard by many")
    return places, later


def watch(places, limits=LIMITS):
    stores = places.open_stores()
    snapshot = take_snapshot(stores, DatasetSpec())[0].manifest
    judged = judge_new_sessions(stores, snapshot).manifest
    return watch_production(stores, snapshot, judged, limits).manifest


def weaken(places, sessions, by_db):
    """Turn down one receiver in the database, as if it had come so; return its station."""
    database = places.open_stores().measurements.database
    with database.writing() as connection:
        rows = connection.execute(text("SELECT websdr_station_id, recording_session_id FROM measurements")).all()
        station = max({row[0] for row in rows}, key=[row[0] for row in rows if row[1] in sessions].count)
        for session in sessions:
            connection.execute(
                text("UPDATE measurements SET signal_strength_db = signal_strength_db - :by "
                     "WHERE websdr_station_id = :station AND recording_session_id = :session"),
                {"by": by_db, "station": station, "session": session},
            )  # fmt: skip
    return str(station)


def test_a_receiver_that_lost_15_db_is_alerted_within_one_evaluation(released):
    places, later = released
    before = watch(places)
    assert before.summary["num_new"] == len(later)
    assert [alert for alert in read_alerts(before) if alert.kind == DRIFT] == []
    station = weaken(places, later, 15.0)
    try:
        after = watch(places)
    finally:
        weaken(places, later, -15.0)
    (alert,) = [alert for alert in read_alerts(after) if alert.kind == DRIFT]
    assert alert.line.startswith(f"receiver {station}: level -")
    table = load_table(places.open_stores().objects, after.artifacts["drift"])
    assert table["alert"].tolist() == [True] + [False] * (len(table) - 1)


def test_the_monitor_job_judges_and_trains_nothing(released):
    places, _ = released
    run = run_job(places, "monitor", [LIMITS], ignore)
    assert set(run.manifests) == {"approved_measurements", CHAMPION_ON_NEW_DATA, PRODUCTION_MONITORING}
    found = run.manifests[PRODUCTION_MONITORING]
    assert found.specs["MonitoringSpec"] == LIMITS.dump()
    again = run_job(places, "monitor", [LIMITS], ignore)
    assert again.count_computed()[PRODUCTION_MONITORING] in (0, 1)  # judged is another, empty now


def test_sessions_that_are_withdrawn_are_a_smaller_volume(released):
    places, _ = released
    stores = places.open_stores()
    names = sorted(row["id"] for row in stores.measurements.list_sessions())[:20]
    stores.measurements.decide(names, ApprovalStatus.REJECTED, "auditor", "wrong site")
    try:
        alerts = read_alerts(watch(places))
    finally:
        stores.measurements.decide(names, ApprovalStatus.APPROVED, "auditor", "right after all")
    assert VOLUME in {alert.kind for alert in alerts}


def test_the_errors_it_is_held_against_are_those_of_its_evaluation(released):
    places, _ = released
    stores = places.open_stores()
    record = stores.releases.find_record(stores.releases.resolve("champion"))
    model = Manifest.decode(stores.objects.read_bytes(record["manifest"]))
    assert np.median(read_own_errors(stores, record, model)) == pytest.approx(record["median_m"], rel=1e-3)


def test_a_home_without_a_champion_has_nothing_to_watch(tmp_path):
    places = make_places(tmp_path / "home")
    import_simulated(places.open_stores(), SIMULATION.model_copy(update={"num_sessions": 2}), "demo", ignore)
    found = watch(places)
    assert found.summary["num_new"] == 0
    assert found.summary["alerts"] == []


def call(check, manifest):
    (name,) = check.node_def.ins
    return check.node_def.compute_fn.decorated_fn(**{name: manifest})


def test_checks_say_what_was_alerted_and_warn_alone():
    alerts = [{"kind": kind, "line": f"{kind} is bad"} for kind in (DRIFT, ERROR, CALIBRATION, REFUSALS, VOLUME)]
    summary = {"alerts": alerts, "num_new": 3, "num_questions": 4, "newest_approval": "2020-01-01T00:00:00+00:00"}
    manifest = Manifest(kind=PRODUCTION_MONITORING, code_version="1", specs={"MonitoringSpec": LIMITS.dump()},
                        summary=summary)  # fmt: skip
    told = [call(check, manifest) for check in MONITORING_CHECKS if check is not new_sessions_are_judged]
    assert not any(result.passed for result in told)
    assert {result.severity.value for result in told} == {"WARN"}
    assert [result.description for result in told][:2] == ["drift is bad", "error is bad"]
    assert "days ago, expected at most 30 days" in call(data_is_fresh, manifest).description
    quiet = manifest.model_copy(update={"summary": {"alerts": [], "num_new": 0, "num_questions": 0}})
    assert all(call(check, quiet).passed for check in MONITORING_CHECKS if check is not new_sessions_are_judged)


def test_a_judgement_that_failed_is_a_warning():
    said = {"num_sessions": 0, "not_judged": "release v1.0.0: file model.onnx is gone", "num_trained_on": 2}
    result = call(new_sessions_are_judged, Manifest(kind=CHAMPION_ON_NEW_DATA, code_version="1", summary=said))
    assert not result.passed
    assert "model.onnx is gone" in result.description
    assert "2 sessions" in result.description
