"""Golden results: what each stage gives on a fixed world, recorded beside its code version, and what differs now.

Run as a program (``make golden``) it records anew, and refuses where a result changed while its version did not.

Texts, counts and times are recorded exactly, by digest. Numbers are recorded rounded, for processors and thread counts
differ in their last bits: those of a JSON document one by one, of each array its norm and its projections on fixed
random signs, which no change of any element leaves alone. They are compared to the precision that stands beside them,
relative to the number or to the norm.

The named constants of the code behind a stage are recorded too: most of them decide results that a small world does
not reach.
"""

import ast
import hashlib
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import yaml
from numpy.typing import NDArray
from safetensors.numpy import load as decode_safetensors

import heimdall_assets
from heimdall_assets.kinds import EVALUATION_METRICS, MODEL_RELEASE, ONNX_MODEL, SPLIT_KINDS, TRAINED_CHECKPOINT
from heimdall_assets.lineage.release_files import SAME_IN_ALL
from heimdall_assets.manifests import Manifest, compute_json_digest
from heimdall_assets.pipeline.recipe import STAGES, list_needed
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.shards import load_rows
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets_tests.pipeline.golden_world import MODELS, Carried, carry, open_world

PACKAGE = Path(heimdall_assets.__file__).parent
FILE = PACKAGE / "pipeline" / "golden.json"

PRECISION = {
    # Two steps of Adam: where a gradient is near zero, rounding decides its sign. 2.3e-2 were seen between processors
    # with AVX2 alone and with AVX-512.
    TRAINED_CHECKPOINT: 5e-2,
    EVALUATION_METRICS: 5e-3,
    ONNX_MODEL: 5e-3,
    MODEL_RELEASE: 5e-3,
}
"""Relative to a figure's norm: some ten times what instruction sets and thread counts were seen to differ by."""

FINE_PRECISION = 1e-5
"""Of what is not fitted."""

NUM_PROJECTIONS = 3
SMALLEST = 0.1
"""A number of a JSON document that is smaller is compared as one of this size: much that is nearly 0 is rounding."""

UNSAID = ("environment", "shard", "row", "shards", "size_bytes", "parity")
"""What differs between machines, names bytes that differ in their last bits, or is the rounding itself."""


COUNTED = ("num_", "seed", "epoch")
COUNTED_BELOW = ("_by_", "mix", "shape")
"""In the names of whole numbers, and of what holds them, that are counted and no rounded figure: canonical JSON writes
24000.0 as 24000."""


@dataclass
class Golden:
    """What one stage gave.

    Attributes:
        exact: part -> digest of its texts, counts and times.
        figures: name -> norm and projections of an array.
        numbers: path -> number of a JSON document.
    """

    exact: dict[str, str] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def take_array(self, name: str, values: NDArray[Any]) -> None:
        """Note an array: its shape and where it is not finite exactly, the rest as figures."""
        if np.iscomplexobj(values):
            values = np.stack([values.real, values.imag], axis=-1)
        flat = np.asarray(values, dtype=np.float64).ravel()
        finite = np.isfinite(flat)
        holes = np.where(finite, 0.0, flat)
        self.exact[name] = digest_of([list(values.shape), [str(value) for value in holes if value]])
        kept = np.where(finite, flat, 0.0)
        self.figures[name] = [float(np.linalg.norm(kept)), *project(kept)]

    def take_table(self, name: str, table: pd.DataFrame) -> None:
        """Note a table: columns of floats as arrays, all others exactly."""
        said = table.drop(columns=[column for column in UNSAID if column in table])
        floats = [column for column in said if said[column].dtype == np.float64]
        for column in floats:
            self.take_array(f"{name}.{column}", said[column].to_numpy())
        others = said.drop(columns=floats)
        texts = [[str(value) for value in row] for row in others.itertuples(index=False)]
        self.exact[name] = digest_of([list(map(str, table.dtypes.items())), texts])

    def take_json(self, name: str, value: Any) -> None:
        """Note a JSON value: keys, texts and counts exactly, its other numbers one by one."""
        self.exact[name] = digest_of(_part(value, name, self.numbers))


