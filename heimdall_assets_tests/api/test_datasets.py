import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from heimdall_assets.api import SessionDataset, open_home
from heimdall_assets.errors import InvalidInput, InvalidSetting, NoHome, NotFound, Refused
from heimdall_assets.kinds import TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.learning.receiver_model.task import SingleReceiverTask
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.specs import ModelSpec
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.shards import ShardReader, encode_shard


@pytest.fixture(scope="module")
def home(released_home, tmp_path_factory):
    """A home whose graph ran once, opened in Python."""
    places, _ = released_home(tmp_path_factory.mktemp("api") / "home")
    return open_home(environ={"HEIMDALL_HOME": str(places.home), "HEIMDALL_TRACKING": "off"})


def double(features: torch.Tensor) -> torch.Tensor:
    return 2.0 * features


def read_all(dataset: SessionDataset, **chosen) -> tuple[torch.Tensor, dict]:
    """Everything that a loader gives of a dataset, as one batch."""
    batches = list(DataLoader(dataset, batch_size=7, **chosen))
    features = torch.cat([features for features, _ in batches])
    labels = {}
    for name, first in batches[0][1].items():
        parts = [label[name] for _, label in batches]
        labels[name] = torch.cat(parts) if isinstance(first, torch.Tensor) else [one for part in parts for one in part]
    return features, labels


def test_items_are_what_the_one_receiver_model_learns_from(home):
    dataset = SessionDataset("train", home)
    assert isinstance(dataset, Dataset)
    sessions = load_sessions(home.stores.objects, home.find_split("train"))
    task = SingleReceiverTask()
    statistics = task.fit_statistics(ModelSpec(kind="single_receiver"), sessions)
    rows = task.list_examples(sessions)
    batch = task.make_batch(sessions, rows, statistics)
    features, labels = read_all(dataset)
    assert len(dataset) == len(rows) > 20
    mean, std = (torch.tensor(statistics[f"feature_{name}_db"]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close((features - mean) / std, batch["features"])
    torch.testing.assert_close(labels["target"], batch["target"])
    torch.testing.assert_close(labels["target_sigma"], batch["label_sigma"])
    assert labels["station_id"] == sessions.station_id[rows].tolist()


def test_an_item_has_the_shapes_types_and_units_that_are_told(home):
    features, label = SessionDataset("val", home)[0]
    assert features.shape == (3, 128, 32)
    assert features.dtype == torch.float32
    assert float(features.max()) < 20.0  # dB of full scale
    assert label["position"].dtype == torch.float64
    assert label["target"].dtype == label["target_sigma"].dtype == torch.float32
    stored = home.stores.measurements.find_session(label["session_id"])
    assert stored["id"] == label["session_id"]
    rows = home.stores.measurements.read_session(label["session_id"]).rows
    row = rows[rows["measurement_id"] == label["measurement_id"]].iloc[0]
    assert label["position"].tolist() == [row["source_latitude"], row["source_longitude"]]
    assert label["station_id"] == row["station_id"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_targets_of_every_split_stand_in_the_training_splits_frame(home, split):
    dataset, trained = SessionDataset(split, home), SessionDataset("train", home)
    assert dataset.examples.frame == trained.examples.frame
    _, labels = read_all(dataset)
    torch.testing.assert_close(dataset.to_degrees(labels["target"]), labels["position"], rtol=0, atol=1e-6)
    ids = set(labels["session_id"])
    members = {"train": TRAIN_SPLIT, "val": VAL_SPLIT, "test": TEST_SPLIT}
    sessions = load_sessions(home.stores.objects, home.find_split(split))
    assert ids == set(sessions.session_id.tolist())
    assert home.find_split(split).kind == members[split]


def test_the_splits_of_a_release_are_found_by_its_name(home):
    version = home.models()[-1]["version"]
    assert home.find_split("val", version) == home.find_split("val", "latest") == home.find_split("val")
    one, other = SessionDataset("val", home, model=version), SessionDataset(home.find_split("val"), home)
    assert one.examples.measurement_id.tolist() == other.examples.measurement_id.tolist()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_the_same_batches(home, start):
    dataset = SessionDataset("train", home, transform=double)
    features, labels = read_all(dataset)
    there, told = read_all(dataset, num_workers=2, multiprocessing_context=start)
    assert torch.equal(features, there)
    assert labels["measurement_id"] == told["measurement_id"]
    assert torch.equal(features, 2.0 * read_all(SessionDataset("train", home))[0])


def test_an_item_is_found_from_both_ends_and_no_further(home):
    dataset = SessionDataset("val", home)
    assert torch.equal(dataset[-1][0], dataset[len(dataset) - 1][0])
    assert dataset.__getitems__([]) == []
    for place in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError, match=f"item {place}: expected at least"):
            dataset[place]


def test_only_the_name_leads_to_the_test_split(home):
    with pytest.raises(Refused, match='expected its name, "test"'):
        SessionDataset(home.find_split("test"), home)
    with pytest.raises(NotFound, match="split 'validation': expected one of train, val, test"):
        SessionDataset("validation", home)
    with pytest.raises(InvalidInput, match="found a manifest of trained_checkpoint"):
        SessionDataset(home.find_split("val").model_copy(update={"kind": "trained_checkpoint"}), home)
    with pytest.raises(InvalidSetting, match="found a manifest and a model"):
        SessionDataset(home.find_split("val"), home, model="latest")
    with pytest.raises(NotFound):
        SessionDataset("val", home, model="9.9.9")


def test_a_home_where_nothing_is_yet_is_one_line(tmp_path: Path):
    with pytest.raises(NoHome, match="nothing there yet"):
        open_home(tmp_path / "none", environ={})
    assert not (tmp_path / "none").exists()
    begun = open_home(tmp_path / "new", begin=True, environ={})
    with pytest.raises(NotFound, match="train_split: found none in home"):
        SessionDataset("train", begun)


def test_a_reader_gathers_over_shards_in_the_order_asked_for(tmp_path: Path):
    objects = FolderObjectStore(tmp_path)
    arrays = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    shards = [objects.put_bytes(encode_shard(list(part)), "x").digest for part in (arrays[:2], arrays[2:])]
    reader = ShardReader(objects, [shards[0]] * 2 + [shards[1]] * 4, np.array([0, 1, 0, 1, 2, 3]))
    for asked in ([5, 0, 3, 1], [2], [4, 4, 0]):
        np.testing.assert_array_equal(reader.read(np.array(asked)), arrays[asked])
    odd = objects.put_bytes(encode_shard([np.zeros((3, 3), np.float32)]), "x").digest
    with pytest.raises(InvalidInput, match="expected"):
        ShardReader(objects, [shards[0], odd], np.array([0, 0])).read(np.array([0, 1]))


def test_the_door_is_cheap_until_it_is_used(tmp_path: Path):
    program = (
        "import sys, heimdall_assets.api as door\n"
        "own = [name for name in sys.modules if name.startswith('heimdall_assets.')]\n"
        "assert own == ['heimdall_assets.api'], own\n"
        "from heimdall_assets.api import TrainingPipeline, open_home\n"
        "heavy = {name.split('.')[0] for name in sys.modules} & {'torch', 'lightning', 'dagster', 'mlflow', 'pandas'}\n"
        "assert not heavy, heavy\n"
        "assert sorted(door.__all__) == [name for name in dir(door) if name in door.__all__]\n"
        "assert door.SessionDataset.__name__ == 'SessionDataset' and 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ImportError, match="cannot import name 'Trainer'"):
        from heimdall_assets.api import Trainer  # type: ignore[attr-defined]  # noqa: F401
