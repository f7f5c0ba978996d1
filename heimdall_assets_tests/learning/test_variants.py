"""Variants of an exported model: what they change, what they leave alone, and that their bytes repeat."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from heimdall_assets.errors import CannotLocate, InvalidInput
from heimdall_assets.learning.backbone import find_timm_name
from heimdall_assets.learning.export.activations import measure_ranges
from heimdall_assets.learning.export.onnx_file import (
    build_graph,
    check_onnx,
    compute_parity,
    open_onnx_session,
    read_onnx_metadata,
)
from heimdall_assets.learning.export.opened import OpenedModel, take_batch
from heimdall_assets.learning.export.products import MIN_WEIGHTS, Product, find_products
from heimdall_assets.learning.export.pruning import find_blocks, prune_backbone
from heimdall_assets.learning.export.rounding import (
    LARGEST_INT8,
    MIN_HALVED,
    fit_levels,
    halve_weights,
    pack_int4,
    round_dynamically,
    round_statically,
    round_to_int4,
    round_to_int8,
    unpack_int4,
)
from heimdall_assets.learning.export.variants import Sources, Variant, make_variant
from heimdall_assets.learning.file_sizes import BACKBONES, WIDTHS
from heimdall_assets.specs import VARIANTS, ExportSpec
from heimdall_assets_tests.learning.learning_cases import get_lively, make_sessions
from heimdall_assets_tests.variation import make_rng

TRAIN = make_sessions(12, seed=1, mels=128)
TEST = make_sessions(10, seed=11, first=900, mels=128)


@cache
def get_sources() -> Sources:
    spec = ExportSpec(num_calibration_examples=20)
    return Sources.export(get_lively(), spec, {"version": "1.2.3"}, lambda: TRAIN)


@cache
def get_variant(name: str) -> Variant:
    return make_variant(name, get_sources())


LARGEST_SIGMA = {"fp32": 1e-5, "fp16": 0.005, "int8_dynamic": 0.05, "int8_static": 0.2, "int4": 0.3, "pruned": 0.3}
"""Farthest that an answer may move, in its own sigmas; seen: a third of it and less."""

LARGEST_SHARE = {"fp32": 1.0, "fp16": 0.52, "int8_dynamic": 0.36, "int8_static": 0.36, "int4": 0.27, "pruned": 0.82}
"""Of the bytes of the file as it was exported."""


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_answers_as_the_model_does_and_is_smaller(name: str) -> None:
    variant = get_variant(name)
    parity = compute_parity(get_lively(), variant.data, TEST)
    assert parity["max_session_error_sigma"] <= LARGEST_SIGMA[name]
    assert parity["position_spread_deg"] > 1e-3
    assert len(variant.data) <= LARGEST_SHARE[name] * len(get_sources().base)
    if name != "fp32":  # else nothing was changed, and the figures above say nothing
        assert parity["max_session_error_sigma"] > 1e-6


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_keeps_names_types_and_facts(name: str) -> None:
    base, found = (check_onnx(data).graph for data in (get_sources().base, get_variant(name).data))
    for before, after in ((base.input, found.input), (base.output, found.output)):
        assert [(item.name, item.type.tensor_type.elem_type) for item in before] == [
            (item.name, item.type.tensor_type.elem_type) for item in after
        ]
    said = read_onnx_metadata(get_variant(name).data)
    assert said.pop("variant", "fp32") == name
    assert said == read_onnx_metadata(get_sources().base)
    session = open_onnx_session(get_variant(name).data)
    for size in (1, 7):  # the batch stays dynamic
        assert session.run(None, {"features": TEST.features[:size]})[0].shape == (size, 2)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variant_touches_what_places_an_answer_on_the_globe(name: str) -> None:
    wanted = {"centre_deg", "scale_deg", "mean_db", "std_db"}
    found = {item.name: item for item in check_onnx(get_variant(name).data).graph.initializer if item.name in wanted}
    base = {item.name: item for item in check_onnx(get_sources().base).graph.initializer if item.name in wanted}
    assert set(found) == wanted
    for item in wanted:
        assert found[item].data_type == base[item].data_type
        assert np.array_equal(numpy_helper.to_array(found[item]), numpy_helper.to_array(base[item]))


def test_variants_are_the_same_bytes_in_another_process() -> None:
    """Sets of names have another order in each process: none of it may reach the file."""
    code = (
        "from heimdall_assets_tests.learning.test_variants import get_variant\n"
        "from heimdall_assets.manifests import compute_digest\n"
        "print(*(compute_digest(get_variant(name).data) for name in ('fp16', 'int8_static', 'int4')))\n"
    )
    lines = []
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        lines.append(run.stdout)
    assert lines[0] == lines[1]


def test_only_large_learned_products_are_found() -> None:
    proto = onnx.load_model_from_string(get_sources().base)
    products = find_products(proto)
    assert products
    assert all(product.weight.size >= MIN_WEIGHTS for product in products)
    names = {product.node.name for product in products}
    assert not [name for name in names if name.endswith("head.9/Gemm")]  # what an answer is read from
    assert find_products(proto, ("network",)) == []
    fewer = find_products(proto, ("position_head",))
    assert {product.node.name for product in fewer} == {name for name in names if "position_head" not in name}


def test_a_product_that_scales_or_turns_its_left_side_is_left_alone() -> None:
    proto = onnx.load_model_from_string(get_sources().base)
    gemm = next(product.node for product in find_products(proto) if product.node.op_type == "Gemm")
    gemm.attribute.append(onnx.helper.make_attribute("transA", 1))
    assert gemm.name not in {product.node.name for product in find_products(proto)}


def make_product(rows: int, columns: int, bias: bool = True) -> tuple[Product, np.ndarray, np.ndarray]:
    rng = make_rng(3)
    weight = rng.normal(size=(rows, columns)).astype(np.float32)
    added = rng.normal(size=columns).astype(np.float32)
    node = onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"], "gemm")
    x = rng.normal(size=(5, rows)).astype(np.float32)
    return Product(node, weight, "b" if bias else None), added, x


def run_product(product: Product, bias: np.ndarray, x: np.ndarray, how: str) -> np.ndarray:
    round_it = {
        "dynamic": round_dynamically,
        "static": lambda item: round_statically(item, float(x.min()), float(x.max())),
        "int4": round_to_int4,
    }[how]
    put = round_it(product)
    graph = onnx.helper.make_graph(
        put.nodes,
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", x.shape[1]])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", product.weight.shape[1]])],
        [*put.tensors, numpy_helper.from_array(bias, "b")],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    data = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return open_onnx_session(data).run(None, {"x": x})[0]


@pytest.mark.parametrize("how", ["dynamic", "static", "int4"])
@pytest.mark.parametrize(("rows", "columns"), [(64, 48), (70, 33)])  # blocks of 32 that come out even, and do not
@pytest.mark.parametrize("bias", [True, False])
def test_a_rounded_product_is_that_of_the_rounded_weights(how: str, rows: int, columns: int, bias: bool) -> None:
    """The operators compute what they are meant to: the product of levels and steps, to the rounding of float32."""
    product, added, x = make_product(rows, columns, bias)
    if how == "int4":
        weight = unpack_int4(*pack_int4(product.weight), rows)
        seen = x
        tolerance = 0.03  # ONNX Runtime rounds activations to 8 bits a block on the way
    else:
        scale, point = fit_levels(float(x.min()), float(x.max()))
        levels = np.clip(np.rint(x / scale) + point, 0, 255)
        seen = (levels - point) * scale
        steps, factors = round_to_int8(product.weight)
        weight, tolerance = steps * factors, 1e-5
    expected = seen @ weight + (added if bias else 0.0)
    found = run_product(product, added, x, how)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_steps_stay_within_what_every_processor_adds_without_cutting_off() -> None:
    """Two products of 8 bits are added in 16 on processors without VNNI: they must fit."""
    assert 2 * 255 * LARGEST_INT8 < 2**15
    weight = make_rng(4).normal(size=(40, 10)).astype(np.float32)
    steps, scale = round_to_int8(weight)
    assert np.abs(steps).max() == LARGEST_INT8
    assert np.abs(steps * scale - weight).max() <= 0.5 * scale.max() * 1.001
    zero, factor = round_to_int8(np.zeros((3, 2), np.float32))
    assert not zero.any()
    assert np.array_equal(factor, [1.0, 1.0])


def test_four_bits_are_off_by_at_most_a_step() -> None:
    weight = make_rng(5).normal(size=(100, 7)).astype(np.float32)
    packed, scale = pack_int4(weight)
    assert packed.shape == (7, 4, 16)
    off = np.abs(unpack_int4(packed, scale, 100) - weight)
    assert off.max() <= np.abs(scale).max()
    exact = np.repeat(np.arange(-8, 8, dtype=np.float32), 2)[:, None]  # one block that 16 steps hold exactly
    assert np.array_equal(unpack_int4(*pack_int4(exact), 32), exact)


def test_weights_too_large_for_16_bits_stay_as_they_are() -> None:
    proto = onnx.load_model_from_string(get_sources().base)
    before, _ = halve_weights(onnx.load_model_from_string(get_sources().base), ())
    tensor = next(item for item in proto.graph.initializer if item.name == "network.position_head.0.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = 1e5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert halve_weights(proto, ())[0] == before - 1
    assert halve_weights(onnx.load_model_from_string(get_sources().base), ("network",)) == (0, 0)


def test_ranges_hold_what_training_shows_and_need_an_example() -> None:
    base, products = get_sources().base, find_products(onnx.load_model_from_string(get_sources().base))
    feed = build_graph(get_lively()).feed
    few = measure_ranges(base, products, feed(TRAIN, 16), 2)
    more = measure_ranges(base, products, feed(TRAIN, 16), 24)
    assert set(few) == set(more) == {product.source for product in products}
    assert all(more[name][0] <= 0.0 <= more[name][1] for name in more)
    assert any(more[name] != few[name] for name in more)
    with pytest.raises(InvalidInput, match="int8_static: found no training example"):
        measure_ranges(base, products, iter(()), 8)


def test_pruning_leaves_fewer_units_that_answer_for_the_others() -> None:
    graph = build_graph(get_lively())
    batch = (torch.from_numpy(np.asarray(TRAIN.features)),)
    pruned, num_weights = prune_backbone(graph.module, [batch], 0.25)
    for before, after in zip(find_blocks(graph.module), find_blocks(pruned), strict=True):
        assert after.fc1.out_features == after.fc2.in_features == round(0.75 * before.fc1.out_features)
    count = [sum(weight.numel() for weight in module.parameters()) for module in (graph.module, pruned)]
    assert count[0] - count[1] == num_weights > 0
    with torch.no_grad():
        expected, found = graph.module(*batch)[0], pruned(*batch)[0]
    blunt, _ = prune_backbone(graph.module, [batch], 0.25)
    for before, after in zip(find_blocks(graph.module), find_blocks(blunt), strict=True):
        kept = [int((before.fc1.weight == row).all(1).nonzero()[0]) for row in after.fc1.weight]
        after.fc2.weight.data, after.fc2.bias.data = before.fc2.weight[:, kept], before.fc2.bias
    with torch.no_grad():
        cut = blunt(*batch)[0]
    # Solved anew, the rest answers far better than with the weights that it had.
    assert (found - expected).abs().mean() < 0.5 * (cut - expected).abs().mean()


def test_pruning_needs_blocks_and_examples() -> None:
    with pytest.raises(InvalidInput, match="pruned: found no ConvNeXt block"):
        prune_backbone(torch.nn.Linear(2, 2), [], 0.5)
    with pytest.raises(InvalidInput, match="pruned: found no training example"):
        prune_backbone(build_graph(get_lively()).module, [], 0.5)


@pytest.mark.parametrize("name", ["fp16", "int8_dynamic", "int4"])
def test_a_model_without_large_layers_says_that_there_is_nothing_to_round(name: str) -> None:
    sources = get_sources()
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(item, onnx.TensorProto.FLOAT, [1]) for item in "xy"]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    base = onnx.helper.make_model(graph).SerializeToString()
    with pytest.raises(InvalidInput, match=f"{name}: found no learned"):
        make_variant(name, replace(sources, base=base))


def test_a_batch_to_time_has_its_size_whatever_there_is() -> None:
    opened = OpenedModel(get_lively(), get_sources().base)
    for size in (1, 32):
        assert take_batch(opened, TEST, size)["features"].shape[0] == size
        onnx_says = opened.prepare_call(TEST, size)()
        torch_says = opened.prepare_eager_call(TEST, size)()
        assert onnx_says[0] == pytest.approx(torch_says[0].numpy(), abs=1e-5)  # type: ignore[index]
    empty = replace(TEST, feature_row=np.full(len(TEST.feature_row), -1))
    with pytest.raises(CannotLocate, match="expected at least one to time it on"):
        take_batch(opened, empty, 1)


def test_sizes_that_are_foreseen_are_those_of_timm() -> None:
    import timm

    for size, known in BACKBONES.items():
        with torch.device("meta"):
            backbone = timm.create_model(find_timm_name(size), num_classes=0, conv_mlp=False)
        blocks = find_blocks(backbone)
        linear = [layer for layer in backbone.modules() if isinstance(layer, torch.nn.Linear)]
        convolved = [layer for layer in backbone.modules() if isinstance(layer, torch.nn.Conv2d)]
        assert known.total == sum(weight.numel() for weight in backbone.parameters())
        assert known.products == sum(layer.weight.numel() for layer in linear if layer.weight.numel() >= MIN_WEIGHTS)
        assert known.convolved == sum(x.weight.numel() for x in convolved if x.weight.numel() >= MIN_HALVED)
        assert known.hidden == sum(
            block.fc1.weight.numel() + block.fc1.bias.numel() + block.fc2.weight.numel() for block in blocks
        )
        assert WIDTHS[size] == backbone.num_features
