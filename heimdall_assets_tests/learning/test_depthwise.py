"""Weight gradients by matrix products are those of the convolution itself, wherever they are taken."""

import numpy as np
import pytest
import torch
from torch import nn

from heimdall_assets.learning.backbone import build_backbone
from heimdall_assets.learning.fitting.depthwise import MAX_POSITIONS, compute_weight_gradient, multiply_depthwise
from heimdall_assets.learning.fitting.savings import recompute_activations
from heimdall_assets_tests.variation import make_rng


def draw(*shape: int) -> torch.Tensor:
    return torch.from_numpy(make_rng(sum(shape)).standard_normal(shape))


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 1), (1, 5), (8, 2), (3, 7), (16, 4)])
def test_the_gradient_is_that_of_the_convolution(size, height, width):
    given, gradient = draw(5, 6, height, width), draw(5, 6, height, width)
    weight = draw(6, 1, size, size).requires_grad_()
    out = nn.functional.conv2d(given, weight, padding=size // 2, groups=6)
    (expected,) = torch.autograd.grad(out, weight, gradient)
    found = compute_weight_gradient(given.float(), gradient.float(), size)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-5 * float(expected.abs().max()))


def compute_gradients(network: nn.Module, given: torch.Tensor) -> dict[str, torch.Tensor]:
    given = given.clone().requires_grad_()
    network.zero_grad()
    network(given).square().sum().backward()
    assert given.grad is not None
    found = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    return {**found, "input": given.grad}


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    torch.manual_seed(0)
    return build_backbone("atto").eval()  # nothing is dropped


@pytest.mark.parametrize("forgets", [False, True])
def test_a_backbone_has_the_same_outputs_and_gradients_and_is_left_as_it_was(backbone, forgets, monkeypatch):
    """Also where activations are computed twice."""
    given = draw(3, 3, 64, 32).float()
    plain, expected = backbone(given), compute_gradients(backbone, given)
    counted = []

    def count(*args):
        counted.append(args[0].shape[2:].numel())
        return compute_weight_gradient(*args)

    monkeypatch.setattr("heimdall_assets.learning.fitting.depthwise.compute_weight_gradient", count)
    blocks = [block for stage in backbone.stages for block in stage.blocks] if forgets else []
    with recompute_activations(blocks), multiply_depthwise(backbone):
        assert torch.allclose(backbone(given), plain, rtol=1e-4, atol=1e-5)
        found = compute_gradients(backbone, given)
        with torch.no_grad():
            assert torch.equal(backbone(given), plain)
    assert len(counted) >= 8
    assert max(counted) <= MAX_POSITIONS
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-3, atol=1e-4 * float(value.abs().max())), name
    assert not any("forward" in vars(module) for module in backbone.modules())


def test_in_bf16_it_is_as_near_to_float32_as_the_convolution_is(backbone):
    given = draw(3, 3, 64, 32).float()
    exact = compute_gradients(backbone, given)
    name = next(key for key in reversed(exact) if key.endswith("conv_dw.weight"))

    def measure() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            found = compute_gradients(backbone, given)[name]
        return float((found - exact[name]).norm() / exact[name].norm())

    plain = measure()
    with multiply_depthwise(backbone):
        assert measure() < 1.5 * plain


def test_a_frozen_kernel_and_another_convolution_are_left_alone(monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr("heimdall_assets.learning.fitting.depthwise.compute_weight_gradient", refuse)
    frozen = nn.Conv2d(4, 4, 3, padding=1, groups=4).requires_grad_(False)
    others = [nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 2, stride=2, groups=4)]
    large = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    with multiply_depthwise(nn.ModuleList([frozen, large, *others])):
        for module, edge in [(frozen, 4), (large, 9), *((other, 4) for other in others)]:
            given = torch.ones(2, 4, edge, edge, requires_grad=True)
            module(given).sum().backward()
