"""One run on two machines' worth of places: CPU steps here, the GPU-tagged step as a job of a local Ray."""

import importlib.util
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import dagster as dg
import pytest

from heimdall_assets.defs.accelerator import GPU_POOL
from heimdall_assets_tests.defs.toy_home import Toy, open_toy
from heimdall_assets_tests.ray_cluster import run_ray

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("dagster_ray") is None, reason="dagster-ray is not installed: heimdall-assets[ray]"
    ),
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    with open_toy(tmp_path_factory.mktemp("toy")) as toy:
        yield toy


@pytest.fixture(scope="module")
def address(opened: Toy) -> Iterator[str]:
    with run_ray(opened.folder) as address:
        yield address


@pytest.fixture
def toy(opened: Toy) -> Toy:
    opened.forget()
    return opened


def on_ray(address: str) -> dict:
    return {"execution": {"config": {"backend": {"ray": {"address": address}}}}}


def test_cpu_steps_run_here_and_the_gpu_step_on_ray(toy: Toy, address: str):
    run = toy.run("pair", on_ray(address))
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    assert not run.facts("on_cpu")["ray"]
    facts = run.facts("second_on_gpu")
    assert facts["ray"]
    assert facts["gpus"] == "0"  # the logical GPU that the step's tag asked for
    assert toy.count_taken_slots() == 0


def test_a_killed_step_on_ray_is_noticed(toy: Toy, address: str):
    (toy.folder / "second.die").touch()
    run = toy.run("alone", on_ray(address))
    assert run.status == dg.DagsterRunStatus.FAILURE
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert "Step second_on_gpu failed health check" in failure
    assert "Ray job" in failure
    assert toy.count_taken_slots() == 0


def test_cancelling_reaches_the_step_on_ray_and_waits_for_it_to_save(toy: Toy, address: str):
    run = toy.run_until("endless", "endless.began", on_ray(address))
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert toy.wait_for("endless.saved") == "DagsterExecutionInterruptedError"
    assert toy.count_taken_slots() == 0
    assert GPU_POOL in toy.instance.event_log_storage.get_concurrency_keys()


def test_the_job_of_a_killed_run_is_stopped_before_the_next_begins(toy: Toy, address: str):
    with toy.start("endless", on_ray(address)):
        toy.wait_for("endless.began")
    time.sleep(1.0)
    assert not (toy.folder / "endless.saved").exists()  # Ray keeps what nobody told it to stop
    toy.mark_killed_run()
    run = toy.run("alone", on_ray(address))
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    assert toy.wait_for("endless.saved") == "DagsterExecutionInterruptedError"


def test_ray_answers_nobody_without_the_token(address: str):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=10)
    assert caught.value.code in (401, 403)
    caught.value.close()
