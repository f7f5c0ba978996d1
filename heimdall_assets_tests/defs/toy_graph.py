"""A graph that takes no time, for tests of the executor; its step processes import this module anew.

What its steps do is said by files in the folder ``TOY_FOLDER``.
"""

import os
import signal
import time
from pathlib import Path

import dagster as dg

from heimdall_assets.defs.accelerator import GPU_POOL, build_gpu_tags
from heimdall_assets.defs.executor.router import build_executor


def folder() -> Path:
    return Path(os.environ["TOY_FOLDER"])


@dg.asset
def on_cpu() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"pid": os.getpid(), "ray": "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ})


def use_gpu(name: str) -> dg.MaterializeResult:
    gone = folder() / f"{name}.die"
    if gone.exists():
        gone.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    began_s = time.time()
    time.sleep(1.0)
    facts = {"pid": os.getpid(), "began_s": began_s, "ended_s": time.time()}
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return dg.MaterializeResult(metadata={**facts, "ray": "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ, "gpus": gpus})


@dg.asset(deps=[on_cpu], pool=GPU_POOL, op_tags=build_gpu_tags(num_cpus=1), retry_policy=dg.RetryPolicy(max_retries=1))
def first_on_gpu() -> dg.MaterializeResult:
    return use_gpu("first")


@dg.asset(deps=[on_cpu], pool=GPU_POOL, op_tags=build_gpu_tags(num_cpus=1))
def second_on_gpu() -> dg.MaterializeResult:
    return use_gpu("second")


@dg.asset(pool=GPU_POOL, op_tags=build_gpu_tags(num_cpus=1))
def endless_on_gpu() -> None:
    try:
        (folder() / "endless.began").write_text(str(os.getpid()))
        time.sleep(600)
    except BaseException as error:
        time.sleep(1.0)  # saving takes its time
        (folder() / "endless.saved").write_text(type(error).__name__)
        raise


TOY_ASSETS = [on_cpu, first_on_gpu, second_on_gpu, endless_on_gpu]


def build_definitions() -> dg.Definitions:
    return dg.Definitions(
        assets=TOY_ASSETS,
        jobs=[
            dg.define_asset_job("toy", selection=["on_cpu", "first_on_gpu", "second_on_gpu"]),
            dg.define_asset_job("alone", selection=["second_on_gpu"]),
            dg.define_asset_job("pair", selection=["on_cpu", "second_on_gpu"]),
            dg.define_asset_job("endless", selection=["endless_on_gpu"]),
        ],
        executor=build_executor("local", ray_address="http://127.0.0.1:9", variables={}, begin=lambda *_: []),
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


def build_endless() -> dg.JobDefinition:
    return build_definitions().resolve_job_def("endless")


JOBS = {"toy": build_toy, "alone": build_alone, "pair": build_pair, "endless": build_endless}
