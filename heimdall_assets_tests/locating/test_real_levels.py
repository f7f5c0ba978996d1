"""Levels of 1 W handhelds at 40 uncalibrated receivers (POWDER): the published split by grid cell and by driving."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from heimdall_assets.locating.levels import locate_by_levels
from heimdall_assets.locating.simple import locate_strongest_receiver
from heimdall_assets.locating.truth_by_levels import LevelsHeard, compare_with_others, find_turned
from heimdall_assets.session_set import SessionSet
from heimdall_assets_tests.locating.fields import compute_coverage, compute_errors_m

NOT_HEARD_DB = -101.0


@pytest.fixture(scope="module")
def powder(shared_data) -> tuple[pd.DataFrame, SessionSet]:
    folder = shared_data / "powder_rss"
    table = pd.read_csv(folder / "single_tx.csv")
    receivers = json.loads((folder / "receivers.json").read_text())
    level, latitude, longitude = (np.full((len(table), len(receivers)), np.nan) for _ in range(3))
    for i, (name, place) in enumerate(receivers.items()):
        level[:, i] = table[name if place else f"{name}_rss"]
        latitude[:, i] = place["latitude"] if place else table[f"{name}_x"]
        longitude[:, i] = place["longitude"] if place else table[f"{name}_y"]
    heard = np.isfinite(level) & (level > NOT_HEARD_DB) & (latitude > 0)
    total = int(heard.sum())
    unknown = np.full(total, np.nan)
    names = np.broadcast_to(np.array(list(receivers), dtype=np.str_), heard.shape)
    return table, SessionSet(
        session_id=table.index.astype(str).to_numpy(dtype=np.str_),
        offsets=np.concatenate([[0], np.cumsum(heard.sum(axis=1))]).astype(np.int64),
        receiver_latitude=latitude[heard],
        receiver_longitude=longitude[heard],
        receiver_altitude_m=np.zeros(total),
        station_id=names[heard],
        frequency_hz=np.full(total, 462.7e6),
        level_db=level[heard],
        snr_db=unknown,
        carrier_offset_hz=unknown,
        timing_sigma_s=np.full(total, np.inf),
        arrival_s=unknown,
        arrival_sigma_s=unknown,
        coherence=unknown,
        feature_row=np.full(total, -1, dtype=np.int64),
        source_latitude=table["tx_x_coord"].to_numpy(dtype=float),
        source_longitude=table["tx_y_coord"].to_numpy(dtype=float),
        error_margin_m=np.zeros(len(table)),
    )


@pytest.mark.parametrize(("split", "median_m"), [("test_grid", 177.0), ("test_driving", 230.0)])
def test_log_distance_likelihood_beats_its_published_figures_and_keeps_its_promise(powder, split, median_m):
    table, sessions = powder
    judged = sessions.take(np.flatnonzero(table[split] == 1)[::3])
    reference = sessions.take(np.flatnonzero(table[split] != 1))
    found = locate_by_levels(judged, reference)
    errors = compute_errors_m(judged, found)
    assert np.median(errors) < median_m
    assert np.median(errors) < np.median(compute_errors_m(judged, locate_strongest_receiver(judged, reference)))
    assert 0.85 < compute_coverage(judged, found) < 0.98


def test_levels_follow_the_places_that_the_publisher_states(powder):
    _, sessions = powder
    row = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    source = np.stack([sessions.source_latitude, sessions.source_longitude], axis=1)
    heard = LevelsHeard(
        session=sessions.session_id[row].astype(object),
        frequency_hz=sessions.frequency_hz,
        level_db=sessions.level_db,
        receiver=np.stack([sessions.receiver_latitude, sessions.receiver_longitude], axis=1),
        source=source[row],
    )
    found = compare_with_others(heard)
    assert found.num_sites > 100
    assert found.share > 0.8, found
    assert find_turned(heard) is None
    shuffled = np.random.default_rng(3).permutation(len(sessions))
    assert not compare_with_others(replace(heard, source=source[shuffled][row])).is_clear
