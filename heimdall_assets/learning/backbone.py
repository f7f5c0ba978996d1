"""timm ConvNeXt backbones by size, with or without pretrained weights.

Belongs here: names of sizes, building, setting of weights. Does not belong here: what stands on top of a backbone,
where the bytes of pretrained weights come from (``stores.weights_files``).
"""

from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode_safetensors
from timm.models import get_pretrained_cfg
from timm.models.convnext import checkpoint_filter_fn
from torch import Tensor, nn

from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.learning.task import PretrainedWeights
from heimdall_assets.specs import BACKBONES


def find_timm_name(backbone_size: str) -> str:
    """Return timm's name of a backbone size; ``medium`` is timm's ``base``.

    Raises:
        InvalidSetting: no such size.
    """
    if backbone_size not in BACKBONES:
        raise InvalidSetting(f"backbone_size {backbone_size!r:.60}: expected one of {', '.join(BACKBONES)}")
    return f"convnext_{'base' if backbone_size == 'medium' else backbone_size}"


def find_hub_source(architecture: str) -> str | None:
    """Return the hub's repository that timm starts an architecture from, ``@`` and a revision where one is pinned."""
    return getattr(get_pretrained_cfg(architecture), "hf_hub_id", None) or None


def build_backbone(backbone_size: str, pretrained: bool = False, weights: PretrainedWeights | None = None) -> Any:
    """Return a ConvNeXt without classifier: (batch, 3, height, width) to (batch, ``num_features``).

    The blocks' MLPs are linear layers (``conv_mlp=False``), as quantisation of the exported graph needs them; for the
    four smallest sizes timm's own are 1x1 convolutions with the same numbers, so pretrained weights fit either way.

    Raises:
        InvalidSetting: unknown size, ``pretrained`` without ``weights``, or ``weights`` without ``pretrained``.
        InvalidInput: ``weights`` are no safetensors, or those of something else.
    """
    name = find_timm_name(backbone_size)
    backbone = timm.create_model(name, pretrained=False, num_classes=0, conv_mlp=False)
    if pretrained != (weights is not None):
        found = "none" if weights is None else weights.source
        raise InvalidSetting(f"weights of {name}: found {found} with pretrained={pretrained}: expected both or neither")
    if weights is not None:
        _load_weights(backbone, _decode_weights(weights, backbone), weights.source)
    return backbone


def list_backbone_layers(backbone: Any) -> dict[str, nn.Module]:
    """Return the layers of a ConvNeXt by name, from the input on: stem, each stage's downsampling and blocks, norm."""
    layers: dict[str, nn.Module] = {"stem": backbone.stem}
    for number, stage in enumerate(backbone.stages):
        layers[f"stages.{number}.downsample"] = stage.downsample
        for index, block in enumerate(stage.blocks):
            layers[f"stages.{number}.blocks.{index}"] = block
    layers["head.norm"] = backbone.head.norm
    return layers


def _decode_weights(weights: PretrainedWeights, backbone: nn.Module) -> dict[str, Tensor]:
    try:
        tensors = decode_safetensors(weights.data)
    except SafetensorError as error:
        raise InvalidInput(f"{weights.source}: not safetensors, the one format read ({error})") from error
    try:
        renamed: dict[str, Tensor] = checkpoint_filter_fn(tensors, backbone)
        return renamed
    except (KeyError, RuntimeError) as error:
        raise InvalidInput(f"{weights.source}: no ConvNeXt of this size ({error})") from error


def _load_weights(backbone: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    own = backbone.state_dict()
    for key, value in own.items():
        if key not in weights or weights[key].numel() != value.numel():
            found = tuple(weights[key].shape) if key in weights else "nothing"
            raise InvalidInput(f"{source}: {key} is {found}: expected {tuple(value.shape)}")
    with torch.no_grad():
        backbone.load_state_dict({key: weights[key].reshape(value.shape).float() for key, value in own.items()})
