import json

import numpy as np
import pandas as pd
import pytest

from heimdall_assets.errors import InvalidInput, InvalidTable
from heimdall_assets.learning.assembly import assemble_sessions
from heimdall_assets.learning.splits import assign_splits
from heimdall_assets.specs import SplitSpec, TimingSpec
from heimdall_assets_tests.learning.learning_cases import make_approved, make_located
from heimdall_assets_tests.variation import make_rng

TIMING = TimingSpec()


def two_sessions() -> pd.DataFrame:
    return make_approved(
        [
            {"session_id": "b", "station_id": "w2", "signal_strength_db": -70.0, "clock_class": "ntp"},
            {"session_id": "a", "station_id": "w9", "signal_strength_db": np.nan, "clock_class": "none"},
            {"session_id": "b", "station_id": "w1", "frequency_offset_hz": 12.0, "clock_class": "gnss"},
        ]
    )


def test_sessions_by_id_and_receivers_by_station() -> None:
    sessions = assemble_sessions(two_sessions(), None, None, None, TIMING)
    assert sessions.session_id.tolist() == ["a", "b"]
    assert sessions.offsets.tolist() == [0, 1, 3]
    assert sessions.station_id.tolist() == ["w9", "w1", "w2"]
    assert sessions.level_db == pytest.approx([np.nan, -80.0, -70.0], nan_ok=True)
    assert sessions.carrier_offset_hz == pytest.approx([np.nan, 12.0, np.nan], nan_ok=True)
    assert sessions.timing_sigma_s.tolist() == [np.inf, 30e-6, 10e-3]
    assert sessions.feature_row.tolist() == [-1, -1, -1]
    assert np.isnan(sessions.arrival_s).all()
    assert sessions.features is None
    assert sessions.blocked is None
    assert sessions.error_margin_m.tolist() == [30.0, 30.0]


def test_order_of_rows_does_not_matter() -> None:
    table = two_sessions()
    one = assemble_sessions(table, None, None, None, TIMING)
    two = assemble_sessions(table.iloc[::-1], None, None, None, TIMING)
    assert one.station_id.tolist() == two.station_id.tolist()
    assert one.level_db == pytest.approx(two.level_db, nan_ok=True)


def test_features_and_arrivals_find_their_measurement() -> None:
    table = two_sessions()
    features = np.zeros((5, 3, 128, 32), dtype=np.float16)
    index = pd.DataFrame({"measurement_id": ["m00002", "elsewhere", "m00000"], "row": [4, 0, 2]})
    arrivals = pd.DataFrame(
        {
            "measurement_id": ["m00000", "m00002"],
            "arrival_s": [1e-6, np.nan],
            "arrival_sigma_s": [1e-8, np.nan],
            "coherence": [0.9, 0.1],
        }
    )
    sessions = assemble_sessions(table, index, arrivals, features, TIMING)
    assert sessions.feature_row.tolist() == [-1, 4, 2]
    assert sessions.features is features
    assert sessions.arrival_s == pytest.approx([np.nan, np.nan, 1e-6], nan_ok=True)
    assert sessions.coherence == pytest.approx([np.nan, 0.1, 0.9], nan_ok=True)


def test_strata_come_from_columns_and_attributes() -> None:
    positions = np.array([[45.0, 8.0], [45.2, 8.2]])
    table = make_located(positions, [{"season": "july", "driving": 1, "truth": {"x": 1}}, {"signal_type": "tone"}])
    strata = assemble_sessions(table, None, None, None, TIMING).strata
    assert strata["season"].tolist() == ["july", "unknown"]
    assert strata["signal_type"].tolist() == ["unknown", "tone"]
    assert strata["driving"] == pytest.approx([1.0, np.nan], nan_ok=True)
    assert "truth" not in strata
    assert strata["origin"].tolist() == ["simulated", "simulated"]
    assert strata["month"].tolist() == ["2024-03", "2024-03"]
    assert strata["num_receivers"].tolist() == [1, 1]
    assert all(len(values) == 2 for values in strata.values())


def test_sites_are_those_of_the_split() -> None:
    rng = make_rng(0)
    table = make_located(np.stack([rng.uniform(44, 46, 60), rng.uniform(7, 9, 60)], axis=1))
    assigned = assign_splits(table, SplitSpec(site_size_m=5000.0))
    sessions = assemble_sessions(table, None, None, None, TIMING, assigned)
    assert sessions.strata["site"].tolist() == assigned["site"].tolist()
    with pytest.raises(InvalidInput, match="assignment: session s00000"):
        assemble_sessions(table, None, None, None, TIMING, assigned.iloc[1:])


