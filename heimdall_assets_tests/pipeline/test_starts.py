"""What a training starts or goes on from: part of its key, of its lineage, of what stays, of what is made again."""

from pathlib import Path

import numpy as np
import pytest

from heimdall_assets.errors import InvalidInput, NotFound, Refused
from heimdall_assets.kinds import TEST_SPLIT, TRAIN_SPLIT, TRAINED_CHECKPOINT, VAL_SPLIT
from heimdall_assets.lineage.edges import list_edges
from heimdall_assets.lineage.tree import draw_branches
from heimdall_assets.manifests import Manifest, compute_digest
from heimdall_assets.pipeline.keeping.needed import Reach, reach_released
from heimdall_assets.pipeline.planning import plan_materialization
from heimdall_assets.pipeline.releases.reading import read_provenance
from heimdall_assets.pipeline.releases.reproduction import reproduce_release
from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint
from heimdall_assets.pipeline.stages.model_release import release_model
from heimdall_assets.pipeline.stages.onnx_model import export_checkpoint
from heimdall_assets.pipeline.stages.trained_checkpoint import Surroundings, load_checkpoint, train_checkpoint
from heimdall_assets.pipeline.starts import RESUMED, STARTED, read_kept_start
from heimdall_assets.pipeline.tracing.indexing import open_whole_index
from heimdall_assets.pipeline.tracing.uses import find_uses
from heimdall_assets.specs import AugmentationSpec, EvaluationSpec, ExportSpec, MachineSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.homes import SIMULATION, fill_home, ignore, split_home

FIT = TrainingSpec(max_epochs=1, num_threads=1, warmup_epochs=0, batch_size=4)
SMALL = ModelSpec(use_spectrograms=False, width=8, num_layers=1, num_heads=1)


def change(**changes) -> TrainingSpec:
    return TrainingSpec.model_validate({**FIT.model_dump(), **changes})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stores, dict[str, Manifest]]:
    """Opened stores of a small home, and its splits by kind."""
    return split_home(fill_home(tmp_path_factory.mktemp("home"), SIMULATION.model_copy(update={"num_sessions": 16})))


def train(home, training=FIT, model=SMALL, val=VAL_SPLIT, **more):
    stores, splits = home
    parents = splits[TRAIN_SPLIT], splits[val]
    return train_checkpoint(stores.objects, stores.scratch, *parents, model, training, AugmentationSpec(), **more)


def test_a_training_starts_from_a_stored_model_and_says_so(home):
    stores, _ = home
    first = train(home).manifest
    spec = change(seed=7, learning_rate=1e-12, start_from=f"sha256:{first.digest}")
    second = train(home, spec).manifest
    assert second.content == {"start_from": first.digest}
    assert second.summary["started_from"] == first.digest
    before, after = (load_checkpoint(stores.objects, one).weights for one in (first, second))
    for name, value in before.items():
        if name != "share":  # chosen on validation after training
            np.testing.assert_allclose(after[name], value, atol=1e-9)
    assert train(home, spec).reused
    assert train(home, change(seed=7, learning_rate=1e-12)).manifest.digest != second.digest
    plan = {step.asset: step.action for step in plan_materialization(stores, [SMALL, spec])}
    assert plan[TRAINED_CHECKPOINT] == "reuse"
    assert ((TRAINED_CHECKPOINT, first.digest), (TRAINED_CHECKPOINT, second.digest), None) in list_edges(
        second.digest, second
    )
    reach = Reach(stores.objects)
    reach.walk([second.digest], "a test")
    assert {first.digest, first.parents[TRAIN_SPLIT], first.artifacts["weights.safetensors"].digest} <= reach.why.keys()
    kept = read_kept_start(second)
    assert second.artifacts[f"{STARTED}weights.safetensors"] == first.artifacts["weights.safetensors"]
    stores.objects.remove_object(first.digest, np.inf)
    with pytest.raises(NotFound):
        train(home, change(seed=8, start_from=f"sha256:{first.digest}"))
    assert train(home, spec, start=kept).reused  # its files are its own: it can be made again
    stores.objects.put_bytes(first.encode(), "application/json")


def test_a_model_of_another_architecture_or_something_else_is_refused_in_a_line(home):
    _, splits = home
    first = train(home).manifest
    wide = SMALL.model_copy(update={"width": 16})
    with pytest.raises(
        InvalidInput, match=r"start_from: embed_receiver.bias is \(8,\) in that model, expected \(16,\)"
    ):
        train(home, change(start_from=f"sha256:{first.digest}"), wide)
    with pytest.raises(InvalidInput, match=r"start_from .*: found a train_split, expected trained_checkpoint"):
        train(home, change(start_from=f"sha256:{splits[TRAIN_SPLIT].digest}"))
    weights = first.artifacts["weights.safetensors"].digest
    with pytest.raises(InvalidInput, match="found bytes that are no manifest"):
        train(home, change(start_from=f"sha256:{weights}"))


