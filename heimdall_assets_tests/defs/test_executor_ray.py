"""One run on two machines' worth of places: CPU steps here, the GPU-tagged step as a job of a local Ray."""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest

from heimdall_assets.defs.accelerator import GPU_POOL
from heimdall_assets_tests.defs.test_executor import ROOT, Toy

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("dagster_ray") is None, reason="dagster-ray is not installed: heimdall-assets[ray]"
    ),
]
START_S = 180.0
NUM_STARTS = 3


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    toy = Toy(tmp_path_factory.mktemp("toy"))
    with pytest.MonkeyPatch.context() as patch, toy.instance:
        patch.setenv("TOY_FOLDER", str(toy.folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        yield toy


HOST = """
import signal, sys, ray
ray.init(num_cpus=2, num_gpus=1, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=int(sys.argv[1]),
         _node_ip_address="127.0.0.1", _temp_dir=sys.argv[2], object_store_memory=100_000_000, log_to_driver=False)
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def address(toy: Toy) -> Iterator[str]:
    """Address of a local Ray with one logical GPU, which only holders of the token may use."""
    for attempt in range(NUM_STARTS):
        port = find_free_port()
        # A short path of its own: Ray's sockets lie in it, and their names may not be long.
        folder = Path(f"/tmp/ray-{secrets.token_hex(4)}")
        log = toy.folder / f"ray_{attempt}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", HOST, str(port), str(folder)],
                # A cancelled step is given time to save; Ray's own 3 s would kill it.
                env={**os.environ, "RAY_JOB_STOP_WAIT_TIME_S": "60", "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "120"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            if wait_until_ready(process, log):
                yield f"http://127.0.0.1:{port}"
                return
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            shutil.rmtree(folder, ignore_errors=True)
    # Ray's own time limits cannot all be set: on a machine that is too busy it does not come up.
    pytest.fail(f"Ray did not start in {NUM_STARTS} attempts: {log.read_text(errors='replace')[-4000:]}")


def wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if "ready" in log.read_text(errors="replace").splitlines():
            return True
        time.sleep(0.2)
    return False


def on_ray(address: str) -> dict:
    return {"execution": {"config": {"gpu": {"ray": {"address": address}}}}}


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


def test_ray_answers_nobody_without_the_token(address: str):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=10)
    assert caught.value.code in (401, 403)
    caught.value.close()
