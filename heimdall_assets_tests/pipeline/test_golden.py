"""Golden results: a change of result without a raised version fails, for each stage, and a raised one recomputes."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    EVALUATION_METRICS,
    IQ_FILES,
    MODEL_RELEASE,
    ONNX_MODEL,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.pipeline.recipe import STAGES, list_needed
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.shards import load_rows
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets_tests.pipeline import golden
from heimdall_assets_tests.pipeline.golden_world import MODELS, Carried, carry, open_stores_of, open_world

VARIANT = ("network",)
"""What planted changes are carried through: one is enough to see them."""


@dataclass(frozen=True)
class World:
    """A home in which everything was made, and a copy of it from before anything was judged."""

    folder: Path
    trained: Path
    carried: Carried
    goldens: dict[str, golden.Golden]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder, trained = tmp_path_factory.mktemp("world") / "home", tmp_path_factory.mktemp("trained") / "home"
    folder.mkdir()
    stores = open_world(folder)
    carry(stores, tuple(MODELS), up_to=TRAINED_CHECKPOINT)
    shutil.copytree(folder, trained)
    carried = carry(stores, tuple(MODELS))
    return World(folder, trained, carried, golden.describe(stores, carried))


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return golden.read_recorded()


def test_every_result_is_as_recorded_under_its_version(world, recorded):
    assert golden.find_faults(world.goldens, recorded) == []


def test_every_stage_that_computes_is_recorded(recorded):
    assert sorted(recorded["stages"]) == sorted(list_needed(MODEL_RELEASE))
    assert all(stage["exact"] for stage in recorded["stages"].values())


# --- planted changes --------------------------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def plant(target: str, change: Callable[[Any], Any]) -> Plant:
    """Return what wraps a function: its result goes through ``change``."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        module, name = target.rsplit(".", 1)
        real = getattr(__import__(module, fromlist=[name]), name)
        patch.setattr(target, lambda *args, **kwargs: change(real(*args, **kwargs)))

    return apply


def plant_learning_rate(patch: pytest.MonkeyPatch) -> None:
    from heimdall_assets.learning.fitting.module import TaskModule

    real = TaskModule.compute_rate
    patch.setattr(TaskModule, "compute_rate", lambda module: 1.2 * real(module))


def louder(picture: np.ndarray) -> np.ndarray:
    return np.minimum(picture + 10.0, 0.0).astype(np.float32)


def raise_stations(snapshot: Any) -> Any:
    rows = snapshot.rows.assign(receiver_altitude_m=snapshot.rows["receiver_altitude_m"] + 1.0)
    return replace(snapshot, rows=rows)


def add_node(proto: Any) -> Any:
    """Return a graph with one node more than it needs."""
    node = proto.graph.node.add()
    node.CopyFrom(proto.graph.node[0])
    node.name += "_again"
    node.output[0] += "_again"
    return proto


