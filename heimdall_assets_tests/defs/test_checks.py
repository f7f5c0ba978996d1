"""Each check passes on what the graph makes, and fails on what it is there to catch."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save

from heimdall_assets.defs import checks, warning_checks
from heimdall_assets.defs.tables import describe_snapshot
from heimdall_assets.domain import APPROVED_COLUMNS
from heimdall_assets.manifests import Artifact, Manifest
from heimdall_assets.media_types import NPY_MEDIA_TYPE, SAFETENSORS_MEDIA_TYPE
from heimdall_assets.signals.signal_track import NUM_ROWS, NUM_STEPS
from heimdall_assets.signals.spectrogram import compute_spectrogram
from heimdall_assets.specs import DelaySpec, FeatureSpec, SplitSpec, TrainingSpec
from heimdall_assets.stores.objects.shards import encode_shard
from heimdall_assets.stores.objects.tables import artifact_of_table
from heimdall_assets_tests.homes import make_places


@pytest.fixture
def stores(tmp_path):
    return make_places(tmp_path).open_stores()


def make(kind, artifacts=None, summary=None, specs=None) -> Manifest:
    return Manifest(kind=kind, code_version="1", artifacts=artifacts or {}, summary=summary or {}, specs=specs or {})


def approved_table(**changes) -> pd.DataFrame:
    now = pd.Timestamp("2026-01-01", tz="UTC")
    filled = {"string": "x", "float64": 1.0, "Int64": 1, "boolean": True, "datetime64[us, UTC]": now}
    row = {name: filled[dtype] for name, dtype in APPROVED_COLUMNS.items()}
    rows = [{**row, "measurement_id": f"m{index}"} for index in range(3)]
    table = pd.DataFrame(rows).astype(APPROVED_COLUMNS)
    return table.assign(**changes)


def approved(stores, table, left_out=0, **summary) -> Manifest:
    gone = pd.DataFrame({"measurement_id": ["g"] * left_out, "session_id": "s", "reason": "no position"}).astype(
        "string"
    )
    return make(
        "approved_measurements",
        {"table": artifact_of_table(stores.objects, table), "left_out": artifact_of_table(stores.objects, gone)},
        {"num_sessions": 3, "num_measurements": len(table), **summary},
    )


def test_snapshot_schema(stores):
    assert checks.snapshot_follows_schema(approved(stores, approved_table()), stores).passed
    assert not checks.snapshot_follows_schema(approved(stores, approved_table().drop(columns="snr_db")), stores).passed
    assert not checks.snapshot_follows_schema(approved(stores, approved_table(snr_db="loud")), stores).passed
    doubled = approved_table(measurement_id="m0")
    assert not checks.snapshot_follows_schema(approved(stores, doubled), stores).passed


def test_the_page_tells_what_each_column_is():
    schema = describe_snapshot()
    columns = {column.name: column for column in schema.columns}
    assert list(columns) == list(APPROVED_COLUMNS)
    assert columns["frequency_hz"].description == "Hz, above 0 to 3e+11"
    assert not columns["frequency_hz"].constraints.nullable
    assert columns["snr_db"].constraints.nullable
    assert not columns["receiver_latitude"].constraints.nullable  # of the measurement or else of its station
    assert columns["clock_class"].description == "gnss_calibrated or gnss or ntp or reference or none"
    assert columns["measurement_attributes"].description == "canonical JSON"


def test_snapshot_has_sessions(stores):
    assert checks.snapshot_has_sessions(approved(stores, approved_table())).passed
    assert not checks.snapshot_has_sessions(approved(stores, approved_table(), num_sessions=0)).passed


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        ({"source_latitude": 91.0}, False),
        ({"receiver_longitude": np.nan}, False),
        ({"receiver_altitude_m": np.nan}, False),
        ({"frequency_hz": -1.0}, False),
        ({"frequency_hz": np.nan}, False),
        ({"snr_db": 1001.0}, False),
        ({"iq_samples_count": 0}, False),
        ({"signal_strength_db": np.nan, "snr_db": np.nan, "iq_samples_count": None}, True),
    ],
)
def test_values_are_possible(stores, change, passed):
    assert checks.values_are_possible(approved(stores, approved_table()), stores).passed
    changed = approved_table(**change).astype(APPROVED_COLUMNS)
    result = checks.values_are_possible(approved(stores, changed), stores)
    assert result.passed is passed
    bad = {name for name, count in result.metadata.items() if count.value}
    assert bad == (set() if passed else set(change))


def test_few_rows_left_out(stores):
    assert warning_checks.few_rows_left_out(approved(stores, approved_table(), left_out=1), stores).passed
    assert not warning_checks.few_rows_left_out(approved(stores, approved_table(), left_out=9), stores).passed


def recordings(stores, status) -> Manifest:
    digest = stores.objects.put_bytes(b"samples", NPY_MEDIA_TYPE).digest
    table = pd.DataFrame(
        {"measurement_id": ["a", "b"], "session_id": "s", "status": status, "reason": "clipped", "digest": digest}
    ).astype("string")
    return make("iq_files", {"table": artifact_of_table(stores.objects, table)})


def test_recordings_are_usable(stores):
    assert warning_checks.recordings_are_usable(recordings(stores, ["ok", "refused"]), stores).passed
    assert not warning_checks.recordings_are_usable(recordings(stores, ["refused", "refused"]), stores).passed


def test_recordings_rest_whole(stores):
    manifest = recordings(stores, ["ok", "ok"])
    assert checks.recordings_rest_whole(manifest, stores).passed
    stores.objects.local_path(stores.objects.put_bytes(b"samples", NPY_MEDIA_TYPE).digest).unlink()
    assert not checks.recordings_rest_whole(manifest, stores).passed


def features(stores, images, correlations=None, tracks=None) -> Manifest:
    """A manifest whose tables lead to these arrays, and no more than that."""
    tracks = np.zeros((2, NUM_ROWS, NUM_STEPS)) if tracks is None else tracks
    correlations = np.full((6, 33), 0.5) if correlations is None else correlations
    tables = {}
    for name, arrays in (
        ("index", images.astype(np.float32)),
        ("tracks", tracks.astype(np.float16)),
        ("pairs", correlations.astype(np.complex64)),
    ):
        shard = stores.objects.put_bytes(encode_shard(arrays), NPY_MEDIA_TYPE).digest
        tables[name] = artifact_of_table(stores.objects, pd.DataFrame({"shard": [shard], "row": [0]}))
    specs = {"FeatureSpec": FeatureSpec().dump(), "DelaySpec": DelaySpec().dump()}
    return make("spectrogram_features", tables, specs=specs)


@pytest.mark.parametrize("bad", [np.nan, 1.0, -100.5])
def test_features_are_finite(stores, bad):
    images = np.full((2, 3, 128, 32), -50.0)
    assert checks.features_are_finite(features(stores, images), stores).passed
    images[1, 2, 3, 4] = bad
    assert not checks.features_are_finite(features(stores, images), stores).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.1j])
def test_correlations_are_finite(stores, bad):
    images, correlations = np.full((2, 3, 128, 32), -50.0), np.full((6, 33), 0.5 + 0.5j)
    correlations[4, 16] = 1.0
    assert checks.features_are_finite(features(stores, images, correlations), stores).passed
    correlations[4, 5] = bad
    assert not checks.features_are_finite(features(stores, images, correlations), stores).passed


def test_signal_tracks_are_whole_and_finite(stores):
    images, tracks = np.full((2, 3, 128, 32), -50.0), np.zeros((2, NUM_ROWS, NUM_STEPS))
    assert not checks.features_are_finite(features(stores, images, tracks=tracks[:, :, :32]), stores).passed
    tracks[1, 2, 3] = np.nan
    assert not checks.features_are_finite(features(stores, images, tracks=tracks), stores).passed


def test_features_have_the_shape_of_their_spec(stores):
    images = np.full((2, 3, 128, 32), -50.0)
    assert not checks.features_are_finite(features(stores, images[:, :, :64]), stores).passed
    assert not checks.features_are_finite(features(stores, images, np.full((6, 31), 0.5)), stores).passed


def split(stores, sessions, sites) -> Manifest:
    table = pd.DataFrame({"session_id": sessions, "site": sites}).astype("string")
    return make(
        "train_split", {"table": artifact_of_table(stores.objects, table)}, specs={"SplitSpec": SplitSpec().dump()}
    )


@pytest.mark.parametrize(("num_features", "passed"), [(0, False), (1, False), (2, True), (5, True)])
def test_recordings_become_features(stores, num_features, passed):
    refused = pd.DataFrame({"measurement_id": ["a", "b", "c"], "what": ["spectrogram", "spectrogram", "arrival"]})
    refused = refused.assign(session_id="s", reason="too short").astype("string")
    made = make(
        "spectrogram_features",
        {"refused": artifact_of_table(stores.objects, refused)},
        summary={"num_features": num_features},
    )
    assert warning_checks.recordings_become_features(made, stores).passed is passed
    nothing = {"refused": artifact_of_table(stores.objects, refused.iloc[:0])}
    levels_alone = make("spectrogram_features", nothing, summary={"num_features": 0})
    assert warning_checks.recordings_become_features(levels_alone, stores).passed


@pytest.mark.parametrize(
    ("test", "passed"), [((["c"], ["z"]), True), ((["a"], ["z"]), False), ((["c"], ["x"]), False), (([], []), False)]
)
def test_splits_do_not_leak(stores, test, passed):
    parts = split(stores, ["a"], ["x"]), split(stores, ["b"], ["y"]), split(stores, *test)
    assert checks.splits_do_not_leak(*parts, stores).passed is passed


def test_weights_are_finite(stores):
    def checkpoint(value):
        data = save({"w": np.array([1.0, value], np.float32)})
        return make(
            "trained_checkpoint", {"weights.safetensors": stores.objects.put_bytes(data, SAFETENSORS_MEDIA_TYPE)}
        )

    assert checks.weights_are_finite(checkpoint(2.0), stores).passed
    assert not checks.weights_are_finite(checkpoint(np.inf), stores).passed


@pytest.mark.parametrize(("model_m", "passed"), [(10.0, False), (89.0, False), (91.0, True), (300.0, True)])
def test_no_better_than_its_bound(model_m, passed):
    figures = {"bound_method_median_m": model_m, "bound_median_m": 100.0, "bound_median_low_m": 90.0}
    result = warning_checks.no_better_than_its_bound(make("evaluation_metrics", summary=figures))
    assert result.passed is passed
    assert f"median error is {model_m:g} m and that of the physical bound 100 m" in result.description
    assert ("numbers that are no levels" in result.description) is not passed
    assert warning_checks.no_better_than_its_bound(make("evaluation_metrics", summary={})).passed


def test_better_than_baselines():
    assert warning_checks.better_than_baselines(make("evaluation_metrics", summary={"worse_than": []})).passed
    assert not warning_checks.better_than_baselines(
        make("evaluation_metrics", summary={"worse_than": ["tdoa_robust"]})
    ).passed


@pytest.mark.parametrize(("rate_hz", "num_rows"), [(24_001.3, 0), (192_000.0, 35)])
def test_mel_rows_that_hold_no_frequency_are_counted_with_what_to_change(stores, rate_hz, num_rows):
    table = pd.DataFrame({"sample_rate_hz": [24_000.0, rate_hz, None]})
    pinned = make("iq_files", {"table": artifact_of_table(stores.objects, table)})
    made = make("spectrogram_features", specs={"FeatureSpec": FeatureSpec().dump()})
    result = warning_checks.mel_rows_hold_signal(made, pinned, stores)
    assert result.passed is (num_rows == 0)
    if num_rows:
        assert result.description.startswith(f"{num_rows} of 128 mel rows are constant at 192,000 Hz")
        assert "FeatureSpec.n_fft=" in result.description
        mended = FeatureSpec(n_fft=int(result.description.rpartition("n_fft=")[2].split()[0]))
        again = make("spectrogram_features", specs={"FeatureSpec": mended.dump()})
        assert warning_checks.mel_rows_hold_signal(again, pinned, stores).passed


def test_the_constant_rows_that_are_counted_are_those_of_a_spectrogram():
    rng = np.random.default_rng(1)
    noise = (0.1 * rng.normal(size=(192_000, 2))).astype(np.float32).view(np.complex64)[:, 0]
    image = compute_spectrogram(noise, 192_000.0, FeatureSpec(), name="noise")
    assert int((image[2].max(axis=1) == image[2].min(axis=1)).sum()) == 35


@pytest.mark.parametrize(("best", "passed"), [(3, True), (None, False)])
def test_a_training_that_improved_nothing_is_told(best, passed):
    made = make(
        "trained_checkpoint",
        summary={"best_epoch": best, "num_epochs": 11},
        specs={"TrainingSpec": TrainingSpec().dump()},
    )
    result = warning_checks.training_improved(made)
    assert result.passed is passed
    assert ("none better on validation than the start" in result.description) is not passed


def test_onnx_matches_pytorch():
    assert checks.onnx_matches_pytorch(make("onnx_model", summary={"parity": {"passed": True}})).passed
    assert not checks.onnx_matches_pytorch(make("onnx_model", summary={"parity": {"passed": False}})).passed


def test_release_is_whole(stores):
    version = stores.releases.reserve_version("major", "results/a")
    stores.releases.publish(version, {"model.onnx": b"model"}, {"manifest": "0" * 64})
    manifest = make("model_release", summary={"version": version})
    assert checks.release_is_whole(manifest, stores).passed
    stores.releases.files.write_file(version, "model.onnx", b"other")
    assert not checks.release_is_whole(manifest, stores).passed


def test_snapshot_resembles_release(stores):
    before = approved_table()
    snapshot = approved(stores, before)
    stored = stores.objects.put_bytes(snapshot.encode(), "application/json")
    onnx = Manifest(kind="onnx_model", code_version="1", parents={"approved_measurements": stored.digest})
    digest = stores.objects.put_bytes(onnx.encode(), "application/json").digest
    assert warning_checks.snapshot_resembles_release(snapshot, stores).passed  # no release yet
    stores.releases.publish(
        stores.releases.reserve_version("major", "results/b"), {"model.onnx": b"m"}, {"manifest": digest}
    )
    assert warning_checks.snapshot_resembles_release(snapshot, stores).passed
    drifted = approved(stores, approved_table(signal_strength_db=-90.0))
    result = warning_checks.snapshot_resembles_release(drifted, stores)
    assert not result.passed
    assert result.metadata["signal_strength_db"].value == pytest.approx(1.0)


def test_every_check_is_registered_and_described():
    stopping = [spec for check in checks.CHECKS for spec in check.check_specs]
    told = [spec for check in warning_checks.WARNING_CHECKS for spec in check.check_specs]
    assert len({spec.name for spec in stopping + told}) == len(stopping) + len(told) == 19
    assert all(spec.description for spec in stopping + told)
    assert all(spec.blocking for spec in stopping)
    assert not any(spec.blocking for spec in told)


def test_an_artifact_needs_a_digest():
    with pytest.raises(ValueError, match="digest"):
        Artifact(digest="short", media_type="x", size=1)
