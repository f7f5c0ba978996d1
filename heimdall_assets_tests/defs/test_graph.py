"""The whole graph on a small simulated network: what it makes, what it finds again, what a fault does to it."""

import getpass
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from dagster import serialize_value

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.definitions import build_definitions
from heimdall_assets.defs.figures import INLINE_LENGTH
from heimdall_assets.defs.results import CURVES
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.lineage.provenance import find_facts
from heimdall_assets.lineage.verify_release import verify
from heimdall_assets.manifests import Manifest, compute_digest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.people import name_people
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.releases.audit import audit_release, read_signers
from heimdall_assets.pipeline.releases.reading import read_provenance
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import train_checkpoint
from heimdall_assets.pipeline.tracing.indexing import find_missing
from heimdall_assets.pipeline.tracing.uses import find_uses
from heimdall_assets.running.graph_run import GraphFailed, run_graph
from heimdall_assets.specs import AugmentationSpec, GateSpec, ModelSpec, SplitSpec, TrainingSpec
from heimdall_assets.stores.keys import make_key
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.homes import SIMULATION, TINY, fill_home, ignore, make_places, release


@pytest.fixture(scope="module")
def home(released_home, tmp_path_factory):
    """A home whose graph ran once: places, and what the run made."""
    return released_home(tmp_path_factory.mktemp("home") / "home")


def read_manifest(places, summary, name) -> Manifest:
    return Manifest.decode(places.open_stores().objects.read_bytes(summary["manifests"][name]))


def measure_metadata(instance: dg.DagsterInstance, run_id: str) -> int:
    """Return how many bytes of metadata a run's events hold: those of outputs, materializations and checks."""
    total = 0
    for log in instance.all_logs(run_id):
        event = log.dagster_event
        data = None if event is None else event.event_specific_data
        for holder in (data, getattr(data, "materialization", None)):
            metadata = getattr(holder, "metadata", None) or {}
            total += sum(len(key) + len(serialize_value(value)) for key, value in metadata.items())
    return total


def test_every_asset_rests_under_its_digest_and_names_its_parents(home):
    places, summary = home
    objects = places.open_stores().objects
    manifest = read_manifest(places, summary, "onnx_model")
    for kind in ("trained_checkpoint", "train_split", "spectrogram_features", "iq_files", "approved_measurements"):
        parent = read_parent(objects, manifest, kind)
        assert parent.digest == summary["manifests"][kind]
        for artifact in parent.artifacts.values():
            assert compute_digest(objects.read_bytes(artifact.digest)) == artifact.digest


def test_features_and_arrivals_are_those_of_the_simulated_physics(home):
    places, summary = home
    objects = places.open_stores().objects
    sessions = load_sessions(objects, read_manifest(places, summary, "train_split"))
    assert sessions.features is not None
    assert sessions.features.shape[1:] == (3, 128, 32)
    assert (sessions.feature_row >= 0).all()
    assert set(sessions.strata["origin"]) == {"simulated"}
    # Arrival differences follow the true ranges where the delay estimator is sure of itself.
    from heimdall_assets.physical import SIGNAL_SPEED_M_S
    from heimdall_assets.signals.geodesy import compute_straight_range_m

    z = []
    for index in range(len(sessions)):
        rows = sessions.receivers(index)
        ranges = compute_straight_range_m(
            sessions.source_latitude[index],
            sessions.source_longitude[index],
            0.0,
            sessions.receiver_latitude[rows],
            sessions.receiver_longitude[rows],
            sessions.receiver_altitude_m[rows],
        )
        offset = sessions.arrival_s[rows] - ranges / SIGNAL_SPEED_M_S
        sigma = np.hypot(sessions.arrival_sigma_s[rows], sessions.timing_sigma_s[rows])
        known = np.isfinite(offset) & (sigma < 20e-6)
        if known.sum() >= 2:
            weight = sigma[known] ** -2
            z += list((offset[known] - np.average(offset[known], weights=weight)) / sigma[known])
    assert len(z) > 20
    # Each session's own zero takes one degree of freedom of about four; group delays of receivers are not in sigma.
    assert np.median(np.abs(z)) < 3.0


