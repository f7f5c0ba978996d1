"""A finished training as its run is told of it: weights, curve, and under which environment it was computed."""

from collections.abc import Mapping
from typing import Any

from heimdall_assets.manifests import Manifest, compute_json_digest
from heimdall_assets.pipeline.stages.trained_checkpoint import read_training
from heimdall_assets.stores.computing import ENVIRONMENT, read_facts
from heimdall_assets.stores.experiment_entries import Entries
from heimdall_assets.stores.machine import name_cuda
from heimdall_assets.stores.objects.interface import ObjectStore

COMMIT_TAG = "mlflow.source.git.commit"
"""MLflow's own name of it: its page shows a column of that."""

NAMED_PACKAGES = ("torch", "lightning", "onnx", "onnxruntime", "numpy", "timm")

_PACKAGES_FILE = "environment/packages.txt"


def describe_checkpoint(objects: ObjectStore, checkpoint: Manifest) -> Entries:
    """Return what a checkpoint's run is told once it is stored, by the process that trained it.

    Wall time is that of the attempt that ended it, as its facts say.
    """
    from heimdall_assets.evaluation.figures.loss_curve import plot_losses

    history, facts = read_training(objects, checkpoint)
    files = {f"checkpoint/{name}": objects.read_bytes(part.digest) for name, part in checkpoint.artifacts.items()}
    files["plots/losses.svg"] = plot_losses(history, facts)
    entries = describe_environment(read_facts(objects, checkpoint.digest) or {})
    named = ("initial_val_loss", "best_val_loss", "best_epoch", "num_epochs", "num_weights")
    figures = {name: float(facts[name]) for name in named if facts.get(name) is not None}
    return Entries(tags=entries.tags, metrics={**entries.metrics, **figures}, files={**files, **entries.files})


def describe_environment(facts: Mapping[str, Any]) -> Entries:
    """Return the facts of a computation as tags to find it by; empty: nobody kept any.

    Whoever had it computed stands in them by pseudonym, and so here: a name in MLflow would outlive
    ``heimdall erase person``, which knows of one table of names.
    """
    if not facts:
        return Entries()
    environment = facts[ENVIRONMENT]
    packages = [str(package) for package in environment["packages"]]
    versions = dict(package.split("==", 1) for package in packages if "==" in package)
    told = {
        "heimdall.python": environment["python"],
        "heimdall.system": environment["system"],
        "heimdall.processor": environment["processor"],
        "heimdall.gpu": environment["accelerator"],
        "heimdall.cuda": name_cuda(),
        "heimdall.container": environment["container"],
        "heimdall.lock_sha256": environment["lock_sha256"],
        "heimdall.packages_sha256": compute_json_digest(packages),
        "heimdall.code_sha256": environment["code_sha256"],
        "heimdall.git_dirty": environment["git_dirty"],
        COMMIT_TAG: environment["git_sha"],
        "mlflow.user": facts["started_by"],
        "heimdall.reason": facts["reason"],
        **{f"heimdall.version.{name}": versions.get(name) for name in NAMED_PACKAGES},
    }
    return Entries(
        tags={name: str(value) for name, value in told.items() if value is not None},
        metrics={"wall_time_s": float(facts["duration_s"])},
        files={_PACKAGES_FILE: ("\n".join(packages) + "\n").encode()},
    )
