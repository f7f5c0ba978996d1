"""A home is a folder: a copy trains, a moved one is verified, a read-only one is audited; no other is touched by it."""

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.kinds import TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.pipeline.stages.trained_checkpoint import train_checkpoint
from heimdall_assets.places import read_places
from heimdall_assets.running.graph_run import run_graph
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import TINY, fill_home, ignore, make_places, release, split_home
from heimdall_assets_tests.memory import find_memory
from heimdall_assets_tests.stores.test_home_format import list_files, without_rights

pytestmark = [
    # Habits of MLflow and of what it imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

LONGER = TrainingSpec(max_epochs=4, num_threads=1)
"""Of the training that is interrupted."""


def interrupt_training(places: Places) -> None:
    """Leave a training as a kill after its second epoch does."""
    stores, splits = split_home(places)
    model = next(spec for spec in TINY if isinstance(spec, ModelSpec))

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    fit = (stores.objects, stores.scratch, splits[TRAIN_SPLIT], splits[VAL_SPLIT], model, LONGER, AugmentationSpec())
    with pytest.raises(KeyboardInterrupt):
        train_checkpoint(*fit, on_epoch=stop)
    assert list(stores.scratch.glob("*/last.ckpt"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a release, told to MLflow too, and a training that was interrupted; others may look into it."""
    folder = find_memory() or tmp_path_factory.getbasetemp()
    root = Path(os.path.realpath(folder)) / f"heimdall-moved-{os.getpid()}"
    root.mkdir(mode=0o755)
    try:
        fill_home(root / "made")
        run_graph(read_places({"HEIMDALL_HOME": str(root / "made")}), "release", TINY, ignore)
        interrupt_training(make_places(root / "made"))
        yield root / "made"
    finally:
        shutil.rmtree(root)


def heimdall(home: Path, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments, env={"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Fail where anything in a folder is changed."""
    before = list_files(folder)
    yield
    assert list_files(folder) == before


def test_no_file_of_a_home_holds_its_address(made: Path):
    scratch = made / "scratch"  # what Lightning keeps of a fit names its folder; nothing is read from there
    for path in made.rglob("*"):
        if path.is_file() and not path.is_relative_to(scratch):
            assert str(made).encode() not in path.read_bytes(), path


@pytest.mark.long
def test_a_copy_trains_on_its_own(made: Path, tmp_path: Path):
    copies = [tmp_path / name for name in ("first", "second")]
    for copy in copies:
        shutil.copytree(made, copy)
    with untouched(made):
        first = release(make_places(copies[0]), LONGER)
    assert first["computed"]["trained_checkpoint"] == 1
    assert Path(first["folder"]).is_relative_to(copies[0])
    shutil.rmtree(copies[1] / "scratch")  # from the beginning: the same bytes
    with untouched(copies[0]):
        second = release(make_places(copies[1]), LONGER)
    assert first["manifests"]["onnx_model"] == second["manifests"]["onnx_model"]
    assert first["version"] == second["version"]


def test_a_moved_home_is_verified_where_it_is(made: Path, tmp_path: Path):
    shutil.copytree(made, tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    told = heimdall(tmp_path / "after", "verify", "latest")
    assert "all is as it was released" in told.stdout
    assert not (tmp_path / "before").exists()
    summary = release(make_places(tmp_path / "after"))
    assert not any(summary["computed"].values())
    assert not (tmp_path / "before").exists()


def test_a_read_only_home_is_audited_and_predicts(made: Path):
    session = make_places(made).open_stores().measurements.list_sessions()[0]["session_name"]
    reading = (
        ["models", "list"],
        ["models", "show", "latest"],
        ["sessions", "list"],
        ["lineage", "latest"],
        ["verify", "latest"],
        ["predict", "latest", session],
        ["locate", session],
        ["plan"],
        ["runs", "list"],
        ["runs", "show", "latest"],
        ["runs", "assess", "latest"],
    )
    for arguments in reading:  # another user may be unable to load what it needs
        heimdall(made, *arguments)
    importlib.import_module("heimdall_assets.web.lineage_pages")
    with untouched(made), without_rights(made):
        for arguments in reading:
            told = heimdall(made, *arguments)
            assert told.stdout
            assert "not compared" not in told.stderr
        assert "may not be written" in heimdall(made, "train", code=2).stderr
        assert "may not be written" in heimdall(made, "ui", code=2).stderr