def test_sessions_have_the_pairs_their_arrivals_ask_for(home):
    places, summary = home
    objects = places.open_stores().objects
    split = read_manifest(places, summary, "train_split")
    sessions = load_sessions(objects, split)
    timed = np.add.reduceat(np.isfinite(sessions.arrival_s), sessions.offsets[:-1])
    np.testing.assert_array_equal(sessions.pairs.num_pairs, timed * (timed - 1) // 2)
    assert sessions.pairs.num_pairs.sum() > 20
    session = np.repeat(np.arange(len(sessions)), sessions.pairs.num_pairs)
    for place in (sessions.pairs.first, sessions.pairs.second):
        assert np.isfinite(sessions.arrival_s[sessions.offsets[session] + place]).all()

    features = read_manifest(places, summary, "spectrogram_features")
    assert features.summary["num_pairs"] >= sessions.pairs.num_pairs.sum()
    artifacts = {name: artifact for name, artifact in features.artifacts.items() if name != "pairs"}
    before = features.model_copy(update={"artifacts": artifacts})  # as made before pairs were kept
    parent = objects.put_bytes(before.encode(), JSON_MEDIA_TYPE).digest
    assert load_sessions(objects, split.model_copy(update={"parents": {before.kind: parent}})).pairs is None


def test_a_second_run_computes_nothing_and_finds_the_same_release(home):
    places, summary = home
    again = release(places)
    decided = {"champion_model"}  # a promotion is decided anew each time
    assert {name: digest for name, digest in again["manifests"].items() if name not in decided} == {
        name: digest for name, digest in summary["manifests"].items() if name not in decided
    }
    assert again["version"] == summary["version"]
    assert not any(again["computed"].values()), again["computed"]
    objects = places.open_stores().objects
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance:
        for name in again["computed"]:  # a truthful materialization all the same: reused, and from what
            event = instance.get_latest_materialization_event(dg.AssetKey(name))
            assert event is not None
            assert event.run_id == again["run_id"]
            made = event.asset_materialization
            assert made.metadata["reused"].value is True
            markdown = [value.value for value in made.metadata.values() if isinstance(value, dg.MarkdownMetadataValue)]
            assert all(len(text) < INLINE_LENGTH for text in markdown)  # else the page hides it behind a button
            numbers = [key for key, value in made.metadata.items() if isinstance(value.value, int | float)]
            assert set(numbers) <= {
                *CURVES.get(name, ()),
                "num_computed",
                "reused",
                "resumed",
                "trained",
                "parity_with_pytorch",
            }
            assert made.tags["dagster/data_version"] == again["manifests"][name]
            parents = Manifest.decode(objects.read_bytes(again["manifests"][name])).parents
            assert {key: made.tags[f"dagster/input_data_version/{key}"] for key in parents} == parents
            linked = made.metadata["made_from"].value
            assert all(f"(/assets/{key}) `{digest[:12]}`" in linked for key, digest in parents.items())
        tags = instance.get_run_by_id(again["run_id"]).tags
        assert (tags["heimdall/release"], tags["heimdall/person"]) == (again["version"], getpass.getuser())
        assert 0 < measure_metadata(instance, again["run_id"]) < 34_000


def test_each_result_is_in_the_index_of_lineage_as_soon_as_it_is_stored(home):
    places, summary = home
    stores = places.open_stores()
    known = stores.edges.read_results()
    assert find_missing(stores, known) == {}
    assert set(summary["manifests"].values()) - {summary["manifests"]["champion_model"]} <= known.keys()
    session = stores.measurements.list_sessions()[0]["id"]
    (use,) = find_uses(stores, stores.edges, session=session)["releases"]
    assert use["version"] == summary["version"]


def test_the_release_holds_what_the_contract_names(home):
    places, summary = home
    releases = places.open_stores().releases
    assert {path.name for path in releases.files.folder(summary["version"]).iterdir()} == {
        "model.onnx",
        "config.yaml",
        "metrics.json",
        "README.md",
        "provenance.json",
        "provenance.schema.json",
        "FORMAT.md",
        "verify_release.py",
        "SHA256SUMS",
    }
    provenance = read_provenance(places.open_stores(), summary["version"])
    nodes = {node["kind"]: node["digest"] for node in provenance["nodes"]}
    assert {check["asset"]: check["checked"] for check in provenance["checks"]}.items() <= nodes.items()
    assert len(provenance["checks"]) > 5
    assert str(places.home) not in releases.read_file(summary["version"], "model.onnx").decode("latin-1")
    assert summary["parity"]["passed"]
    assert {row["method"] for row in summary["comparison"]} >= {"model", "tdoa_robust", "physical bound"}


def test_another_home_gives_the_same_split_checkpoint_and_onnx_bytes(home, tmp_path):
    _, summary = home
    other = release(fill_home(tmp_path))
    for asset in ("train_split", "val_split", "test_split", "trained_checkpoint", "onnx_model"):
        if asset != "onnx_model":
            assert other["digests"][asset] == summary["digests"][asset], asset


def test_new_sessions_compute_their_own_features_alone(released_home, tmp_path):
    places, first = released_home(tmp_path / "home")
    more = SIMULATION.model_copy(update={"num_sessions": SIMULATION.num_sessions + 2})
    import_simulated(places.open_stores(), more, "demo", ignore)
    second = release(places)
    assert first["computed"]["spectrogram_features"] == 4 * SIMULATION.num_sessions
    assert second["computed"]["spectrogram_features"] == 4 * 2
    assert second["computed"]["iq_files"] == 4 * 2
    assert second["version"] == "v1.0.1"  # new data alone: a patch
    before = load_table(places.open_stores().objects, read_manifest(places, first, "test_split").artifacts["table"])
    after = load_table(places.open_stores().objects, read_manifest(places, second, "test_split").artifacts["table"])
    assert set(before["session_id"]) <= set(after["session_id"])  # growth moves nobody


def test_other_settings_make_another_minor_version(home):
    places, _ = home
    assert release(places, TrainingSpec(max_epochs=1, num_threads=1))["version"] == "v1.1.0"


def test_a_failure_names_asset_cause_and_expectation(tmp_path):
    places = make_places(tmp_path)
    places.open_stores()
    with pytest.raises(GraphFailed, match=r"snapshot_has_sessions.*found 0 approved.*expected at least 1"):
        release(places)


def test_a_split_that_cannot_be_made_is_told_in_one_line(home):
    places, _ = home
    with pytest.raises(GraphFailed, match="no_such_column"):
        release(places, SplitSpec(column="no_such_column"))


def test_a_lost_artifact_is_computed_again(released_home, tmp_path):
    places, summary = released_home(tmp_path / "home")
    digest = summary["digests"]["trained_checkpoint"]["weights.safetensors"]
    places.open_stores().objects.local_path(digest).unlink()
    again = release(places)
    assert again["computed"]["trained_checkpoint"] == 1
    assert again["digests"]["trained_checkpoint"]["weights.safetensors"] == digest


def test_a_release_is_signed_by_the_key_that_counts_and_says_who_made_it_and_why(released_home, tmp_path):
    places, first = released_home(tmp_path / "home")
    path = tmp_path / "key.pem"
    key = make_key(path)
    signing = places.model_copy(update={"signing_key": path})
    gates = GateSpec(max_median_m=1e9)  # another release of the same model
    with pytest.raises(
        InvalidSetting, match=f"HEIMDALL_SIGNING_KEY: found key {key.id}, which nobody knows; heimdall keys"
    ):
        release(signing, gates)  # before anything is trained
    stores = signing.open_stores()
    stores.releases.add_key(key.id, key.public_pem, "Office", "ada")
    chosen = {type(spec): spec for spec in [*TINY, gates]}
    made = run_graph(signing, "release", list(chosen.values()), ignore, "signed from now on")
    assert made["version"] != first["version"]
    assert made["computed"]["trained_checkpoint"] == 0
    assert name_people(read_signers(stores, made["version"]), stores.read_names) == [f"Office (key {key.id[:16]})"]
    assert read_signers(stores, first["version"]) == []
    provenance = read_provenance(stores, made["version"])
    released = provenance["released"]
    assert (stores.read_names()[released["started_by"]], released["reason"], released["run_id"]) == (
        getpass.getuser(),
        "signed from now on",
        made["run_id"],
    )
    trained = find_facts(provenance, "trained_checkpoint")
    assert (trained["run_id"], trained["reason"]) == (first["run_id"], None)
    assert trained["duration_s"] > 0
    assert audit_release(stores, made["version"]) == []
    folder = stores.releases.files.folder(made["version"])
    (tmp_path / "public.pem").write_text(key.public_pem)
    (tmp_path / "log.jsonl").write_text("".join(f"{line}\n" for line in stores.releases.read_log()))
    more = (stores.objects.root, tmp_path / "log.jsonl", None, [tmp_path / "public.pem"])
    assert verify(folder, *more)[0] == []  # the script in it agrees
    stores.releases.retire_key(key.id, "ada", "sold")
    with pytest.raises(InvalidSetting, match="was retired at"):
        release(signing, gates)


def test_steps_load_the_version_their_run_recorded(home):
    """Dagster's event log, not "the latest", decides what a step reads."""
    places, summary = home
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("onnx_model"))
        assert event is not None
        assert event.asset_materialization is not None
        tags = event.asset_materialization.tags or {}
        assert tags["dagster/input_data_version/trained_checkpoint"] in {
            summary["manifests"]["trained_checkpoint"],
            instance.get_latest_materialization_event(dg.AssetKey("trained_checkpoint"))
            .asset_materialization.metadata["manifest"]
            .value,
        }
        lonely = build_definitions(places).resolve_job_def("train")
        assert lonely.name == "train"


