"""K8s: a step as a job of a cluster, whose pods reach the same stores and the same Dagster instance.

Belongs here: how patient to be with a cluster, and what dagster-k8s is told. Does not belong here: what the API server
says (``cluster``), what a step asks of its machine (``accelerator``).
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heimdall_assets.defs.accelerator import SAVING_S, read_asked
from heimdall_assets.defs.executor.cluster import Cluster, NoAnswer, Seen
from heimdall_assets.defs.executor.delegation import (
    CheckStepHealthResult,
    DagsterEvent,
    EngineEventData,
    StepHandler,
    StepHandlerContext,
    name_step,
)
from heimdall_assets.defs.stopping import announce_stop
from heimdall_assets.errors import InvalidSetting, MissingDependency, Refused
from heimdall_assets.specs import AcceleratorSpec, KubernetesSpec


@dataclass
class _Job:
    """One attempt of a step."""

    name: str
    began_s: float
    body: Any = None
    """What is still to be made of it; None: the cluster has it."""
    silent_since_s: float | None = None
    """Since when the API server is away."""
    unheard_since_s: float | None = None
    """Since when nobody hears the pod's machine."""
    leaving_since_s: float | None = None
    is_lost: bool = False
    has_ended: bool = False
    told: str = ""


class KubernetesJobHandler(StepHandler):
    """dagster-k8s's handler, which moreover bears an API server that is away and notices whatever becomes of a pod.

    Args:
        handler: makes the manifest of a step; what it would create it hands to ``keep`` of this one.
        cluster: where the jobs run.
        settings: how long the API server may be away, and a pod's machine.
    """

    def __init__(self, handler: Any, cluster: Cluster, settings: KubernetesSpec) -> None:
        super().__init__()
        self._handler, self._cluster = handler, cluster
        self._patience_s, self._machine_patience_s = settings.patience_s, settings.machine_patience_s
        self._jobs: dict[str, _Job] = {}
        handler._api_client.keep = self._keep

    @property
    def name(self) -> str:
        return "KubernetesJobHandler"

    def _keep(self, body: Any) -> None:
        name = body.metadata.name
        self._jobs[name] = _Job(name, time.monotonic(), body)

    def _find(self, context: StepHandlerContext) -> _Job:
        name = str(self._handler._get_k8s_step_job_name(context))
        return self._jobs.setdefault(name, _Job(name, time.monotonic()))

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        yield from self._handler.launch_step(step_handler_context)
        self.check_step_health(step_handler_context)  # makes the job, now or at a later look

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        job = self._find(step_handler_context)
        try:
            if job.body is not None:
                self._make(step_handler_context, job)
            seen = self._cluster.look(job.name)
        except NoAnswer as error:
            return self._bear(step_handler_context, job, str(error))
        except Refused as error:
            return self._lose(job, str(error))
        if job.silent_since_s is not None:
            _tell(step_handler_context, f"Kubernetes job {job.name}: the API server answers again")
            job.silent_since_s = None
        return self._judge(step_handler_context, job, seen)

    def _make(self, context: StepHandlerContext, job: _Job) -> None:
        """Make a job once no other one does its work: such as outlived their runs, and attempts given up unheard."""
        step, run_id = name_step(context), context.dagster_run.run_id
        for name, other_id, other_step in list(self._cluster.list_steps()):
            run = context.instance.get_run_by_id(other_id)
            is_left = run is not None and run.is_finished
            is_earlier = (other_id, other_step) == (run_id, step) and name != job.name
            if (is_left or is_earlier) and not self._is_lost(name):
                _tell(context, f"Kubernetes job {name}: stopped, for its run or its attempt has ended")
                if why := self._stop(name):
                    _tell(context, self._advise(name, why))
        self._cluster.create(job.body)
        job.body = None

    def _is_lost(self, name: str) -> bool:
        """Say whether a job was given up already: a silent machine has heard nothing, and nobody waits for it twice."""
        return name in self._jobs and self._jobs[name].is_lost

    def _bear(self, context: StepHandlerContext, job: _Job, error: str) -> CheckStepHealthResult:
        now_s = time.monotonic()
        if job.silent_since_s is None:
            job.silent_since_s = now_s
            _tell(context, f"Kubernetes job {job.name}: {error}; asked again for {self._patience_s:g} s")
        if now_s - job.silent_since_s < self._patience_s:
            return CheckStepHealthResult.healthy()
        return self._lose(job, f"{error}, for {self._patience_s:g} s by now")

    def _judge(self, context: StepHandlerContext, job: _Job, seen: Seen) -> CheckStepHealthResult:
        now_s = time.monotonic()
        job.leaving_since_s = (job.leaving_since_s or now_s) if seen.state == "leaving" else None
        if seen.is_heard != (job.unheard_since_s is None):
            job.unheard_since_s = None if seen.is_heard else now_s
            said = "is heard again" if seen.is_heard else f"is silent; waited for {self._machine_patience_s:g} s"
            _tell(context, f"Kubernetes job {job.name}: the machine of its pod {said}")
        if job.unheard_since_s is not None and now_s - job.unheard_since_s > self._machine_patience_s:
            said = f", and {seen.reason}" if seen.reason else ""
            return self._give_up(job, f"the machine of its pod was silent for {self._machine_patience_s:g} s{said}")
        if job.leaving_since_s is not None and now_s - job.leaving_since_s > SAVING_S + self._machine_patience_s:
            return self._give_up(job, f"{seen.reason}; it never did")
        if seen.state == "waiting":
            asked = read_asked(context.step_tags[name_step(context)], AcceleratorSpec()) or AcceleratorSpec()
            if now_s - job.began_s > asked.wait_limit_s:
                self._stop(job.name)
                return self._lose(
                    job, f"did not start within {asked.wait_limit_s:g} s: {seen.reason or 'it has no pod'}"
                )
            if seen.reason != job.told:
                job.told = seen.reason
                _tell(context, f"Kubernetes job {job.name} waits: {seen.reason}")
        elif seen.state in ("ended", "gone"):
            if job.has_ended:
                return self._lose(job, f"{seen.reason}, without telling how the step ended")
            job.has_ended = True  # its last event may be written and not yet read: judged at the next look
        return CheckStepHealthResult.healthy()

    def _give_up(self, job: _Job, reason: str) -> CheckStepHealthResult:
        """Lose a job whose machine may still work on it; it is told to end, should it ever be heard again."""
        job.is_lost = True
        with suppress(NoAnswer, Refused):
            self._cluster.delete(job.name)
        return self._lose(job, f"{reason}: lost")

    @staticmethod
    def _lose(job: _Job, reason: str) -> CheckStepHealthResult:
        return CheckStepHealthResult.unhealthy(f"Kubernetes job {job.name}: {reason}")

    def _stop(self, name: str) -> str | None:
        """Stop a job and wait until its pods have ended; return why that could not be seen, or nothing."""
        deadline_s, why = time.monotonic() + SAVING_S + 10.0, "its pods still run"
        is_told = False
        while time.monotonic() < deadline_s:
            try:
                if not is_told:
                    self._cluster.delete(name)
                    is_told = True
                if self._cluster.look(name).state == "gone":
                    return None
                why = "its pods still run"
            except NoAnswer as error:
                why = str(error)
            except Refused as error:
                return str(error)
            time.sleep(0.2)
        return why

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        job = self._find(step_handler_context)
        yield _tell(step_handler_context, f"Kubernetes job {job.name}: stopped; its pod has {SAVING_S} s to save")
        job.body = None
        run_id = step_handler_context.dagster_run.run_id
        announce_stop(step_handler_context.instance, run_id, name_step(step_handler_context))
        why = self._stop(job.name)
        if why is not None:
            yield _tell(step_handler_context, self._advise(job.name, why))

    def _advise(self, name: str, why: str) -> str:
        by_hand = f"kubectl delete job {name} --namespace {self._cluster.namespace}"
        return f"Kubernetes job {name}: {why}; by hand: {by_hand}"