def test_blocked_is_known_for_all_or_for_none() -> None:
    def tell(*blocked: bool) -> str:
        receivers = [{"station_id": f"w{number}", "blocked": value} for number, value in enumerate(blocked)]
        return json.dumps({"truth": {"receivers": receivers}})

    rows = [
        {"session_id": "b", "station_id": "w1", "session_attributes": tell(False, True)},
        {"session_id": "b", "station_id": "w0", "session_attributes": tell(False, True)},
        {"session_id": "a", "station_id": "w0", "session_attributes": tell(False)},
    ]
    sessions = assemble_sessions(make_approved(rows), None, None, None, TIMING)
    assert sessions.blocked is not None
    assert sessions.blocked.tolist() == [False, False, True]
    assert sessions.strata["line_of_sight"].tolist() == [True, False]
    rows[2]["session_attributes"] = "{}"
    assert assemble_sessions(make_approved(rows), None, None, None, TIMING).blocked is None


def test_truth_of_a_simulated_session_is_read() -> None:
    from heimdall_assets.simulation.network import simulate_session
    from heimdall_assets.specs import SimulationSpec

    simulated = simulate_session(SimulationSpec(blocked_fraction=0.5, duration_s=0.2), 3)
    attributes = json.dumps(simulated.session.attributes)
    rows = [{"station_id": item.station_id, "session_attributes": attributes} for item in simulated.measurements]
    sessions = assemble_sessions(make_approved(rows), None, None, None, TIMING)
    truth = {item["station_id"]: item["blocked"] for item in simulated.session.attributes["truth"]["receivers"]}
    assert sessions.blocked.tolist() == [truth[name] for name in sessions.station_id]
    assert sessions.strata["signal_type"].tolist() == [simulated.session.attributes["signal_type"]]
    span = [sessions.strata["span_start_s"][0], sessions.strata["span_end_s"][0]]
    assert span == simulated.session.attributes["span"]


def test_empty_table_is_refused() -> None:
    with pytest.raises(InvalidTable, match="found 0 rows"):
        assemble_sessions(make_approved([]), None, None, None, TIMING)


def test_station_twice_in_a_session_is_refused() -> None:
    with pytest.raises(InvalidTable, match="session s0: station w stands in it twice"):
        assemble_sessions(make_approved([{"station_id": "w"}, {"station_id": "w"}]), None, None, None, TIMING)


@pytest.mark.parametrize(
    ("column", "value"),
    [("signal_strength_db", -np.inf), ("receiver_latitude", np.nan), ("snr_db", np.inf), ("frequency_hz", np.nan)],
)
def test_number_that_is_none_is_refused(column: str, value: float) -> None:
    with pytest.raises(InvalidTable, match=f"measurement m00001: {column} is"):
        assemble_sessions(make_approved([{}, {column: value}]), None, None, None, TIMING)


def test_session_of_two_sources_is_refused() -> None:
    with pytest.raises(InvalidTable, match="session s0: its rows name several sources"):
        assemble_sessions(make_approved([{}, {"source_longitude": 9.0}]), None, None, None, TIMING)


def test_index_and_features_must_fit() -> None:
    table = make_approved([{}])
    index = pd.DataFrame({"measurement_id": ["m00000"], "row": [3]})
    with pytest.raises(InvalidInput, match="index without features"):
        assemble_sessions(table, index, None, None, TIMING)
    with pytest.raises(InvalidInput, match=r"shape \(3, 128, 32\)"):
        assemble_sessions(table, index, None, np.zeros((3, 128, 32)), TIMING)
    with pytest.raises(InvalidInput, match="rows 3 to 3: expected 0 to 1"):
        assemble_sessions(table, index, None, np.zeros((2, 3, 128, 32)), TIMING)
    with pytest.raises(InvalidInput, match="m00000 stands in it twice"):
        assemble_sessions(table, pd.concat([index, index]), None, np.zeros((9, 3, 128, 32)), TIMING)


def test_arrival_without_sigma_is_refused() -> None:
    arrivals = pd.DataFrame(
        {"measurement_id": ["m00000"], "arrival_s": [0.0], "arrival_sigma_s": [0.0], "coherence": [1.0]}
    )
    with pytest.raises(InvalidInput, match=r"m00000 has arrival_sigma_s 0\.0"):
        assemble_sessions(make_approved([{}]), None, arrivals, None, TIMING)
