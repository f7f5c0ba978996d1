"""GPU-tagged steps as jobs of a Kubernetes cluster: launched, cancelled, lost, forgotten by a server that is away."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: heimdall-assets[k8s]")

from heimdall_assets.defs.executor import router
from heimdall_assets.defs.executor.k8s import build_k8s_handler
from heimdall_assets.errors import InvalidSetting, MissingDependency
from heimdall_assets.specs import KubernetesSpec
from heimdall_assets_tests.defs.toy_home import Toy, open_toy
from heimdall_assets_tests.homes import fill_home
from heimdall_assets_tests.kubernetes_api import NAMESPACE, KubernetesApi, Node, run_kubernetes
from heimdall_assets_tests.serving import wait_for

ON_K8S: dict[str, Any] = {"backend": {"k8s": {}}}
SETTINGS = {
    "image": "registry.example/heimdall:1",
    "namespace": NAMESPACE,
    "env_secrets": ["heimdall"],
    "patience_s": 6,
    "machine_patience_s": 2,
}
LOOK_S = 0
"""Between two looks at a pod here, at each turn of the executor: what is judged at the second one need not wait."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    with open_toy(tmp_path_factory.mktemp("toy")) as toy:
        yield toy


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesApi]:
    with run_kubernetes(tmp_path_factory.mktemp("kubernetes")) as api:
        yield api


@pytest.fixture
def api(running: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> KubernetesApi:
    running.forget()
    running.secrets["heimdall"] = {"TOY_SECRET": "hunter2"}
    monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
    monkeypatch.setenv("HEIMDALL_KUBERNETES", json.dumps(SETTINGS))
    monkeypatch.setattr(router, "HEALTH_INTERVAL_S", LOOK_S)
    return running


@pytest.fixture
def toy(opened: Toy, api: KubernetesApi) -> Iterator[Toy]:
    opened.forget()
    yield opened
    api.wait_until_quiet()
    assert opened.count_taken_slots() == 0


def on_k8s(**asked: Any) -> dict[str, Any]:
    return {"execution": {"config": {**ON_K8S, **({"accelerator": asked} if asked else {})}}}


def when(toy: Toy, name: str, act: Any) -> threading.Thread:
    """Do something to the cluster as soon as a step has written file ``name``."""

    def wait() -> None:
        toy.wait_for(name)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def tell_engine(run: Any) -> str:
    return "\n".join(run.messages(dg.DagsterEventType.ENGINE_EVENT))


# --- a step that nothing befalls


def test_cpu_steps_run_here_and_the_gpu_step_in_a_pod_which_alone_knows_the_secret(toy: Toy, api: KubernetesApi):
    run = toy.run("pair", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    facts = run.facts("second_on_gpu")
    assert facts["pod"].startswith("dagster-step-")
    assert (facts["secret"], facts["shared"]) == ("hunter2"[::-1], "told")
    assert not run.facts("on_cpu")["pod"]
    (manifest,) = api.manifests
    assert "hunter2" not in json.dumps(manifest) + "".join(run.tell())
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "heimdall"}}]
    assert container["args"][:3] == ["dagster", "api", "execute_step"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}