def test_a_training_that_a_disk_failed_is_tried_again_and_one_that_is_refused_is_not(home, tmp_path):
    places, _ = home
    (tmp_path / "scratch").symlink_to("nowhere")
    cases = [
        (
            places.model_copy(update={"scratch": str(tmp_path / "scratch")}),
            TrainingSpec(max_epochs=1),
            "could not be stored",
            1,
        ),
        (places, ModelSpec(weights_file="absent.safetensors"), "expected pretrained=True to use it", 0),
    ]
    for broken, spec, told, num_retries in cases:
        with pytest.raises(GraphFailed, match=told):
            release(broken, spec)
        with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance:
            (run,) = instance.get_run_records(limit=1)
            retries = instance.all_logs(run.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
        assert [event.step_key for event in retries] == ["trained_checkpoint"] * num_retries


def test_a_cancelled_training_goes_on_to_the_same_weights(home, tmp_path):
    from heimdall_assets.learning.fitting.training import fit_model

    places, summary = home
    stores = places.open_stores()
    train_split, val_split = (read_manifest(places, summary, f"{name}_split") for name in ("train", "val"))
    specs = (
        ModelSpec(use_spectrograms=False, width=16, num_layers=1, num_heads=2),
        TrainingSpec(max_epochs=3, num_threads=1, learning_rate=8e-4),
        AugmentationSpec(),
    )

    def cancel(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_checkpoint(stores.objects, stores.scratch, train_split, val_split, *specs, cancel)
    (kept,) = stores.scratch.iterdir()
    assert (kept / "last.ckpt").exists()

    epochs: list[int] = []
    started: list[Path | None] = []
    resumed = train_checkpoint(
        stores.objects,
        stores.scratch,
        train_split,
        val_split,
        *specs,
        lambda epoch, metrics: epochs.append(epoch),
        started.append,
    )
    assert 0 not in epochs  # gone on, not begun anew
    assert epochs[-1] == 2
    assert started == [kept / "last.ckpt"]
    assert not kept.exists()

    sessions = [load_sessions(stores.objects, split) for split in (train_split, val_split)]
    uninterrupted = fit_model(*specs, *sessions, CheckpointFolder(tmp_path)).encode()
    for name, artifact in resumed.manifest.artifacts.items():
        assert artifact.digest == compute_digest(uninterrupted[name]), name

    found = train_checkpoint(stores.objects, stores.scratch, train_split, val_split, *specs, None, started.append)
    assert found.reused
    assert len(started) == 1  # what is found is not trained, and not tracked
