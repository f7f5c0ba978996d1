"""The words: digests that mean equality, bounds that fire, ellipses that hold what they say."""

import json

import dagster as dg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heimdall_assets import specs
from heimdall_assets.domain import Position, check_name
from heimdall_assets.errors import HeimdallError, InvalidIdentifier
from heimdall_assets.manifests import (
    MAX_INTEGER,
    Artifact,
    Manifest,
    compute_json_digest,
    compute_texts_digest,
    decode_canonical_json,
    encode_canonical_json,
)
from heimdall_assets.physical import Estimate

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
@settings(max_examples=50, deadline=None)
def test_canonical_json_does_not_depend_on_order(value):
    backwards = dict(reversed(list(value.items())))
    assert encode_canonical_json(value) == encode_canonical_json(backwards)


@given(JSON_VALUES)
@settings(max_examples=200, deadline=None)
def test_canonical_json_gives_back_every_value_and_writes_it_again_in_the_same_bytes(value):
    encoded = encode_canonical_json(value)
    assert decode_canonical_json(encoded) == value
    assert encode_canonical_json(decode_canonical_json(encoded)) == encoded


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abcä"), inner)))
@settings(max_examples=200, deadline=None)
def test_texts_are_hashed_as_canonical_json(value):
    assert compute_texts_digest(value) == compute_json_digest(value)


# RFC 8785, sections 3.2.2 and 3.2.3, and numbers of its appendix B.
def test_canonical_json_is_that_of_the_standard():
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    expected = (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert encode_canonical_json(value) == expected
    keys = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(encode_canonical_json(keys)).values()) == [2, 4, 6, 7, 1, 5, 3]
    numbers = {
        -0.0: "0",
        5e-324: "5e-324",
        1e23: "1e+23",
        999999999999999900000.0: "999999999999999900000",
        1e21: "1e+21",
        9.999999999999997e22: "9.999999999999997e+22",
        0.000001: "0.000001",
        9.999999999999997e-7: "9.999999999999997e-7",
        333333333.33333325: "333333333.33333325",
        24000.0: "24000",
    }
    assert [encode_canonical_json(number).decode() for number in numbers] == list(numbers.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), MAX_INTEGER + 1, "\ud800", {1: 2}], ids=repr)
def test_canonical_json_refuses_what_json_cannot_say(value):
    with pytest.raises(ValueError, match=r"safe integer|JCS|UTF-8|must be strings"):
        encode_canonical_json({"x": value})


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', "[NaN]", "[-Infinity]", "[1e999]", "[1", ""])
def test_canonical_json_is_read_without_what_readers_differ_in(text):
    with pytest.raises(ValueError, match=r"twice|no number|line 1"):
        decode_canonical_json(text)


def test_manifest_round_trips_and_its_digest_changes_with_any_part():
    manifest = Manifest(kind="a", code_version="1", parents={"p": "0" * 64}, summary={"n": 1})
    assert Manifest.decode(manifest.encode()) == manifest
    others = [
        manifest.model_copy(update={"kind": "b"}),
        manifest.model_copy(update={"parents": {}}),
        manifest.model_copy(update={"summary": {"n": 2}}),
        manifest.model_copy(update={"artifacts": {"t": Artifact(digest="1" * 64, media_type="x", size=1)}}),
    ]
    assert len({manifest.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "a..b", "/etc/passwd", "http://x", "a?b", "a#b", "a;b", "-a", "x" * 129, "é"]
)
def test_names_are_never_paths_or_addresses(name):
    with pytest.raises(InvalidIdentifier):
        check_name(name, "session")


def test_names_that_people_use_pass():
    for name in ("HB9RYZ", "Passo del Giovi", "powder-000123", "2026-11-20 10:41:56"):
        assert check_name(name, "station") == name


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (specs.FeatureSpec, {"f_min_hz": 10.0, "f_max_hz": 5.0}),
        (specs.FeatureSpec, {"hop": 4096}),
        (specs.DelaySpec, {"num_lags": 32}),
        (specs.SplitSpec, {"val_fraction": 0.6, "test_fraction": 0.5}),
        (specs.ModelSpec, {"uncertainty_min": 2.0}),
        (specs.ModelSpec, {"width": 30, "num_heads": 4}),
        (specs.ModelSpec, {"backbone_size": "giant"}),
        (specs.TrainingSpec, {"learning_rate": float("nan")}),
        (specs.TrainingSpec, {"epochs": 3}),
        (specs.SimulationSpec, {"voice_fraction": 0.9, "tone_fraction": 0.2}),
        (specs.SimulationSpec, {"snr_min_db": 1.0}),
        (specs.SimulationSpec, {"min_receivers": 5, "max_receivers": 3}),
    ],
)
def test_specs_refuse_what_cannot_be(spec, fields):
    with pytest.raises(ValidationError):
        spec(**fields)


def test_a_spec_as_run_configuration_has_the_same_digest():
    class Config(specs.TrainingSpec, dg.Config):
        pass

    assert Config(seed=7).digest() == specs.TrainingSpec(seed=7).digest() != specs.TrainingSpec().digest()
    assert type(Config(seed=7).pure()) is specs.TrainingSpec


@pytest.mark.parametrize(("latitude", "longitude"), [(91, 0), (0, 181), (float("nan"), 0), (0, float("inf"))])
def test_positions_out_of_range_are_refused(latitude, longitude):
    with pytest.raises(ValidationError):
        Position(latitude=latitude, longitude=longitude)


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(-0.95, 0.95))
@settings(max_examples=20, deadline=None)
def test_the_90_percent_ellipse_holds_90_percent(sigma_east, sigma_north, correlation):
    both = correlation * sigma_east * sigma_north
    ellipse = Estimate(0, 0, sigma_east**2, sigma_north**2, both, "test").ellipse(0.90)
    rng = np.random.default_rng(1)
    cholesky = np.linalg.cholesky([[sigma_east**2, both], [both, sigma_north**2]])
    east, north = cholesky @ rng.normal(size=(2, 20_000))
    azimuth = np.radians(ellipse.azimuth_deg)
    along, across = east * np.sin(azimuth) + north * np.cos(azimuth), east * np.cos(azimuth) - north * np.sin(azimuth)
    inside = (along / ellipse.semi_major_m) ** 2 + (across / ellipse.semi_minor_m) ** 2 <= 1
    assert inside.mean() == pytest.approx(0.90, abs=0.01)


def test_every_error_is_ours():
    import heimdall_assets.errors as errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, HeimdallError) for kind in kinds)
