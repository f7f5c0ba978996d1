"""The GPU-tagged step as each backend reads its tags, through that backend's own code."""

import pytest

from heimdall_assets.defs.accelerator import GPU_POOL, build_gpu_tags
from heimdall_assets.defs.assets.trained_checkpoint import trained_checkpoint


def resolve_tags() -> dict[str, str]:
    """The tags of the trained checkpoint's step as Dagster hands them to executors."""

    assert trained_checkpoint.op.pool == GPU_POOL
    return dict(trained_checkpoint.op.tags)


def test_kubernetes_gets_a_pod_with_a_gpu():
    """Through dagster-k8s's own construction of the pod, not through our reading of its documents."""
    job = pytest.importorskip("dagster_k8s.job", reason="dagster-k8s is not installed: heimdall-assets[test]")
    config = job.DagsterK8sJobConfig(job_image="heimdall", dagster_home="/dagster")
    made = job.construct_dagster_k8s_job(
        config, ["execute_step"], "step", user_defined_k8s_config=job.get_user_defined_k8s_config(resolve_tags())
    )
    pod = made.to_dict()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert container["resources"]["requests"] == {"cpu": "2"}
    assert pod["node_selector"] == {"nvidia.com/gpu.present": "true"}
    assert [(item["key"], item["operator"], item["effect"]) for item in pod["tolerations"]] == [
        ("nvidia.com/gpu", "Exists", "NoSchedule")
    ]


def test_ray_reads_the_same_tags():
    configs = pytest.importorskip("dagster_ray.configs", reason="dagster-ray is not installed: heimdall-assets[ray]")
    config = configs.RayExecutionConfig.from_tags(resolve_tags())
    assert (config.num_gpus, config.num_cpus) == (1, 2)
    assert build_gpu_tags(num_gpus=4)["dagster-ray/config"]["num_gpus"] == 4
