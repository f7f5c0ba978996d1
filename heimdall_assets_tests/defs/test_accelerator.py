"""The GPU-tagged step as each backend reads its tags, through that backend's own code."""

from typing import Any

import pytest
from pydantic import ValidationError

from heimdall_assets.defs.accelerator import GPU_POOL, KEPT, build_gpu_tags, encode_tags, read_asked
from heimdall_assets.defs.assets.trained_checkpoint import trained_checkpoint
from heimdall_assets.specs import AcceleratorSpec, KubernetesSpec
from heimdall_assets.variables import EXECUTORS

NOTHING = AcceleratorSpec()
WHOLE = AcceleratorSpec(gpu_type="NVIDIA-H200", num_gpus=4, num_cpus=16, memory_gib=1.5, spot=True, time_limit_s=3600)


def resolve_tags() -> dict[str, str]:
    """The tags of the trained checkpoint's step as Dagster hands them to executors."""

    assert trained_checkpoint.op.pool == GPU_POOL
    return dict(trained_checkpoint.op.tags)


def build_job(tags: dict[str, str], **options: Any) -> dict[str, Any]:
    """The manifest of a step, through dagster-k8s's own construction, as Kubernetes would be handed it."""
    job = pytest.importorskip("dagster_k8s.job", reason="dagster-k8s is not installed: heimdall-assets[test]")
    from kubernetes.client import ApiClient

    config = job.DagsterK8sJobConfig(job_image="heimdall", dagster_home="/dagster", **options)
    made = job.construct_dagster_k8s_job(
        config, ["execute_step"], "step", user_defined_k8s_config=job.get_user_defined_k8s_config(tags)
    )
    return ApiClient().sanitize_for_serialization(made)


def test_kubernetes_gets_a_pod_with_a_gpu():
    pod = build_job(resolve_tags())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "2"}}
    assert pod["nodeSelector"] == {}
    assert pod["terminationGracePeriodSeconds"] == 60
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_what_is_asked_of_a_machine_becomes_a_pod():
    labels = KubernetesSpec(gpu_label="example.com/gpu", spot_label="example.com/capacity=spot")
    spec = build_job(encode_tags(build_gpu_tags(WHOLE, labels)))["spec"]
    pod = spec["template"]["spec"]
    requests = {"cpu": "16", "memory": "1536Mi"}
    assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "4"}, "requests": requests}
    assert pod["nodeSelector"] == {"example.com/gpu": "NVIDIA-H200", "example.com/capacity": "spot"}
    spot = {"key": "example.com/capacity", "operator": "Equal", "value": "spot", "effect": "NoSchedule"}
    assert spot in pod["tolerations"]
    assert spec["activeDeadlineSeconds"] == 3660  # the router stops it in time, this one where the run is gone


def test_a_step_without_a_gpu_is_bound_to_no_such_node():
    pod = build_job(encode_tags(build_gpu_tags(AcceleratorSpec(num_gpus=0))))["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {}
    assert pod["tolerations"] == []


@pytest.mark.parametrize("asked", [NOTHING, WHOLE, AcceleratorSpec(num_gpus=0)], ids=str)
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_manifests_are_what_kubernetes_takes(asked: AcceleratorSpec, version: str):
    validate = pytest.importorskip("kubernetes_validate", reason="is not installed: heimdall-assets[test]")
    manifest = build_job(encode_tags(build_gpu_tags(asked)), env_secrets=["heimdall"], env_vars=["A=b"])
    validate.validate(manifest, version, strict=True)
    manifest["spec"]["template"]["spec"]["nodeSelektor"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(manifest, version, strict=True)


def test_ray_reads_the_same_tags():
    configs = pytest.importorskip("dagster_ray.configs", reason="dagster-ray is not installed: heimdall-assets[ray]")
    config = configs.RayExecutionConfig.from_tags(resolve_tags())
    assert (config.num_gpus, config.num_cpus, config.memory, config.resources) == (1, 2, None, None)
    config = configs.RayExecutionConfig.from_tags(
        encode_tags(build_gpu_tags(AcceleratorSpec(gpu_type="H200", num_gpus=4, memory_gib=2)))
    )
    assert (config.num_gpus, config.memory, config.resources) == (4, 2**31, {"accelerator_type:H200": 0.001})


def test_a_run_wins_over_a_step_field_by_field():
    tags = encode_tags(build_gpu_tags(AcceleratorSpec(num_cpus=1, num_gpus=2)))
    asked = read_asked(tags, AcceleratorSpec(num_gpus=4, gpu_type="T4"))
    assert asked == AcceleratorSpec(num_cpus=1, num_gpus=4, gpu_type="T4")
    assert read_asked(tags, NOTHING) == AcceleratorSpec(num_cpus=1, num_gpus=2)
    assert read_asked({}, AcceleratorSpec(num_gpus=4)) is None  # a step that wants no GPU is asked nothing


def test_every_backend_says_what_it_keeps():
    assert tuple(KEPT) == EXECUTORS


@pytest.mark.parametrize("claims", [["a"], ["a:b"], [":/b"]])
def test_a_claim_has_a_name_and_a_folder(claims: list[str]):
    with pytest.raises(ValidationError, match="expected NAME:/FOLDER"):
        KubernetesSpec(claims=claims)


def test_a_spot_label_has_a_value():
    with pytest.raises(ValidationError, match="spot_label"):
        KubernetesSpec(spot_label="spot")
