import io
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save as encode_safetensors

from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.learning.backbone import build_backbone, find_timm_name
from heimdall_assets.learning.receiver_model.loss import compute_gaussian_nll
from heimdall_assets.learning.receiver_model.model import LocalizationNet
from heimdall_assets.learning.task import PretrainedWeights
from heimdall_assets.specs import BACKBONES
from heimdall_assets_tests.variation import make_rng, shift_seed


@pytest.fixture(scope="module")
def network() -> LocalizationNet:
    torch.manual_seed(shift_seed(0))
    return LocalizationNet().eval()


def test_shape_of_the_answer(network: LocalizationNet) -> None:
    with torch.no_grad():
        output = network(torch.randn(3, 3, 128, 32))
    assert output.shape == (3, 4)
    assert output.dtype == torch.float32


def test_heads_are_as_specified(network: LocalizationNet) -> None:
    for head in (network.position_head, network.uncertainty_head):
        widths = [layer.out_features for layer in head if isinstance(layer, torch.nn.Linear)]
        assert widths == [512, 128, 64, 2]
        assert sum(isinstance(layer, torch.nn.Dropout) for layer in head) == 3


def test_sigma_stays_between_its_bounds_and_keeps_a_gradient() -> None:
    torch.manual_seed(shift_seed(0))
    network = LocalizationNet(uncertainty_min=0.02, uncertainty_max=0.5)
    for bias, limit in ((12.0, 0.5), (-12.0, 0.02)):
        torch.nn.init.constant_(network.uncertainty_head[-1].bias, bias)
        network.zero_grad()
        sigma = network(torch.randn(4, 3, 128, 32))[:, 2:]
        assert ((sigma >= 0.02 * (1 - 1e-6)) & (sigma <= 0.5 * (1 + 1e-6))).all()
        assert sigma.detach().numpy() == pytest.approx(limit, rel=1e-3)
        sigma.sum().backward()
        assert network.uncertainty_head[-1].bias.grad.abs().min() > 0


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.5, 0.5), (1.0, 0.1)])
def test_bounds_that_are_none_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(InvalidSetting, match="expected 0 < min < max"):
        LocalizationNet(uncertainty_min=bounds[0], uncertainty_max=bounds[1])


@pytest.mark.parametrize("shape", [(3, 128, 32), (2, 1, 128, 32), (2, 3, 16, 32)])
def test_input_of_another_shape_is_refused(network: LocalizationNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"expected \(batch, 3, 128, 32\)"):
        network(torch.zeros(shape))


def test_frozen_backbone_does_not_move() -> None:
    network = LocalizationNet(freeze_backbone=True).train()
    assert not any(weight.requires_grad for weight in network.backbone.parameters())
    assert all(weight.requires_grad for weight in network.position_head.parameters())
    assert not network.backbone.training
    assert network.position_head.training


def test_backbone_layers_have_names(network: LocalizationNet) -> None:
    layers = network.get_backbone_layers()
    assert next(iter(layers)) == "stem"
    # atto: depths 2, 2, 6, 2
    assert sum(".blocks." in name for name in layers) == 12
    assert all(isinstance(layer, torch.nn.Module) for layer in layers.values())


def test_every_size_is_known_to_timm() -> None:
    import timm

    assert {find_timm_name(size) for size in BACKBONES} <= set(timm.list_models("convnext_*"))
    assert find_timm_name("medium") == "convnext_base"
    with pytest.raises(InvalidSetting, match="expected one of atto"):
        find_timm_name("huge")


def test_weights_of_convolutional_mlps_give_the_same_numbers() -> None:
    import timm

    torch.manual_seed(shift_seed(3))
    original = timm.create_model("convnext_atto", num_classes=7).eval()
    for name, weight in original.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(weight, 0.3, 1.0)
    assert any(weight.ndim == 4 and "mlp" in name for name, weight in original.named_parameters())
    weights = PretrainedWeights("atto", encode_safetensors(original.state_dict()))
    backbone = build_backbone("atto", True, weights).eval()
    features = torch.randn(2, 3, 128, 32)
    with torch.no_grad():
        expected = original.forward_head(original.forward_features(features), pre_logits=True)
        assert backbone(features).numpy() == pytest.approx(expected.numpy(), abs=2e-5)


def test_weights_that_are_none_say_what_they_are() -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    with pytest.raises(InvalidInput, match=r"^theirs: not safetensors, the one format read"):
        build_backbone("atto", True, PretrainedWeights("theirs", buffer.getvalue()))
    other = PretrainedWeights("theirs", encode_safetensors({"head.norm.weight": torch.zeros(1)}))
    with pytest.raises(InvalidInput, match=r"^theirs: .* expected \("):
        build_backbone("atto", True, other)
    with pytest.raises(InvalidSetting, match="found theirs with pretrained=False: expected both or neither"):
        build_backbone("atto", False, other)
    with pytest.raises(InvalidSetting, match="convnext_atto: found none with pretrained=True"):
        LocalizationNet(pretrained=True)


def test_loss_is_the_density_of_a_gaussian() -> None:
    rng = make_rng(0)
    position, target = rng.normal(size=(2, 5, 2)).astype(np.float32)
    sigma, label = rng.uniform(0.1, 1.0, size=(2, 5, 2)).astype(np.float32)
    loss = compute_gaussian_nll(*(torch.from_numpy(item) for item in (position, sigma, target, label)))
    deviation = np.hypot(sigma, label)
    density = np.exp(-0.5 * ((target - position) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    assert loss.numpy() == pytest.approx(-np.log(density.prod(axis=1)), rel=1e-4)


def test_loss_rewards_no_sigma_below_the_labels_own_error() -> None:
    error = torch.full((1, 2), 0.1)
    losses = [
        compute_gaussian_nll(error, torch.full((1, 2), sigma), torch.zeros(1, 2), torch.full((1, 2), 1.0)).item()
        for sigma in (1e-1, 1e-2, 1e-3)
    ]
    assert max(losses) - min(losses) < 0.02


def test_loss_refuses_shapes_that_differ() -> None:
    two = torch.ones(2, 2)
    with pytest.raises(InvalidInput, match="expected"):
        compute_gaussian_nll(two, two, two, torch.ones(2, 1))
