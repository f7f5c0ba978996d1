"""How large the files of a model will be, from its settings alone: before an hour of training, and without torch.

Belongs here: numbers of weights of each backbone and what a variant makes of them. Does not belong here: files
(``learning.export``). A test compares the numbers with timm, and the sizes with files.
"""

from dataclasses import dataclass

from heimdall_assets.specs import VARIANTS, ExportSpec, ModelSpec

BITS = {"int8_dynamic": 8.0, "int8_static": 8.0, "int4": 4.0 + 32.0 / 32.0}
"""Of a weight of a product; in 4 bits, 32 weights share a scale of 32 bits."""

HEADS = 2
"""Of a single_receiver model: position and uncertainty, each 512 and 128 wide and less after that."""


@dataclass(frozen=True)
class Weights:
    """Numbers of weights.

    Attributes:
        total: all of them.
        products: in products that a variant rounds.
        convolved: in convolutions that 16 bits shrink as well.
        hidden: that hang on the hidden units of blocks, which pruning removes.
    """

    total: int
    products: int
    convolved: int
    hidden: int


BACKBONES = {
    "atto": Weights(3_374_520, 2_969_600, 347_200, 3_002_560),
    "femto": Weights(4_832_784, 4_276_224, 490_560, 4_321_920),
    "pico": Weights(8_532_672, 7_667_712, 826_112, 7_679_488),
    "nano": Weights(14_952_560, 13_619_200, 1_279_040, 13_636_480),
    "tiny": Weights(27_820_128, 25_878_528, 1_877_472, 25_905_024),
    "small": Weights(49_454_688, 47_112_192, 2_216_160, 47_166_336),
    "base": Weights(87_566_464, 83_755_008, 3_643_008, 83_827_200),
    "medium": Weights(87_566_464, 83_755_008, 3_643_008, 83_827_200),
    "large": Weights(196_230_336, 188_448_768, 7_528_896, 188_557_056),
}
"""Backbone size -> weights of timm's ConvNeXt without its classifier, its MLPs as linear layers."""

WIDTHS = {"atto": 320, "femto": 384, "pico": 512, "nano": 640, "tiny": 768, "small": 768, "base": 1024,
          "medium": 1024, "large": 1536}  # fmt: skip
"""Backbone size -> its number of features."""


def foresee_sizes(model: ModelSpec, export: ExportSpec) -> dict[str, float]:
    """Return variant -> bytes of its file, to a few percent; empty for a model without backbone, which is small.

    >>> sizes = foresee_sizes(ModelSpec(kind="single_receiver", backbone_size="tiny"), ExportSpec())
    >>> {name: round(size / 1e6) for name, size in sizes.items()}
    {'fp32': 115, 'fp16': 58, 'int8_dynamic': 35, 'int8_static': 35, 'int4': 25, 'pruned': 89}
    """
    if model.kind == "network" and not model.use_spectrograms:
        return {}
    weights = BACKBONES[model.backbone_size]
    head = (WIDTHS[model.backbone_size] + 128) * 512 * HEADS if model.kind == "single_receiver" else 0
    products, total = weights.products + head, weights.total + head
    sizes = {"fp32": 4.0 * total, "fp16": 4.0 * total - 2.0 * (products + weights.convolved)}
    sizes |= {name: 4.0 * (total - products) + products * bits / 8.0 for name, bits in BITS.items()}
    sizes["pruned"] = 4.0 * (total - export.pruned_share * weights.hidden)
    return {name: sizes[name] for name in VARIANTS}


def foresee_refusal(model: ModelSpec, export: ExportSpec) -> str | None:
    """Return why none of the variants asked for will be small enough to be released; None: one may be."""
    sizes = foresee_sizes(model, export)
    asked = {name: sizes[name] for name in export.variants if name in sizes}
    limit = export.max_size_mb * 1e6
    if not asked or min(asked.values()) <= limit:
        return None
    smallest = min(asked, key=lambda name: asked[name])
    fitting = [f"{name} ({size / 1e6:.0f} MB)" for name, size in sizes.items() if size <= limit]
    cure = f"ExportSpec.variants {', '.join(fitting)}" if fitting else "a smaller backbone_size, taught by this one,"
    return (
        f"a {model.backbone_size} backbone makes a file of about {asked[smallest] / 1e6:.0f} MB ({smallest}), expected "
        f"at most {export.max_size_mb:g} MB (ExportSpec.max_size_mb): its release will be rejected; {cure} would fit"
    )
