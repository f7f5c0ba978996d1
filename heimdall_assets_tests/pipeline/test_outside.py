"""What a model is asked about beside what it was trained on: each difference is a line."""

import numpy as np
import pandas as pd
import pytest

from heimdall_assets.errors import CannotLocate
from heimdall_assets.pipeline.prediction.outside import find_outside, tell_outside

ITALIANS = {"Torino": (45.044, 7.672), "Genova": (44.395, 8.956), "Milano": (45.478, 9.123)}
GERMANS = {"HB9RYZ": (47.1721, 8.42683), "F1JEK": (45.77929, 0.614638), "DF0KL": (53.665337, 7.282766)}


def make_rows(places=ITALIANS, frequency_hz=145.5e6, clock="gnss_calibrated", source=(45.0, 8.4)) -> pd.DataFrame:
    latitude, longitude = np.array(list(places.values())).T
    return pd.DataFrame(
        {
            "station_name": list(places),
            "receiver_latitude": latitude,
            "receiver_longitude": longitude,
            "source_latitude": source[0],
            "source_longitude": source[1],
            "frequency_hz": frequency_hz,
            "clock_class": clock,
        }
    )


TRAINED = pd.concat([make_rows(), make_rows(source=(44.8, 8.2), frequency_hz=145.6e6)], ignore_index=True)


def test_what_is_like_the_training_is_not_remarked_on():
    assert find_outside(TRAINED, make_rows(source=(np.nan, np.nan))).remarks == []
    assert find_outside(TRAINED, make_rows(frequency_hz=162e6)).remarks == []
    near = {name: (latitude + 0.005, longitude) for name, (latitude, longitude) in ITALIANS.items()}
    assert find_outside(TRAINED, make_rows(near)).remarks == []  # 556 m


@pytest.mark.parametrize("frequency_hz", [77.5e3, 14e6, 433e6])
def test_another_band_is_remarked_on(frequency_hz):
    found = find_outside(TRAINED, make_rows(frequency_hz=frequency_hz))
    assert found.remarks == [f"frequency {frequency_hz / 1e6:.6g} MHz, trained at 145.5 to 145.6 MHz"]
    assert find_outside(make_rows(), make_rows(frequency_hz=frequency_hz)).remarks[0].endswith("trained at 145.5 MHz")


def test_another_clock_is_remarked_on():
    found = find_outside(TRAINED, make_rows(clock="gnss"))
    assert found.remarks == ["clock gnss, trained with gnss_calibrated"]


def test_a_new_receiver_is_named_and_another_area_is_told():
    found = find_outside(TRAINED, make_rows(ITALIANS | {"Alba": (44.69, 8.03)}))
    assert len(found.remarks) == 1
    assert found.remarks[0].startswith("1 receiver of 4 where it was trained with none: Alba, 48 km or more from")
    assert not found.is_other_area
    found = find_outside(TRAINED, make_rows(GERMANS, 77.5e3, "gnss"))
    assert [remark.split()[0] for remark in found.remarks] == ["frequency", "clock", "3", "area:"]
    assert found.is_other_area


def test_a_model_of_one_receiver_refuses_another_area_and_one_of_sessions_says_so():
    elsewhere = find_outside(TRAINED, make_rows(GERMANS))
    with pytest.raises(
        CannotLocate, match=r"model v1\.0\.0: a single_receiver model knows no places .* area: the nearest"
    ):
        tell_outside(elsewhere, "v1.0.0", "single_receiver")
    said = tell_outside(elsewhere, "v1.0.0", "network")
    assert said[0].startswith(
        "outside of the training of v1.0.0: 3 receivers of 3 where it was trained with none: DF0KL"
    )
    assert "its ellipse was calibrated inside of its training" in said[-1]
    here = find_outside(TRAINED, make_rows())
    assert tell_outside(here, "v1.0.0", "single_receiver") == tell_outside(here, "v1.0.0", "network") == []