STAGES_OF_PIPELINE = "heimdall_assets.pipeline.stages"
PLANTED: dict[str, tuple[str, Plant]] = {
    "another altitude": (
        APPROVED_MEASUREMENTS,
        plant("heimdall_assets.stores.database.measurements.read_snapshot", raise_stations),
    ),
    "another level": (
        IQ_FILES,
        plant(f"{STAGES_OF_PIPELINE}.recordings.check_recording", lambda facts: facts | {"rms_dbfs": -1.0}),
    ),
    "louder spectrograms": (
        SPECTROGRAM_FEATURES,
        plant("heimdall_assets.signals.spectrogram.compute_spectrogram", louder),
    ),
    "another curvature": (
        SPECTROGRAM_FEATURES,
        plant(
            "heimdall_assets.signals.delays.compute_delays",
            lambda found: replace(found, pair_curvature=0.97 * found.pair_curvature),
        ),
    ),
    "other sites": (
        TRAIN_SPLIT,
        plant(f"{STAGES_OF_PIPELINE}.splits.assign_splits", lambda found: found.assign(site="s" + found["site"])),
    ),
    "a faster fit": (TRAINED_CHECKPOINT, plant_learning_rate),
    "another evaluation": (
        EVALUATION_METRICS,
        plant(
            f"{STAGES_OF_PIPELINE}.evaluation_metrics.evaluate_model",
            lambda made: replace(made, metrics=made.metrics | {"median_m": 1.05 * made.metrics["median_m"]}),
        ),
    ),
    "another graph": (
        ONNX_MODEL,
        plant("heimdall_assets.learning.export.onnx_file._trace", add_node),
    ),
    "another card": (
        MODEL_RELEASE,
        plant(f"{STAGES_OF_PIPELINE}.model_release.render_card", lambda text: text + "\n## More\n"),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_change_is_blamed_on_its_stage(world, recorded, tmp_path, monkeypatch, name):
    kind, apply = PLANTED[name]
    apply(monkeypatch)
    if kind in (EVALUATION_METRICS, ONNX_MODEL, MODEL_RELEASE):
        shutil.copytree(world.trained, tmp_path / "home")
        stores = open_stores_of(tmp_path / "home")
    else:
        stores = open_world(tmp_path)
    carried = carry(stores, VARIANT, up_to=TEST_SPLIT if kind == TRAIN_SPLIT else kind)
    lines = golden.find_faults(golden.describe(stores, carried), recorded)
    blamed = [line.split(" in ")[0] for line in lines]
    expected = [TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT] if kind == TRAIN_SPLIT else [kind]  # one decision, three lists
    assert blamed == [f"raise the version of {each}" for each in expected]


def test_a_changed_constant_is_blamed_on_the_first_stage_that_reads_it(recorded):
    line = next(line for line in recorded["constants"] if line.startswith("NUM_REFERENCES = "))
    others = [other for other in recorded["constants"] if other != line]
    lines = golden.find_faults({}, recorded | {"constants": [*others, "NUM_REFERENCES = 12345"]})
    assert len(lines) == 1
    assert lines[0].startswith(f"raise the version of {SPECTROGRAM_FEATURES}")
    assert line in lines[0]


def test_a_constant_by_another_name_is_the_same(recorded):
    line = next(line for line in recorded["constants"] if line.startswith("NUM_REFERENCES = "))
    others = [other for other in recorded["constants"] if other != line]
    assert (
        golden.find_faults({}, recorded | {"constants": [*others, line.replace("NUM_REFERENCES", "ONCE_CALLED")]}) == []
    )


def test_a_raised_version_asks_for_a_new_record(recorded, monkeypatch):
    stage = STAGES[SPECTROGRAM_FEATURES]
    monkeypatch.setitem(STAGES, SPECTROGRAM_FEATURES, replace(stage, code_version="next"))
    lines = golden.find_faults({}, recorded)
    assert len(lines) == 1
    assert "code version next" in lines[0]
    assert "make golden" in lines[0]


def test_a_change_is_seen_in_any_element_of_an_array():
    rng = np.random.default_rng(1)
    values = rng.normal(size=500)
    for _ in range(20):
        other = values.copy()
        other[rng.integers(500)] += 0.01
        first, second = golden.Golden(), golden.Golden()
        first.take_array("x", values)
        second.take_array("x", other)
        assert golden.measure_difference(first.figures["x"], second.figures["x"]) > golden.FINE_PRECISION
    holed = golden.Golden()
    holed.take_array("x", np.where(np.arange(500) == 7, np.nan, values))
    assert holed.exact != first.exact


# --- raised versions --------------------------------------------------------------------------------------------------


def test_louder_spectrograms_under_a_raised_version_recompute_everything_downstream(world, tmp_path, monkeypatch):
    """The older version's results lie in the same home; none of them comes back under the new one."""
    shutil.copytree(world.folder, tmp_path / "home")
    stores = open_stores_of(tmp_path / "home")
    before = load_pictures(stores, world.carried)
    assert all(result.reused for result in carry(stores, VARIANT).results.values())

    plant("heimdall_assets.signals.spectrogram.compute_spectrogram", louder)(monkeypatch)
    stage = STAGES[SPECTROGRAM_FEATURES]
    monkeypatch.setitem(STAGES, SPECTROGRAM_FEATURES, replace(stage, code_version=f"{stage.code_version}-louder"))
    carried = carry(stores, VARIANT)
    reused = {kind for (_, kind), result in carried.results.items() if result.reused}
    assert reused == {APPROVED_MEASUREMENTS, IQ_FILES}
    np.testing.assert_array_equal(load_pictures(stores, carried), louder(before))


def load_pictures(stores: Stores, carried: Carried) -> np.ndarray:
    index = load_table(stores.objects, carried.manifest(SPECTROGRAM_FEATURES).artifacts["index"])
    return np.asarray(load_rows(stores.objects, index.sort_values("measurement_id"))[1])


def test_recordings_checked_under_another_version_are_checked_again(world, tmp_path, monkeypatch):
    shutil.copytree(world.folder, tmp_path / "home")
    stores = open_stores_of(tmp_path / "home")
    plant(f"{STAGES_OF_PIPELINE}.recordings.check_recording", lambda facts: facts | {"rms_dbfs": -1.0})(monkeypatch)
    monkeypatch.setitem(STAGES, IQ_FILES, replace(STAGES[IQ_FILES], code_version="next"))
    pinned = carry(stores, (), up_to=IQ_FILES).manifest(IQ_FILES)
    table = load_table(stores.objects, pinned.artifacts["table"])
    assert (table.loc[table["status"] == "ok", "level_dbfs"] == -1.0).all()
