"""The specified network: one receiver's spectrogram to a position and its uncertainty.

Belongs here: ``LocalizationNet``. Does not belong here: what its normalised outputs mean on the globe
(``receiver_model.task``). Shapes: B batch, H mel bands, W frames.
"""

import math

import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]  # public, but not in its __all__

from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.learning.backbone import build_backbone, list_backbone_layers
from heimdall_assets.learning.task import PretrainedWeights

HEAD_WIDTHS = (512, 128, 64, 2)

INITIAL_SIGMA_LOGIT = 2.0
"""Untrained, sigma stands 0.88 of the way between the logarithms of its bounds: near what a prior alone would say."""


class LocalizationNet(nn.Module):
    """Standardised spectrogram (B, 3, 128, 32) to (B, 4): north, east, sigma north, sigma east, all normalised.

    Sigma lies strictly between its bounds: its logarithm is interpolated by a sigmoid, so that a sigma near a bound
    keeps a gradient, which a clamp would kill.

    Args:
        backbone_size: timm ConvNeXt: atto, femto, pico, nano, tiny, small, base (or medium), large.
        pretrained: start from ``weights``.
        freeze_backbone: train the heads alone.
        uncertainty_min, uncertainty_max: bounds of sigma in units of the normalised target.
        dropout: probability within the heads.
        weights: the pretrained weights.

    Raises:
        InvalidSetting: unknown size, bounds that are not 0 < min < max, or one of ``pretrained`` and ``weights`` alone.
        InvalidInput: ``weights`` are those of something else.
    """

    def __init__(
        self,
        backbone_size: str = "atto",
        pretrained: bool = False,
        freeze_backbone: bool = False,
        uncertainty_min: float = 0.01,
        uncertainty_max: float = 1.0,
        dropout: float = 0.1,
        weights: PretrainedWeights | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < uncertainty_min < uncertainty_max:
            raise InvalidSetting(
                f"uncertainty_min {uncertainty_min}, uncertainty_max {uncertainty_max}: expected 0 < min < max"
            )
        self.backbone_size = backbone_size
        self.freeze_backbone = freeze_backbone
        self.uncertainty_min = uncertainty_min
        self.uncertainty_max = uncertainty_max
        self.backbone = build_backbone(backbone_size, pretrained, weights)
        if freeze_backbone:
            self.backbone.requires_grad_(False)
        self.position_head = _build_head(self.backbone.num_features, dropout)
        self.uncertainty_head = _build_head(self.backbone.num_features, dropout)
        # start unsure: from the middle of the bounds the first losses are tens of times those of a sensible sigma
        last = self.uncertainty_head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, INITIAL_SIGMA_LOGIT)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, 4) float32: position (north, east), then sigma (north, east), in normalised target units.

        Raises:
            InvalidInput: ``features`` is not (B, 3, H, W) with H and W of at least 32.
        """
        # A traced shape is no number that could be compared; a graph's input has a shape of its own, which is checked.
        wrong = not is_tracing() and (features.ndim != 4 or features.shape[1] != 3 or min(features.shape[2:]) < 32)
        if wrong:
            raise InvalidInput(f"features: shape {tuple(features.shape)}: expected (batch, 3, 128, 32)")
        encoded = self.backbone(features)
        with torch.autocast(encoded.device.type, enabled=False):  # positions need more than 8 bits of mantissa
            encoded = encoded.float()
            position = self.position_head(encoded)
            bounded = torch.sigmoid(self.uncertainty_head(encoded))
            low, high = math.log(self.uncertainty_min), math.log(self.uncertainty_max)
            sigma = torch.exp(low + (high - low) * bounded)
        return torch.cat([position, sigma], dim=1)

    def get_backbone_layers(self) -> dict[str, nn.Module]:
        """Return the backbone's layers by name, from the input on."""
        return list_backbone_layers(self.backbone)

    def train(self, mode: bool = True) -> "LocalizationNet":
        """Set training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self


def _build_head(num_features: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = num_features
    for next_width in HEAD_WIDTHS[:-1]:
        layers += [nn.Linear(width, next_width), nn.GELU(), nn.Dropout(dropout)]
        width = next_width
    return nn.Sequential(*layers, nn.Linear(width, HEAD_WIDTHS[-1]))
