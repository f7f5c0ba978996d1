"""One run on two machines' worth of places: CPU steps here, the GPU-tagged step as a job of a local Ray."""

import importlib.util
import os
import secrets
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
START_S = 120.0


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


@pytest.fixture(scope="module")
def address(toy: Toy) -> Iterator[str]:
    """Address of a local Ray with one logical GPU, which only holders of the token may use."""
    port = find_free_port()
    # A short path of its own: Ray's sockets lie in it, and their names may not be long.
    folder = Path(f"/tmp/ray-{secrets.token_hex(4)}")
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--block",
        "--num-gpus=1",
        "--num-cpus=2",
        "--node-ip-address=127.0.0.1",
        f"--port={find_free_port()}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={port}",
        f"--temp-dir={folder}",
        "--object-store-memory=100000000",
        "--disable-usage-stats",
    ]
    log = toy.folder / "ray_log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, "RAY_JOB_STOP_WAIT_TIME_S": "60", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/api/version", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        subprocess.run(["rm", "-rf", str(folder)], check=False)


def wait_for_answer(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"})
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(request, timeout=5).close()
            return
        time.sleep(0.5)
    raise RuntimeError(f"Ray did not start: {log.read_text(errors='replace')[-4000:]}")


def on_ray(address: str) -> dict:
    return {"execution": {"config": {"gpu": {"ray": {"address": address}}}}}


def test_cpu_steps_run_here_and_the_gpu_step_on_ray(toy: Toy, address: str):
    run = toy.run("pair", on_ray(address))
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.messages(dg.DagsterEventType.STEP_FAILURE)
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
