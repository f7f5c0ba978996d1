"""Pretrained weights as an input of a training: which bytes a model spec asks for, and their part in the cache key."""

from pathlib import Path

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.learning.task import PretrainedWeights
from heimdall_assets.specs import ModelSpec
from heimdall_assets.stores.weights_files import read_hub_weights, read_weights_file


def read_pretrained(model: ModelSpec, fetch: bool = True) -> PretrainedWeights | None:
    """Return the weights that the backbone of ``model`` starts from; None: it starts from random ones, or has none.

    Args:
        model: whose ``pretrained`` and ``weights_file`` are followed.
        fetch: ask timm's hub where the spec names no file and they were not fetched yet.

    Raises:
        InvalidSetting: ``weights_file`` without ``pretrained``.
        MissingDependency: the file cannot be read, or the hub's weights are out of reach.
    """
    if model.weights_file is not None and not model.pretrained:
        raise InvalidSetting(
            f"weights_file {model.weights_file!r} with pretrained=False: expected pretrained=True to use it"
        )
    if not model.pretrained or not (model.use_spectrograms or model.kind == "single_receiver"):
        return None
    if model.weights_file is not None:
        return PretrainedWeights(f"weights_file {model.weights_file!r}", read_weights_file(Path(model.weights_file)))
    from heimdall_assets.learning.backbone import find_hub_source, find_timm_name  # loads torch

    architecture = find_timm_name(model.backbone_size)
    source = find_hub_source(architecture)
    return PretrainedWeights(f"pretrained weights of {architecture}", read_hub_weights(architecture, source, fetch))


def state_content(weights: PretrainedWeights | None) -> dict[str, str]:
    """Return what the weights add to a result's cache key: their SHA-256, so that other bytes give another result."""
    return {} if weights is None else {"pretrained_weights": weights.digest}
