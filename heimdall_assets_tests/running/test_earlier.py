import os
import signal

import pytest

from heimdall_assets.defs.settings import build_run_config, read_run_config
from heimdall_assets.errors import InvalidSetting, NotFound
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.pipeline.recipe import SETTINGS
from heimdall_assets.running.earlier import read_earlier_run, resume_run
from heimdall_assets.running.graph_run import run_job
from heimdall_assets.specs import EvaluationSpec, MachineSpec, ModelSpec, TrainingSpec
from heimdall_assets_tests.homes import TINY, fill_home, ignore

BROKEN = [spec for spec in TINY if not isinstance(spec, TrainingSpec)] + [
    TrainingSpec(max_epochs=6, num_threads=1, seed=5)
]


def test_a_run_configuration_is_read_back_as_it_was_built():
    specs = [cls.model_validate({}) for cls in SETTINGS.values()]
    read = read_run_config(build_run_config(specs))
    told = [spec for spec in specs if any(value is not None for value in spec.dump().values())]
    assert {type(spec): spec.dump() for spec in read} == {type(spec): spec.dump() for spec in told}
    assert read_run_config({}) == []
    assert read_run_config({"loggers": {}, "ops": {"other": {"config": {"a": 1}}, "splits": {}}}) == []


@pytest.fixture(scope="module")
def home(released_home, tmp_path_factory):
    return released_home(tmp_path_factory.mktemp("earlier") / "home")


def test_the_newest_run_that_trained_is_found_with_what_it_made(home):
    places, summary = home
    stores = places.open_stores()
    run = read_earlier_run(places, stores)
    assert run.run_id == summary["run_id"]
    assert run.checkpoint is not None
    assert run.checkpoint.digest == summary["manifests"][TRAINED_CHECKPOINT]
    assert {type(spec): spec.dump() for spec in run.specs} == {type(spec): spec.dump() for spec in TINY}
    assert read_earlier_run(places, stores, run.run_id[:8]) == run
    with pytest.raises(NotFound, match=f"run 00000000: found none .* expected one of {run.run_id[:8]}"):
        read_earlier_run(places, stores, "00000000")
    started = resume_run(stores, run, [TrainingSpec(max_epochs=9)])
    chosen = {type(spec): spec for spec in started.specs}
    assert chosen[EvaluationSpec].num_bootstrap == 100  # what the run judged with holds too
    assert chosen[TrainingSpec].max_epochs == 9
    assert started.resumes == f"sha256:{run.checkpoint.digest}"


def test_a_home_without_a_run_says_so(tmp_path):
    places = fill_home(tmp_path / "home")
    with pytest.raises(NotFound, match=r"run: found none that trained in home .* expected one of none yet"):
        read_earlier_run(places, places.open_stores())


def test_a_training_that_was_broken_off_goes_on_with_its_own_settings(home):
    places, _ = home

    def break_off(asset: str, what: str, done: int, total: int) -> None:
        if what == "epochs trained" and done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_job(places, "train", BROKEN, break_off)
    stores = places.open_stores()
    run = read_earlier_run(places, stores)
    assert run.checkpoint is None
    for changed in (TrainingSpec(max_epochs=9), ModelSpec(width=32)):
        with pytest.raises(InvalidSetting, match=r"was broken off and goes on with its own settings alone"):
            resume_run(stores, run, [changed])
    started = resume_run(stores, run, [MachineSpec(prefetch_batches=1)])  # of the machine it may ask otherwise
    assert f"run {run.run_id[:8]} was broken off" in started.notices[0]
    made = run_job(places, "train", started.specs, ignore)
    assert made.metadata[TRAINED_CHECKPOINT]["resumed"] is True
    assert made.manifests[TRAINED_CHECKPOINT].summary["num_epochs"] == 6
