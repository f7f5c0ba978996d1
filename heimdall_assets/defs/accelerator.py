"""Accelerator: one place that says, for every backend, that a step wants a GPU, and what it asks of that machine.

The pool holds the number of such steps at a time; the tags are those that the router executor, dagster-ray and
dagster-k8s read. Tags on an op are fixed when definitions load: the router makes them anew for each step from what the
step says, ``HEIMDALL_ACCELERATOR`` and the configuration of a run's executor, the last one winning field by field.
Does not belong here: running steps (``executor``).
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.profiles.schema import Needs
from heimdall_assets.specs import AcceleratorSpec, KubernetesSpec, describe_invalid

GPU_POOL = "gpu"
ACCELERATOR_TAG = "heimdall/accelerator"
ASKED_TAG = "heimdall/asked"
"""What the step itself asks for, as JSON of ``AcceleratorSpec``."""

SAVING_S = 60
"""An interrupted step may take this long to save what it has; then its processes are killed."""

KEPT = {
    "in_process": frozenset[str](),
    "local": frozenset({"gpu_type", "num_gpus", "time_limit_s"}),
    "ray": frozenset(AcceleratorSpec.model_fields) - {"spot"},
    "k8s": frozenset(AcceleratorSpec.model_fields),
}
"""Backend -> what it can keep of what is asked; the rest is refused, for it would be a wish that nobody heard."""

_GPU_RESOURCE = "nvidia.com/gpu"


def build_gpu_tags(
    asked: AcceleratorSpec | None = None, kubernetes: KubernetesSpec | None = None
) -> dict[str, dict[str, Any] | str]:
    """Return the ``op_tags`` of a step that wants a GPU.

    Source: tag names of dagster-k8s (``dagster-k8s/config``) and dagster-ray (``dagster-ray/config``).

    Args:
        asked: of the machine; None: one GPU of any kind.
        kubernetes: how nodes are labelled; None: as NVIDIA's own operator does.
    """
    asked = AcceleratorSpec() if asked is None else asked
    return {
        ACCELERATOR_TAG: "gpu",
        ASKED_TAG: asked.model_dump(mode="json", exclude_unset=True),
        "dagster-k8s/config": _build_pod(asked, KubernetesSpec() if kubernetes is None else kubernetes),
        "dagster-ray/config": _build_ray(asked),
    }


def _build_pod(asked: AcceleratorSpec, kubernetes: KubernetesSpec) -> dict[str, Any]:
    requests, selector, tolerations = {"cpu": str(asked.num_cpus)}, dict[str, str](), list[dict[str, str]]()
    limits = dict[str, str]()
    if asked.memory_gib is not None:
        requests["memory"] = f"{round(asked.memory_gib * 1024)}Mi"
    if asked.num_gpus:
        limits[_GPU_RESOURCE] = str(asked.num_gpus)
        tolerations.append({"key": _GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"})
    if asked.gpu_type is not None:
        selector[kubernetes.gpu_label] = asked.gpu_type
    if asked.spot:
        label, _, value = kubernetes.spot_label.partition("=")
        selector[label] = value
        tolerations.append({"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    pod = {
        "node_selector": selector,
        "tolerations": tolerations,
        "termination_grace_period_seconds": SAVING_S,
    }
    # The router stops a step in time and says so; this ends one whose run is gone.
    deadline = {} if asked.time_limit_s is None else {"active_deadline_seconds": round(asked.time_limit_s) + SAVING_S}
    return {
        "container_config": {"resources": {"limits": limits, "requests": requests}},
        "pod_spec_config": pod,
        "job_spec_config": deadline,
    }


def _build_ray(asked: AcceleratorSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"num_gpus": asked.num_gpus, "num_cpus": asked.num_cpus}
    if asked.memory_gib is not None:
        found["memory"] = round(asked.memory_gib * 2**30)
    if asked.gpu_type is not None:
        # Source: Ray's documentation on accelerator types: each node has one unit of its type's resource.
        found["resources"] = {f"accelerator_type:{asked.gpu_type}": 0.001}
    return found


def read_asked(tags: Mapping[str, str], said: AcceleratorSpec) -> AcceleratorSpec | None:
    """Return what a step asks of its machine; what is set in ``said`` wins. None: it wants no GPU."""
    if tags.get(ACCELERATOR_TAG) != "gpu":
        return None
    return ask_for(AcceleratorSpec.model_validate_json(tags.get(ASKED_TAG, "{}")), said.model_dump(exclude_unset=True))


def ask_for(default: AcceleratorSpec, said: Mapping[str, Any]) -> AcceleratorSpec:
    """Return what is asked where ``said`` wins over ``default``, field by field.

    Raises:
        InvalidSetting: a value is out of its bounds, or two contradict each other.
    """
    try:
        return AcceleratorSpec.model_validate({**default.model_dump(exclude_unset=True), **said})
    except ValidationError as error:
        raise InvalidSetting(describe_invalid("AcceleratorSpec", error)) from None


def ask_machine(needs: Needs, own: dict[str, Any], backend: str) -> list[AcceleratorSpec]:
    """Return what a run asks of the machine that trains, where a backend looks for one; none: nothing is asked.

    Args:
        needs: of the training.
        own: fields of ``AcceleratorSpec`` that somebody chose, which win, and which no backend drops in silence.
        backend: where steps run.
    """
    looked_for: dict[str, Any] = {}
    if KEPT[backend] >= {"num_cpus", "memory_gib"}:  # of its own machine a run is told before it starts
        looked_for = {"num_cpus": needs.cpus, "memory_gib": needs.memory_gib}
        looked_for |= {"num_gpus": needs.gpus} if needs.gpus else {}
    fields = looked_for | own
    return [AcceleratorSpec(**fields)] if fields else []


def encode_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return ``op_tags`` as Dagster hands them to executors: whatever is no text as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in tags.items()}


def refuse_unkept(backend: str, said: AcceleratorSpec) -> None:
    """Refuse what a backend would not keep.

    Raises:
        InvalidSetting: a field is set that ``backend`` can do nothing about.
    """
    unkept = sorted(said.model_fields_set - KEPT[backend])
    if unkept:
        able = " or ".join(name for name, kept in KEPT.items() if kept >= said.model_fields_set)
        raise InvalidSetting(
            f"executor {backend}: found AcceleratorSpec.{unkept[0]}, which it cannot keep; expected executor {able}"
        )
