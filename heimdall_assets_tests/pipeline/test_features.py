"""Features of many sessions: what is wrong with one recording or session costs no other, and its reason is kept."""

import numpy as np
import pandas as pd
import pytest

from heimdall_assets.domain import Position
from heimdall_assets.errors import StorageError
from heimdall_assets.formats import Stated
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.files import import_recordings
from heimdall_assets.pipeline.intake.identities import make_source
from heimdall_assets.pipeline.intake.iq_session import SessionClaim
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.prediction.stored import observe_sessions
from heimdall_assets.pipeline.results import find_or_compute, read_result
from heimdall_assets.pipeline.stages.datasets import join_recordings
from heimdall_assets.pipeline.stages.features import compute_features
from heimdall_assets.pipeline.stages.recordings import ingest_recordings
from heimdall_assets.specs import DelaySpec, FeatureSpec, RecordingSpec, SimulationSpec, TimingSpec
from heimdall_assets.stores.objects.shards import ShardPacker, load_rows
from heimdall_assets_tests.formats.recordings import make_noise, make_npy
from heimdall_assets_tests.homes import ignore, make_places

SPECS = FeatureSpec(), DelaySpec()
PLACES = {
    "A": Position(latitude=45.0, longitude=8.0),
    "B": Position(latitude=45.3, longitude=8.0),
    "C": Position(latitude=45.0, longitude=8.4),
}
STATED = Stated(sample_rate_hz=24_000.0, start_unix_ns=1_772_625_600 * 10**9, frequency_hz=145.5e6)


@pytest.fixture
def stores(tmp_path):
    return make_places(tmp_path / "home").open_stores()


def add_simulated(stores) -> None:
    import_simulated(stores, SimulationSpec(num_sessions=1, min_receivers=3, max_receivers=3), "demo", ignore)


def add_noise(stores, folder, name: str, clock: ClockClass) -> None:
    """A session of three recordings that have nothing in common."""
    files = []
    for seed, station in enumerate(PLACES):
        files.append(folder / f"{station}.npy")
        files[-1].write_bytes(make_npy(make_noise(24_000, seed=seed + 10 * len(name))))
    claim = SessionClaim(name, make_source("here", PLACES["A"]), "field", PLACES, clock)
    import_recordings(stores.measurements, stores.objects, claim, files, STATED)


def read_rows(stores) -> pd.DataFrame:
    sessions = [row["id"] for row in stores.measurements.list_sessions()]
    return pd.concat([stores.measurements.read_session_rows(name) for name in sessions], ignore_index=True)


def ingest(stores, rows) -> pd.DataFrame:
    return join_recordings(rows, ingest_recordings(stores.objects, rows, RecordingSpec(), ignore).table)


def test_sessions_without_delays_keep_their_pictures_and_say_why(stores, tmp_path):
    add_simulated(stores)
    add_noise(stores, tmp_path, "noise", ClockClass.GNSS)
    add_noise(stores, tmp_path, "free", ClockClass.NONE)
    rows = read_rows(stores)
    made = compute_features(stores.objects, ingest(stores, rows), *SPECS, ignore)
    assert len(made.index) == len(rows) == 9
    assert made.count()["num_sessions_without_delays"] == 2
    assert made.count()["num_without_arrival"] == 6
    assert made.count()["num_refused"] == made.count()["num_unread"] == 0
    named = rows.set_index("measurement_id")["session_name"]
    reasons = made.refused.groupby(made.refused["measurement_id"].map(named))["reason"].unique()
    assert next(iter(reasons["noise"])).startswith("delays: found no signal")
    assert list(reasons["free"]) == ["0 of 3 recordings of the session are timed by a shared clock, expected 2"]
    again = compute_features(stores.objects, ingest(stores, rows), *SPECS, ignore)
    assert (again.num_computed, again.num_reused) == (0, 9)
    pd.testing.assert_frame_equal(again.refused, made.refused)  # a reason that was found before is told again
    pd.testing.assert_frame_equal(again.arrivals, made.arrivals)


def test_cuts_of_one_recording_have_no_arrival_and_the_others_keep_theirs(stores):
    """Rows that another program wrote: no import has looked at them."""
    import_simulated(stores, SimulationSpec(num_sessions=1, min_receivers=4, max_receivers=4), "demo", ignore)
    rows = ingest(stores, read_rows(stores)).sort_values("measurement_id", ignore_index=True)
    whole = np.load(stores.objects.local_path(rows["digest"][0]))
    digest = stores.objects.put_bytes(make_npy((0.5 * whole[5:]).astype(np.complex64)), "application/x-npy").digest
    copied = rows.copy()
    for name, value in (("digest", digest), ("num_samples", len(whole) - 5), ("iq_samples_count", len(whole) - 5)):
        copied.loc[1, name] = value
    made = compute_features(stores.objects, copied, *SPECS, ignore)
    named = made.refused[made.refused["what"] == "arrival"].set_index("measurement_id")["reason"]
    for number, lag in ((0, "5 samples earlier"), (1, "5 samples later")):
        said = f"the same recording as that of measurement {rows['measurement_id'][1 - number]}, from {lag} on: they"
        assert named[rows["measurement_id"][number]].startswith(said)
    before = compute_features(stores.objects, rows, *SPECS, ignore)
    timed = [set(table.loc[table["arrival_s"].notna(), "measurement_id"]) for table in (made.arrivals, before.arrivals)]
    assert timed[0] == timed[1] - set(rows["measurement_id"][:2])
    assert len(timed[1]) == 4
    assert made.count()["num_without_arrival"] == 2
    again = compute_features(stores.objects, copied, *SPECS, ignore)
    pd.testing.assert_frame_equal(again.refused, made.refused)  # a session is looked at once


