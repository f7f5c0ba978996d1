"""Cluster: jobs and pods of one Kubernetes namespace, as an API server tells of them, each question within seconds.

Belongs here: what is asked of the server, and what its answers mean for a step. Does not belong here: how patient to be
(``k8s``), how a pod is made (dagster-k8s). kubernetes takes a second to import: only inside functions.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from heimdall_assets.errors import HeimdallError, NotFound, Refused

TIMEOUT_S = 10.0
"""A question that has no answer after this long has none."""

RUN_LABEL, STEP_LABEL = "dagster/run-id", "dagster/op"
"""Labels that dagster-k8s gives the jobs of steps."""

_PASSING = frozenset({401, 408, 409, 425, 429})
"""Refusals that may be none a moment later (401: a token is being renewed); so may all of the server's own, 5xx."""


class NoAnswer(HeimdallError):
    """The API server is away, or says that it cannot answer now."""


@dataclass(frozen=True)
class Seen:
    """What a look at a job showed.

    Attributes:
        state: waiting (no container yet), running, leaving (its pod was told to end), ended, or gone (nobody knows it).
        reason: why, as the cluster says; may be empty.
        is_heard: whether the pod's machine still tells of it; what a silent one is doing nobody knows.
    """

    state: str
    reason: str = ""
    is_heard: bool = True


class Cluster:
    """One namespace of a cluster.

    Args:
        batch: kubernetes' ``BatchV1Api``.
        core: kubernetes' ``CoreV1Api``.
        namespace: where jobs are made.
    """

    def __init__(self, batch: Any, core: Any, namespace: str) -> None:
        self._batch, self._core, self.namespace = batch, core, namespace

    def create(self, body: Any) -> None:
        """Make a job; one of that name that is there already was made by a question whose answer was lost.

        Raises:
            NoAnswer: nobody knows whether it was made.
            Refused: the server will not make it.
        """
        from kubernetes.client.exceptions import ApiException

        def make(**options: Any) -> None:
            try:
                self._batch.create_namespaced_job(self.namespace, body, **options)
            except ApiException as error:
                if error.status != 409:
                    raise

        _ask(make)

    def look(self, name: str) -> Seen:
        """Return what has become of a job.

        Raises:
            NoAnswer: nobody knows.
            Refused: this account may not ask.
        """
        try:
            job = _ask(self._batch.read_namespaced_job, name=name, namespace=self.namespace)
        except NotFound:
            return Seen("gone", "the cluster knows it no more: somebody deleted it")
        pods = _ask(self._core.list_namespaced_pod, namespace=self.namespace, label_selector=f"job-name={name}").items
        alive = [pod for pod in pods if pod.status.phase not in ("Failed", "Succeeded")]
        # Pods first: a job counts a pod as failed from the moment that it is told to end, while it still saves.
        if any(pod.metadata.deletion_timestamp for pod in alive):
            said = ["its pod was told to end", *map(_describe_disruption, alive)]
            return Seen("leaving", ": ".join(filter(None, said)), all(map(_is_heard, alive)))
        if len(alive) < len(pods) or job.status.failed or job.status.succeeded or _list_true(job, "Failed"):
            said = [_describe_end(pod) for pod in pods] or [_describe_conditions(job)]
            return Seen("ended", "; ".join(filter(None, said)))
        if any(pod.status.phase in ("Running", "Unknown") for pod in alive):
            return Seen("running", is_heard=all(map(_is_heard, alive)))
        return Seen("waiting", "; ".join(filter(None, map(_describe_waiting, alive))))

    def delete(self, name: str) -> None:
        """Have a job and its pods end: each gets SIGTERM, and after its grace period SIGKILL; none there is fine.

        Raises:
            NoAnswer: nobody knows whether it was heard.
            Refused: this account may not delete.
        """
        try:
            # Without it the API would leave the pods of a deleted job running.
            _ask(
                self._batch.delete_namespaced_job,
                name=name,
                namespace=self.namespace,
                propagation_policy="Foreground",
            )
        except NotFound:
            return

    def list_steps(self) -> Iterator[tuple[str, str, str]]:
        """Yield (name of the job, run id, step) of every step's job whose pod has not ended.

        Raises:
            NoAnswer: nobody knows.
            Refused: this account may not ask.
        """
        selector = f"{RUN_LABEL},{STEP_LABEL}"
        for job in _ask(self._batch.list_namespaced_job, namespace=self.namespace, label_selector=selector).items:
            has_pods = job.status.active or job.status.terminating
            if has_pods or not (job.status.succeeded or job.status.failed):
                labels = job.metadata.labels
                yield job.metadata.name, labels[RUN_LABEL], labels[STEP_LABEL]


