"""Releases in a folder and in a bucket: each number once, whole or not there, none ever changed, every byte checked."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from heimdall_assets.errors import CorruptObject, InvalidIdentifier, InvalidInput, NotFound, Refused
from heimdall_assets.people import name_people
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.releases import store as store_module
from heimdall_assets.stores.releases.bucket import BucketFiles
from heimdall_assets.stores.releases.folder import FolderFiles
from heimdall_assets.stores.releases.store import ReleaseStore
from heimdall_assets_tests.stores.faults import Died
from heimdall_assets_tests.stores.processes import run_at_once
from heimdall_assets_tests.stores.promises import find_leftovers
from heimdall_assets_tests.stores.releasing import (
    FILES,
    RECORD,
    open_at,
    publish,
    read_files,
    read_s3_variables,
    reserve,
    take_away,
)
from heimdall_assets_tests.stores.test_measurements import run_sql


@pytest.fixture(params=["folder", "bucket"])
def models(request: pytest.FixtureRequest, quick_path: Path) -> str:
    """Where releases lie: a folder, and a bucket of a real S3 service."""
    return str(quick_path / "models") if request.param == "folder" else f"{request.getfixturevalue('bucket')}/models"


@pytest.fixture
def releases(store: MeasurementStore, models: str) -> ReleaseStore:
    return open_at(models, store)


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


def allocate(url: str, models: str, variables: dict[str, str]) -> list[str]:
    releases = open_at(models, MeasurementStore(url), variables)
    return [reserve(releases, "patch") for _ in range(6)]


def test_processes_at_once_never_get_the_same_number(database_url: str, models: str) -> None:
    given = run_at_once(allocate, *[(database_url, models, read_s3_variables())] * 3)
    numbers = [version for versions in given for version in versions]
    assert len(set(numbers)) == 18
    assert set(numbers) == {f"v1.0.{number}" for number in range(18)}
    for versions in given:
        assert versions == sorted(versions, key=lambda version: int(version.rpartition(".")[2]))


def publish_own(url: str, models: str, variables: dict[str, str], said: bytes) -> str:
    return publish(open_at(models, MeasurementStore(url), variables), "minor", said=said)


def test_processes_that_publish_at_once_get_two_numbers_and_latest_names_the_newer(
    database_url: str, models: str, releases: ReleaseStore
) -> None:
    calls = [(database_url, models, read_s3_variables(), said) for said in (b"one", b"other")]
    versions = run_at_once(publish_own, *calls)
    assert sorted(versions) == ["v1.0.0", "v1.1.0"]
    for version, said in zip(versions, (b"one", b"other"), strict=True):
        assert read_files(releases, version) == {**FILES, "said": said}
    assert json.loads(releases.files.read_latest() or b"{}")["version"] == "v1.1.0"
    assert releases.put_right() == []


def publish_same(url: str, models: str, variables: dict[str, str], said: bytes) -> str:
    """Release one result, as two runs of the same inputs do: what a run tells of itself differs."""
    releases = open_at(models, MeasurementStore(url), variables)
    version = releases.reserve_version("minor", "results/same")
    try:
        releases.publish(version, {**FILES, "said": said}, RECORD)
    except Refused as error:
        return str(error)
    return said.decode()


def test_processes_that_publish_one_result_at_once_never_mix_their_files(
    database_url: str, models: str, releases: ReleaseStore
) -> None:
    calls = [(database_url, models, read_s3_variables(), said) for said in (b"one", b"other")]
    answers = run_at_once(publish_same, *calls)
    (published,) = set(answers) & {"one", "other"}
    (refused,) = set(answers) - {published}
    assert "is published with other files" in refused or "another process publishes it" in refused
    assert read_files(releases, "v1.0.0") == {**FILES, "said": published.encode()}
    assert releases.find_problems("v1.0.0") == []


def test_a_new_database_never_gives_a_number_again_under_which_files_lie(models: str, quick_path: Path) -> None:
    for name in ("first", "second"):
        store = MeasurementStore(f"sqlite:///{quick_path / name}.db")
        store.upgrade()
        releases = open_at(models, store)
        version = publish(releases)
    assert version == "v1.0.1"
    assert json.loads(releases.files.read_latest() or b"{}")["version"] == "v1.0.1"


# --- files


def test_a_release_is_found_as_it_was_published(releases: ReleaseStore, models: str) -> None:
    version = publish(releases)
    assert releases.locate("1.0.0") == f"{models}/v1.0.0"
    assert read_files(releases, version) == FILES
    assert [releases.read_file(version, name) for name in FILES] == list(FILES.values())
    (release,) = releases.list_releases()
    assert release == releases.find_record("1.0.0")
    assert (release["version"], release["aliases"], release["num_sessions"]) == ("v1.0.0", [], 7)
    assert release["files"]["README.md"]["size"] == 10
    assert json.loads(releases.files.read_latest() or b"") == {
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
    assert releases.files.list_versions() == set()
    assert releases.files.read_latest() is None


def test_somebody_elses_files_are_never_touched(releases: ReleaseStore) -> None:
    version = reserve(releases, "major")
    releases.files.write_file(version, "model.onnx", b"not ours")
    with pytest.raises(Refused, match="found other files"):
        releases.publish(version, FILES, RECORD)
    assert read_files(releases, version) == {"model.onnx": b"not ours"}
    assert releases.list_releases() == []


def test_damage_is_found_named_and_only_what_was_published_heals_it(releases: ReleaseStore) -> None:
    version = publish(releases)
    releases.files.write_file(version, "model.onnx", FILES["model.onnx"][:-1] + b"?")
    releases.files.write_file(version, "extra.bin", b"smuggled in")
    take_away(releases, version, "metrics.json")
    problems = releases.find_problems(version)
    assert len(problems) == 3
    for problem, name in zip(problems, ["metrics.json", "model.onnx", "extra.bin"], strict=True):
        assert name in problem
        assert version in problem
    for name in ("model.onnx", "metrics.json"):
        with pytest.raises(CorruptObject, match=f"file {name}"):
            releases.read_file(version, name)
    for name in ("../latest.json", "absent", "/etc/passwd"):
        with pytest.raises(NotFound, match="found no file"):
            releases.read_file(version, name)
        with pytest.raises(NotFound, match="found no file"):
            releases.restore_file(version, name, b"")
    with pytest.raises(Refused, match=r"model\.onnx was published with SHA-256"):
        releases.restore_file(version, "model.onnx", b"other")
    for name in ("model.onnx", "metrics.json"):
        releases.restore_file(version, name, FILES[name])
    assert releases.find_problems(version) == [f"release {version}: found file extra.bin that was not published"]


def test_a_link_in_a_release_is_no_file_of_it(sqlite_releases: ReleaseStore, quick_path: Path) -> None:
    version, files = publish(sqlite_releases), sqlite_releases.files
    assert isinstance(files, FolderFiles)
    (quick_path / "secret").write_bytes(FILES["README.md"])
    (files.folder(version) / "README.md").unlink()
    (files.folder(version) / "README.md").symlink_to(quick_path / "secret")
    (problem,) = sqlite_releases.find_problems(version)
    assert "README.md: found no regular file" in problem


def test_files_that_are_gone_are_written_again_by_whoever_publishes_the_same(releases: ReleaseStore) -> None:
    version = publish(releases)
    take_away(releases, version, "metrics.json")
    releases.publish(version, FILES, RECORD)
    assert releases.find_problems(version) == []
    releases.files.remove(version, FILES)
    assert len(releases.find_problems(version)) == 3
    releases.publish(version, FILES, RECORD)
    assert releases.find_problems(version) == []


@pytest.fixture
def sqlite_releases(quick_path: Path) -> ReleaseStore:
    store = MeasurementStore(f"sqlite:///{quick_path / 'h.db'}")
    store.upgrade()
    return open_at(str(quick_path / "models"), store)


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
    """Return a version whose files are there and whose row is not: as a kill between the two leaves it."""
    version = reserve(releases, "minor")

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "mark_published", die)
        with pytest.raises(Died):
            releases.publish(version, FILES, RECORD)
    assert version in releases.files.list_versions()
    assert not releases.is_published(version)
    if isinstance(releases.files, BucketFiles):
        take_away(releases, version, "README.md")  # as a kill between two files leaves it
    return version


def test_a_half_made_release_is_finished_by_whoever_makes_it_again(
    releases: ReleaseStore, models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = leave_half_made(releases, monkeypatch)
    other = {"README.md": b"of another time", "model.onnx": FILES["model.onnx"]}
    releases.publish(version, other, RECORD)
    assert read_files(releases, version) == other
    assert find_leftovers(Path(models)) == []


def test_a_half_made_release_is_removed_and_said(releases: ReleaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, version = publish(releases), leave_half_made(releases, monkeypatch)
    foreign = reserve(releases, "major")
    releases.files.write_file(foreign, "model.onnx", FILES["model.onnx"])
    (line,) = releases.put_right()
    assert f"release {version}: was half made" in line
    assert releases.files.list_versions() == {whole, foreign}
    assert releases.find_problems(whole) == []
    assert releases.files.list_files(foreign) == ["model.onnx"]  # nobody announced it: somebody else's
    assert releases.put_right() == []


def test_a_foreign_file_among_half_made_ones_is_kept_and_said(
    releases: ReleaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = leave_half_made(releases, monkeypatch)
    releases.files.write_file(version, "theirs.txt", b"not ours")
    before = read_files(releases, version)
    assert releases.put_right() == []
    with pytest.raises(Refused, match="found other files"):
        releases.publish(version, FILES, RECORD)
    assert read_files(releases, version) == before


def test_latest_json_that_was_not_written_is_written_again(releases: ReleaseStore) -> None:
    publish(releases)
    old = releases.files.read_latest()
    publish(releases)
    new = releases.files.read_latest()
    assert old
    assert new
    releases.files.write_latest(old)
    assert releases.put_right() == ["latest.json: named another release than the newest; written again"]
    assert releases.files.read_latest() == new
    assert not releases.point_at_latest()


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
    events = name_people(releases.list_promotion_events(), releases.read_names)
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
    assert releases.check_ledger() == []
    run_sql(store, "UPDATE {p}model_aliases SET version = :v", v=second)
    expected = ["alias champion: found v1.1.0, expected v1.0.0 by promotion_events"]
    assert releases.check_ledger() == expected
    run_sql(store, "DELETE FROM {p}model_aliases")
    assert releases.check_ledger() == ["alias champion: found nothing, expected v1.0.0 by promotion_events"]


@pytest.mark.parametrize("version", ["", "v1", "v1.0", "v01.0.0", "v1.0.0/..", "v1.0.0\n", "1.0.0.0", None, "v٣.0.0"])
def test_only_versions_are_versions(sqlite_releases: ReleaseStore, version: str) -> None:
    with pytest.raises(InvalidIdentifier, match="expected one such as"):
        sqlite_releases.locate(version)


@pytest.mark.parametrize("column", ["files", "record"])
@pytest.mark.parametrize("value", ["{", "7", "[]"])
def test_a_row_that_is_no_json_is_one_line_that_names_it(releases, store, column, value):
    version = publish(releases)
    prefix = "heimdall." if store.engine.dialect.name == "postgresql" else ""
    with store.engine.begin() as connection:
        connection.execute(text(f"UPDATE {prefix}model_releases SET {column} = :value"), {"value": value})
    for ask in (releases.list_releases, lambda: releases.find_record(version), releases.point_at_latest):
        with pytest.raises(CorruptObject, match=f"model_releases {version}: found {column}"):
            ask()