def test_a_recording_too_slow_for_a_spectrogram_is_listed(stores, tmp_path):
    add_noise(stores, tmp_path, "noise", ClockClass.NONE)
    rows = ingest(stores, read_rows(stores))
    made = compute_features(stores.objects, rows, FeatureSpec(f_max_hz=20_000.0), DelaySpec(), ignore)
    assert len(made.index) == 0
    assert made.count()["num_refused"] == 3
    assert "20000" in made.refused.loc[made.refused["what"] == "spectrogram", "reason"].iloc[0]


def test_a_lost_recording_costs_no_other_and_nothing_without_it_is_final(stores):
    add_simulated(stores)
    rows = read_rows(stores)
    good = ingest(stores, rows)
    lost = stores.objects.local_path(str(good["digest"].iloc[0]))
    data = lost.read_bytes()
    lost.unlink()
    made = compute_features(stores.objects, good, *SPECS, ignore)
    assert len(made.index) == 2
    assert made.count()["num_unread"] == 1
    assert "found nothing" in made.refused.loc[made.refused["what"] == "spectrogram", "reason"].iloc[0]
    assert made.arrivals["arrival_s"].notna().sum() <= 2
    stores.objects.put_bytes(data, "application/x-npy")
    healed = compute_features(stores.objects, good, *SPECS, ignore)
    assert (healed.num_computed, healed.num_reused) == (1, 2)
    assert healed.count()["num_unread"] == 0
    assert "found nothing" not in " ".join(healed.refused["reason"])


def test_a_recording_that_cannot_be_read_now_is_not_taken_for_refused(stores):
    add_simulated(stores)
    rows = read_rows(stores)
    stores.objects.local_path(str(rows["iq_data_location"].iloc[0]).removeprefix("sha256:")).unlink()
    table = ingest_recordings(stores.objects, rows, RecordingSpec(), ignore).table
    assert sorted(table["status"]) == ["ok", "ok", "unread"]
    sessions, refused = observe_sessions(stores.objects, rows, RecordingSpec(), *SPECS, TimingSpec(), ignore)
    assert len(sessions) == 1
    assert list(refused.loc[refused["what"] == "recording", "measurement_id"]) == [rows["measurement_id"].iloc[0]]


@pytest.mark.parametrize(("unread", "is_found"), [(0, True), (1, False)])
def test_a_result_that_lacks_what_could_not_be_read_is_not_found_again(stores, unread, is_found):
    compute = lambda: ({}, {"num_unread": unread})  # noqa: E731
    parents = {"approved_measurements": "0" * 64}
    first = find_or_compute(stores.objects, "iq_files", parents, [RecordingSpec()], compute)
    second = find_or_compute(stores.objects, "iq_files", parents, [RecordingSpec()], compute)
    assert second.reused is is_found
    assert second.manifest.digest == first.manifest.digest
    assert read_result(stores.objects, "results/nothing") is None


def test_shards_are_stored_as_they_fill(stores, monkeypatch):
    image = np.zeros((3, 4, 5), dtype=np.float32)
    monkeypatch.setattr("heimdall_assets.stores.objects.shards.SHARD_BYTES", 2 * image.nbytes)
    packer = ShardPacker(stores.objects)
    for number in range(5):
        packer.add(str(number), image + number)
    assert len(list(stores.objects.list_digests())) == 2  # before the last one came
    places = packer.close()
    assert [places[str(number)][1] for number in range(5)] == [0, 1, 0, 1, 0]
    index = pd.DataFrame([(key, *place) for key, place in places.items()], columns=["key", "shard", "row"])
    ordered, images = load_rows(stores.objects, index)
    for key, row in zip(ordered["key"], ordered["row"], strict=True):
        assert (images[row] == float(key)).all()


def test_a_shard_that_cannot_be_stored_is_no_recordings_fault(stores, monkeypatch):
    def refuse(data, media_type):
        raise StorageError("the disk is full")

    add_simulated(stores)
    rows = ingest(stores, read_rows(stores))
    monkeypatch.setattr(stores.objects, "put_bytes", refuse)
    with pytest.raises(StorageError, match="disk is full"):
        compute_features(stores.objects, rows, *SPECS, ignore)