def digest_of(value: Any) -> str:
    """Return the beginning of the digest of a JSON value: enough to tell one from another."""
    return compute_json_digest(value)[:16]


def project(values: NDArray[np.float64]) -> Iterator[float]:
    """Yield the sums of ``values`` (N,) under fixed random signs, each from a stream of its own."""
    count = -(-len(values) // 256)
    for number in range(NUM_PROJECTIONS):
        blocks = b"".join(hashlib.sha256(f"{number}:{block}".encode()).digest() for block in range(count))
        signs = np.unpackbits(np.frombuffer(blocks, np.uint8))[: len(values)].astype(np.float64) * 2.0 - 1.0
        yield float(signs @ values)


def _part(value: Any, path: str, numbers: dict[str, float]) -> Any:
    """Return ``value`` without its figures, which go into ``numbers`` by path, and without what is not said."""
    if isinstance(value, Mapping):
        return {str(key): _part(value[key], f"{path}.{key}", numbers) for key in sorted(value) if key not in UNSAID}
    if isinstance(value, list | tuple):
        return [_part(item, f"{path}.{place}", numbers) for place, item in enumerate(value)]
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, float) or (is_whole and not _is_counted(path)):
        numbers[path] = float(value)
        return "number"
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return "digest"
    return value


def _is_counted(path: str) -> bool:
    *above, last = [part for part in path.split(".") if not part.isdigit()]
    return any(word in last for word in COUNTED) or any(
        word in part for word in COUNTED_BELOW for part in (*above, last)
    )


def describe(stores: Stores, carried: Carried) -> dict[str, Golden]:
    """Return what each stage gave, by kind."""
    made: dict[str, Golden] = {}
    for (variant, kind), result in carried.results.items():
        golden = made.setdefault(kind, Golden())
        _describe_manifest(stores.objects, golden, result.manifest, f"{variant}." if variant else "")
    return made


def _describe_manifest(objects: ObjectStore, golden: Golden, manifest: Manifest, prefix: str) -> None:
    golden.take_json(f"{prefix}summary", manifest.summary)
    golden.exact[f"{prefix}specs"] = digest_of(manifest.specs)
    golden.take_json(f"{prefix}artifacts", {name: part.media_type for name, part in manifest.artifacts.items()})
    for name, artifact in manifest.artifacts.items():
        if artifact.media_type.endswith("parquet"):
            table = load_table(objects, artifact)
            golden.take_table(prefix + name, table)
            if "shard" in table:
                golden.take_array(f"{prefix}{name}.arrays", np.asarray(load_rows(objects, table)[1]))
        else:
            _describe_file(golden, prefix + name, objects.read_bytes(artifact.digest))


def _describe_file(golden: Golden, name: str, data: bytes) -> None:
    if name.endswith(SAME_IN_ALL):
        return  # what the release says of its format, not of its model
    if name.endswith(".json"):
        golden.take_json(name, json.loads(data) if not name.endswith("provenance.json") else sorted(json.loads(data)))
    elif name.endswith(".yaml"):
        golden.take_json(name, yaml.safe_load(data))
    elif name.endswith(".safetensors"):
        weights = decode_safetensors(data)
        golden.take_json(f"{name}.shapes", {key: list(value.shape) for key, value in weights.items()})
        groups: dict[str, list[NDArray[Any]]] = {}
        for key in sorted(weights):
            groups.setdefault(".".join(key.split(".")[:2]), []).append(weights[key].ravel().astype(np.float64))
        for group, values in groups.items():
            golden.take_array(f"{name}.{group}", np.concatenate(values))
    elif name.endswith(".onnx"):
        _describe_onnx(golden, name, data)
    elif name.endswith(".md"):
        golden.take_json(name, [line for line in data.decode().splitlines() if line.startswith("#")])
    # Pictures are drawn from the figures beside them.


