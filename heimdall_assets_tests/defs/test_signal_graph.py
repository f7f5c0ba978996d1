"""Signal tasks through the whole graph: the simulator's truth in the database becomes labels, losses and figures."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.cli.locating import say_signal
from heimdall_assets.evaluation.signal_labels import make_signal_labels
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.pipeline.prediction.released import read_released
from heimdall_assets.pipeline.prediction.stored import predict_stored
from heimdall_assets.pipeline.stages.datasets import join_recordings, load_sessions
from heimdall_assets.pipeline.stages.evaluation_metrics import load_metrics
from heimdall_assets.pipeline.stages.recordings import ingest_recordings
from heimdall_assets.pipeline.stages.session_work import SessionTask, work_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint
from heimdall_assets.specs import (
    DatasetSpec,
    DelaySpec,
    FeatureSpec,
    ModelSpec,
    RecordingSpec,
    SimulationSpec,
)
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets_tests.homes import fill_home, ignore, release

MIXED = SimulationSpec(
    num_sessions=30, min_receivers=2, max_receivers=2, duration_s=0.8, voice_fraction=0.4, tone_fraction=0.3
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    places = fill_home(tmp_path_factory.mktemp("home"), MIXED)
    return places, release(places, ModelSpec(multi_target=True, width=16, num_layers=1, num_heads=2))


def read(places, summary, name) -> Manifest:
    return Manifest.decode(places.open_stores().objects.read_bytes(summary["manifests"][name]))


def test_labels_are_the_truth_in_the_database(home):
    places, summary = home
    stores = places.open_stores()
    truth = {row["id"]: row["attributes"] for row in stores.measurements.list_sessions()}
    begins = ends = 0
    for split in ("train", "val", "test"):
        sessions = load_sessions(stores.objects, read(places, summary, f"{split}_split"))
        labels = make_signal_labels(sessions)
        for row, session_id in enumerate(sessions.session_id):
            said = truth[str(session_id)]
            assert ["voice", "tone", "dtmf"][labels["type"][row]] == said["signal_type"]
            np.testing.assert_allclose(labels["edges"][row], np.array(said["span"]) / 0.8, atol=1e-4)
            snr_db = np.median([receiver["snr_db"] for receiver in said["truth"]["receivers"]])
            assert labels["snr"][row, 0] == pytest.approx(snr_db, abs=1e-3)
            begins += said["span"][0] > 0.0
            ends += said["span"][1] < 0.8
    assert begins >= 3  # the key goes down, and up, within some recordings: spans differ
    assert ends >= 3


def test_the_spectrogram_shows_the_key_where_the_label_says(home):
    """Labels, levels and pictures share one clock: frames of the transmission are louder than those before it."""
    places, summary = home
    sessions = load_sessions(places.open_stores().objects, read(places, summary, "train_split"))
    labels, contrasts = make_signal_labels(sessions), []
    for row in range(len(sessions)):
        covered, snr_db = labels["span"][row], labels["snr"][row, 0]
        if (covered == 0.0).sum() >= 4 and snr_db > 10.0:
            pictures = sessions.features[sessions.feature_row[sessions.receivers(row)]]
            loud = pictures[:, 2].mean(axis=1).max(axis=0)
            contrasts.append(np.median(loud[covered == 1.0]) - np.median(loud[covered == 0.0]))
    assert contrasts
    assert np.median(contrasts) > 6.0


def test_they_are_learned_judged_and_released(home):
    places, summary = home
    stores = places.open_stores()
    fitted = load_checkpoint(stores.objects, read(places, summary, "trained_checkpoint"))
    assert fitted.statistics["signal_tasks"] == ["type", "span", "edges", "countdown", "snr"]
    assert fitted.settings["facts"]["signal_num_epochs"] >= 1
    metrics = load_metrics(stores.objects, read(places, summary, "evaluation_metrics"))
    test = load_sessions(stores.objects, read(places, summary, "test_split"))
    figures = metrics["signals"]["all"]
    assert figures["accuracy"]["num_sessions"] == len(test)
    assert 0.0 <= figures["span_f1"]["model"]["value"] <= 1.0
    assert figures["snr_error_db"]["classical"]["value"] < figures["snr_error_db"]["without_looking"]["value"]
    assert summary["parity"]["passed"]
    assert 0.0 < summary["parity"]["max_signal_error"] < 0.01
    files = {name: stores.releases.read_file(summary["version"], name) for name in ("metrics.json", "README.md")}
    assert json.loads(files["metrics.json"])["signals"] == metrics["signals"]
    assert "| span: F1 of 32 frames |" in files["README.md"].decode()
    ours, theirs = fitted.predict_signals(test), read_released(stores, "latest").predict_signals(test)
    for name, values in ours.items():
        np.testing.assert_allclose(theirs[name], values, atol=0.01)


def test_predict_tells_what_was_sent_beside_the_classical_answer(home):
    """From the command that a user types: the same sessions, the same file."""
    places, summary = home
    stores = places.open_stores()
    row = next(row for row in stores.measurements.list_sessions() if row["attributes"]["signal_type"] == "dtmf")
    found = predict_stored(stores, summary["version"], str(row["id"]))
    assert set(found["signal"]) == {"model", "classical"}
    for said in found["signal"].values():
        assert said["type"] in {"voice", "tone", "dtmf"}
        assert said["end_s"] == pytest.approx(0.8 * said["end"], rel=1e-3)
    assert found["signal"]["classical"]["probability"] is None
    lines = say_signal(found["signal"])
    assert lines[0].startswith("signal: ")
    assert lines[1].startswith(f"signal, classically: {found['signal']['classical']['type']}, from ")


def test_tracks_are_found_again_and_what_is_too_short_is_listed(home):
    """A recording of 0.2 s is shorter than what is measured: no track, and the reason; nothing is padded."""
    places, summary = home
    stores = places.open_stores()
    features = read(places, summary, "spectrogram_features")
    assert features.summary["num_tracks"] == features.summary["num_features"] == 60
    rows = stores.measurements.read_approved(DatasetSpec()).rows
    checked = ingest_recordings(stores.objects, rows, RecordingSpec(), ignore).table
    task = SessionTask(join_recordings(rows, checked).to_dict("records")[:1], [False], [True], needs_delays=False)
    (worked,) = work_sessions([task], stores.objects, FeatureSpec(), DelaySpec())
    table = load_table(stores.objects, features.artifacts["tracks"])
    place = table[table["measurement_id"] == task.rows[0]["measurement_id"]].iloc[0]
    kept = np.load(stores.objects.local_path(str(place["shard"])))[place["row"]]
    np.testing.assert_array_equal(worked.recordings[0].track, kept)
    with stores.objects.local_path(str(task.rows[0]["digest"])).open("rb") as file:
        short = np.load(file)[:4_800]
    buffer = io.BytesIO()
    np.save(buffer, short)
    digest = stores.objects.put_bytes(buffer.getvalue(), NPY_MEDIA_TYPE).digest
    cut = {**task.rows[0], "digest": digest, "num_samples": 4_800, "iq_samples_count": 4_800}
    (refused,) = work_sessions([replace(task, rows=[cut])], stores.objects, FeatureSpec(), DelaySpec())
    assert refused.recordings[0].track is None
    assert "0.2 s long, expected at least 0.32 s" in refused.recordings[0].no_track
