"""A graph that takes no time, for tests of the executor; its step processes import this module anew.

What its steps do is said by files in the folder ``TOY_FOLDER``.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import dagster as dg

from heimdall_assets.defs.accelerator import GPU_POOL, build_gpu_tags
from heimdall_assets.defs.executor.router import Machines, build_executor
from heimdall_assets.defs.stopping import stop_for_good
from heimdall_assets.places import read_places
from heimdall_assets.specs import AcceleratorSpec

ON_GPU = build_gpu_tags(AcceleratorSpec(num_cpus=1))


def folder() -> Path:
    return Path(os.environ["TOY_FOLDER"])


@dg.asset
def on_cpu() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"pid": os.getpid(), **_tell_place()})


def _tell_place() -> dict[str, Any]:
    return {
        "ray": "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ,
        "pod": os.environ.get("POD_NAME", ""),
        "secret": os.environ.get("TOY_SECRET", "")[::-1],  # itself nowhere
        "shared": os.environ.get("TOY_SHARED", ""),
    }


def use_gpu(name: str) -> dg.MaterializeResult:
    gone = folder() / f"{name}.die"
    if gone.exists():
        gone.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    began_s = time.time()
    (folder() / f"{name}.began").write_text(str(os.getpid()))
    time.sleep(1.0)
    while (folder() / f"{name}.wait").exists():
        time.sleep(0.02)
    facts = {"pid": os.getpid(), "began_s": began_s, "ended_s": time.time()}
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return dg.MaterializeResult(metadata={**facts, **_tell_place(), "gpus": gpus})


@dg.asset(deps=[on_cpu], pool=GPU_POOL, op_tags=ON_GPU, retry_policy=dg.RetryPolicy(max_retries=1))
def first_on_gpu(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    with stop_for_good("the toy keeps nothing", context):
        return use_gpu("first")


@dg.asset(deps=[on_cpu], pool=GPU_POOL, op_tags=ON_GPU)
def second_on_gpu() -> dg.MaterializeResult:
    return use_gpu("second")


@dg.asset(pool=GPU_POOL, op_tags=ON_GPU)
def endless_on_gpu() -> None:
    try:
        (folder() / "endless.began").write_text(str(os.getpid()))
        deadline_s = time.monotonic() + 600.0
        while not (folder() / "endless.stop").exists() and time.monotonic() < deadline_s:
            time.sleep(0.05)
    except BaseException as error:
        time.sleep(1.0)  # saving takes its time
        (folder() / "endless.saved").write_text(type(error).__name__)
        if (folder() / "endless.mute").exists():
            os.kill(os.getpid(), signal.SIGKILL)  # before it tells how it ended
        raise


TOY_ASSETS = [on_cpu, first_on_gpu, second_on_gpu, endless_on_gpu]


def _find_machines() -> Machines:
    """What variables say of the cluster is heeded; Ray is where a run's configuration says."""
    places = read_places()
    return Machines(
        "local",
        ray_address="http://127.0.0.1:9",
        kubernetes=places.kubernetes,
        kubeconfig=places.kubeconfig,
        accelerator=places.accelerator,
        variables={"TOY_SHARED": "told"},
    )


def build_definitions() -> dg.Definitions:
    return dg.Definitions(
        assets=TOY_ASSETS,
        jobs=[
            dg.define_asset_job("toy", selection=["on_cpu", "first_on_gpu", "second_on_gpu"]),
            dg.define_asset_job("alone", selection=["second_on_gpu"]),
            dg.define_asset_job("cpu", selection=["on_cpu"]),
            dg.define_asset_job("first", selection=["first_on_gpu"]),
            dg.define_asset_job("pair", selection=["on_cpu", "second_on_gpu"]),
            dg.define_asset_job("endless", selection=["endless_on_gpu"]),
        ],
        executor=build_executor(_find_machines(), begin=lambda *_: [], follow=lambda _, events: events),
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions()


# Functions of a module: step processes make their job anew from the name.
def build_toy() -> dg.JobDefinition:
    return build_definitions().resolve_job_def("toy")


def build_alone() -> dg.JobDefinition:
    return build_definitions().resolve_job_def("alone")


def build_pair() -> dg.JobDefinition:
    return build_definitions().resolve_job_def("pair")


def build_cpu() -> dg.JobDefinition:
    return build_definitions().resolve_job_def("cpu")


def build_first() -> dg.JobDefinition:
    return build_definitions().resolve_job_def("first")


def build_endless() -> dg.JobDefinition:
    return build_definitions().resolve_job_def("endless")


JOBS = {
    "toy": build_toy,
    "alone": build_alone,
    "cpu": build_cpu,
    "first": build_first,
    "pair": build_pair,
    "endless": build_endless,
}