def _describe_onnx(golden: Golden, name: str, data: bytes) -> None:
    graph = onnx.load_from_string(data).graph
    golden.take_json(
        f"{name}.graph",
        {
            "nodes": [node.op_type for node in graph.node],
            "inputs": [value.name for value in graph.input],
            "outputs": [value.name for value in graph.output],
        },
    )
    weights = [onnx.numpy_helper.to_array(item) for item in graph.initializer]
    floats = [weight.ravel() for weight in weights if weight.dtype == np.float32]
    golden.take_array(f"{name}.weights", np.concatenate(floats))


# --- constants --------------------------------------------------------------------------------------------------------

WORK = ("signals", "locating", "simulation", "learning", "evaluation", "formats", "lineage", "pipeline")


def list_constants(modules: Iterable[str]) -> Counter[str]:
    """Return the named numeric constants of modules as written, ``NAME = value``; where they stand does not matter."""
    found: Counter[str] = Counter()
    for module in modules:
        inside = module.removeprefix("heimdall_assets.")
        if inside.split(".")[0] in WORK and inside != "pipeline.recipe":
            found.update(_read_constants(_find_file(module)))
    return found


def list_all_constants() -> Counter[str]:
    """Return the constants behind any stage."""
    return list_constants(sorted(set().union(*map(list_reached, list_needed(MODEL_RELEASE)))))


@cache
def _read_constants(path: Path) -> tuple[str, ...]:
    found = []
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        if not any(_is_number(part) for part in ast.walk(node.value)):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if any(isinstance(name, ast.Name) and name.id.isupper() for name in ast.walk(target)):
                found.append(f"{ast.unparse(target)} = {ast.unparse(node.value)}")
    return tuple(found)


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)


@cache
def list_reached(kind: str) -> frozenset[str]:
    """Return the modules of the package that the stage's own module imports, however many steps on."""
    name = "splits" if kind in SPLIT_KINDS.values() else kind
    pending, reached = [f"heimdall_assets.pipeline.stages.{name}"], set()
    while pending:
        module = pending.pop()
        path = _find_file(module)
        if module in reached or path is None:
            continue
        reached.add(module)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                pending += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
                pending.append(node.value.partition(":")[0])  # classes that are named, to be imported when asked for
    return frozenset(reached)


def _find_file(module: str) -> Path | None:
    if not module.startswith("heimdall_assets."):
        return None
    path = PACKAGE.parent / module.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


# --- comparing --------------------------------------------------------------------------------------------------------


def record(kind: str, golden: Golden) -> dict[str, Any]:
    """Return what is written down of a stage."""
    return {
        "code_version": STAGES[kind].code_version,
        "precision": PRECISION.get(kind, FINE_PRECISION),
        "exact": golden.exact,
        "figures": golden.figures,
        "numbers": golden.numbers,
    }


def compare(kind: str, recorded: Mapping[str, Any], golden: Golden) -> list[str]:
    """Return how what a stage gave differs from what was recorded, a line each; empty: within the precision.

    Of models only the variants that were carried are compared.
    """
    carried = {variant for variant in MODELS if any(name.startswith(f"{variant}.") for name in golden.exact)}
    kept = [name for name in recorded["exact"] if name.split(".")[0] not in MODELS.keys() - carried]
    lines = []
    for name in sorted({*kept, *golden.exact}):
        if recorded["exact"].get(name) != golden.exact.get(name):
            lines.append(f"{kind} {name}: other texts, counts or shapes than recorded")
    for name, difference in measure_differences(recorded, golden).items():
        if not difference <= recorded["precision"]:
            lines.append(f"{kind} {name}: differs by {difference:.1e} of its size, precision {recorded['precision']:g}")
    return lines


