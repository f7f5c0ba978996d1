"""The table of fields: what its rows say is read off the nouns, and a row that says too little is no row."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from heimdall_assets.domain import FIELDS, SNAPSHOT, Decibels, Frequency, Latitude, Measurement, Position, Source, Word
from heimdall_assets.fields import Bounds, Stored, read_bounds, read_fields
from heimdall_assets.stores.database import schema
from heimdall_assets.stores.database.schema import FIELD_TABLES, SCHEMA, metadata
from heimdall_assets.tables.level_values import MAX_LEVEL_DB, MIN_LEVEL_DB

HEARD = {"id": "m", "session_id": "s", "station_id": "w", "timestamp": datetime(2026, 1, 1, tzinfo=UTC)}


def find(table: str, name: str) -> Any:
    return next(field for field in FIELDS[table] if field.name == name)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        (Bounds(-90.0, 90.0), [-90.0, 0.0, 90.0], [-90.1, 90.1, np.nan, np.inf, -np.inf]),
        (Bounds(0.0, 5.0, above=True), [1e-300, 5.0], [0.0, -0.0, -1.0, 5.1, np.nan]),
    ],
)
def test_columns_and_nouns_are_held_by_the_same_bounds(bounds, inside, outside):
    class Noun(Word):
        value: Annotated[float, bounds]

    assert bounds.hold(inside).all()
    assert not bounds.hold(outside).any()
    for value in inside:
        assert Noun(value=value).value == value
    for value in outside:
        with pytest.raises(ValidationError):
            Noun(value=value)


def test_bounds_are_said_in_words():
    assert str(read_bounds(Latitude)) == "from -90 to 90"
    assert str(read_bounds(Frequency)) == "above 0 to 3e+11"
    with pytest.raises(TypeError, match="found no Bounds"):
        read_bounds(float)


@pytest.mark.parametrize(
    "bad",
    [
        {"signal_strength_db": 1001.0},
        {"snr_db": -1001.0},
        {"frequency_offset_hz": 301e9},
        {"iq_samples_count": 0},
        {"duration_s": 2e9},
        {"id": "x" * 129},
    ],
)
def test_an_import_refuses_what_the_snapshot_would_leave_out(bad):
    Measurement(**HEARD, frequency_hz=1e8)
    with pytest.raises(ValidationError, match=next(iter(bad))):
        Measurement(**{**HEARD, "frequency_hz": 1e8, **bad})


def test_a_row_knows_its_column_and_where_it_appears():
    margin = find("known_sources", "error_margin_meters")
    assert (margin.path, margin.snapshot, margin.read_as) == (("error_margin_m",),) + ("source_error_margin_m",) * 2
    assert (margin.fill, margin.may_be_null, margin.unit, margin.dtype) == (0.0, False, "m", "float64")
    assert margin.describe() == "m, from 0 to 1e+06, one sigma"
    session = find("measurements", "recording_session_id")
    assert (session.refers_to, session.max_length, session.dtype) == ("recording_sessions", 128, "string")
    clock = find("websdr_stations", "clock_class")
    assert (clock.choices[0], clock.stand_in, clock.unit) == ("gnss_calibrated", "none", "")


def test_a_position_is_three_rows_of_the_noun_that_has_it():
    own = [field for field in FIELDS["measurements"] if field.is_place]
    assert [field.name for field in own] == ["receiver_latitude", "receiver_longitude", "receiver_altitude_asl"]
    assert [field.read_as for field in own] == ["own_latitude", "own_longitude", "own_altitude_m"]
    assert [field.snapshot for field in own] == ["", "", ""]
    station = [field for field in FIELDS["websdr_stations"] if field.is_place]
    assert [field.snapshot for field in station] == ["receiver_latitude", "receiver_longitude", "receiver_altitude_m"]
    assert all(field.is_optional and field.may_be_null for field in [*own, *station])
    source = [field for field in FIELDS["known_sources"] if field.is_place]
    assert [field.is_optional for field in source] == [False] * 3
    assert [field.may_be_null for field in source] == [True] * 3  # the field's databases hold unknown ones
    assert Source(id="k", name="k", position=Position(latitude=1, longitude=2)).position.altitude_m == source[2].fill


class Odd(StrEnum):
    """Choices."""

    A = "a"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (float, "Noun.value: found a number without Bounds"),
        (float | None, "Noun.value: found a number without Bounds"),
        (bytes, "Noun.value: found bytes, expected float, int"),
        (float | int, "found several types"),
        (Annotated[str, Stored(since="0002")], r"came with 0002, expected \| None"),
    ],
)
def test_a_row_that_says_too_little_is_refused(annotation, message):
    noun = type("Noun", (BaseModel,), {"__annotations__": {"value": annotation}})
    with pytest.raises(TypeError, match=message):
        read_fields("measurements", noun)


@pytest.mark.parametrize(
    ("annotation", "dtype"),
    [
        (Decibels, "float64"),
        (int | None, "Int64"),
        (bool, "boolean"),
        (str, "string"),
        (datetime, "datetime64[us, UTC]"),
        (dict[str, Any], "string"),
        (Odd | None, "string"),
    ],
)
def test_each_kind_has_a_type_of_pandas(annotation, dtype):
    noun = type("Noun", (BaseModel,), {"__annotations__": {"value": Annotated[annotation, Stored(snapshot=True)]}})
    (field,) = read_fields("measurements", noun)
    assert (field.dtype, field.snapshot) == (dtype, "value")


def test_names_in_the_snapshot_are_told_apart():
    for names in ([field.read_as for field in SNAPSHOT], [field.snapshot for field in SNAPSHOT if field.snapshot]):
        assert len(names) == len(set(names))


def test_the_tables_of_the_field_are_those_of_the_nouns():
    assert set(FIELD_TABLES) | {"approval_events"} == set(FIELDS)
    for table, fields in FIELDS.items():
        columns = metadata.tables[f"{SCHEMA}.{table}"].c
        assert {field.name for field in fields} <= set(columns.keys())
    assert {field.name for field in FIELDS["measurements"]} == set(metadata.tables[f"{SCHEMA}.measurements"].c.keys())


def test_choices_fit_their_columns():
    choices = [choice for fields in FIELDS.values() for field in fields for choice in field.choices]
    assert max(map(len, choices)) <= schema.CHOICE_LENGTH


def test_published_levels_are_held_closer_than_the_field_is():
    level = find("measurements", "signal_strength_db").bounds
    assert level.hold([MIN_LEVEL_DB, MAX_LEVEL_DB]).all()
