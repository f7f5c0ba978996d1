"""Experiment entries: what a run of an experiment store is told at once: settings, tags, figures, data, files.

Belongs here: their shape, and how MLflow's limits are kept without losing anything in silence. Does not belong here:
what is told (``pipeline.experiments``), telling it (``experiments``).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from heimdall_assets.libraries import silence_libraries
from heimdall_assets.manifests import compute_digest

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

MAX_PARAM = 500
"""Characters of a setting that every version of MLflow takes whole; version 3 would cut longer ones in silence."""

SETTINGS_FOLDER = "config/"
"""Below it the files of a run hold every setting whole."""

MAX_TAG = 5000
"""Characters of a tag, likewise."""

MAX_BATCH = 100
"""Settings, and tags, in one call."""

MAX_DATASET_DIGEST = 36
"""Characters that MLflow keeps of the digest of data; the whole one stands in the source."""

T = TypeVar("T")


class Intent(StrEnum):
    """What a training is for, so that people find the runs they mean to compare; it decides nothing."""

    BASELINE = "baseline"
    ABLATION = "ablation"
    SEARCH = "hyperparameter-search"
    PRODUCTION_CANDIDATE = "production-candidate"


@dataclass(frozen=True)
class Data:
    """What a run learned from or was judged on.

    Attributes:
        name: for people.
        context: ``training``, ``validation`` or ``testing``, as MLflow's page shows it.
        digest: of its manifest.
        profile: counts, JSON values.
    """

    name: str
    context: str
    digest: str
    profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entries:
    """What a run is told at once.

    Attributes:
        params: settings and facts that do not change; JSON values.
        tags: texts to find a run by.
        metrics: figures; infinite ones and NaN are refused by some stores, so there are none.
        data: what went in.
        files: path below the run, with ``/`` -> bytes.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    data: Sequence[Data] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def encode_param(value: Any) -> str:
    """Return a setting as MLflow keeps it: text as it is, lists and objects as JSON; one too long as its digest.

    Examples:
        >>> encode_param(None), encode_param([0.5, 0.9]), encode_param(True)
        ('None', '[0.5, 0.9]', 'True')
        >>> encode_param("x" * 501)[:37]
        '501 characters, sha256:4a7ddaad5ffe4c'
    """
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= MAX_PARAM else f"{_say_long(text)}; whole in {SETTINGS_FOLDER}"


def encode_tag(text: str) -> str:
    """Return a tag as MLflow keeps it; one too long as its digest."""
    return text if len(text) <= MAX_TAG else _say_long(text)


def _say_long(text: str) -> str:
    return f"{len(text)} characters, sha256:{compute_digest(text.encode())}"


def collect_figures(metrics: Mapping[str, Any], split: str = "test") -> dict[str, float]:
    """Return the numbers of an evaluation by name: the model's own, and the medians of what it is compared with."""
    figures = {f"{split}/{name}": value for name, value in metrics.items() if _is_number(value)}
    figures |= {f"{split}/accuracy_{radius}m": share for radius, share in metrics.get("accuracy", {}).items()}
    for method, found in metrics.get("baselines", {}).items():
        figures[f"baseline/{method}/median_m"] = found.get("median_m")
    figures["bound/median_m"] = (metrics.get("bound") or {}).get("median_m")
    return {name: float(value) for name, value in figures.items() if _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def make_batches(items: Mapping[str, T], size: int = MAX_BATCH) -> Iterator[dict[str, T]]:
    """Yield the items in parts of at most ``size``; none of none.

    Examples:
        >>> [len(part) for part in make_batches({str(number): number for number in range(250)})]
        [100, 100, 50]
    """
    pairs = iter(items.items())
    while part := dict(islice(pairs, size)):
        yield part


def describe_data(data: Data) -> "DatasetInput":
    """Return data as MLflow keeps it, without loading any: a digest, where it is from, and counts."""
    silence_libraries()
    from mlflow.entities import Dataset, DatasetInput, InputTag

    short = data.digest[:MAX_DATASET_DIGEST]
    dataset = Dataset(
        name=data.name,
        digest=short,
        source_type="heimdall",
        source=json.dumps({"manifest": data.digest}),
        profile=json.dumps(data.profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.context)])
