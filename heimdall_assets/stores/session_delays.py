"""Session delays: arrivals of recordings and what pairs of them have in common, each computed once and found again.

Belongs here: the cumulative indexes of both, behind references, and their tables. Does not belong here: one session's
work (``session_work``), the loop over sessions (``features``). Losing an index loses no result: it is computed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heimdall_assets.specs import DelaySpec
from heimdall_assets.stores.objects import ObjectStore
from heimdall_assets.stores.session_work import Worked, WorkedPairs
from heimdall_assets.stores.shards import ShardPacker
from heimdall_assets.stores.tables import read_index, write_index

DELAY_VERSION = "3"
"""Raised when arrivals or pairs, or what is listed of them, come out differently."""

ARRIVAL_COLUMNS = {
    "measurement_id": "string",
    "session_id": "string",
    "key": "string",
    "arrival_s": "float64",
    "arrival_sigma_s": "float64",
    "coherence": "float64",
    "reason": "string",  # why there is no arrival; null: there is one
}
PAIR_COLUMNS = {
    "session_id": "string",
    "key": "string",
    "first": "string",  # measurement_id
    "second": "string",
    "coherence": "float64",
    "curvature": "float64",  # 1/s^2
    "lag_step_s": "float64",
    "shard": "string",
    "row": "int64",
}


@dataclass(frozen=True)
class Delays:
    """What is known of one session's delays: ``ARRIVAL_COLUMNS`` and ``PAIR_COLUMNS``."""

    arrivals: pd.DataFrame
    pairs: pd.DataFrame


class DelayBook:
    """Delays of sessions by key: what was computed before, and what is added now, stored by ``close``."""

    def __init__(self, objects: ObjectStore, spec: DelaySpec) -> None:
        self._objects = objects
        self._names = [f"{kind}/{spec.digest()}-{DELAY_VERSION}" for kind in ("delays", "pairs")]
        arrivals, pairs = (read_index(objects, name) for name in self._names)
        self._arrivals = build_arrivals([] if arrivals is None else arrivals)
        self._pairs = _build_pairs([] if pairs is None else pairs)
        present = {shard: objects.exists(shard) for shard in self._pairs["shard"].unique()}
        self._pairs = self._pairs[self._pairs["shard"].map(present).astype(bool)]
        self._arrivals_of = {str(key): table for key, table in self._arrivals.groupby("key")}
        self._pairs_of = {str(key): table for key, table in self._pairs.groupby("key")}
        self._packer = ShardPacker(objects)
        self._new_arrivals: list[dict[str, Any]] = []
        self._new_pairs: list[dict[str, Any]] = []
        self._passing: set[str] = set()

    def find(self, key: str) -> Delays | None:
        """Return what is known of a session; None where anything of it is missing."""
        arrivals = self._arrivals_of.get(key)
        if arrivals is None:
            return None
        pairs = self._pairs_of.get(key, self._pairs.iloc[:0])
        num_timed = int(arrivals["arrival_s"].notna().sum())
        return Delays(arrivals, pairs) if len(pairs) == num_timed * (num_timed - 1) // 2 else None

    def add(
        self, key: str, rows: Sequence[dict[str, Any]], worked: Sequence[Worked], pairs: WorkedPairs | None, last: bool
    ) -> None:
        """Take what came of a session.

        Args:
            key: of its delays.
            rows: its recordings.
            worked: what came of them.
            pairs: what they have in common.
            last: whether it is kept for later runs; False: some bytes could not be had now.

        Raises:
            StorageError: a shard was full and could not be stored.
        """
        self._new_arrivals += list_arrivals(key, rows, worked)
        if not last:
            self._passing.add(key)
        if pairs is None:
            return
        for number, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True)):
            name = f"{key}/{number}"
            self._packer.add(name, pairs.correlation[number])
            self._new_pairs.append(
                {
                    "session_id": rows[first]["session_id"],
                    "key": key,
                    "first": rows[first]["measurement_id"],
                    "second": rows[second]["measurement_id"],
                    "coherence": float(pairs.coherence[number]),
                    "curvature": float(pairs.curvature[number]),
                    "lag_step_s": pairs.lag_step_s,
                    "name": name,
                }
            )

    def close(self) -> Delays:
        """Store what was added, and return it.

        Raises:
            StorageError: something could not be stored; nothing stored before is lost.
        """
        places = self._packer.close()
        pairs = [{**row, "shard": places[row["name"]][0], "row": places[row["name"]][1]} for row in self._new_pairs]
        new = Delays(build_arrivals(self._new_arrivals), _build_pairs(pairs))
        # Pairs first: arrivals without their pairs are computed again, pairs without arrivals would be found by nobody.
        for name, before, added in (
            (self._names[1], self._pairs, new.pairs),
            (self._names[0], self._arrivals, new.arrivals),
        ):
            lasting = added[~added["key"].isin(self._passing)]
            if len(lasting):
                kept = before[~before["key"].isin(lasting["key"])]
                write_index(self._objects, name, pd.concat([kept, lasting], ignore_index=True))
        return new


def list_arrivals(key: str, rows: Sequence[dict[str, Any]], worked: Sequence[Worked]) -> list[dict[str, Any]]:
    """Return one row of ``ARRIVAL_COLUMNS`` for each recording of a session."""
    return [
        {
            "measurement_id": row["measurement_id"],
            "session_id": row["session_id"],
            "key": key,
            "arrival_s": done.arrival_s,
            "arrival_sigma_s": done.arrival_sigma_s,
            "coherence": done.coherence,
            "reason": done.no_arrival,
        }
        for row, done in zip(rows, worked, strict=True)
    ]


def build_arrivals(rows: pd.DataFrame | Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a table of ``ARRIVAL_COLUMNS``."""
    return pd.DataFrame(rows, columns=list(ARRIVAL_COLUMNS)).astype(ARRIVAL_COLUMNS)


def _build_pairs(rows: pd.DataFrame | Sequence[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS)).astype(PAIR_COLUMNS)


def gather_pairs(known: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return tables of ``PAIR_COLUMNS`` as one, in an order that their sessions alone decide."""
    whole = pd.concat([table for table in known if len(table)] or [_build_pairs([])], ignore_index=True)
    return _build_pairs(whole).sort_values(["session_id", "first", "second"], ignore_index=True)
