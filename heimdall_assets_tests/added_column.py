"""A home before and after the package got a column: one process fills it, another with the column goes on with it.

Run as a program in a folder that holds the changed package: ``python -m heimdall_assets_tests.added_column``, with what
the filling told as JSON for its one argument.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from heimdall_assets.domain import ApprovalStatus, Measurement
from heimdall_assets.lineage.audit import verify_model
from heimdall_assets.lineage.difference import diff_models
from heimdall_assets.lineage.provenance import decode_provenance
from heimdall_assets.manifests import Manifest, decode_canonical_json, encode_canonical_json
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.tables import artifact_of_table, encode_table
from heimdall_assets.stores.releases.opening import open_releases
from heimdall_assets_tests.lineage.world import World
from heimdall_assets_tests.stores.batches import make_batch, make_measurement

GAINS = [3.0, None, -2.5, 6.0]


def open_world(url: str, folder: Path) -> World:
    """Return the stores of a home, not upgraded."""
    store = MeasurementStore(url)
    return World(store, FolderObjectStore(folder / "objects"), open_releases(folder / "models", store), {}, folder)


def fill_home(url: str, folder: Path) -> dict[str, Any]:
    """Return what another process needs to go on with a home that holds a released model."""
    world = open_world(url, folder)
    world.approve(world.add_sessions(0, 5))
    roots = world.make_chain()
    rows = world.measurements.read_approved(DatasetSpec()).rows
    told = {"url": url, "folder": str(folder), "roots": roots, "version": world.release(roots)}
    world.measurements.close()
    return told | {"rows": encode_table(rows).hex()}


def check_nothing_changed(world: World, told: dict[str, Any]) -> None:
    """The column's coming changes no digest, before and after the database is upgraded."""
    reader = MeasurementStore(told["url"], read_only=True)
    assert encode_table(reader.read_approved(DatasetSpec()).rows).hex() == told["rows"]
    assert reader.find_session("session-0000")["measurements"][0]["antenna_gain_db"] is None
    reader.close()
    world.measurements.upgrade()
    assert encode_table(world.measurements.read_approved(DatasetSpec()).rows).hex() == told["rows"]
    assert world.make_chain() == told["roots"]
    frozen = read_file(world, told["version"])
    log = decode_canonical_json(frozen)["log"]  # of the moment before the release
    assert encode_canonical_json(world.freeze(told["roots"], told["version"], log=log)) == frozen
    assert verify_model(world.gather(told["version"]), world.objects, world.read_table) == []


def read_file(world: World, version: str) -> bytes:
    return world.releases.read_file(version, "provenance.json")


def import_gains(world: World) -> list[str]:
    """Import, approve and return the ids of measurements with ``GAINS``; the last is then damaged in the database."""
    batch = make_batch(num_sessions=2, num_stations=2)
    plain = [
        make_measurement(session, station, with_iq=False) for session in batch.sessions for station in batch.stations
    ]
    heard = [
        Measurement(**{**measurement.model_dump(), "antenna_gain_db": gain})
        for measurement, gain in zip(plain, GAINS, strict=True)
    ]
    with pytest.raises(ValidationError, match="antenna_gain_db"):
        Measurement(**{**plain[0].model_dump(), "antenna_gain_db": 5000.0})
    world.measurements.add(replace(batch, measurements=heard))
    world.measurements.decide([session.id for session in batch.sessions], ApprovalStatus.APPROVED, "ada", "heard")
    run(world, "UPDATE {p}measurements SET antenna_gain_db = 5000 WHERE id = :id", id=heard[3].id)
    return [measurement.id for measurement in heard]


def run(world: World, statement: str, **values: str) -> Any:
    engine = world.measurements.engine
    prefix = "heimdall." if engine.dialect.name == "postgresql" else ""
    with engine.begin() as connection:
        result = connection.execute(text(statement.replace("{p}", prefix)), values)
        return result.fetchall() if result.returns_rows else None


def check_value_arrives(world: World, told: dict[str, Any]) -> None:
    """A value goes from its import to the database, the snapshot, the checks, the view and the provenance."""
    ids = import_gains(world)
    sessions = [world.measurements.find_session(name) for name in ("alps 0", "alps 1")]
    shown = {row["id"]: row for session in sessions for row in session["measurements"]}
    assert [shown[name]["antenna_gain_db"] for name in ids] == [3.0, None, -2.5, 5000.0]
    snapshot = world.measurements.read_approved(DatasetSpec())
    assert str(snapshot.rows.dtypes["antenna_gain_db"]) == "float64"
    kept = snapshot.rows.set_index("measurement_id")["antenna_gain_db"]
    assert kept[ids[0]] == 3.0
    assert kept[ids[2]] == -2.5
    assert int(kept.notna().sum()) == 2
    assert dict(zip(snapshot.left_out["measurement_id"], snapshot.left_out["reason"], strict=True)) == {
        ids[3]: "antenna_gain_db: found 5000.0, expected a number from -1000 to 1000"
    }
    view = run(world, "SELECT measurement_id, antenna_gain_db FROM {p}approved_measurements")
    assert dict(map(tuple, view))[ids[0]] == 3.0
    check_page_and_checks(world, snapshot.rows)
    check_provenance(world, told, ids)


def check_page_and_checks(world: World, rows: Any) -> None:
    from heimdall_assets.defs import checks
    from heimdall_assets.defs.tables import describe_snapshot

    stores = Stores(world.measurements, world.objects, world.releases, world.database)
    found = {}
    for name, table in {
        "good": rows,
        "too much": rows.assign(antenna_gain_db=5000.0),
        "no number": rows.assign(antenna_gain_db="loud"),
    }.items():
        manifest = Manifest(
            kind="approved_measurements", code_version="1", artifacts={"table": artifact_of_table(world.objects, table)}
        )
        fits = checks.snapshot_follows_schema(manifest, stores).passed
        found[name] = [fits, fits and checks.values_are_possible(manifest, stores).passed]
    assert found == {"good": [True, True], "too much": [True, False], "no number": [False, False]}
    described = {column.name: column.description for column in describe_snapshot().columns}
    assert described["antenna_gain_db"] == "dB, from -1000 to 1000, over isotropic"


def check_provenance(world: World, told: dict[str, Any], ids: list[str]) -> None:
    version = world.release(world.make_chain())
    first, second = (decode_provenance(read_file(world, name)) for name in (told["version"], version))
    old, new = world.read_data(first), world.read_data(second)
    assert "antenna_gain_db" not in old.measurements
    assert set(new.measurements) - set(old.measurements) == {"antenna_gain_db"}
    assert new.measurements.set_index("measurement_id")["antenna_gain_db"][ids[0]] == 3.0
    changes = diff_models(first, second, (old, new))["data"]["measurements"]
    assert (changes["removed"], changes["changed"]) == ([], [])
    for name in (told["version"], version):
        assert verify_model(world.gather(name), world.objects, world.read_table) == []
    run(world, "UPDATE {p}measurements SET antenna_gain_db = 4 WHERE id = :id", id=ids[0])
    (finding,) = verify_model(world.gather(version), world.objects, world.read_table)
    assert "antenna_gain_db 3" in finding.expected


def main() -> None:
    told = json.loads(sys.argv[1])
    world = open_world(told["url"], Path(told["folder"]))
    check_nothing_changed(world, told)
    check_value_arrives(world, told)
    world.measurements.close()
    print("went through")


if __name__ == "__main__":
    main()