def measure_differences(recorded: Mapping[str, Any], golden: Golden) -> dict[str, float]:
    """Return how far each figure and number that both have lies from what was recorded, relative to its size."""
    found = {}
    for name in sorted(recorded["figures"].keys() & golden.figures.keys()):
        found[name] = measure_difference(recorded["figures"][name], golden.figures[name])
    for name in sorted(recorded["numbers"].keys() & golden.numbers.keys()):
        before, now = recorded["numbers"][name], golden.numbers[name]
        # A skill is 1 less a ratio of errors: near 0 its own size is the rounding of that ratio.
        smallest = 1.0 if name.rpartition(".")[2].startswith("skill") else SMALLEST
        found[name] = abs(before - now) / max(abs(before), abs(now), smallest)
    return found


def measure_difference(recorded: list[float], found: list[float]) -> float:
    """Return the largest difference of norm and projections, relative to the norm."""
    largest = max(abs(before - now) for before, now in zip(recorded, found, strict=True))
    return largest / max(recorded[0], found[0], 1e-300)


def compare_constants(kind: str, recorded: Sequence[str]) -> list[str]:
    """Return the constants behind a stage that stand nowhere in what was recorded, a line each; new names are none."""
    before, now = Counter(recorded), list_all_constants()
    gone = Counter(line.partition(" = ")[2] for line in (before - now).elements())
    new = []
    for line in sorted(((now - before) & list_constants(list_reached(kind))).elements()):
        value = line.partition(" = ")[2]
        if gone[value]:
            gone[value] -= 1
        else:
            new.append(f"{kind} {line}: not so when it was recorded")
    return new


def find_faults(goldens: Mapping[str, Golden], recorded: Mapping[str, Any]) -> list[str]:
    """Return what is wrong, a line each: a result that changed under its old version, a version without a record.

    Of stages that follow from each other the first that changed is to blame: those after it are computed again because
    their inputs are others.
    """
    lines, blamed = [], set()
    for kind in list_needed(MODEL_RELEASE):
        stage, known = STAGES[kind], recorded["stages"].get(kind)
        if known is None:
            lines.append(f"{kind}: no golden result is recorded: run make golden")
            continue
        if stage.code_version != known["code_version"]:
            lines.append(
                f"{kind}: code version {stage.code_version}, golden results are of {known['code_version']}: run make "
                "golden"
            )
            blamed.add(kind)
        follows = blamed & set(list_needed(kind))
        changed = compare_constants(kind, recorded["constants"])
        if kind in goldens:
            changed += compare(kind, known, goldens[kind])
        if changed and not follows:
            lines.append(f"raise the version of {kind} in pipeline/recipe.py: " + "; ".join(changed[:5]))
        if changed:
            blamed.add(kind)
    return lines


def read_recorded() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def compute_goldens() -> dict[str, Golden]:
    """Return what every stage gives now."""
    with tempfile.TemporaryDirectory() as folder:
        stores = open_world(Path(folder))
        return describe(stores, carry(stores, tuple(MODELS)))


def round_figure(value: float) -> float:
    """Return ``value`` to 9 significant digits: more than any precision here asks for."""
    return float(f"{value:.9g}") if math.isfinite(value) else value


def main() -> int:
    """Record what is; refuse where a result changed and its version did not."""
    goldens = compute_goldens()
    refused = []
    if FILE.exists():
        refused = [line for line in find_faults(goldens, read_recorded()) if line.startswith("raise")]
    if refused:
        print(*refused, sep="\n")
        return 1
    for golden in goldens.values():
        golden.figures = {name: [round_figure(value) for value in values] for name, values in golden.figures.items()}
        golden.numbers = {name: round_figure(value) for name, value in golden.numbers.items()}
    stages = {kind: record(kind, goldens[kind]) for kind in list_needed(MODEL_RELEASE)}
    recorded = {"constants": sorted(list_all_constants().elements()), "stages": stages}
    FILE.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    print(f"recorded {len(stages)} stages in {FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