def _tell(context: StepHandlerContext, line: str) -> DagsterEvent:
    return DagsterEvent.engine_event(context.get_step_context(name_step(context)), line, EngineEventData())


def build_k8s_handler(
    settings: KubernetesSpec, kubeconfig: Path | None, variables: Mapping[str, str]
) -> KubernetesJobHandler:
    """Return the handler of a cluster.

    Args:
        settings: image, namespace and the like.
        kubeconfig: what opens the cluster; None: the pod's own service account, or else ``~/.kube/config``.
        variables: set in the environment of each pod; nothing secret, for manifests show it.

    Raises:
        MissingDependency: dagster-k8s is not installed.
        InvalidSetting: no image is named, or nothing opens a cluster.
    """
    try:
        import dagster_k8s.executor
        import kubernetes
        from dagster_k8s.client import DagsterKubernetesClient
        from dagster_k8s.container_context import K8sContainerContext
        from dagster_k8s.job import DagsterK8sJobConfig, get_user_defined_k8s_config
    except ImportError as error:
        raise MissingDependency("executor k8s: found no dagster-k8s; install heimdall-assets[k8s]") from error
    if settings.image is None:
        raise InvalidSetting("HEIMDALL_KUBERNETES.image: found none, expected the image that pods run")

    class Jobs(DagsterKubernetesClient):
        """Hands over what would be created: dagster-k8s's own attempts would keep a run deaf for half a minute."""

        keep: Any

        def __init__(self, batch: Any, core: Any) -> None:
            super().__init__(batch, core, None, time.sleep, time.time)  # type: ignore[no-untyped-call]

        def create_namespaced_job_with_retries(
            self, body: Any, namespace: str, wait_time_between_attempts: float = 0.0
        ) -> None:
            (container,) = body.spec.template.spec.containers
            # Dagster may name the interpreter of this machine, which the image does not have.
            container.args = ["dagster", *container.args[container.args.index("api") :]]
            self.keep(body)

    class PodContext(K8sContainerContext):
        """Does without what a run launcher of Kubernetes would say, for runs need not be pods."""

        def get_k8s_job_config(self, job_image: str | None, run_launcher: Any) -> Any:
            return DagsterK8sJobConfig(job_image=job_image, dagster_home=None)

    class PodHandler(dagster_k8s.executor.K8sStepHandler):
        def _get_container_context(self, step_handler_context: StepHandlerContext) -> Any:
            tags = step_handler_context.step_tags[name_step(step_handler_context)]
            asked = K8sContainerContext(run_k8s_config=get_user_defined_k8s_config(tags))
            merged = self._executor_container_context.merge(asked)
            return PodContext(namespace=merged.namespace, run_k8s_config=merged.run_k8s_config)

    def build(in_cluster: bool) -> Any:
        return PodHandler(
            image=settings.image,
            container_context=K8sContainerContext(**_describe_pods(settings, variables)),
            load_incluster_config=in_cluster,
            kubeconfig_file=None if kubeconfig is None else str(kubeconfig),
        )

    handler = None
    for in_cluster in (True, False) if kubeconfig is None else (False,):
        try:
            handler = build(in_cluster)
            break
        except kubernetes.config.ConfigException as error:
            line = " ".join(str(error).split())
    if handler is None:
        raise InvalidSetting(f"KUBECONFIG: found nothing that opens a cluster ({line:.200}), expected its file")
    made = kubernetes.client.Configuration.get_default_copy()
    made.retries = 0  # asked again at the next look, not within one
    client = kubernetes.client.ApiClient(made)
    batch, core = kubernetes.client.BatchV1Api(client), kubernetes.client.CoreV1Api(client)
    handler._api_client = Jobs(batch, core)
    return KubernetesJobHandler(handler, Cluster(batch, core, settings.namespace), settings)


def _describe_pods(settings: KubernetesSpec, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return what every pod has, in dagster-k8s's words."""
    claims = [claim.partition(":")[::2] for claim in settings.claims]
    names = [f"claim-{index}" for index in range(len(claims))]
    return {
        "namespace": settings.namespace,
        "image_pull_policy": settings.image_pull_policy,
        "image_pull_secrets": [{"name": name} for name in settings.image_pull_secrets],
        "service_account_name": settings.service_account,
        "env_config_maps": settings.env_config_maps,
        "env_secrets": settings.env_secrets,
        "env_vars": [f"{name}={value}" for name, value in variables.items()],
        "volumes": [
            {"name": name, "persistent_volume_claim": {"claim_name": claim}}
            for name, (claim, _) in zip(names, claims, strict=True)
        ],
        "volume_mounts": [
            {"name": name, "mount_path": folder} for name, (_, folder) in zip(names, claims, strict=True)
        ],
    }