def _ask(question: Callable[..., Any], **arguments: Any) -> Any:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return question(_request_timeout=TIMEOUT_S, **arguments)
    except HTTPError as error:
        reason = getattr(error, "reason", None) or error
        raise NoAnswer(f"the API server does not answer ({_shorten(str(reason))})") from error
    except ApiException as error:
        said = f"{error.status} {error.reason}: {_shorten(_read_message(error))}"
        if error.status == 404:
            raise NotFound(said) from error
        if error.status in _PASSING or not 400 <= error.status < 500:
            raise NoAnswer(f"the API server answers {said}") from error
        raise Refused(f"the API server refuses: {said}") from error


def _read_message(error: Any) -> str:
    """Return what the server says in words: the message of its Status object."""
    found = re.search(r'"message"\s*:\s*"((?:[^"\\]|\\.)*)"', str(error.body or ""))
    return found[1] if found else ""


def _shorten(text: str) -> str:
    return f"{' '.join(text.split()):.300}"


def _list_true(item: Any, kind: str) -> list[Any]:
    return [found for found in item.status.conditions or [] if found.type == kind and found.status == "True"]


def _is_heard(pod: Any) -> bool:
    """Say whether a machine tells of its pod.

    Source: Kubernetes' node lifecycle controller (``MarkPodsNotReady``), which says of the pods of a machine without
    heartbeat for 40 to 50 s that they are not ready and leaves their containers as they were; after 300 s more the pod
    is told to end (``DeletionByTaintManager``), and stays so until the machine answers or somebody removes it. Older
    versions said ``Unknown`` or ``NodeLost``.
    """
    if pod.status.phase == "Unknown" or pod.status.reason == "NodeLost":
        return False
    said = {found.type: found.status for found in pod.status.conditions or []}
    return not (said.get("Ready") == "False" and said.get("ContainersReady") == "True")


def _describe_disruption(pod: Any) -> str:
    """Return why the cluster ends a pod: its machine is lost, drained, or wanted by somebody with more rights."""
    return "; ".join(_join(found.reason, found.message) for found in _list_true(pod, "DisruptionTarget"))


def _describe_conditions(job: Any) -> str:
    return "; ".join(_join(found.reason, found.message) for found in job.status.conditions or [])


def _describe_end(pod: Any) -> str:
    """Return why a pod ended: it was evicted, ran out of memory, got a signal."""
    ends = [found.state.terminated for found in pod.status.container_statuses or [] if found.state.terminated]
    codes = [_join(f"{end.reason or 'ended'} with exit code {end.exit_code}", end.message) for end in ends]
    own = _join(pod.status.reason, pod.status.message) or _describe_disruption(pod)
    return f"pod {pod.metadata.name}: {', '.join(filter(None, [own, *codes])) or pod.status.phase}"


def _describe_waiting(pod: Any) -> str:
    """Return what a pod waits for: a machine, an image, a secret that is not there."""
    unmet = [found for found in pod.status.conditions or [] if found.type == "PodScheduled" and found.status == "False"]
    waits = [found.state.waiting for found in pod.status.container_statuses or [] if found.state.waiting]
    return ", ".join(_join(item.reason, item.message) for item in [*unmet, *waits])


def _join(reason: str | None, message: str | None) -> str:
    return _shorten(": ".join(filter(None, [reason, message])))
