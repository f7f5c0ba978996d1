"""Shards: arrays of one shape (spectrograms, correlations) in immutable, memory-mapped files of tens of megabytes.

Belongs here: packing and finding again. Does not belong here: how they are computed (``signals``), what their indexes
list beside (``stages.features``, ``stages.delay_index``).
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput
from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.tables import Index, write_index

SHARD_BYTES = 64_000_000

ShardRows = dict[str, tuple[str, int]]
"""Key of an array -> digest of its shard, and its row there."""


class ShardPacker:
    """Stores arrays as they come, a shard whenever one is full, so that memory holds one shard and no more."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._arrays: list[NDArray[Any]] = []
        self._keys: list[str] = []
        self._rows: ShardRows = {}
        self.num_packed = 0

    def add(self, key: str, array: NDArray[Any]) -> None:
        """Take one array; all that one packer takes are of one shape and dtype.

        Raises:
            StorageError: a shard was full and could not be stored.
        """
        self._arrays.append(array)
        self._keys.append(key)
        self.num_packed += 1
        if len(self._arrays) >= max(1, SHARD_BYTES // array.nbytes):
            self._store()

    def close(self) -> ShardRows:
        """Store what is left and return where everything lies."""
        if self._arrays:
            self._store()
        return self._rows

    def _store(self) -> None:
        digest = self._objects.put_bytes(encode_shard(self._arrays), NPY_MEDIA_TYPE).digest
        self._rows.update((key, (digest, row)) for row, key in enumerate(self._keys))
        self._arrays, self._keys = [], []


def encode_shard(arrays: Sequence[NDArray[Any]]) -> bytes:
    """Return the one encoding of a shard: arrays of one shape and dtype one after the other, as ``.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack(arrays), allow_pickle=False)
    return buffer.getvalue()


def find_shard_rows(objects: ObjectStore, index: Index) -> ShardRows:
    """Return where the rows of an index lie whose shards are still there."""
    table = index.table[find_present(objects, index.table["shard"])]
    rows = zip(table["key"], table["shard"], table["row"], strict=True)
    return {key: (str(shard), int(row)) for key, shard, row in rows}


def find_present(objects: ObjectStore, shards: pd.Series) -> NDArray[np.bool_]:
    """Return which of ``shards``, one a row, are still there."""
    present = objects.find_present({str(shard) for shard in shards})
    return np.array([str(shard) in present for shard in shards], dtype=np.bool_)


def write_shard_rows(objects: ObjectStore, name: str, shard_rows: ShardRows) -> None:
    """Let index ``name`` hold ``shard_rows`` and nothing else."""
    stored = pd.DataFrame([(key, *place) for key, place in shard_rows.items()], columns=["key", "shard", "row"])
    write_index(objects, name, stored)


def load_rows(objects: ObjectStore, index: pd.DataFrame) -> tuple[pd.DataFrame | None, NDArray[Any] | None]:
    """Return ``index`` with its rows renumbered, and the one array they count in: (F, ...), a row for each of its own.

    Both are None where there is no row at all. A single shard that is used whole stays memory-mapped; otherwise
    the rows are gathered.

    Args:
        objects: where the shards rest.
        index: ``shard`` and ``row`` of each array, beside other columns.

    Raises:
        NotFound: a shard is gone.
        CorruptObject: a shard is damaged.
    """
    if not len(index):
        return None, None
    shards = {
        shard: np.load(objects.local_path(shard), mmap_mode="r", allow_pickle=False) for shard in set(index["shard"])
    }
    if len(shards) == 1 and len(index) == len(next(iter(shards.values()))):
        return index, next(iter(shards.values()))
    ordered = index.sort_values(["shard", "row"], ignore_index=True)
    parts = [shards[str(shard)][group["row"].to_numpy()] for shard, group in ordered.groupby("shard", sort=True)]
    return ordered.assign(row=np.arange(len(ordered), dtype=np.int64)), np.concatenate(parts)


class ShardReader:
    """Arrays by number, read from memory-mapped shards when they are asked for; what is not asked for stays on disk.

    Each process opens a shard when it first needs it, so that a reader goes to workers, forked or spawned, as two
    columns.

    Args:
        objects: where the shards rest.
        shards: digest of the shard of each array, (F,).
        rows: int64 (F,), its row there.
    """

    def __init__(self, objects: ObjectStore, shards: Sequence[str], rows: NDArray[np.int64]) -> None:
        self._objects = objects
        self._shards, self._rows = np.array(shards, dtype=np.str_), np.asarray(rows, dtype=np.int64)
        self._open: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def read(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the arrays (N, ...) at ``places``, in that order; each shard is read once, row by rising row.

        Raises:
            NotFound: a shard is gone.
            CorruptObject: a shard is damaged.
            InvalidInput: two of them are not of one shape.
        """
        places = np.asarray(places, dtype=np.int64)
        found: NDArray[Any] | None = None
        for shard in np.unique(self._shards[places]):
            here = np.flatnonzero(self._shards[places] == shard)
            here = here[np.argsort(self._rows[places[here]], kind="stable")]
            arrays = self._find(str(shard))[self._rows[places[here]]]
            if found is None:
                found = np.empty((len(places), *arrays.shape[1:]), arrays.dtype)
            if found.shape[1:] != arrays.shape[1:]:
                raise InvalidInput(f"shard {shard}: arrays of {arrays.shape[1:]}, expected {found.shape[1:]} as others")
            found[here] = arrays
        if found is None:
            raise InvalidInput("arrays of shards: found none asked for, expected at least 1")
        return found

    def _find(self, shard: str) -> NDArray[Any]:
        if shard not in self._open:
            self._open[shard] = np.load(self._objects.local_path(shard), mmap_mode="r", allow_pickle=False)
        return self._open[shard]
