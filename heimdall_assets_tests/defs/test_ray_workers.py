"""Large amounts of work over a local Ray: the same bytes as from local processes, and one line for what goes wrong."""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heimdall_assets.manifests import compute_digest
from heimdall_assets.pipeline.work_pool import SEEN_BY_ALL
from heimdall_assets_tests.homes import fill_home
from heimdall_assets_tests.package_names import ROOT
from heimdall_assets_tests.ray_cluster import AS_A_NODE, Cluster, run_cluster
from heimdall_assets_tests.servers import find_free_port

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray here: heimdall-assets[ray]"),
]

LIMIT_S = 300.0
DOORS = ("node", "client")
"""How a process comes in: from a machine of the cluster, or from any other through Ray's server for clients."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    with run_cluster(folder) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def doors(cluster: Cluster) -> Iterator[dict[str, dict[str, str]]]:
    """The variables with which each door is found."""
    with cluster.serve_clients() as address:
        yield {
            "node": {**AS_A_NODE, "RAY_ADDRESS": cluster.head},
            "client": {"HEIMDALL_RAY_ADDRESS": address},
            "processes": {"HEIMDALL_WORK_POOL": "processes"},
        }


@pytest.fixture(scope="module")
def ready(folder: Path) -> Path:
    """A home with approved sessions: when they were approved is in its snapshot, so that all begin with this one."""
    fill_home(folder / "ready")
    return folder / "ready"


@pytest.fixture(scope="module")
def local(folder: Path, ready: Path) -> dict[str, Any]:
    """What local processes make of the same."""
    shutil.copytree(ready, folder / "local" / "ready")
    return read(start("compute", folder / "local", {"HEIMDALL_WORK_POOL": "processes"}))


def start(task: str, folder: Path, variables: dict[str, str]) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "heimdall_assets_tests.defs.ray_driver", task, str(folder)],
        cwd=ROOT,
        env={**os.environ, **name_places(folder), **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def name_places(folder: Path) -> dict[str, str]:
    home = {"HEIMDALL_HOME": str(folder / "home"), "DAGSTER_HOME": "", "HEIMDALL_TRACKING": "off"}
    return {**home, "HEIMDALL_WORK_POOL": "ray"}


def read(process: "subprocess.Popen[str]") -> Any:
    """Return what a driver says it came to; it writes nothing else where all went well."""
    with process:
        try:
            said, wrong = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 0, wrong
    return json.loads(said.splitlines()[-1])


def check_same(found: dict[str, Any], local: dict[str, Any]) -> None:
    mark = compute_digest(SEEN_BY_ALL)
    for part in ("simulated", "ingested"):
        found[part].remove(mark)  # it was spread over Ray
    assert found == local
    assert len(found["simulated"]) == 80
    assert len(found["ingested"]) > 85
    assert found["told"][-1] == ["sessions simulated", 20, 20]
    assert len(found["told"]) == 5  # as it is done, not at the end


@pytest.mark.parametrize("door", DOORS)
def test_workers_of_ray_make_the_same_bytes(
    door: str, tmp_path: Path, doors: dict[str, Any], ready: Path, local: dict[str, Any]
):
    shutil.copytree(ready, tmp_path / "ready")
    check_same(read(start("compute", tmp_path, doors[door])), local)


def test_a_job_of_the_cluster_spreads_over_it(tmp_path: Path, cluster: Cluster, ready: Path, local: dict[str, Any]):
    from ray.job_submission import JobSubmissionClient

    shutil.copytree(ready, tmp_path / "ready")
    client = JobSubmissionClient(cluster.dashboard)
    command = f"cd {ROOT} && {sys.executable} -m heimdall_assets_tests.defs.ray_driver compute {tmp_path}"
    environment = {"env_vars": {**name_places(tmp_path), "PYTHONPATH": str(ROOT)}}
    job = client.submit_job(entrypoint=command, runtime_env=environment)
    deadline_s = time.monotonic() + LIMIT_S
    while not client.get_job_status(job).is_terminal() and time.monotonic() < deadline_s:
        time.sleep(0.5)
    log = client.get_job_logs(job)
    assert client.get_job_status(job) == "SUCCEEDED", log
    check_same(json.loads(next(line for line in log.splitlines() if line.startswith("{"))), local)


@pytest.mark.parametrize("task", ["refuse", "crash"])
def test_an_error_of_a_worker_is_the_same_one_line(task: str, tmp_path: Path, doors: dict[str, Any]):
    found = {door: read(start(task, tmp_path, doors[door])) for door in ("processes", *DOORS)}
    assert found["node"] == found["client"] == found["processes"]
    assert (
        found["node"]["line"]
        == {
            "refuse": "part 5: found nothing, expected samples",
            "crash": "integer division or modulo by zero",
        }[task]
    )


@pytest.mark.parametrize("door", DOORS)
def test_a_part_whose_worker_is_killed_is_done_by_another(door: str, tmp_path: Path, doors: dict[str, Any]):
    assert read(start("die_once", tmp_path, doors[door])) == list(range(12))
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("door", DOORS)
def test_a_part_that_kills_each_worker_is_one_line(door: str, tmp_path: Path, doors: dict[str, Any]):
    found = read(start("die", tmp_path, doors[door]))
    assert found["error"] == "WorkersLost"
    assert found["line"].startswith("HEIMDALL_WORK_POOL ray: lost the workers of one part 3 times (")
    assert "\n" not in found["line"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_work_outlives_who_asked_for_it(how: signal.Signals, door: str, tmp_path: Path, doors: dict[str, Any]):
    process = start("work_on", tmp_path, doors[door])
    wait_for_work(tmp_path)
    process.send_signal(how)
    process.communicate(timeout=LIMIT_S)
    deadline_s = time.monotonic() + LIMIT_S
    while is_worked_on(tmp_path):
        assert time.monotonic() < deadline_s


def wait_for_work(folder: Path) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not list(folder.glob("*.alive")):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def is_worked_on(folder: Path) -> bool:
    """Return whether any sign of life comes within a time in which each worker gives several."""
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.alive")}
    time.sleep(3.0)
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.alive")} != before


@pytest.mark.parametrize("door", DOORS)
def test_another_token_opens_nothing(door: str, tmp_path: Path, doors: dict[str, Any]):
    found = read(start("square", tmp_path, {**doors[door], "RAY_AUTH_TOKEN": secrets.token_hex(32)}))
    assert found["error"] == "InvalidSetting"
    assert found["line"].startswith("HEIMDALL_WORK_POOL ray, ")
    assert "RAY_AUTH_TOKEN" in found["line"]


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path):
    address = f"127.0.0.1:{find_free_port()}"
    for variables in ({"RAY_ADDRESS": address}, {"RAY_ADDRESS": "", "HEIMDALL_RAY_ADDRESS": f"ray://{address}"}):
        found = read(start("square", tmp_path, variables))
        assert found["error"] == "InvalidSetting"
        assert f"{address}: found no cluster that answers" in found["line"]


def test_what_the_server_for_clients_takes_with_it_is_one_line(tmp_path: Path, cluster: Cluster):
    with cluster.serve_clients() as address:
        process = start("work_on", tmp_path, {"HEIMDALL_RAY_ADDRESS": address})
        wait_for_work(tmp_path)
    found = read(process)
    assert found["error"] == "WorkersLost"
    assert found["line"].startswith("HEIMDALL_WORK_POOL ray: the cluster is gone (")


def test_a_node_that_dies_with_the_cluster_waits_for_nobody(tmp_path: Path, cluster: Cluster, doors: dict[str, Any]):
    """Ray itself ends the process; the last test here, for nothing of the cluster is left."""
    process = start("work_on", tmp_path, doors["node"])
    wait_for_work(tmp_path)
    cluster.kill()
    said, wrong = process.communicate(timeout=LIMIT_S)
    assert process.returncode != 0 or json.loads(said)["error"] == "WorkersLost", wrong
