"""Array index: one array a recording (a spectrogram, a signal track), each computed once and found again by its key.

Belongs here: which recordings' arrays are known, how they are kept and listed. Does not belong here: one session's work
(``session_work``), delays, which a whole session has (``delay_index``), arrays at rest (``objects.shards``).
Losing an index, or a shard that it points at, loses no result: it is computed again.
"""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.kinds import SPECTROGRAM_FEATURES
from heimdall_assets.pipeline.recipe import STAGES, name_index
from heimdall_assets.specs import Spec
from heimdall_assets.stores.computing import note_cache
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.shards import ShardPacker, find_shard_rows, write_shard_rows
from heimdall_assets.stores.objects.tables import read_index

ARRAY_COLUMNS = STAGES[SPECTROGRAM_FEATURES].columns["index"]


class ArrayIndex:
    """What is known of recordings' arrays of one kind under one spec, and what is computed now.

    Args:
        objects: where shards and the index rest.
        part: kind of array, as it stands in the index's name.
        spec: what decides them.
    """

    def __init__(self, objects: ObjectStore, part: str, spec: Spec) -> None:
        self._objects, self._name = objects, name_index(SPECTROGRAM_FEATURES, part, spec)
        self._index, self._packer = read_index(objects, self._name), ShardPacker(objects)
        self._known = {} if self._index is None else find_shard_rows(objects, self._index)
        self._before = frozenset(self._known)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    @property
    def num_added(self) -> int:
        """Arrays that were computed now."""
        return self._packer.num_packed

    def add(self, key: str, array: NDArray[Any]) -> None:
        """Take the array of a recording that is not known.

        Raises:
            StorageError: a shard was full and could not be stored.
        """
        self._packer.add(key, array)

    def store(self) -> None:
        """Keep what was added for later runs.

        Raises:
            StorageError: something could not be stored; nothing stored before is lost.
        """
        if self._packer.num_packed:
            self._known |= self._packer.close()
            write_shard_rows(self._objects, self._name, self._known)

    def list_rows(self, recordings: Iterable[tuple[dict[str, Any], str]]) -> pd.DataFrame:
        """Return ``ARRAY_COLUMNS`` of the recordings (row and key) that have an array; after ``store``."""
        recordings = list(recordings)
        if self._index is not None and not self._before.isdisjoint(key for _, key in recordings):
            note_cache(self._index.name, self._index.digest)
        index = [
            {
                "measurement_id": row["measurement_id"],
                "key": key,
                "shard": self._known[key][0],
                "row": self._known[key][1],
            }
            for row, key in recordings
            if key in self._known
        ]
        return pd.DataFrame(index, columns=list(ARRAY_COLUMNS)).astype(ARRAY_COLUMNS)
