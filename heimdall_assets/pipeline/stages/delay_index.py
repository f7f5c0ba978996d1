"""Delay index: arrivals and pairs of many sessions, each computed once.

Belongs here: which sessions' delays are known, how they are listed, kept and found again. Does not belong here: one
session's work (``session_work``), arrays at rest (``objects.shards``), spectrograms (``features``).

What was found rests in two cumulative tables a spec, each behind a reference; the correlations of pairs in shards. A
session is known where its arrivals are and every pair that follows from them: n receivers with an arrival make
n (n - 1) / 2. One that lost a pair (its shard, its table) is computed again.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from heimdall_assets.kinds import SPECTROGRAM_FEATURES
from heimdall_assets.pipeline.recipe import STAGES, Columns, name_index
from heimdall_assets.signals.observation import WorkedPairs, WorkedSession
from heimdall_assets.specs import DelaySpec
from heimdall_assets.stores.computing import note_cache
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.shards import ShardPacker, find_present
from heimdall_assets.stores.objects.tables import Index, read_index, write_index

ARRIVAL_COLUMNS = STAGES[SPECTROGRAM_FEATURES].columns["arrivals"]
PAIR_COLUMNS = STAGES[SPECTROGRAM_FEATURES].columns["pairs"]


class DelayIndex:
    """What is known of sessions' delays under one spec, and what is found now; a session goes by its delays' key."""

    def __init__(self, objects: ObjectStore, spec: DelaySpec) -> None:
        self._objects = objects
        self._arrivals_name, self._pairs_name = (
            name_index(SPECTROGRAM_FEATURES, part, spec) for part in ("delays", "pairs")
        )
        self._indexes = [read_index(objects, name) for name in (self._arrivals_name, self._pairs_name)]
        self._arrivals, pairs = map(_take, self._indexes, (ARRIVAL_COLUMNS, PAIR_COLUMNS))
        self._pairs = pairs[find_present(objects, pairs["shard"])]
        self._known = _find_whole(self._arrivals, self._pairs)
        self._packer = ShardPacker(objects)
        self._new_arrivals: list[dict[str, Any]] = []
        self._new_pairs: list[dict[str, Any]] = []
        self._final: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def add(self, key: str, rows: Sequence[dict[str, Any]], worked: WorkedSession, is_final: bool) -> None:
        """Take what came of a session that is not known.

        Args:
            key: of the session's delays.
            rows: its recordings.
            worked: what came of them.
            is_final: whether it is kept for later runs; else the next one looks again.

        Raises:
            StorageError: a shard was full and could not be stored.
        """
        for row, done in zip(rows, worked.recordings, strict=True):
            self._new_arrivals.append(
                {
                    "measurement_id": row["measurement_id"],
                    "session_id": row["session_id"],
                    "key": key,
                    "arrival_s": done.arrival_s,
                    "arrival_sigma_s": done.arrival_sigma_s,
                    "start_sigma_s": row["timing_sigma_s"],
                    "coherence": done.coherence,
                    "reason": done.no_arrival,
                }
            )
        if worked.pairs is not None:
            self._add_pairs(key, rows, worked.pairs)
        if is_final:
            self._final.add(key)

    def _add_pairs(self, key: str, rows: Sequence[dict[str, Any]], pairs: WorkedPairs) -> None:
        for place, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True)):
            self._packer.add(str(len(self._new_pairs)), pairs.correlation[place])
            self._new_pairs.append(
                {
                    "session_id": rows[first]["session_id"],
                    "key": key,
                    "first": rows[first]["measurement_id"],
                    "second": rows[second]["measurement_id"],
                    "coherence": pairs.coherence[place],
                    "curvature": pairs.curvature[place],
                    "lag_step_s": pairs.lag_step_s,
                }
            )

    def store(self) -> None:
        """Keep what is final for later runs: correlations first, then what points at them.

        Raises:
            StorageError: something could not be stored; nothing stored before is lost.
        """
        for number, (shard, row) in self._packer.close().items():
            self._new_pairs[int(number)].update(shard=shard, row=row)
        for name, before, new, columns in (
            (self._pairs_name, self._pairs, self._new_pairs, PAIR_COLUMNS),
            (self._arrivals_name, self._arrivals, self._new_arrivals, ARRIVAL_COLUMNS),
        ):
            final = [row for row in new if row["key"] in self._final]
            if final:  # in the place of what was left of the same sessions
                write_index(
                    self._objects, name, _join([_without(before, self._final), _build(final, columns)], columns)
                )

    def gather(self, keys: Iterable[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return arrivals and pairs of the sessions ``keys``, those known and all that were added; after ``store``."""
        known = self._known.intersection(keys)
        for index in self._indexes if known else []:
            if index is not None and index.table["key"].isin(known).any():  # a session without an arrival has no pair
                note_cache(index.name, index.digest)
        arrivals = [self._arrivals[self._arrivals["key"].isin(known)], _build(self._new_arrivals, ARRIVAL_COLUMNS)]
        pairs = [self._pairs[self._pairs["key"].isin(known)], _build(self._new_pairs, PAIR_COLUMNS)]
        return (
            _join(arrivals, ARRIVAL_COLUMNS).sort_values(["session_id", "measurement_id"], ignore_index=True),
            _join(pairs, PAIR_COLUMNS).sort_values(["session_id", "first", "second"], ignore_index=True),
        )


def _take(index: Index | None, columns: Columns) -> pd.DataFrame:
    return _build([], columns) if index is None else index.table


def _find_whole(arrivals: pd.DataFrame, pairs: pd.DataFrame) -> set[str]:
    """Return the keys of the sessions that have every pair their arrivals ask for."""
    num_arrivals = arrivals.groupby("key")["arrival_s"].count()
    num_pairs = pairs.groupby("key").size().reindex(num_arrivals.index, fill_value=0)
    return {str(key) for key in num_arrivals.index[num_pairs == num_arrivals * (num_arrivals - 1) // 2]}


def _build(rows: Sequence[dict[str, Any]], columns: Columns) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def _join(tables: Sequence[pd.DataFrame], columns: Columns) -> pd.DataFrame:
    filled = [table for table in tables if len(table)] or tables
    return pd.concat([table[list(columns)] for table in filled], ignore_index=True).astype(columns)


def _without(table: pd.DataFrame, keys: set[str]) -> pd.DataFrame:
    return table[~table["key"].isin(keys)]
