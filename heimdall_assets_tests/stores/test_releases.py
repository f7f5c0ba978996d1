"""Releases: every number once, every folder whole, no release ever changed, every byte checked when read."""

import json
import secrets
import shutil
from pathlib import Path

import pytest

from heimdall_assets.errors import CorruptObject, InvalidIdentifier, InvalidInput, NotFound, Refused, StorageError
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.releases import folders
from heimdall_assets.stores.releases.folders import LATEST_FILE, ReleaseStore
from heimdall_assets_tests.stores.faults import Died, Disk, Faulty, Recorded, write_tree
from heimdall_assets_tests.stores.processes import run_at_once
from heimdall_assets_tests.stores.promises import find_leftovers
from heimdall_assets_tests.stores.test_database import field_url  # noqa: F401
from heimdall_assets_tests.stores.test_measurements import run_sql

FILES = {"model.onnx": b"weights " * 500, "README.md": b"# a model\n", "metrics.json": b"{}"}
RECORD = {"manifest": "ab" * 32, "num_sessions": 7}


@pytest.fixture
def releases(store: MeasurementStore, quick_path: Path) -> ReleaseStore:
    return ReleaseStore(quick_path / "models", store)


def reserve(releases: ReleaseStore, kind: str) -> str:
    """Return a new version, of a result that nobody else has."""
    return releases.reserve_version(kind, f"results/{secrets.token_hex(8)}")  # type: ignore[arg-type]


def publish(releases: ReleaseStore, kind: str = "patch", **files: bytes) -> str:
    version = reserve(releases, kind)
    releases.publish(version, {**FILES, **files}, RECORD)
    return version


# --- numbers


def test_numbers_rise_by_what_changed(releases: ReleaseStore) -> None:
    kinds = ["minor", "patch", "patch", "minor", "patch", "major", "patch", "minor"]
    assert [reserve(releases, kind) for kind in kinds] == [  # type: ignore[arg-type]
        "v1.0.0",
        "v1.0.1",
        "v1.0.2",
        "v1.1.0",
        "v1.1.1",
        "v2.0.0",
        "v2.0.1",
        "v2.1.0",
    ]
    assert releases.list_releases() == []  # reserved is not published
    with pytest.raises(InvalidInput, match="expected one of major, minor, patch"):
        reserve(releases, "huge")


def allocate(url: str, root: Path) -> list[str]:
    releases = ReleaseStore(root, MeasurementStore(url))
    return [reserve(releases, "patch") for _ in range(15)]


def test_processes_at_once_never_get_the_same_number(database_url: str, quick_path: Path) -> None:
    given = run_at_once(allocate, *[(database_url, quick_path / "models")] * 3)
    numbers = [version for versions in given for version in versions]
    assert len(set(numbers)) == 45
    assert set(numbers) == {f"v1.0.{number}" for number in range(45)}
    for versions in given:
        assert versions == sorted(versions, key=lambda version: int(version.rpartition(".")[2]))


def test_a_new_database_never_gives_an_old_folders_number_again(quick_path: Path) -> None:
    for name in ("first", "second"):
        store = MeasurementStore(f"sqlite:///{quick_path / name}.db")
        store.upgrade()
        version = publish(ReleaseStore(quick_path / "models", store))
    assert version == "v1.0.1"
    assert json.loads((quick_path / "models" / "latest.json").read_text())["version"] == "v1.0.1"


# --- folders


def test_a_release_is_found_as_it_was_published(releases: ReleaseStore) -> None:
    version = publish(releases)
    folder = releases.folder(version)
    assert folder == releases.root / "v1.0.0"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert [releases.read_file(version, name) for name in FILES] == list(FILES.values())
    (release,) = releases.list_releases()
    assert release == releases.find_record("1.0.0")
    assert (release["version"], release["aliases"], release["num_sessions"]) == ("v1.0.0", [], 7)
    assert release["files"]["README.md"]["size"] == 10
    assert json.loads((releases.root / "latest.json").read_text()) == {
        "version": "v1.0.0",
        "folder": "v1.0.0",
        "files": release["files"],
    }
    assert releases.find_problems(version) == []


