"""What receivers say is checked when it is said, and becomes the columns that tables of sessions become."""

from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.errors import InvalidInput
from heimdall_assets.inference.receivers import NUMBERS, Receiver, make_session, observe_nothing, sort_receivers
from heimdall_assets.physical import Recording
from heimdall_assets.pipeline.prediction.stored import observe_rows
from heimdall_assets.specs import TimingSpec

PLACE = {"latitude": 45.0, "longitude": 8.0, "frequency_hz": 145.5e6}
WHOLE = Receiver(
    name="A", **PLACE, arrival_unix_ns=10**18, arrival_sigma_s=1e-7, bearing_deg=90.0, bearing_sigma_deg=2.0,
    level_db=-60.0, snr_db=20.0, carrier_offset_hz=10.0,
)  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300, 1e300, "7", True, [1.0], b"1"])
def test_a_number_that_cannot_be_believed_is_named(number, value):
    with pytest.raises(InvalidInput) as caught:
        replace(WHOLE, **{number: value})
    assert str(caught.value).startswith(f"receiver A: {number} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": " "}, "receiver name ' ': expected some letters"),
        ({"name": None}, "receiver name None"),
        ({"clock_class": "sundial"}, "clock_class 'sundial', expected one of gnss_calibrated"),
        ({"arrival_sigma_s": None}, "found one of arrival_unix_ns and arrival_sigma_s, expected both or neither"),
        ({"bearing_deg": None}, "found one of bearing_deg and bearing_sigma_deg"),
        ({"arrival_unix_ns": 1.5}, "arrival_unix_ns 1.5, expected whole ns since 1970"),
        ({"arrival_unix_ns": 2**70}, "expected whole ns"),
        ({"latitude": None}, "latitude None"),
        ({"recording": Recording(np.ones(10, np.complex64), 1e4)}, "found a recording and a ready-made arrival"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, said):
    with pytest.raises(InvalidInput) as caught:
        replace(WHOLE, **changes)
    assert said in str(caught.value)


def test_arrivals_count_from_the_earliest_to_the_nanosecond():
    """float64 knows 238 ns of nanoseconds since 1970: they are subtracted as integers."""
    told = [Receiver(name=name, **PLACE, arrival_unix_ns=1_764_600_000_000_000_000 + ns, arrival_sigma_s=1e-8)
            for name, ns in (("B", 1), ("A", 0), ("C", 100))]  # fmt: skip
    found = make_session(sort_receivers(told), observe_nothing(3), TimingSpec())
    assert found.station_id.tolist() == ["A", "B", "C"]
    np.testing.assert_allclose(found.arrival_s, [0.0, 1e-9, 1e-7], rtol=1e-15)
    assert found.timing_sigma_s.tolist() == [0.0, 0.0, 0.0]  # no clock class: the stated sigma is all of it


def test_one_session_is_what_the_table_of_it_is():
    """Assembled from rows of a table and from receivers, a session has the same columns."""
    import pandas as pd

    from heimdall_assets.domain import APPROVED_COLUMNS

    clocks = {"A": "gnss", "B": "none", "C": "gnss_calibrated", "D": "reference"}
    told = [
        replace(WHOLE, name=name, latitude=45.0 + 0.1 * number, clock_class=clock,
                arrival_unix_ns=10**18 + 777 * number, level_db=None if name == "B" else -60.0 - number,
                bearing_deg=10.0 * number, altitude_m=100.0 * number)
        for number, (name, clock) in enumerate(clocks.items())
    ]  # fmt: skip
    rows = pd.DataFrame([{
        "measurement_id": one.name, "session_id": "asked", "session_name": "asked", "campaign": "x",
        "origin": "measured",
        "session_start": pd.Timestamp("2026-01-01", tz="UTC"), "session_attributes": "{}",
        "measurement_attributes": "{}",
        "source_id": "x", "source_name": "x", "source_latitude": np.nan, "source_longitude": np.nan,
        "source_error_margin_m": 0.0, "station_id": one.name, "station_name": one.name, "clock_class": one.clock_class,
        "receiver_latitude": one.latitude, "receiver_longitude": one.longitude, "receiver_altitude_m": one.altitude_m,
        "frequency_hz": one.frequency_hz, "signal_strength_db": one.level_db, "snr_db": one.snr_db,
        "frequency_offset_hz": one.carrier_offset_hz, "arrival_unix_ns": one.arrival_unix_ns,
        "arrival_sigma_s": one.arrival_sigma_s, "bearing_deg": one.bearing_deg,
        "bearing_sigma_deg": one.bearing_sigma_deg, "duration_s": np.nan,
    } for one in told])  # fmt: skip
    rows = rows.astype({name: kind for name, kind in APPROVED_COLUMNS.items() if name in rows})
    expected, found = observe_rows(rows), make_session(told, observe_nothing(4), TimingSpec())
    for name in (
        "offsets", "receiver_latitude", "receiver_longitude", "receiver_altitude_m", "station_id", "frequency_hz",
        "level_db", "snr_db", "carrier_offset_hz", "timing_sigma_s", "arrival_s", "arrival_sigma_s", "coherence",
        "feature_row", "source_latitude", "bearing_deg", "bearing_sigma_deg",
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
