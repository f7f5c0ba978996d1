"""A Kubernetes API server on 127.0.0.1 that keeps jobs and pods in memory and runs a pod's command as a process here.

It speaks what an executor asks: jobs made, read, listed, deleted; pods listed. Each manifest is held against
Kubernetes' own schemas. One thread is its kubelet: it schedules by node labels, starts, ends with SIGTERM, grace period
and SIGKILL, and keeps deadlines. What befalls pods on a bad day is a method each; what befalls the server is ``fail``.

What jobs and pods say of it follows Kubernetes 1.34: a pod that is told to end counts as failed at once, and its job
has failed once it has ended (``isPodFailed``, ``FailureTarget`` in pkg/controller/job); the pod of a machine without
heartbeat is not ready while its containers stay as they were (``MarkPodsNotReady``), is told to end later
(``DeletionByTaintManager``), and stays, for nobody can say that it has ended.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

from heimdall_assets_tests.servers import die_with_parent

NAMESPACE = "heimdall"
VERSION = "1.37"
KUBELET_S = 0.02
JOBS, PODS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", f"/api/v1/namespaces/{NAMESPACE}/pods"


@dataclass
class Node:
    """A machine: what its labels say, and whether it has a GPU."""

    labels: Mapping[str, str] = field(default_factory=dict)
    num_gpus: int = 1


@dataclass
class Pod:
    """A pod and the process that it is."""

    name: str
    manifest: dict[str, Any]
    began_s: float = field(default_factory=time.monotonic)
    process: "subprocess.Popen[bytes] | None" = None
    phase: str = "Pending"
    reason: str | None = None
    message: str | None = None
    code: int | None = None
    told_s: float | None = None
    """When the cluster was asked to end it."""
    signalled_s: float | None = None
    """When its machine heard of that and sent SIGTERM."""
    is_heard: bool = True
    """Whether its machine tells of it: else it looks as it did for ever."""
    disruption: tuple[str, str] | None = None
    """Why the cluster ends it."""

    @property
    def has_ended(self) -> bool:
        return self.phase in ("Failed", "Succeeded")

    def tell_to_end(self) -> None:
        self.told_s = self.told_s or time.monotonic()

    def tell(self) -> dict[str, Any]:
        state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        if self.phase == "Running":
            state = {"running": {}}
        elif self.code is not None:
            name = "Completed" if self.code == 0 else "OOMKilled" if self.code == 137 else "Error"
            state = {"terminated": {"exitCode": self.code, "reason": name}}
        metadata: dict[str, Any] = {"name": self.name, "labels": self.manifest["metadata"]["labels"]}
        if self.told_s is not None:
            metadata["deletionTimestamp"] = datetime.now(UTC).isoformat()
        status: dict[str, Any] = {"phase": self.phase, "reason": self.reason, "message": self.message}
        if self.phase == "Pending":
            status["conditions"] = [
                {"type": "PodScheduled", "status": "False", "reason": self.reason, "message": self.message}
            ]
        else:
            ready, is_running = self.phase == "Running" and self.is_heard, self.phase == "Running"
            status["conditions"] = [
                {"type": "PodScheduled", "status": "True"},
                {"type": "ContainersReady", "status": str(is_running)},
                {"type": "Ready", "status": str(ready)},
            ]
        if self.disruption is not None:
            reason, message = self.disruption
            found = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
            status["conditions"].append(found)
        container = {"name": "dagster", "image": "i", "imageID": "", "ready": True, "restartCount": 0, "state": state}
        status["containerStatuses"] = [] if self.phase == "Pending" else [container]
        return {"metadata": metadata, "spec": {"containers": [{"name": "dagster"}]}, "status": status}


@dataclass
class Job:
    """A job and its one pod."""

    manifest: dict[str, Any]
    pod: Pod
    condition: tuple[str, str] | None = None
    is_leaving: bool = False

    def tell(self) -> dict[str, Any]:
        is_leaving = self.pod.told_s is not None and not self.pod.has_ended
        kind, reason = self.condition or ("", "")
        if is_leaving:
            kind, reason = "FailureTarget", reason or "BackoffLimitExceeded"
        status: dict[str, Any] = {"active": int(not kind), "terminating": int(is_leaving)}
        if kind:
            status["conditions"] = [{"type": kind, "status": "True", "reason": reason}]
            status["succeeded" if kind == "Complete" else "failed"] = 1
        return {**self.manifest, "status": status}


class KubernetesApi:
    """The server; its methods are a cluster's bad days."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._jobs = folder, dict[str, Job]()
        self._lock, self._stop = threading.RLock(), threading.Event()
        self.forget()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._build_handler())
        self._server.daemon_threads = True
        self._threads = [
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True),
            threading.Thread(target=self._work, daemon=True),
        ]
        self.kubeconfig = folder / "kubeconfig.yaml"

    def start(self) -> None:
        address = f"http://127.0.0.1:{self._server.server_port}"
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(told))
        for thread in self._threads:
            thread.start()

    def forget(self) -> None:
        """Be as new: one node, no secret, nobody's bad day."""
        self.return_node()
        self.nodes = [Node()]
        self.secrets: dict[str, dict[str, str]] = {}
        self.manifests: list[dict[str, Any]] = []
        """Every job that was made since, as it was handed in."""
        self.status: int | None = None
        self.num_refused = self.num_silent = self.num_heard = 0
        """How many questions met a server that was away, were about a silent machine's pod, and were about others."""

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for job in self._jobs.values():
            self._kill(job.pod, signal.SIGKILL)

    @contextmanager
    def fail(self, status: int) -> Iterator[None]:
        """Answer every question with ``status``; 0: hang up on everybody."""
        self.status = status
        try:
            yield
        finally:
            self.status = None

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Hear nothing of any machine, on which everything goes on."""
        self._set_heard(False)
        try:
            yield
        finally:
            self._set_heard(True)

    def _set_heard(self, is_heard: bool) -> None:
        with self._lock:
            for job in self._jobs.values():
                job.pod.is_heard = is_heard

    def count_leaving(self) -> int:
        """Return how many jobs somebody deleted whose pods have not ended, as far as anybody knows."""
        with self._lock:
            return sum(job.is_leaving for job in self._jobs.values())

    def count_running(self) -> int:
        with self._lock:
            return sum(job.pod.process is not None and job.pod.process.poll() is None for job in self._jobs.values())

    def wait_until_quiet(self) -> None:
        """Return once no pod runs: a step tells its end a moment before its process has ended."""
        deadline_s = time.monotonic() + 30.0
        while self.count_running():
            assert time.monotonic() < deadline_s, "a pod was left running"
            time.sleep(0.02)

    def evict(self, reason: str = "Evicted", message: str = "The node was low on resource: memory.") -> None:
        """End every pod at once, as a kubelet in need does."""
        with self._lock:
            for pod in [job.pod for job in self._jobs.values() if job.pod.phase == "Running"]:
                pod.reason, pod.message = reason, message
                self._kill(pod, signal.SIGKILL)

    def delete_pods(self) -> None:
        """Delete every pod, as somebody who drains a node would, and not its job."""
        with self._lock:
            for job in self._jobs.values():
                job.pod.tell_to_end()

    def lose_node(self, is_noticed: bool) -> None:
        """Cut the current under every running pod.

        Args:
            is_noticed: the cluster has waited long enough to tell the pods to end; else it just hears nothing.
        """
        with self._lock:
            for pod in [job.pod for job in self._jobs.values() if job.pod.phase == "Running"]:
                pod.is_heard = False
                self._kill(pod, signal.SIGKILL)
                if is_noticed:
                    pod.disruption = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
                    pod.tell_to_end()

    def return_node(self) -> None:
        """Have lost machines tell again, with what they had."""
        self._set_heard(True)

    def delete_jobs(self) -> None:
        """Delete every job as somebody with kubectl would."""
        with self._lock:
            for name in list(self._jobs):
                self._delete(name)

    def _work(self) -> None:
        while not self._stop.wait(KUBELET_S):
            with self._lock:
                for name, job in list(self._jobs.items()):
                    self._tend(name, job)

    def _tend(self, name: str, job: Job) -> None:
        pod, now_s = job.pod, time.monotonic()
        if not pod.is_heard:
            return
        deadline_s = job.manifest["spec"].get("activeDeadlineSeconds")
        if deadline_s is not None and now_s - pod.began_s > deadline_s and job.condition is None:
            job.condition = ("Failed", "DeadlineExceeded")
            pod.tell_to_end()
        if pod.process is None and pod.phase == "Pending" and not job.is_leaving and self._schedule(pod):
            self._run(pod)
        if pod.process is not None and pod.phase == "Running" and (code := pod.process.poll()) is not None:
            pod.code = 128 - code if code < 0 else code
            pod.phase = "Failed" if pod.code or pod.reason else "Succeeded"
            kind = ("Complete", "") if pod.phase == "Succeeded" else ("Failed", "BackoffLimitExceeded")
            job.condition = job.condition or kind
        grace_s = pod.manifest["spec"].get("terminationGracePeriodSeconds", 30)
        if pod.told_s is not None and pod.signalled_s is None:
            pod.signalled_s = now_s
            self._kill(pod, signal.SIGTERM)
        if pod.signalled_s is not None and now_s - pod.signalled_s > grace_s:
            self._kill(pod, signal.SIGKILL)
        if job.is_leaving and (pod.process is None or pod.process.poll() is not None):
            del self._jobs[name]

    def _schedule(self, pod: Pod) -> bool:
        spec = pod.manifest["spec"]
        wanted = spec.get("nodeSelector") or {}
        gpus = int((spec["containers"][0]["resources"].get("limits") or {}).get("nvidia.com/gpu", 0))
        fits = [node for node in self.nodes if wanted.items() <= node.labels.items() and gpus <= node.num_gpus]
        if not fits:
            said = f"0/{len(self.nodes)} nodes are available: node(s) didn't match Pod's node affinity/selector."
            pod.reason, pod.message = "Unschedulable", said
        return bool(fits)

    def _run(self, pod: Pod) -> None:
        (container,) = pod.manifest["spec"]["containers"]
        asked = {item["name"]: item.get("value", "") for item in container.get("env", [])}
        for source in container.get("envFrom", []):
            name = source["secretRef"]["name"]
            if name not in self.secrets:
                pod.reason, pod.message = "CreateContainerConfigError", f'secret "{name}" not found'
                return
            asked = {**self.secrets[name], **asked}
        program, *arguments = container["args"]
        assert program == "dagster", "the image has no other program"
        pod.reason = pod.message = None
        with open(self._folder / f"{pod.name}.log", "wb") as log:
            pod.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", program, *arguments],
                # What an image would bring: where Python finds things. Nothing else of this process reaches a pod.
                env={**{name: os.environ[name] for name in IMAGE if name in os.environ}, "POD_NAME": pod.name, **asked},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        pod.phase = "Running"

    @staticmethod
    def _kill(pod: Pod, number: int) -> None:
        if pod.process is not None and pod.process.poll() is None:
            with suppress(ProcessLookupError):
                (os.killpg if number == signal.SIGKILL else os.kill)(pod.process.pid, number)
            if number == signal.SIGKILL:
                pod.process.wait()

    def _delete(self, name: str) -> None:
        self._jobs[name].is_leaving = True
        self._jobs[name].pod.tell_to_end()

    def _answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, dict[str, Any]]:
        """Return status and object for one question."""
        folder, _, name = path.rpartition("/")
        selector = query.get("labelSelector", [""])[0]
        with self._lock:
            if (method, path) == ("POST", JOBS):
                return self._make(body)
            if method == "GET" and path == JOBS:
                found = [job for job in self._jobs.values() if _match(job.manifest["metadata"]["labels"], selector)]
                return 200, {"kind": "JobList", "apiVersion": "batch/v1", "items": [job.tell() for job in found]}
            if method == "GET" and path == PODS:
                pods = [job.pod for job in self._jobs.values()]
                is_silent = any(not pod.is_heard for pod in pods)
                self.num_silent += is_silent
                self.num_heard += not is_silent
                items = [pod.tell() for pod in pods if _match(pod.manifest["metadata"]["labels"], selector)]
                return 200, {"kind": "PodList", "apiVersion": "v1", "items": items}
            if folder == JOBS and name in self._jobs and method in ("GET", "DELETE"):
                if method == "DELETE":
                    chosen = (body or {}).get("propagationPolicy") or query.get("propagationPolicy", [""])[0]
                    assert chosen == "Foreground", "else the pods of a job outlive it"
                    self._delete(name)
                return 200, self._jobs[name].tell()
        return 404, _refuse(404, "NotFound", f'{method} {path}: "{name}" not found')

    def _make(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        try:
            kubernetes_validate.validate(body, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            return 422, _refuse(422, "Invalid", f"{list(error.path)}: {error.message}")
        name = body["metadata"]["name"]
        if name in self._jobs:
            return 409, _refuse(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
        template = json.loads(json.dumps(body["spec"]["template"]))
        template["metadata"]["labels"]["job-name"] = name
        self.manifests.append(body)
        self._jobs[name] = Job(body, Pod(f"{name}-x", template))
        return 201, self._jobs[name].tell()

    def _build_handler(api: "KubernetesApi") -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _reply(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if api.status is not None:
                    api.num_refused += 1
                    if api.status == 0:
                        self.close_connection = True
                        return
                    status, found = api.status, _refuse(api.status, "Failure", "a bad day")
                else:
                    asked = urlsplit(self.path)
                    body = json.loads(data) if data else None
                    status, found = api._answer(self.command, asked.path, parse_qs(asked.query), body)
                text = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = _reply

            def log_message(self, *_: Any) -> None:
                """Say nothing: a test's output is its own."""

        return Handler


IMAGE = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DAGSTER_DISABLE_TELEMETRY", "TOY_FOLDER", "OMP_NUM_THREADS")
"""Variables that stand for what an image and its volumes bring."""


def _match(labels: Mapping[str, str], selector: str) -> bool:
    """Say whether labels fit ``a=b,c`` (c: whatever its value)."""
    for part in filter(None, selector.split(",")):
        name, _, value = part.partition("=")
        if name not in labels or (value and labels[name] != value):
            return False
    return True


def _refuse(status: int, reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "code": status, "reason": reason, "message": message}


@contextmanager
def run_kubernetes(folder: Path) -> Iterator[KubernetesApi]:
    """Give a running server; its pods end with it."""
    api = KubernetesApi(folder)
    api.start()
    try:
        yield api
    finally:
        api.close()