def test_a_start_that_was_trained_on_what_judges_now_is_refused(home):
    stores, splits = home
    first = train(home).manifest
    swapped = (stores, {**splits, TRAIN_SPLIT: splits[VAL_SPLIT], TEST_SPLIT: splits[TRAIN_SPLIT]})
    with pytest.raises(Refused, match=r"session .* was trained on by that model and is in the train_split now"):
        train(swapped, change(start_from=f"sha256:{first.digest}"), val=TEST_SPLIT)


def test_a_model_is_not_judged_by_what_its_start_was_trained_on(home):
    stores, splits = home
    first = train(home).manifest
    moved = (stores, {**splits, TRAIN_SPLIT: splits[TEST_SPLIT]})
    second = train(moved, change(start_from=f"sha256:{first.digest}")).manifest
    with pytest.raises(Refused, match=r"session .* was trained on by that model and is in the train_split now"):
        evaluate_checkpoint(stores.objects, second, splits[TRAIN_SPLIT], EvaluationSpec(num_bootstrap=100))


@pytest.mark.long
def test_a_released_model_that_started_from_another_shows_it_and_is_made_again(home):
    stores, splits = home
    first = train(home).manifest
    second = train(home, change(seed=9, start_from=f"sha256:{first.digest}")).manifest
    judged = (stores.objects, second, splits[TEST_SPLIT])
    evaluation = evaluate_checkpoint(*judged, EvaluationSpec(num_bootstrap=100)).manifest
    onnx = export_checkpoint(*judged, ExportSpec()).manifest
    version = release_model(stores, onnx, evaluation).manifest.summary["version"]
    tree = "\n".join(draw_branches(read_provenance(stores, version)))
    assert f"`-- started from trained_checkpoint {first.digest}" in tree
    assert reproduce_release(stores, version, [], ignore).first_difference is None
    with open_whole_index(stores) as index:
        graph = find_uses(stores, index.edges, digest=first.artifacts["settings.json"].digest)
    assert [one["version"] for one in graph["releases"]] == [version]
    reach = Reach(stores.objects)
    reach_released(stores, reach)
    assert {first.digest, first.parents[VAL_SPLIT]} <= reach.why.keys()


def test_a_longer_training_goes_on_exactly_where_its_schedule_allows_that(home, tmp_path: Path):
    kept = CheckpointFolder(tmp_path / "kept")
    short = change(schedule="constant", max_epochs=2)
    train(home, short, around=Surroundings(MachineSpec(accelerator="cpu"), kept=kept))
    assert {path.name for path in kept.folder.iterdir()} >= {"last.json", "last.safetensors", "epoch-000.json"}
    epochs: list[int] = []
    longer = change(schedule="constant", max_epochs=4)
    went_on = train(home, longer, earlier=kept.read, on_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == [2, 3]
    assert went_on.manifest.content == {}
    home[0].objects.remove_reference(went_on.manifest.reference, np.inf)
    assert train(home, longer).manifest == went_on.manifest  # trained afresh: the same bytes


def test_where_the_length_decides_the_rate_a_longer_training_is_another_result_and_says_so(home, tmp_path: Path):
    kept = CheckpointFolder(tmp_path / "kept")
    train(home, change(max_epochs=2, seed=3), around=Surroundings(kept=kept))
    longer = change(max_epochs=3, seed=3)
    went_on = train(home, longer, earlier=kept.read).manifest
    assert went_on.content.keys() == {"resumed_from"}
    told = went_on.summary["resumed_from"]
    assert told == {"epoch": 2, "exact": False, "sha256": went_on.content["resumed_from"]}
    assert went_on.digest != train(home, longer).manifest.digest
    stored = {name: artifact for name, artifact in went_on.artifacts.items() if name.startswith(RESUMED)}
    assert stored[f"{RESUMED}last.json"].digest == compute_digest(kept.read("last.json"))
    home[0].objects.remove_reference(went_on.reference, np.inf)
    objects = home[0].objects
    again = train(home, longer, earlier=lambda name: objects.read_bytes(stored[f"{RESUMED}{name}"].digest))
    assert not again.reused
    assert again.manifest == went_on  # made again from what it holds itself
    with pytest.raises(InvalidInput, match=r"resume: TrainingSpec.seed: found 4, expected 3"):
        train(home, change(max_epochs=3, seed=4), earlier=kept.read)


def test_a_training_that_was_killed_before_its_checkpoints_were_kept_keeps_them_when_it_is_found(home, tmp_path: Path):
    class Full(CheckpointFolder):
        def write(self, name, data):
            raise OSError("killed here")

    spec = change(seed=11)
    with pytest.raises(OSError, match="killed here"):
        train(home, spec, around=Surroundings(kept=Full(tmp_path / "full")))
    kept = CheckpointFolder(tmp_path / "kept")
    assert train(home, spec, around=Surroundings(kept=kept)).reused
    assert kept.exists("last.safetensors")
    assert list(home[0].scratch.iterdir()) == []