def test_a_release_never_changes(releases: ReleaseStore) -> None:
    version = publish(releases)
    before = releases.find_record(version)
    releases.publish(version, FILES, {"num_sessions": 8})  # the same files again: nothing happens
    assert releases.find_record(version) == before
    for other in ({"README.md": b"other"}, {"more.txt": b""}):
        with pytest.raises(Refused, match="is published with other files and never changes"):
            releases.publish(version, {**FILES, **other}, RECORD)
    assert releases.find_problems(version) == []


def test_only_allocated_numbers_are_published(releases: ReleaseStore) -> None:
    with pytest.raises(Refused, match=r"release v9\.0\.0: was never reserved"):
        releases.publish("v9.0.0", FILES, RECORD)
    version = reserve(releases, "major")
    for files in ({}, {"../escape": b""}, {"a/b": b""}, {"": b""}, {".hidden": b""}):
        with pytest.raises((InvalidInput, InvalidIdentifier)):
            releases.publish(version, files, RECORD)
    for record in ({"version": "v3.0.0"}, {"value": float("nan")}, {"value": {1}}):
        with pytest.raises(InvalidInput, match="record"):
            releases.publish(version, FILES, record)
    assert not releases.root.exists()


def test_somebody_elses_folder_is_never_touched(releases: ReleaseStore) -> None:
    version = reserve(releases, "major")
    releases.folder(version).mkdir(parents=True)
    (releases.folder(version) / "model.onnx").write_bytes(b"not ours")
    with pytest.raises(Refused, match="found other files"):
        releases.publish(version, FILES, RECORD)
    assert (releases.folder(version) / "model.onnx").read_bytes() == b"not ours"
    assert releases.list_releases() == []


def test_damage_is_found_and_named(releases: ReleaseStore, quick_path: Path) -> None:
    version = publish(releases)
    folder = releases.folder(version)
    (folder / "model.onnx").write_bytes(FILES["model.onnx"][:-1] + b"?")
    (folder / "metrics.json").unlink()
    (folder / "extra.bin").write_bytes(b"smuggled in")
    secret = quick_path / "secret"
    secret.write_bytes(FILES["README.md"])
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(secret)
    problems = releases.find_problems(version)
    assert len(problems) == 4
    for problem, name in zip(problems, ["README.md", "metrics.json", "model.onnx", "extra.bin"], strict=True):
        assert name in problem
        assert version in problem
    for name in ("model.onnx", "metrics.json"):
        with pytest.raises(CorruptObject, match=f"file {name}"):
            releases.read_file(version, name)
    for name in ("../latest.json", "absent", "/etc/passwd"):
        with pytest.raises(NotFound, match="found no file"):
            releases.read_file(version, name)
    shutil.rmtree(folder)
    assert len(releases.find_problems(version)) == 3


# --- a release that a killed process left


def test_the_same_result_keeps_its_number_until_a_later_one_is_published(releases: ReleaseStore) -> None:
    first = releases.reserve_version("minor", "results/a")
    assert releases.reserve_version("major", "results/a") == first == "v1.0.0"
    assert not releases.is_published(first)
    releases.publish(first, FILES, RECORD)
    assert releases.is_published(first)
    assert releases.reserve_version("major", "results/a") == first
    left = releases.reserve_version("patch", "results/b")
    assert left == "v1.0.1"
    assert publish(releases) == "v1.0.2"
    assert releases.reserve_version("patch", "results/b") == "v1.0.3"  # as v1.0.1 it would never be the latest
    assert releases.find_record(first).keys().isdisjoint({"result"})


