"""Variants of a fitted model's ONNX file: the same inputs and outputs, fewer bits or fewer weights inside.

Belongs here: what each variant is made of. Does not belong here: rounding (``export.rounding``), whether a variant is
good enough (``pipeline.stages``). A variant touches learned layers alone: geometry, solver, priors, statistics and
calibration stay as they were exported.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import onnx
import torch

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.export.activations import BATCH, measure_ranges
from heimdall_assets.learning.export.onnx_file import build_graph, export_onnx, seal_onnx, write_graph
from heimdall_assets.learning.export.products import MIN_WEIGHTS, Product, Replacement, find_products, replace_products
from heimdall_assets.learning.export.pruning import prune_backbone
from heimdall_assets.learning.export.rounding import (
    halve_weights,
    import_contrib,
    round_dynamically,
    round_statically,
    round_to_int4,
)
from heimdall_assets.learning.fitting.fitted import FittedModel
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import ExportSpec

BASE = "fp32"


@dataclass(frozen=True)
class Variant:
    """One file.

    Attributes:
        name: of ``specs.VARIANTS``.
        data: the ONNX file.
        changed: what differs from the model as it was exported, in words.
    """

    name: str
    data: bytes
    changed: str


@dataclass(frozen=True)
class Sources:
    """What variants are made of.

    Attributes:
        fitted: the model.
        base: its ONNX file as ``export_onnx`` gave it.
        spec: how it was exported.
        metadata: that it says.
        train: gives training sessions, where activations have to be measured.
    """

    fitted: FittedModel
    base: bytes
    spec: ExportSpec
    metadata: dict[str, str]
    train: Callable[[], SessionSet]

    @classmethod
    def export(
        cls, fitted: FittedModel, spec: ExportSpec, metadata: dict[str, str], train: Callable[[], SessionSet]
    ) -> "Sources":
        return cls(fitted, export_onnx(fitted, spec, metadata), spec, metadata, train)


def make_variant(name: str, sources: Sources) -> Variant:
    """Return one variant; equal sources give equal bytes on one processor with one thread count.

    Raises:
        InvalidInput: the model holds nothing that this variant would change.
    """
    if name == BASE:
        return Variant(name, sources.base, "nothing")
    if name == "pruned":
        return _prune(sources)
    proto = onnx.load_model_from_string(sources.base)
    said = {item.key: item.value for item in proto.metadata_props} | {"variant": name}
    kept_whole = build_graph(sources.fitted).kept_whole
    if name == "fp16":
        num_tensors, num_weights = halve_weights(proto, kept_whole)
        if not num_tensors:
            raise InvalidInput("fp16: found no learned layer whose weights would be worth storing in 16 bits")
        changed = f"{say_count(num_weights, 'weight')} of {say_count(num_tensors, 'layer')} stored in 16 bits"
        return Variant(name, seal_onnx(proto, said), changed)
    products = find_products(proto, kept_whole)
    if not products:
        raise InvalidInput(f"{name}: found no learned product of at least {MIN_WEIGHTS} weights, expected at least 1")
    replace_products(proto, products, _find_rounding(name, sources, products))
    if name == "int4":
        import_contrib(proto)
    num_weights = sum(product.weight.size for product in products)
    bits = "4" if name == "int4" else "8"
    changed = f"{say_count(num_weights, 'weight')} of {say_count(len(products), 'product')} in {bits} bits"
    return Variant(name, seal_onnx(proto, said), changed)


def _find_rounding(name: str, sources: Sources, products: list[Product]) -> Callable[[Product], Replacement]:
    if name == "int8_dynamic":
        return round_dynamically
    if name == "int4":
        return round_to_int4
    feed = build_graph(sources.fitted).feed(sources.train(), BATCH)
    ranges = measure_ranges(sources.base, products, feed, sources.spec.num_calibration_examples)
    return lambda product: round_statically(product, *ranges[product.source])


def _prune(sources: Sources) -> Variant:
    """Return the file of a network with fewer hidden units, traced anew."""
    graph = build_graph(sources.fitted)
    num_batches = -(-sources.spec.num_calibration_examples // BATCH)
    batches = [
        tuple(torch.from_numpy(arrays[name]) for name in graph.inputs)
        for _, arrays in islice(graph.feed(sources.train(), BATCH), num_batches)
    ]
    share = sources.spec.pruned_share
    module, num_weights = prune_backbone(graph.module, batches, share)
    pruned = replace(graph, module=module.eval())
    data = write_graph(pruned, sources.fitted.model.kind, sources.spec, {**sources.metadata, "variant": "pruned"})
    changed = f"{100 * share:g} % of the hidden units of its backbone removed, {say_count(num_weights, 'weight')}"
    return Variant("pruned", data, changed)
