"""Models that answer the same: what is said of them, and when one replaces the other all the same."""

import json

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.kinds import TRAIN_SPLIT, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.releases.audit import read_data
from heimdall_assets.pipeline.releases.reading import read_provenance
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.running.graph_run import run_graph
from heimdall_assets.specs import PromotionSpec, SimulationSpec, TimingSpec, TrainingSpec
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets_tests.homes import TINY, fill_home, release

HOPELESS = {"learning_rate": 0.5, "warmup_epochs": 0, "num_threads": 1}
"""Steps so large that no epoch does better than the start: in clear sight that is the classical solution."""
FEW = PromotionSpec(min_sessions=1, num_bootstrap=100)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Three releases that learned nothing: the second with other settings, the third after a withdrawal."""
    simulation = SimulationSpec(num_sessions=20, min_receivers=4, max_receivers=4, duration_s=0.8)
    places = fill_home(tmp_path_factory.mktemp("equal"), simulation)
    made = [release(places, TrainingSpec(max_epochs=epochs, **HOPELESS), FEW) for epochs in (1, 2)]
    stores = places.open_stores()
    onnx = Manifest.decode(stores.objects.read_bytes(made[1]["manifests"]["onnx_model"]))
    split = read_parent(stores.objects, onnx, "train_split")
    learned = str(load_table(stores.objects, split.artifacts["table"])["session_id"].iloc[0])
    stores.measurements.decide([learned], ApprovalStatus.REJECTED, "Bob", "moved while it was recorded")
    made.append(release(places, TrainingSpec(max_epochs=2, **HOPELESS), FEW))
    return places, made


def test_a_training_that_made_nothing_better_is_called_so_everywhere(history):
    places, made = history
    said = "1 epoch, none better on validation than the start"
    first = made[0]
    assert (first["trained"], first["training"]) == (False, said)
    assert f"trained: no ({said})" in first["promotion"]["reason"]
    assert any("training_improved" in line and said in line for line in first["warnings"])
    stores = places.open_stores()
    record = stores.releases.find_record("v1.0.0")
    assert (record["trained"], record["training"]) == (False, said)
    card = stores.releases.read_file("v1.0.0", "README.md").decode()
    assert f"trained: no ({said})" in card
    assert "It did not learn" in card
    assert "## Warnings" in card
    assert "training_improved" in card.partition("## Warnings")[2]


def test_the_list_of_models_has_a_column_for_it(history):
    places, _ = history
    environment = {"HEIMDALL_HOME": str(places.home), "HEIMDALL_TRACKING": "off"}
    listed = CliRunner().invoke(main, ["models", "list"], env=environment).stdout
    assert "trained" in listed
    rows = json.loads(CliRunner().invoke(main, ["models", "list", "--json"], env=environment).stdout)
    assert [row["trained"] for row in rows] == [False] * len(rows)


def test_an_equal_model_does_not_replace_the_champion(history):
    _, made = history
    assert made[1]["champion"] == made[0]["version"]
    decision = made[1]["promotion"]
    assert not decision["promoted"]
    assert decision["reason"].startswith(f"no answer changed: it says the same as champion {made[0]['version']}")
    assert "the champion stays" in decision["reason"]
    assert (decision["comparison"]["num_moved"], decision["comparison"]["num_resized"]) == (0, 0)
    assert decision["comparison"]["ratio"] == pytest.approx(1.0, abs=1e-6)


def test_an_equal_model_replaces_a_champion_that_learned_from_what_is_withdrawn(history):
    _, made = history
    assert made[2]["champion"] == made[2]["version"] != made[0]["version"]
    reason = made[2]["promotion"]["reason"]
    assert reason.startswith("no answer changed")
    assert "that one learned from 1 session withdrawn since" in reason


def test_a_champion_that_learned_from_what_is_withdrawn_and_stays_is_told_of(history):
    """With wider clocks every answer is another, and none is allowed to be worse."""
    places, made = history
    stores = places.open_stores()
    onnx = Manifest.decode(stores.objects.read_bytes(made[2]["manifests"]["onnx_model"]))
    split = read_parent(stores.objects, onnx, "train_split")
    learned = [str(name) for name in load_table(stores.objects, split.artifacts["table"])["session_id"][:2]]
    stores.measurements.decide(learned, ApprovalStatus.REJECTED, "Bob", "moved while it was recorded")
    strict = PromotionSpec(min_sessions=1, num_bootstrap=100, max_median_ratio=1.0)
    last = release(places, TrainingSpec(max_epochs=2, **HOPELESS), TimingSpec(gnss_calibrated_s=3e-6), strict)
    assert last["champion"] == made[2]["version"]
    said = f"learned from 2 sessions withdrawn since, heimdall models promote {last['version']} replaces it"
    assert said in last["promotion"]["reason"]


def test_a_session_withdrawn_while_the_checkpoint_trains_is_told_of_and_the_next_run_is_without(history):
    places, made = history
    onnx = Manifest.decode(places.open_stores().objects.read_bytes(made[2]["manifests"]["onnx_model"]))
    approved = {row["id"] for row in places.open_stores().measurements.list_sessions(ApprovalStatus.APPROVED)}
    split = read_parent(places.open_stores().objects, onnx, TRAIN_SPLIT)
    names = load_table(places.open_stores().objects, split.artifacts["table"])["session_id"]
    learned = next(str(name) for name in names if str(name) in approved)
    told = []

    def withdraw(asset: str, what: str, *_: int) -> None:
        if asset == TRAINED_CHECKPOINT and not told:
            told.append(what)
            other = places.open_stores().measurements  # a connection of its own
            assert other.decide([learned], ApprovalStatus.REJECTED, "Bob", "moved while it was recorded") == 1

    settings = {type(spec): spec for spec in [*TINY, TrainingSpec(max_epochs=3, **HOPELESS), FEW]}
    during = run_graph(places, "release", list(settings.values()), withdraw)
    assert told == ["epochs trained"]
    assert during["champion"] == made[2]["version"]
    assert during["promotion"]["reason"].startswith("it learned from 1 session withdrawn since")
    stores = places.open_stores()
    card = stores.releases.read_file(during["version"], "README.md").decode()
    assert f"1 session of its data withdrawn before its release ({learned})" in card.partition("## Warnings")[2]

    after = release(places, TrainingSpec(max_epochs=3, **HOPELESS), FEW)
    assert after["champion"] == after["version"] != during["version"]
    used = read_data(stores, read_provenance(stores, after["version"])).sessions
    assert learned not in set(used["session_id"])
    assert "withdrawn before" not in stores.releases.read_file(after["version"], "README.md").decode()
