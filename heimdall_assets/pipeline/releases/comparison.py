"""Comparison: arrays at rest in shards with the same ones made again, one by one.

How arrays are packed into shards depends on when sessions were approved, so neither shards nor the tables that point
into them can be compared whole. Belongs here: what differs, in words. Does not belong here: making them again
(``releases.reproduction``).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.stores.objects.overlay import RecomputingStore
from heimdall_assets.stores.objects.shards import encode_shard, load_rows


@dataclass(frozen=True)
class Packed:
    """A table that says where arrays lie.

    Attributes:
        artifact: its name.
        arrays: what lies there.
        things: what they are of.
        names: columns that together name one of these.
        columns: the others that must be the same, beside the array.
    """

    artifact: str
    arrays: str
    things: str
    names: list[str]
    columns: tuple[str, ...] = ()


PACKED = (
    Packed("index", "spectrograms", "recordings", ["measurement_id"]),
    Packed("tracks", "signal tracks", "recordings", ["measurement_id"]),
    Packed(
        "pairs",
        "correlations",
        "pairs",
        ["session_id", "first", "second"],
        ("key", "coherence", "curvature", "lag_step_s"),
    ),
)
"""What ``spectrogram_features`` packs into shards."""


@dataclass(frozen=True)
class Unlike:
    """What differs, in words.

    Attributes:
        text: the words.
        share: largest difference as a share of the largest value that was recorded; infinite: no number says.
    """

    text: str
    share: float = math.inf


def compare_packed(
    objects: RecomputingStore, packed: Packed, before: pd.DataFrame, made: pd.DataFrame
) -> Iterator[Unlike]:
    """Yield how the arrays made again differ from those recorded.

    Args:
        objects: holds both; a recorded shard that comes out the same and whole is kept apart in it, to heal from.
        packed: what is compared.
        before: the table as recorded.
        made: the table as made again.

    Raises:
        NotFound: a recorded shard is gone and came out otherwise.
        CorruptObject: it is damaged and came out otherwise.
    """
    again, arrays = load_rows(objects, made)
    again = made if again is None else again
    named, renamed = _name(before, packed.names), _name(again, packed.names)
    if set(named.index) != set(renamed.index):
        yield Unlike(f"{packed.arrays} of {len(before)} {packed.things} then, of {len(made)} now")
        return
    renamed = renamed.loc[named.index]
    for column in packed.columns:
        then, now = named[column].to_numpy(), renamed[column].to_numpy()
        num_other = int((then != now).sum())
        if num_other:
            yield Unlike(f"{column} of {num_other} of {len(before)} {packed.things}", _measure(then, now))
    num_other, largest = 0, 0.0
    rows = pd.DataFrame({"shard": named["shard"], "then": named["row"], "now": renamed["row"]})
    for shard, group in rows.groupby("shard"):
        assert arrays is not None
        other, share = _count_other(objects, str(shard), group["then"].to_numpy(), arrays[group["now"].to_numpy()])
        num_other, largest = num_other + other, max(largest, share)
    if num_other:
        yield Unlike(f"{num_other} of {len(before)} {packed.arrays}", largest)


def _name(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    return table.set_index(pd.MultiIndex.from_frame(table[list(names)].astype(str)))


def _count_other(
    objects: RecomputingStore, shard: str, places: NDArray[np.int64], again: NDArray[Any]
) -> tuple[int, float]:
    """Return how many rows of a recorded shard came out otherwise, and how far; a whole one is kept, to heal from."""
    if np.array_equal(np.sort(places), np.arange(len(places))):
        encoded = encode_shard(list(again[np.argsort(places)]))
        if objects.put_bytes(encoded, NPY_MEDIA_TYPE).digest == shard:
            return 0, 0.0
    then = np.load(objects.base.local_path(shard), mmap_mode="r", allow_pickle=False)[places]
    if then.shape[1:] != again.shape[1:]:
        return len(places), math.inf
    return int((then != again).reshape(len(places), -1).any(axis=1).sum()), _measure(then, again)


def _measure(then: NDArray[Any], now: NDArray[Any]) -> float:
    """Return the largest difference as a share of the largest value then; infinite where they are no numbers."""
    if not (np.issubdtype(then.dtype, np.number) and np.issubdtype(now.dtype, np.number)) or not len(then):
        return math.inf
    largest = float(np.abs(then).max())
    difference = float(np.abs(now - then).max())
    share = difference / largest if largest else math.inf
    return share if math.isfinite(share) else math.inf