@pytest.mark.long
def test_cpu_steps_go_to_pods_where_the_settings_say_so(toy: Toy, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEIMDALL_KUBERNETES", json.dumps({**SETTINGS, "cpu_steps": "pods"}))
    run = toy.run("cpu", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    assert run.facts("on_cpu")["pod"]
    (manifest,) = api.manifests
    assert "limits" not in manifest["spec"]["template"]["spec"]["containers"][0]["resources"]


# --- a step that somebody stops


def test_cancelling_reaches_the_pod_and_waits_for_it_to_save(toy: Toy, api: KubernetesApi):
    run = toy.run_until("endless", "endless.began", on_k8s())
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert (toy.folder / "endless.saved").read_text() == "DagsterExecutionInterruptedError"
    assert api.count_running() == 0  # a run has ended when its pods have


@pytest.mark.long
def test_a_step_that_takes_too_long_is_stopped_and_says_why(toy: Toy, api: KubernetesApi):
    run = toy.run("endless", on_k8s(time_limit_s=0.1))
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert "step endless_on_gpu: stopped after 0.1 s, its time limit" in tell_engine(run)
    assert api.manifests[0]["spec"]["activeDeadlineSeconds"] == 60


@pytest.mark.long
def test_the_job_of_a_killed_run_is_stopped_before_the_next_begins(toy: Toy, api: KubernetesApi):
    with toy.start("endless", on_k8s()):
        toy.wait_for("endless.began")
    assert api.count_running() == 1  # a cluster keeps what nobody told it to stop
    toy.mark_killed_run()
    run = toy.run("alone", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    assert (toy.folder / "endless.saved").read_text() == "DagsterExecutionInterruptedError"
    assert "stopped, for its run or its attempt has ended" in tell_engine(run)


# --- a step that is lost


def test_a_killed_pod_is_noticed_and_its_step_tried_again(toy: Toy, api: KubernetesApi):
    (toy.folder / "first.die").touch()
    run = toy.run("first", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    (retry,) = run.messages(dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert "OOMKilled with exit code 137, without telling how the step ended" in retry
    assert len(api.manifests) == 2


def test_an_evicted_pod_fails_its_step_in_one_line_that_says_why(toy: Toy, api: KubernetesApi):
    when(toy, "endless.began", api.evict)
    run = toy.run("endless", on_k8s())
    assert run.status == dg.DagsterRunStatus.FAILURE
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert "Evicted: The node was low on resource: memory." in failure
    assert len(failure.strip().splitlines()) == 1


@pytest.mark.long
def test_a_job_that_somebody_deleted_is_noticed(toy: Toy, api: KubernetesApi):
    (toy.folder / "endless.mute").touch()
    when(toy, "endless.began", api.delete_jobs)
    run = toy.run("endless", on_k8s())
    assert run.status == dg.DagsterRunStatus.FAILURE
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert "the cluster knows it no more: somebody deleted it" in failure


@pytest.mark.parametrize("is_noticed", [pytest.param(False, id="silent", marks=pytest.mark.long), True])
def test_the_pod_of_a_dead_machine_is_lost_in_bounded_time_and_its_step_tried_again(
    toy: Toy, api: KubernetesApi, is_noticed: bool
):
    (toy.folder / "first.wait").touch()

    def lose() -> None:
        (toy.folder / "first.wait").unlink()
        api.lose_node(is_noticed)

    when(toy, "first.began", lose)
    run = toy.run("first", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    (retry,) = run.messages(dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert "the machine of its pod was silent for 2 s" in retry
    assert ("DeletionByTaintManager" in retry) == is_noticed
    assert len(retry.strip().splitlines()) == 1
    assert "the machine of its pod is silent; waited for 2 s" in tell_engine(run)
    assert len(api.manifests) == 2
    assert toy.count_taken_slots() == 0
    # Nobody knows that the pod of the first attempt has ended; its machine, should it come back, is to end it.
    assert api.count_leaving() == 1
    api.return_node()
    wait_for(lambda: not api.count_leaving(), 30.0, "the lost job to be removed", every_s=0.05)


def test_a_machine_that_is_silent_for_a_while_costs_nothing(
    toy: Toy, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEIMDALL_KUBERNETES", json.dumps({**SETTINGS, "machine_patience_s": 60}))

    def fall_silent() -> None:
        with api.silence():
            wait_for(lambda: api.num_silent > 1, 30.0, "two looks at a silent pod", every_s=0.02)
        before = api.num_heard
        wait_for(lambda: api.num_heard > before + 1, 30.0, "two looks at it afterwards", every_s=0.02)
        (toy.folder / "endless.stop").touch()

    when(toy, "endless.began", fall_silent)
    run = toy.run("endless", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    assert "the machine of its pod is heard again" in tell_engine(run)


def test_a_pod_that_somebody_deleted_is_waited_for_while_it_saves(toy: Toy, api: KubernetesApi):
    when(toy, "endless.began", api.delete_pods)
    run = toy.run("endless", on_k8s())
    assert run.status == dg.DagsterRunStatus.FAILURE
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert "health check" not in failure  # it told itself how it ended
    assert (toy.folder / "endless.saved").exists()


def test_a_pod_that_a_drained_node_ends_is_tried_again_elsewhere(toy: Toy, api: KubernetesApi):
    (toy.folder / "first.wait").touch()

    def drain() -> None:
        api.delete_pods()
        (toy.folder / "first.wait").unlink()

    when(toy, "first.began", drain)
    run = toy.run("first", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    (retry,) = run.messages(dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert "its machine was taken away; the toy keeps nothing" in retry
    assert len(api.manifests) == 2


@pytest.mark.long
def test_a_step_that_we_stop_is_not_tried_again(toy: Toy, api: KubernetesApi):
    (toy.folder / "first.wait").touch()
    run = toy.run_until("first", "first.began", on_k8s())
    assert run.status == dg.DagsterRunStatus.CANCELED
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert "stopped; the toy keeps nothing" in failure
    assert not run.messages(dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert len(api.manifests) == 1


@pytest.mark.long
def test_an_attempt_that_was_given_up_says_nothing_when_its_machine_comes_back(toy: Toy, api: KubernetesApi):
    """Else the attempt that took its place would be judged by it."""
    (toy.folder / "first.wait").touch()

    def come_back() -> None:
        with api.silence():
            wait_for(lambda: len(api.manifests) == 2, 60.0, "a second attempt", every_s=0.05)
        wait_for(lambda: not api.count_leaving(), 60.0, "the first attempt to end", every_s=0.05)
        (toy.folder / "first.wait").unlink()

    when(toy, "first.began", come_back)
    run = toy.run("first", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    (retry,) = run.messages(dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert "the machine of its pod was silent" in retry
    assert not run.messages(dg.DagsterEventType.STEP_FAILURE)


# --- a step that no machine takes


def test_a_gpu_that_no_node_has_is_told_and_not_waited_for_for_ever(toy: Toy, api: KubernetesApi):
    api.nodes = [Node({"nvidia.com/gpu.product": "Tesla-T4"})]
    run = toy.run("alone", on_k8s(gpu_type="NVIDIA-H200", wait_limit_s=1.0))
    assert run.status == dg.DagsterRunStatus.FAILURE
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert "did not start within 1 s: Unschedulable: 0/1 nodes are available" in failure
    assert "waits: Unschedulable: 0/1 nodes are available" in tell_engine(run)


def test_a_secret_that_is_not_there_is_told(toy: Toy, api: KubernetesApi):
    api.secrets.clear()
    run = toy.run("alone", on_k8s(wait_limit_s=1.0))
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert 'CreateContainerConfigError: secret "heimdall" not found' in failure


# --- a server that is away


@pytest.mark.parametrize("status", [500, pytest.param(0, marks=pytest.mark.long)])
def test_a_server_that_is_away_for_a_while_costs_nothing(toy: Toy, api: KubernetesApi, status: int):
    def fail() -> None:
        with api.fail(status):
            deadline_s = time.monotonic() + 30.0
            while api.num_refused < 2 and time.monotonic() < deadline_s:
                time.sleep(0.02)
        (toy.folder / "endless.stop").touch()

    when(toy, "endless.began", fail)
    run = toy.run("endless", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    assert "asked again for 6 s" in tell_engine(run)


@pytest.mark.long
def test_a_step_is_launched_once_the_server_answers(toy: Toy, api: KubernetesApi):
    def wait() -> None:
        while api.num_refused < 2:
            time.sleep(0.02)
        api.status = None

    api.status = 503
    threading.Thread(target=wait, daemon=True).start()
    run = toy.run("alone", on_k8s())
    assert run.status == dg.DagsterRunStatus.SUCCESS, run.tell()
    assert "the API server answers again" in tell_engine(run)
    assert len(api.manifests) == 1


def test_patience_with_a_server_that_stays_away_is_bounded(
    toy: Toy, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEIMDALL_KUBERNETES", json.dumps({**SETTINGS, "patience_s": 1}))
    with api.fail(0):
        run = toy.run("alone", on_k8s())
    assert run.status == dg.DagsterRunStatus.FAILURE
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert "the API server does not answer" in failure
    assert "for 1 s by now" in failure
    assert not api.manifests


def test_what_the_server_refuses_is_told_in_one_line(toy: Toy, api: KubernetesApi):
    with api.fail(403):
        run = toy.run("alone", on_k8s())
    (failure,) = run.messages(dg.DagsterEventType.STEP_FAILURE)
    assert "the API server refuses: 403 Forbidden: a bad day" in failure


# --- settings that are of no use


WITHOUT = """
import sys
sys.modules["dagster_k8s"] = None
from heimdall_assets.cli import main
main(["train"])
"""


@pytest.mark.parametrize("module", ["dagster_k8s.executor", "kubernetes"])
def test_without_the_package_nothing_begins(monkeypatch: pytest.MonkeyPatch, module: str):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"found no dagster-k8s; install heimdall-assets\[k8s\]"):
        build_k8s_handler(KubernetesSpec(image="i"), None, {})


@pytest.mark.long
def test_without_the_package_the_command_ends_with_one_line_that_names_what_to_install(tmp_path: Path):
    fill_home(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT],
        env={**os.environ, "HEIMDALL_HOME": str(tmp_path), "HEIMDALL_EXECUTOR": "k8s"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2
    said = done.stderr.strip().splitlines()[-1]
    assert said == "Error: executor k8s: found no dagster-k8s; install heimdall-assets[k8s]"
    assert "Traceback" not in done.stderr


def test_without_an_image_or_a_cluster_nothing_begins(tmp_path: Path):
    with pytest.raises(InvalidSetting, match=r"HEIMDALL_KUBERNETES\.image: found none"):
        build_k8s_handler(KubernetesSpec(), None, {})
    with pytest.raises(InvalidSetting, match="KUBECONFIG: found nothing that opens a cluster"):
        build_k8s_handler(KubernetesSpec(image="i"), tmp_path / "none.yaml", {})
