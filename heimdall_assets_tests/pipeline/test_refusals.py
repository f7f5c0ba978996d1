"""A stage that refuses most of its inputs stops with one line, unless a setting tolerates it."""

import pandas as pd
import pytest

from heimdall_assets.errors import Refused
from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
from heimdall_assets.pipeline.stages.iq_files import pin_recordings
from heimdall_assets.pipeline.stages.refusals import refuse_if_most
from heimdall_assets.pipeline.stages.spectrogram_features import extract_features
from heimdall_assets.specs import DatasetSpec, DelaySpec, FeatureSpec, RecordingSpec, SimulationSpec
from heimdall_assets_tests.homes import fill_home, ignore

TOO_WIDE = FeatureSpec(f_max_hz=96_000.0)
"""The first specification's value, of no use at 24 kHz."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Objects and snapshot of a home with 3 sessions of 3 recordings."""
    simulation = SimulationSpec(num_sessions=3, min_receivers=3, max_receivers=3, duration_s=0.8)
    stores = fill_home(tmp_path_factory.mktemp("recorded"), simulation).open_stores()
    return stores.objects, take_snapshot(stores, DatasetSpec())[0].manifest


def make_refused(*reasons):
    return pd.DataFrame({"measurement_id": [f"m{place}" for place in range(len(reasons))], "reason": reasons})


def test_the_line_names_stage_count_setting_commonest_reason_and_an_example():
    refused = make_refused("sha256:aa: silent", "sha256:bb: 2 % clipped", "sha256:cc: 31.5 % clipped")
    with pytest.raises(Refused) as caught:
        refuse_if_most("iq_files", refused, 5, RecordingSpec(), ignore)
    assert str(caught.value) == (
        "iq_files: refused 3 of 5 recordings, expected at most 50% (RecordingSpec.max_refused_fraction); "
        "2 of them as measurement m1: 2 % clipped"
    )


@pytest.mark.parametrize(("num_inputs", "tolerated"), [(4, 0.5), (2, 1.0), (200, 0.01)])
def test_as_many_as_are_tolerated_are_told_and_stop_nothing(num_inputs, tolerated):
    told = []
    spec = RecordingSpec(max_refused_fraction=tolerated)
    refuse_if_most("iq_files", make_refused("a: b", "c: d"), num_inputs, spec, lambda *said: told.append(said))
    assert told == [("of these refused", 2, num_inputs)]


def test_a_stage_that_refuses_nothing_says_nothing():
    told = []
    refuse_if_most("iq_files", make_refused(), 0, RecordingSpec(), lambda *said: told.append(said))
    assert told == []


def test_unusable_recordings_stop_their_stage(recorded):
    objects, snapshot = recorded
    too_short = RecordingSpec(min_duration_s=10.0)
    with pytest.raises(Refused, match="iq_files: refused 9 of 9 recordings"):
        pin_recordings(objects, snapshot, too_short, ignore)
    tolerant = too_short.model_copy(update={"max_refused_fraction": 1.0})
    assert pin_recordings(objects, snapshot, tolerant, ignore).result.manifest.summary["num_refused"] == 9


def test_recordings_without_a_spectrogram_stop_theirs(recorded):
    objects, snapshot = recorded
    pinned = pin_recordings(objects, snapshot, RecordingSpec(), ignore).result.manifest
    told = []
    with pytest.raises(
        Refused, match=r"^spectrogram_features: refused 9 of 9 .*FeatureSpec.max_refused_fraction.* 9 of them .*Hz"
    ):
        extract_features(objects, pinned, TOO_WIDE, DelaySpec(), lambda *said: told.append(said))
    assert told[-1] == ("of these refused", 9, 9)
    tolerant = TOO_WIDE.model_copy(update={"max_refused_fraction": 1.0})
    made = extract_features(objects, pinned, tolerant, DelaySpec(), ignore).result.manifest
    assert made.summary["num_refused"] == 9
    assert made.summary["num_features"] == 0


def test_spectrograms_are_found_again_where_more_is_tolerated(recorded):
    objects, snapshot = recorded
    pinned = pin_recordings(objects, snapshot, RecordingSpec(), ignore).result.manifest
    assert extract_features(objects, pinned, FeatureSpec(), DelaySpec(), ignore).num_computed == 9
    other = FeatureSpec(max_refused_fraction=0.9)
    made = extract_features(objects, pinned, other, DelaySpec(), ignore)
    assert not made.result.reused  # another setting, another manifest
    assert made.num_computed == 0
