"""Accelerator: one place that says, for every backend, that a step wants a GPU.

The pool holds the number of such steps at a time; the tags are those that the router executor, dagster-ray and
dagster-k8s read.
"""

from typing import Any

GPU_POOL = "gpu"
ACCELERATOR_TAG = "heimdall/accelerator"


def build_gpu_tags(num_gpus: int = 1, num_cpus: int = 2) -> dict[str, Any]:
    """Return the ``op_tags`` of a step that wants ``num_gpus`` GPUs (one node's worth).

    Source: tag names of dagster-k8s (``dagster-k8s/config``) and dagster-ray (``dagster-ray/config``).
    """
    limits = {"nvidia.com/gpu": str(num_gpus)}
    return {
        ACCELERATOR_TAG: "gpu",
        "dagster-k8s/config": {
            "container_config": {"resources": {"limits": limits, "requests": {"cpu": str(num_cpus)}}},
            "pod_spec_config": {
                "node_selector": {"nvidia.com/gpu.present": "true"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            },
        },
        "dagster-ray/config": {"num_gpus": num_gpus, "num_cpus": num_cpus},
    }
