"""Ray: a step as a job of a Ray cluster, whose machines reach the same stores and the same Dagster instance."""

import shlex
import time
from collections.abc import Iterator, Mapping
from typing import Any

from heimdall_assets.defs.accelerator import SAVING_S, read_asked
from heimdall_assets.defs.executor.delegation import (
    CheckStepHealthResult,
    DagsterEvent,
    StepHandler,
    StepHandlerContext,
    name_step,
)
from heimdall_assets.defs.executor.local import build_command
from heimdall_assets.errors import InvalidSetting, MissingDependency
from heimdall_assets.specs import AcceleratorSpec


class RayJobHandler(StepHandler):
    """dagster-ray's handler, which moreover waits for a cancelled job and notices one that somebody stopped."""

    def __init__(self, handler: Any) -> None:
        super().__init__()
        self._handler = handler
        self._seen_ended: set[str] = set()
        self._pending_since_s: dict[str, float] = {}

    @property
    def name(self) -> str:
        return "RayJobHandler"

    def _name_job(self, context: StepHandlerContext) -> str:
        return str(self._handler._get_ray_job_submission_id(context))

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        self._stop_left_jobs(step_handler_context)
        return iter(self._handler.launch_step(step_handler_context))

    def _stop_left_jobs(self, context: StepHandlerContext) -> None:
        """Stop jobs of runs that ended: a job outlives its killed run, and would train on beside the next one's."""
        for job in self._handler.client.list_jobs():
            run_id = (job.metadata or {}).get("dagster/run-id")
            if run_id is None or job.status.is_terminal():
                continue
            run = context.instance.get_run_by_id(run_id)
            if run is not None and run.is_finished:
                self._stop(job.submission_id)

    def _stop(self, job: str) -> None:
        self._handler.client.stop_job(job)
        deadline_s = time.monotonic() + SAVING_S
        while time.monotonic() < deadline_s and not self._handler.client.get_job_status(job).is_terminal():
            time.sleep(0.2)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        health: CheckStepHealthResult = self._handler.check_step_health(step_handler_context)
        if not health.is_healthy:
            return health
        job = self._name_job(step_handler_context)
        status = self._handler.client.get_job_status(job)
        if status == "PENDING":
            return self._await_machine(step_handler_context, job)
        if not status.is_terminal():
            return health
        if job not in self._seen_ended:
            self._seen_ended.add(job)
            return health
        return CheckStepHealthResult.unhealthy(f"Ray job {job} is {status} without telling how the step ended")

    def _await_machine(self, context: StepHandlerContext, job: str) -> CheckStepHealthResult:
        """Judge a job that no machine took yet: Ray itself would wait for a GPU that nobody has, and tell nobody."""
        now_s = time.monotonic()
        waited_s = now_s - self._pending_since_s.setdefault(job, now_s)
        asked = read_asked(context.step_tags[name_step(context)], AcceleratorSpec()) or AcceleratorSpec()
        if waited_s <= asked.wait_limit_s:
            return CheckStepHealthResult.healthy()
        self._stop(job)
        found = self._handler.client.get_job_info(job).message or "no machine took it"
        line = f"did not start within {asked.wait_limit_s:g} s ({' '.join(found.split()):.200})"
        return CheckStepHealthResult.unhealthy(f"Ray job {job}: {line}")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        yield from self._handler.terminate_step(step_handler_context)
        self._stop(self._name_job(step_handler_context))


def build_ray_handler(address: str, variables: Mapping[str, str], gpu_type: str | None = None) -> RayJobHandler:
    """Return the handler of the cluster whose dashboard is at ``address``; RAY_AUTH_TOKEN opens it.

    A cancelled training needs longer than Ray's 3 s to save: the cluster sets RAY_JOB_STOP_WAIT_TIME_S higher.

    Args:
        address: of the dashboard.
        variables: set in the environment of each job, and to be read in the dashboard by whoever may open it.
        gpu_type: that jobs will ask for; None: any.

    Raises:
        MissingDependency: dagster-ray is not installed.
        InvalidSetting: no Ray answers there, or it knows no such type of GPU.
    """
    try:
        from dagster_ray.core.executor import RayStepHandler
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient
        from ray.util.accelerators import accelerators
    except ImportError as error:
        raise MissingDependency("executor ray: found no dagster-ray; install heimdall-assets[ray]") from error

    kinds = {value for name, value in vars(accelerators).items() if name.isupper() and isinstance(value, str)}
    if gpu_type is not None and gpu_type not in kinds:
        known = ", ".join(sorted(kinds))
        raise InvalidSetting(f"AcceleratorSpec.gpu_type: found {gpu_type!r:.60}, expected one that Ray knows: {known}")

    class StepJobs(JobSubmissionClient):  # type: ignore[misc, unused-ignore]  # Any where Ray is not installed
        """Starts steps with this interpreter, as on this machine: a job's shell finds no ``dagster`` in its PATH."""

        def submit_job(self, *, entrypoint: str, **options: Any) -> str:
            return str(super().submit_job(entrypoint=shlex.join(build_command(shlex.split(entrypoint))), **options))

    try:
        client = StepJobs(address)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        line = " ".join(str(error).split())
        raise InvalidSetting(f"HEIMDALL_RAY_ADDRESS {address}: no Ray that answers ({line:.200})") from error
    # num_gpus and num_cpus stay unset here: the executor's would win over those of the step's tag.
    handler = RayStepHandler(
        client=client,
        env_vars=[f"{name}={value}" for name, value in variables.items()],
        runtime_env=None,
        num_cpus=None,
        num_gpus=None,
        memory=None,
        resources=None,
    )
    return RayJobHandler(handler)
