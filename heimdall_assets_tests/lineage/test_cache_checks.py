"""Tables that parts of a result were taken from: gone is fine, damaged or saying something else is named."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from heimdall_assets.kinds import IQ_FILES, SPECTROGRAM_FEATURES
from heimdall_assets.lineage.audit import verify_model
from heimdall_assets.lineage.cache_checks import verify_caches
from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.tables import artifact_of_table, decode_table
from heimdall_assets_tests.lineage.world import FACTS, make_world

ARRIVAL = {"measurement_id": "m", "session_id": "s", "key": "one", "arrival_s": float("nan"), "reason": "no lag"}


class Taken:
    """A store with a table, a result that took rows from it, and what the audit says."""

    def __init__(self, folder: Path) -> None:
        self.objects = FolderObjectStore(folder)
        self.shard = self.objects.put_bytes(b"shard", NPY_MEDIA_TYPE).digest
        self.cache = ""

    def list_arrays(self, **rows: int) -> pd.DataFrame:
        return pd.DataFrame([{"key": key, "shard": self.shard, "row": row} for key, row in rows.items()])

    def verify(
        self, cache: pd.DataFrame, result: pd.DataFrame, part: str = "features", artifact: str = "index"
    ) -> list[str]:
        self.cache = artifact_of_table(self.objects, cache).digest
        return self.look(part, artifact, artifact_of_table(self.objects, result).digest)

    def look(self, part: str, artifact: str, result: str, kind: str = SPECTROGRAM_FEATURES) -> list[str]:
        node = {
            "kind": kind,
            "facts": {"caches": {f"{part}/spec-8": self.cache}},
            "artifacts": {artifact: {"digest": result}},
        }
        told: dict[str, Any] = {"model": {"version": "v1.0.0"}, "nodes": [node, {**node, "facts": None}]}
        found = verify_caches(told, self.objects, lambda digest: decode_table(self.objects.read_bytes(digest)))
        return [finding.describe() for finding in found]


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    return Taken(tmp_path)


def test_rows_that_agree_are_fine_and_so_are_keys_that_only_one_of_them_has(taken: Taken):
    result = taken.list_arrays(one=0, fresh=4).assign(measurement_id=["m", "n"])
    assert taken.verify(taken.list_arrays(one=0, other=1), result) == []
    told = pd.DataFrame([ARRIVAL])
    assert taken.verify(told, told, "delays", "arrivals") == []  # a missing value is the same as a missing value


def test_a_key_with_another_row_is_named_with_its_table(taken: Taken):
    (found,) = taken.verify(taken.list_arrays(one=0, two=1), taken.list_arrays(one=0, two=2))
    assert f"took key two from features/spec-8 {taken.cache}" in found
    (found,) = taken.verify(
        pd.DataFrame([ARRIVAL]), pd.DataFrame([{**ARRIVAL, "arrival_s": 1e-6, "reason": None}]), "delays", "arrivals"
    )
    assert f"took key one from delays/spec-8 {taken.cache}" in found


def test_what_lost_its_shard_was_computed_again_and_not_taken(taken: Taken):
    lost = taken.list_arrays(one=0).assign(shard="0" * 64)
    assert taken.verify(lost, taken.list_arrays(one=3)) == []


@pytest.mark.parametrize("kind", [SPECTROGRAM_FEATURES, IQ_FILES])
def test_a_damaged_table_is_named_and_one_that_is_gone_is_none(taken: Taken, kind: str):
    table = taken.list_arrays(one=0)
    assert taken.verify(table, table) == []
    path, part = taken.objects.local_path(taken.cache), "features" if kind == SPECTROGRAM_FEATURES else "recordings"
    result = artifact_of_table(taken.objects, taken.list_arrays(one=0, two=1)).digest
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (found,) = taken.look(part, "index", result, kind)
    assert f"{kind} took from {part}/spec-8 {taken.cache}" in found
    path.unlink()
    assert taken.look(part, "index", result, kind) == []


def test_a_release_keeps_the_tables_in_its_provenance_and_its_audit_looks_at_them(tmp_path: Path):
    world = make_world(tmp_path, 5)
    table = artifact_of_table(world.objects, pd.DataFrame({"key": ["k"], "digest": ["d"]})).digest
    world.facts = {**FACTS, "caches": {"recordings/spec-7": table}}
    version = world.release(world.make_chain())

    def audit() -> set[str]:
        found = verify_model(world.gather(version), world.objects, world.read_table)
        return {finding.name.split()[-1] for finding in found}

    assert audit() == set()
    path = world.objects.local_path(table)
    path.write_bytes(b"other")
    assert audit() == {table}