def leave_half_made(releases: ReleaseStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a version whose folder is there and whose row is not: as a kill between the two leaves it."""
    version = reserve(releases, "minor")

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(folders, "mark_published", die)
        with pytest.raises(Died):
            releases.publish(version, FILES, RECORD)
    assert releases.folder(version).is_dir()
    assert not releases.is_published(version)
    return version


def test_a_half_made_release_is_finished_by_whoever_makes_it_again(
    releases: ReleaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = leave_half_made(releases, monkeypatch)
    other = {**FILES, "README.md": b"of another time"}
    releases.publish(version, other, RECORD)
    assert releases.read_file(version, "README.md") == b"of another time"
    assert find_leftovers(releases.root) == []


def test_a_half_made_release_is_removed_and_said(releases: ReleaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, version = publish(releases), leave_half_made(releases, monkeypatch)
    foreign = reserve(releases, "major")
    releases.folder(foreign).mkdir()
    (line,) = releases.put_right()
    assert f"release {version}: was half made" in line
    assert not releases.folder(version).exists()
    assert releases.find_problems(whole) == []
    assert releases.folder(foreign).is_dir()  # nobody announced it: somebody else's
    assert releases.put_right() == []


def test_latest_json_that_was_not_written_is_written_again(releases: ReleaseStore) -> None:
    publish(releases)
    old = (releases.root / LATEST_FILE).read_bytes()
    version = publish(releases)
    new = (releases.root / LATEST_FILE).read_bytes()
    (releases.root / LATEST_FILE).write_bytes(old)
    assert releases.put_right() == ["latest.json: named another release than the newest; written again"]
    assert (releases.root / LATEST_FILE).read_bytes() == new
    (releases.root / LATEST_FILE).unlink()
    releases.publish(version, FILES, RECORD)
    assert (releases.root / LATEST_FILE).read_bytes() == new


# --- names


def test_names_mean_versions(releases: ReleaseStore) -> None:
    with pytest.raises(NotFound, match="none yet"):
        releases.resolve("latest")
    first, second = publish(releases), publish(releases, "minor", extra=b"1")
    publish_late = reserve(releases, "major")
    assert releases.resolve("latest") == second == "v1.1.0"
    assert releases.resolve("v1.0.0") == releases.resolve("1.0.0") == first
    releases.set_alias("champion", first, "ada", "best on new data")
    assert releases.resolve("champion") == first
    for _ in range(2):  # said again, it is no second event
        releases.set_alias("champion", second, "bob", "better")
    assert releases.resolve("champion") == second
    assert [release["aliases"] for release in releases.list_releases()] == [[], ["champion"]]
    events = releases.list_promotion_events()
    assert [(event["alias"], event["version"], event["decided_by"]) for event in events] == [
        ("champion", "v1.0.0", "ada"),
        ("champion", "v1.1.0", "bob"),
    ]
    for unknown in ("v7.0.0", "challenger", publish_late):
        with pytest.raises(NotFound):
            releases.resolve(unknown)
    for hostile in ("", "../v1.0.0", "v1.0.0/model.onnx", "a?b", "http://x"):
        with pytest.raises(InvalidIdentifier):
            releases.resolve(hostile)


def test_an_alias_is_a_name_set_by_somebody_for_a_reason(releases: ReleaseStore) -> None:
    version = publish(releases)
    for alias in ("latest", "v1.0.0", "2.0.0", "", "a/b"):
        with pytest.raises(InvalidIdentifier):
            releases.set_alias(alias, version, "ada", "why")
    with pytest.raises(NotFound):
        releases.set_alias("champion", "v8.0.0", "ada", "why")
    with pytest.raises(Refused):
        releases.set_alias("champion", version, "ada", " ")
    assert releases.list_promotion_events() == []


def test_a_moved_alias_without_a_promotion_is_found(releases: ReleaseStore, store: MeasurementStore) -> None:
    first, second = publish(releases), publish(releases, "minor", extra=b"1")
    releases.set_alias("champion", first, "ada", "best on new data")
    assert releases.check_ledger() == store.check_ledger() == []
    run_sql(store, "UPDATE {p}model_aliases SET version = :v", v=second)
    expected = ["alias champion: found v1.1.0, expected v1.0.0 by promotion_events"]
    assert releases.check_ledger() == store.check_ledger() == expected
    run_sql(store, "DELETE FROM {p}model_aliases")
    assert releases.check_ledger() == ["alias champion: found nothing, expected v1.0.0 by promotion_events"]


@pytest.mark.parametrize("version", ["", "v1", "v1.0", "v01.0.0", "v1.0.0/..", "v1.0.0\n", "1.0.0.0", None, "v٣.0.0"])
def test_only_versions_are_versions(releases: ReleaseStore, version: str) -> None:
    with pytest.raises(InvalidIdentifier, match="expected one such as"):
        releases.folder(version)


# --- a database that is only read


def test_models_of_the_fields_data_have_a_database_of_their_own(field_url: str, quick_path: Path) -> None:  # noqa: F811
    store = MeasurementStore(field_url)
    store.upgrade()
    releases = ReleaseStore(quick_path / "models", store)
    assert releases.list_releases() == []
    assert releases.list_promotion_events() == []
    assert not (quick_path / "models").exists()
    version = publish(releases)
    assert releases.resolve("latest") == version
    releases.set_alias("champion", version, "ada", "first")
    assert ReleaseStore(quick_path / "models", store).list_releases()[0]["aliases"] == ["champion"]
    store.close()


# --- faults


@pytest.fixture
def sqlite_store(quick_path: Path) -> MeasurementStore:
    store = MeasurementStore(f"sqlite:///{quick_path / 'h.db'}")
    store.upgrade()
    return store


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "short"])
def test_each_failing_call_leaves_whole_releases_and_a_retry_heals(
    fault: str, sqlite_store: MeasurementStore, quick_path: Path
) -> None:
    num_refused = 0
    for at in range(1, 1000):
        root = quick_path / f"models-{at}"
        files = Faulty(fault, at)
        releases = ReleaseStore(root, sqlite_store, files=files)
        first = reserve(releases, "minor")
        said = ""
        try:
            releases.publish(first, FILES, RECORD)
        except StorageError as error:
            said = str(error)
            num_refused += fault in said
        # Where all is stored but latest.json, the release shows already; a retry writes that too.
        assert releases.is_published(first) == (not said or LATEST_FILE in said)
        if not files.happened:
            break
        check_whole_files(root)
        releases.publish(first, FILES, RECORD)  # the same process tries again
        assert releases.find_problems(first) == []
        check_whole_files(root)
        ReleaseStore(root, sqlite_store).publish(first, FILES, RECORD)  # and so does another one
        assert find_leftovers(root) == []
    assert at > 15
    assert num_refused > 10 if fault != "short" else num_refused == 0


def check_whole_files(root: Path) -> None:
    for folder in root.glob("v*"):
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    if (root / "latest.json").exists():
        latest = json.loads((root / "latest.json").read_text())
        assert set(latest["files"]) == {path.name for path in (root / latest["folder"]).iterdir()}


def try_power_losses(store: MeasurementStore, quick_path: Path, **settings: object) -> list[str]:
    """Return what a power loss at some call, or after publishing, leaves broken."""
    disk, broken, published = Disk(quick_path / "models"), [], []  # type: ignore[var-annotated]
    place = quick_path / "after"

    def lose_power() -> None:
        for tree in disk.list_outcomes(24, seed=files.count):
            write_tree(tree, place)
            try:
                check_whole_files(place)
                for version in published:
                    assert (place / version).is_dir(), f"lost {version}"
            except (AssertionError, ValueError, OSError) as error:
                broken.append(f"{type(error).__name__}: {error}")
            shutil.rmtree(place)

    files = Recorded(disk, on_call=lose_power, **settings)  # type: ignore[arg-type]
    releases = ReleaseStore(disk.root, store, files=files)
    for _ in range(2):
        version = reserve(releases, "patch")
        releases.publish(version, FILES, RECORD)
        published.append(version)
    lose_power()
    return broken


def test_no_power_loss_breaks_a_release(sqlite_store: MeasurementStore, quick_path: Path) -> None:
    assert try_power_losses(sqlite_store, quick_path) == []


@pytest.mark.parametrize("without", ["sync_file", "sync_folder"])
def test_releases_without_a_sync_are_caught(sqlite_store: MeasurementStore, quick_path: Path, without: str) -> None:
    assert try_power_losses(sqlite_store, quick_path, without=(without,))
