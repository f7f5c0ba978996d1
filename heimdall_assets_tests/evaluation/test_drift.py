"""Drift of inputs: what is planted is found in one evaluation, and worlds in which nothing changed raise no alert."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from heimdall_assets.domain import APPROVED_COLUMNS
from heimdall_assets.evaluation.drift import (
    GAIN,
    adjust_holm,
    compute_gains,
    find_shifts,
    tabulate_shifts,
)
from heimdall_assets.kinds import PRODUCTION_MONITORING
from heimdall_assets.locating.path_loss import fit_level_model
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import MonitoringSpec, SimulationSpec

LIMITS = MonitoringSpec()
NUM_BEFORE, NUM_NOW = 80, 30


def make_rows(sessions):
    """Rows of a snapshot with the levels and places of simulated observations."""
    owner = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    table = pd.DataFrame(
        {
            "session_id": sessions.session_id[owner],
            "station_id": sessions.station_id,
            "receiver_latitude": sessions.receiver_latitude,
            "receiver_longitude": sessions.receiver_longitude,
            "source_latitude": sessions.source_latitude[owner],
            "source_longitude": sessions.source_longitude[owner],
            "frequency_hz": sessions.frequency_hz,
            "signal_strength_db": sessions.level_db,
            "snr_db": sessions.snr_db,
        }
    )
    for name, dtype in APPROVED_COLUMNS.items():
        if name not in table:
            table[name] = pd.Series([None] * len(table), dtype=dtype)
    return table


def make_world(seed, **changes):
    """What a model learned from, what is new, and the exponent that levels fall by."""
    spec = SimulationSpec(seed=seed, num_sessions=NUM_BEFORE + NUM_NOW, min_receivers=5, **changes)
    both = [np.arange(NUM_BEFORE), np.arange(NUM_BEFORE, NUM_BEFORE + NUM_NOW)]
    before, now = (simulate_observations(spec, chosen) for chosen in both)
    return make_rows(before), make_rows(now), fit_level_model(before).path_loss.exponent


def list_alerts(before, now, exponent):
    return [shift for shift in find_shifts(before, now, exponent, LIMITS) if shift.alert]


def weaken(rows, station, by_db):
    mine = rows["station_id"] == station
    return rows.assign(signal_strength_db=rows["signal_strength_db"] - by_db * mine)


@pytest.mark.parametrize("hardship", [{}, {"blocked_fraction": 0.3, "blocked_loss_db": 10.0}])
def test_a_gain_of_minus_15_db_at_one_receiver_is_alerted_and_the_same_world_without_it_is_not(hardship):
    before, now, exponent = make_world(1, **hardship)
    assert list_alerts(before, now, exponent) == []
    station = sorted(set(now["station_id"]))[2]
    (alert,) = list_alerts(before, weaken(now, station, 15.0), exponent)
    assert (alert.kind, alert.name) == (GAIN, station)
    assert alert.change == pytest.approx(-15.0, abs=6.0)
    assert f"receiver {station}: level -" in alert.say(LIMITS)


def test_a_shift_that_is_sure_and_small_is_no_alert():
    before, now, exponent = make_world(1, shadowing_db=0.0)
    station = now["station_id"].iloc[0]
    shifts = find_shifts(before, weaken(now, station, 1.5), exponent, LIMITS)
    found = next(shift for shift in shifts if (shift.kind, shift.name) == (GAIN, station))
    assert found.p_adjusted < LIMITS.alpha
    assert not found.alert


def test_values_that_go_missing_and_another_band_are_alerted():
    before, now, exponent = make_world(2)
    gone = now.assign(snr_db=now["snr_db"].where(np.arange(len(now)) % 2 == 0))
    (alert,) = list_alerts(before, gone, exponent)
    assert (alert.kind, alert.name) == ("nulls", "snr_db")
    assert "missing, 0% in training" in alert.say(LIMITS)
    turned = now.drop(columns="bearing_deg").assign(bearing_deg=np.arange(len(now)) % 360.0)  # of which none was known
    (alert,) = list_alerts(before.drop(columns="bearing_deg"), turned, exponent)
    assert (alert.name, alert.before, alert.now) == ("bearing_deg", 1.0, 0.0)
    (alert,) = list_alerts(before, now.assign(frequency_hz=now["frequency_hz"] + 1e6), exponent)
    assert (alert.kind, alert.name) == ("column", "frequency_hz")


def test_many_transmissions_of_few_places_say_nothing_of_receivers():
    """Sixty transmissions of three new places: what their links have in common is no drift."""
    before, now, exponent = make_world(3)
    three = now[now["session_id"].isin(sorted(set(now["session_id"]))[:3])]
    many = pd.concat([three.assign(session_id=three["session_id"] + f" {turn}") for turn in range(20)])
    assert many["session_id"].nunique() == 60
    assert find_shifts(before, many, exponent, LIMITS) == []


def test_gains_are_what_distance_and_power_do_not_explain():
    before, _, _ = make_world(4, shadowing_db=0.0, path_loss_exponent=2.5)
    gains = compute_gains(before, 2.5)
    assert len(gains) == len(before)
    assert gains["value"].abs().max() < 0.05  # no shadowing, equal stations: nothing is left
    moved = compute_gains(before.assign(signal_strength_db=before["signal_strength_db"] + 7.0), 2.5)
    np.testing.assert_allclose(moved["value"], gains["value"], atol=1e-9)  # power is no gain


def test_holm_is_what_its_closed_form_says():
    p = [0.2, 0.001, 0.04, 0.9]
    expected = [max(min(1.0, (4 - r) * q) for r, q in enumerate(sorted(p)) if q <= one) for one in p]
    assert adjust_holm(p) == pytest.approx(expected)
    assert adjust_holm([]) == []


def test_the_table_has_the_columns_of_the_recipe():
    before, now, exponent = make_world(1)
    for shifts in ([], find_shifts(before, now, exponent, LIMITS)):
        table = tabulate_shifts(shifts)
        assert {name: str(dtype) for name, dtype in table.dtypes.items()} == STAGES[PRODUCTION_MONITORING].columns[
            "drift"
        ]


@pytest.mark.long
def test_false_alarms_are_as_rare_as_stated():
    """Over 200 worlds in which nothing changed, at most 1 % expected: 7 or more of 200 has a chance of 0.4 %."""
    hardships = [{}, {"blocked_fraction": 0.3, "blocked_loss_db": 10.0}]
    false = missed = 0
    for seed, hardship in itertools.product(range(100, 200), hardships):
        before, now, exponent = make_world(seed, **hardship)
        false += bool(list_alerts(before, now, exponent))
        station = sorted(set(now["station_id"]))[seed % 5]
        found = list_alerts(before, weaken(now, station, 15.0), exponent)
        missed += station not in {alert.name for alert in found}
    assert false <= 6
    assert missed <= 4


def read_powder(folder):
    """Rows of the fixed receivers' levels of real transmissions, and the day of each."""
    receivers = json.loads((folder / "receivers.json").read_text())
    table = pd.read_csv(folder / "single_tx.csv")
    fixed = [name for name, place in receivers.items() if place and name in table]
    rows = table.melt(["timestamp", "tx_x_coord", "tx_y_coord"], fixed, "station_id", "signal_strength_db").dropna()
    rows = rows[rows["signal_strength_db"] > -101.0].reset_index(drop=True)  # -101: not heard
    rows = rows.rename(columns={"tx_x_coord": "source_latitude", "tx_y_coord": "source_longitude"})
    for part in ("latitude", "longitude"):
        rows[f"receiver_{part}"] = [receivers[name][part] for name in rows["station_id"]]
    rows = rows.assign(session_id=rows["timestamp"], frequency_hz=462.7e6, day=rows["timestamp"].str[:10])
    for name, dtype in APPROVED_COLUMNS.items():
        if name not in rows:
            rows[name] = pd.Series([None] * len(rows), dtype=dtype)
    return rows


def test_another_real_day_is_alerted_and_a_part_of_the_same_day_is_not(shared_data):
    rows = read_powder(shared_data / "powder_rss")
    first = rows[rows["day"] == "2022-07-06"]
    for day in ("2022-07-05", "2022-07-11", "2022-11-23"):
        alerts = list_alerts(first, rows[rows["day"] == day], 2.54)
        assert {"receiver law73-nuc2-b210", "source_longitude"} & {alert.say(LIMITS).split(":")[0] for alert in alerts}
    sessions = np.array(sorted(set(first["session_id"])))
    for seed in range(3):
        drawn = first["session_id"].isin(np.random.default_rng(seed).choice(sessions, len(sessions) // 4, False))
        assert list_alerts(first[~drawn], first[drawn], 2.54) == []
