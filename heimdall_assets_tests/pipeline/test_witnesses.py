"""The second place keeps the log's checkpoints, in a folder or a bucket, and finds a log that was cut or rewritten."""

import os
import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from heimdall_assets.errors import NotFound, Refused, StorageError
from heimdall_assets.merkle import decode_checkpoint
from heimdall_assets.pipeline.releases.witnesses import (
    audit_witnesses,
    count_uncovered,
    keep_checkpoint,
    read_last,
    take_checkpoint,
)
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.keys import make_key
from heimdall_assets.stores.objects.addresses import parse_place
from heimdall_assets.stores.witness_places import BucketWitness, FolderWitness, WitnessPlace, open_witness
from heimdall_assets_tests.lineage.world import World, make_world
from heimdall_assets_tests.servers import find_free_port
from heimdall_assets_tests.stores.releasing import open_at


def stores_of(world: World) -> Stores:
    return Stores(world.measurements, world.objects, world.releases, Path("scratch"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make_world(tmp_path / "world", 5, None)
    made.release(made.make_chain())
    return made


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> WitnessPlace:
    if request.param == "folder":
        return open_witness(tmp_path / "second", None)
    address = parse_place(f"{request.getfixturevalue('bucket')}/log", "witness")
    return open_witness(address, os.environ["AWS_ENDPOINT_URL_S3"])


def test_every_checkpoint_is_kept_once_and_the_last_one_is_read(world: World, place: WitnessPlace):
    stores = stores_of(world)
    assert read_last(place) is None
    assert keep_checkpoint(stores, place, None)
    first = read_last(place)
    assert first is not None
    assert first[0] == stores.releases.read_checkpoint()
    assert not keep_checkpoint(stores, place, None)
    assert list(audit_witnesses(stores, [place])) == []
    for number in range(5, 12):  # sizes of one digit and of two: the last one is that of the most entries
        world.approve(world.add_sessions(number, 1))
        assert keep_checkpoint(stores, place, None)
        last = read_last(place)
        assert last is not None
        assert last[0] == stores.releases.read_checkpoint()
    assert len([name for name in place._list_names() if name.startswith("checkpoint-")]) == 8


def test_a_kept_checkpoint_is_signed_and_a_signature_that_does_not_hold_is_found(world: World, tmp_path: Path):
    place, stores, key = open_witness(tmp_path / "second", None), stores_of(world), make_key(tmp_path / "key.pem")
    with pytest.raises(Refused, match="found one that does not count"):
        take_checkpoint(stores, key)
    stores.releases.add_key(key.id, key.public_pem, "Office", "ada")
    keep_checkpoint(stores, place, key)
    assert list(audit_witnesses(stores, [place])) == []
    (file,) = (tmp_path / "second").iterdir()
    head, line = file.read_text().split("\n\n")
    forged = line[:-20] + ("A" if line[-20] != "A" else "B") + line[-19:]
    file.write_text(f"{head}\n\n{forged}")
    (finding,) = audit_witnesses(stores, [place])
    assert (finding.kind, finding.name) == ("signature", f"the checkpoint in {place.shown}")


def test_a_log_put_back_to_an_older_state_is_found_and_not_led_on(world: World, place: WitnessPlace, tmp_path: Path):
    """Whoever may write the database puts yesterday's file back, and goes on from there."""
    shutil.copy(world.database, tmp_path / "yesterday.db")
    world.approve(world.add_sessions(5, 1))
    keep_checkpoint(stores_of(world), place, None)
    kept = read_last(place)
    assert kept is not None
    world.measurements.close()
    shutil.copy(tmp_path / "yesterday.db", world.database)
    measurements = MeasurementStore(f"sqlite:///{world.database}")
    releases = open_at(str(tmp_path / "world" / "heimdall-models"), measurements)
    stores = Stores(measurements, world.objects, releases, Path("scratch"))
    (finding,) = audit_witnesses(stores, [place])
    size = kept[0].size
    assert finding.severity == "error"
    assert finding.name == f"log up to the checkpoint in {place.shown}, its first {size} entries"
    assert finding.found.startswith(f"fewer than {size} entries")
    with pytest.raises(Refused, match="does not begin as the one of"):
        keep_checkpoint(stores, place, None)
    world.measurements, world.releases = measurements, releases
    world.approve(world.add_sessions(7, 3), "another story")  # as long again, and longer
    world.approve(world.add_sessions(10, 1), "another story")
    (finding,) = audit_witnesses(stores, [place])
    assert "with root" in finding.found
    with pytest.raises(Refused, match="does not begin as the one of"):
        keep_checkpoint(stores, place, None)
    assert read_last(place) == kept
    measurements.close()


def test_a_log_under_another_name_is_no_log_of_this_place(world: World, place: WitnessPlace, tmp_path: Path):
    keep_checkpoint(stores_of(world), place, None)
    other = make_world(tmp_path / "other", 5, None)
    other.release(other.make_chain())
    with pytest.raises(Refused, match="does not begin as the one of"):
        keep_checkpoint(stores_of(other), place, None)
    (finding,) = audit_witnesses(stores_of(other), [place])
    assert finding.severity == "error"


def test_what_was_not_posted_is_counted(world: World, place: WitnessPlace):
    stores = stores_of(world)
    (notice,) = audit_witnesses(stores, [place])
    assert notice.severity == "notice"
    assert notice.found == "no checkpoint and after it 1 of the log's releases, promotions and rules"
    keep_checkpoint(stores, place, None)
    size = decode_checkpoint(take_checkpoint(stores)[1]).size
    stores.releases.set_alias("champion", "v1.0.0", "ada", "the first")
    last = read_last(place)
    assert count_uncovered(stores, last[0] if last else None) == 1
    (notice,) = audit_witnesses(stores, [place])
    assert notice.found == f"a checkpoint of {size} entries and after it 1 of the log's releases, promotions and rules"
    assert notice.next_command == "heimdall ledger post"
    world.approve(world.add_sessions(5, 1))
    keep_checkpoint(stores, place, None)
    assert list(audit_witnesses(stores, [place])) == []


def test_a_place_that_is_away_or_holds_something_else_is_a_notice(world: World, tmp_path: Path, bucket: str):
    stores, folder = stores_of(world), tmp_path / "second"
    unplugged = open_witness(tmp_path / "mount" / "second", None)
    with pytest.raises(StorageError, match=r"found no folder .*/mount, expected one"):
        keep_checkpoint(stores, unplugged, None)
    assert not (tmp_path / "mount").exists()
    away = open_witness(parse_place(f"{bucket}/log", "witness"), f"http://127.0.0.1:{find_free_port()}")
    with pytest.raises(StorageError, match="connection refused"):
        keep_checkpoint(stores, away, None)
    folder.mkdir()
    (folder / "somebody's.txt").write_text("hello")
    strange = open_witness(folder, None)
    assert read_last(strange) is None
    (folder / "checkpoint-0000000000000009.txt").write_text("hello")
    for broken in (unplugged, away, strange):
        (notice,) = audit_witnesses(stores, [broken])
        assert (notice.severity, notice.kind, notice.name) == ("notice", "witness", broken.shown)
        assert notice.found.startswith("nothing that can be read (")
    (folder / "checkpoint-0000000000000009.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(StorageError, match="found no text, expected a checkpoint"):
        read_last(strange)
    assert isinstance(strange, FolderWitness)
    assert isinstance(away, BucketWitness)


def test_a_log_without_entries_has_no_checkpoint(tmp_path: Path):
    measurements = MeasurementStore(f"sqlite:///{tmp_path / 'new.db'}")
    measurements.upgrade()
    world = make_world(tmp_path / "world", 1, None)
    stores = Stores(measurements, world.objects, open_at(str(tmp_path / "models"), measurements), Path("scratch"))
    with measurements.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM log_entries")).scalar() == 0
    with pytest.raises(NotFound, match="log: found no entry"):
        keep_checkpoint(stores, open_witness(tmp_path / "second", None), None)
    measurements.close()
