"""Shards: spectrograms at rest in immutable arrays of tens of megabytes, memory-mapped for training.

Belongs here: packing and finding again. Does not belong here: how a spectrogram is computed (``signals.spectrogram``).
"""

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.manifests import NPY_MEDIA_TYPE
from heimdall_assets.stores.objects import ObjectStore
from heimdall_assets.stores.tables import read_index, write_index

SHARD_BYTES = 64_000_000

Places = dict[str, tuple[str, int]]
"""Key of a spectrogram -> digest of its shard, and its row there."""


class ShardPacker:
    """Stores spectrograms as they come, a shard whenever one is full, so that memory holds one shard and no more."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._images: list[NDArray[np.float32]] = []
        self._keys: list[str] = []
        self._places: Places = {}
        self.num_packed = 0

    def add(self, key: str, image: NDArray[np.float32]) -> None:
        """Take one spectrogram, float32 (3, num_mels, num_frames), all of one shape.

        Raises:
            StorageError: a shard was full and could not be stored.
        """
        self._images.append(image)
        self._keys.append(key)
        self.num_packed += 1
        if len(self._images) >= max(1, SHARD_BYTES // image.nbytes):
            self._store()

    def close(self) -> Places:
        """Store what is left and return where everything lies."""
        if self._images:
            self._store()
        return self._places

    def _store(self) -> None:
        digest = self._objects.put_bytes(encode_shard(self._images), NPY_MEDIA_TYPE).digest
        self._places.update((key, (digest, row)) for row, key in enumerate(self._keys))
        self._images, self._keys = [], []


def encode_shard(images: Sequence[NDArray[np.float32]]) -> bytes:
    """Return the one encoding of a shard: spectrograms one after the other, as ``.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack(images), allow_pickle=False)
    return buffer.getvalue()


def read_places(objects: ObjectStore, name: str) -> Places:
    """Return the places in index ``name`` whose shards are still there."""
    index = read_index(objects, name)
    if index is None:
        return {}
    present = {shard: objects.exists(shard) for shard in index["shard"].unique()}
    rows = zip(index["key"], index["shard"], index["row"], strict=True)
    return {key: (str(shard), int(row)) for key, shard, row in rows if present[shard]}


def write_places(objects: ObjectStore, name: str, places: Places) -> None:
    """Let index ``name`` hold ``places`` and nothing else."""
    stored = pd.DataFrame([(key, *place) for key, place in places.items()], columns=["key", "shard", "row"])
    write_index(objects, name, stored)


def load_features(objects: ObjectStore, index: pd.DataFrame) -> tuple[pd.DataFrame | None, NDArray[np.float32] | None]:
    """Return ``index`` with its rows renumbered, and the one array they count in: float32 (F, 3, mels, frames).

    Both are None where there is no feature at all. A single shard that is used whole stays memory-mapped; otherwise
    the rows are gathered.

    Args:
        objects: where the shards rest.
        index: ``shard`` and ``row`` of each spectrogram, beside other columns.

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
