"""Going on with a training that ended: exactly, or as a result of its own that says so, or not at all."""

import numpy as np
import pytest

from heimdall_assets.defs.jobs import FIT_JOB
from heimdall_assets.defs.origins import RESUMES_TAG, tag_resumed
from heimdall_assets.errors import InvalidInput, InvalidSetting, NotFound
from heimdall_assets.kinds import TRAIN_SPLIT, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.trainings.continuing import find_earlier, go_on, read_earlier
from heimdall_assets.pipeline.trainings.starting import lay_over
from heimdall_assets.running.graph_run import GraphFailed, run_job
from heimdall_assets.specs import AugmentationSpec, EvaluationSpec, MachineSpec, ModelSpec, SplitSpec, TrainingSpec
from heimdall_assets_tests.homes import TINY, fill_home, ignore

CONSTANT = TrainingSpec(max_epochs=2, num_threads=1, seed=5, schedule="constant", early_stopping_patience=3)
SPECS = lay_over([spec for spec in TINY if not isinstance(spec, TrainingSpec | EvaluationSpec)], [CONSTANT])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Places of a home in which two epochs were trained, and the manifest of that checkpoint."""
    places = fill_home(tmp_path_factory.mktemp("continuing") / "home")
    return places, run_job(places, FIT_JOB, SPECS, ignore).manifests[TRAINED_CHECKPOINT]


def pick(specs, kind):
    return next(spec for spec in specs if type(spec) is kind)


def train(places, started):
    return run_job(places, FIT_JOB, started.specs, ignore, told=tag_resumed(started.resumes))


def test_more_epochs_through_the_graph_are_the_bytes_of_a_training_that_was_never_shorter(home):
    places, checkpoint = home
    stores = places.open_stores()
    started = go_on(stores, "it", checkpoint, [TrainingSpec(max_epochs=5), MachineSpec(prefetch_batches=1)])
    assert pick(started.specs, TrainingSpec).dump() == CONSTANT.dump() | {"max_epochs": 5}
    assert pick(started.specs, SplitSpec) == SplitSpec()
    assert started.notices == ["it had 2 epochs: up to 3 more, from its last state"]
    assert started.resumes == f"sha256:{checkpoint.digest}"
    run = train(places, started)
    made = run.manifests[TRAINED_CHECKPOINT]
    assert made.content == {}
    told = next(one for one in stores.runs.list_runs() if one["checkpoint"] == made.digest)
    assert told["resumes"] == started.resumes
    assert [row["epoch"] for row in stores.runs.read_tables(told["id"])["epoch_metrics"]] == [2, 3, 4]
    stores.objects.remove_reference(made.reference, np.inf)
    again = train(places, type(started)(started.specs, []))  # from its first epoch on
    assert again.metadata[TRAINED_CHECKPOINT]["reused"] is False
    assert again.manifests[TRAINED_CHECKPOINT] == made


def test_a_training_that_stopped_by_itself_needs_more_patience(home):
    places, checkpoint = home
    summary = {**checkpoint.summary, "num_epochs": 1}
    stopped = checkpoint.model_copy(update={"summary": summary})
    stores = places.open_stores()
    with pytest.raises(InvalidSetting, match=r"patience: it stopped by itself after 1 of 2 epochs, .* found 3, expec"):
        go_on(stores, "it", stopped, [TrainingSpec(max_epochs=9)])
    with pytest.raises(NotFound, match=r"the last state of its training is not kept in this home"):
        go_on(stores, "it", stopped, [TrainingSpec(max_epochs=9, early_stopping_patience=9)])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (TrainingSpec(max_epochs=1), r"TrainingSpec.max_epochs: found 1, expected more than the 2 that it had"),
        (TrainingSpec(max_epochs=5, seed=6), r"it: resume: TrainingSpec.seed: found 6, expected 5"),
        (
            TrainingSpec(max_epochs=5, early_stopping_patience=1),
            r"patience: found 1, expected 3 or more",
        ),
        (TrainingSpec(seed=6), r"it: resume: TrainingSpec.seed: found 6, expected 5"),
        (ModelSpec(width=32), r"it: resume: ModelSpec.width: found 32, expected 16"),
        (AugmentationSpec(dropout=0.5), r"it: resume: AugmentationSpec.dropout: found 0.5, expected"),
    ],
)
def test_another_training_is_refused_before_anything_runs(home, asked, said):
    places, checkpoint = home
    with pytest.raises(InvalidSetting, match=said):
        go_on(places.open_stores(), "it", checkpoint, [asked])


def test_other_sessions_are_refused_by_the_step_in_a_line(home):
    places, checkpoint = home
    started = go_on(places.open_stores(), "it", checkpoint, [TrainingSpec(max_epochs=6), SplitSpec(salt="other")])
    with pytest.raises(GraphFailed, match=r"the approved sessions, or how they are split: (train|val)_split: found"):
        train(places, started)


def test_what_names_no_checkpoint_is_refused(home):
    places, checkpoint = home
    stores = places.open_stores()
    assert read_earlier(stores, None, CONSTANT) is None
    with pytest.raises(InvalidInput, match=r"resume: found train_split .*, expected a trained_checkpoint"):
        read_earlier(stores, f"sha256:{checkpoint.parents[TRAIN_SPLIT]}", CONSTANT)
    absent = Manifest.model_validate(checkpoint.model_dump() | {"code_version": "0"})
    with pytest.raises(NotFound, match="not kept in this home"):
        find_earlier(stores, absent, CONSTANT)
    assert RESUMES_TAG.startswith("heimdall/")
