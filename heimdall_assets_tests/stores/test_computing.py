"""Facts of a computation: who computes tells them, the first stay for ever; code is known by its bytes."""

import getpass
import platform
import re
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from importlib.metadata import distributions
from pathlib import Path

import pytest

from heimdall_assets.errors import StorageError
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES
from heimdall_assets.manifests import encode_canonical_json
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores import installation
from heimdall_assets.stores.computing import Computation, Origin, keep_facts, originate, read_facts
from heimdall_assets.stores.installation import compute_code_digest, describe_installation
from heimdall_assets.stores.machine import describe_machine
from heimdall_assets.stores.objects.folder import FolderObjectStore


def compute_one(objects: FolderObjectStore, rows: int = 1) -> Result:
    def compute() -> Computed:
        return {"table": objects.put_bytes(b"rows", JSON_MEDIA_TYPE)}, {"num_recordings": rows}

    return find_or_compute(objects, IQ_FILES, {APPROVED_MEASUREMENTS: "0" * 64}, [RecordingSpec()], compute)


def test_a_result_has_the_facts_of_who_computed_it_and_keeps_them_when_somebody_finds_it(tmp_path: Path) -> None:
    objects = FolderObjectStore(tmp_path)
    before = datetime.now(UTC)
    with originate(Origin("anna", "monthly", "run-1")):
        first = compute_one(objects)
    with originate(Origin("bob", None, "run-2")):
        assert compute_one(objects).reused
    facts = read_facts(objects, first.manifest.digest)
    assert facts is not None
    assert (facts["started_by"], facts["reason"], facts["run_id"]) == ("anna", "monthly", "run-1")
    started = datetime.fromisoformat(facts["started_at"])
    assert before - timedelta(milliseconds=1) < started <= datetime.now(UTC)
    assert 0 <= facts["duration_s"] < 60
    assert facts["environment"]["code_sha256"] == describe_installation()["code_sha256"]


def test_the_first_facts_stay_when_the_same_result_is_computed_a_second_time(tmp_path: Path) -> None:
    objects = FolderObjectStore(tmp_path)
    with originate(Origin("anna")):
        manifest = compute_one(objects).manifest
    objects.local_path(manifest.artifacts["table"].digest).unlink()
    with originate(Origin("bob")):
        again = compute_one(objects)
    assert (again.reused, again.manifest.digest) == (False, manifest.digest)
    facts = read_facts(objects, manifest.digest)
    assert facts is not None
    assert facts["started_by"] == "anna"


def test_damaged_facts_are_none_and_are_replaced_when_it_is_computed_again(tmp_path: Path) -> None:
    objects = FolderObjectStore(tmp_path)
    manifest = "0" * 64
    keep_facts(objects, manifest, Computation().describe())
    for digest in list(objects.list_digests()):
        objects.local_path(digest).unlink()
    assert read_facts(objects, manifest) is None
    with originate(Origin("carla")):
        keep_facts(objects, manifest, Computation().describe())
    facts = read_facts(objects, manifest)
    assert facts is not None
    assert facts["started_by"] == "carla"


@pytest.mark.parametrize("held", [b"[]", b"{}", b"no JSON", b'{"environment": 3}'])
def test_what_is_no_facts_is_none(tmp_path: Path, held: bytes) -> None:
    objects = FolderObjectStore(tmp_path)
    objects.write_reference(f"facts/{'0' * 64}", objects.put_bytes(held, JSON_MEDIA_TYPE).digest)
    assert read_facts(objects, "0" * 64) is None


def test_a_result_whose_facts_could_not_be_kept_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = FolderObjectStore(tmp_path)
    write = objects.write_reference

    def fail(name: str, digest: str) -> None:
        if name.startswith("facts/"):
            raise StorageError("disk full")
        write(name, digest)

    monkeypatch.setattr(objects, "write_reference", fail)
    with pytest.raises(StorageError, match="disk full"):
        compute_one(objects)
    monkeypatch.undo()
    assert not compute_one(objects).reused
    assert compute_one(objects).reused


def test_who_computes_is_the_user_where_nobody_says_so_and_ends_with_the_block() -> None:
    with originate(Origin("anna")), originate(Origin("bob")):
        assert Computation().describe()["started_by"] == "bob"
    assert Computation().describe()["started_by"] == getpass.getuser()


def test_two_threads_compute_for_two_people() -> None:
    told: dict[str, str] = {}
    meet = threading.Barrier(2)

    def compute(name: str) -> None:
        with originate(Origin(name)):
            meet.wait(10)
            told[name] = Computation().describe()["started_by"]

    threads = [threading.Thread(target=compute, args=(name,)) for name in ("anna", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == {"anna": "anna", "bob": "bob"}


def test_the_environment_lists_packages_and_names_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment = {**describe_installation(), **describe_machine()}
    versions = dict(package.split("==") for package in environment["packages"])
    assert versions["heimdall-assets"] == "0.1.0"
    # As the standard library reads them, file by file.
    told = {(re.sub(r"[-_.]+", "-", item.metadata["Name"]).lower(), item.version) for item in distributions()}
    assert set(versions.items()) == told
    assert environment["instruction_limits"]["DNNL_MAX_CPU_ISA"] == "AVX2"
    assert environment["threads"]["OMP_NUM_THREADS"] == "3"
    assert environment["processor"]
    text = encode_canonical_json(environment).decode()
    assert platform.node() not in text
    assert str(Path.home()) not in text


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package under git, taken for ours."""
    folder = tmp_path / "repository" / "heimdall_assets"
    (folder / "room").mkdir(parents=True)
    (folder / "__init__.py").write_text("one = 1\n")
    (folder / "room" / "module.py").write_text("two = 2\n")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", "--all")
    git(folder.parent, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(installation, "PACKAGE", folder)
    return folder


def test_edited_and_untracked_files_of_the_package_make_it_dirty_and_others_do_not(package: Path) -> None:
    def is_dirty() -> bool:
        told = describe_installation()
        assert told["git_sha"] == git(package.parent, "rev-parse", "HEAD")
        return bool(told["git_dirty"])

    assert not is_dirty()
    (package.parent / "notes.txt").write_text("of no weight")
    assert not is_dirty()
    (package / "room" / "new.py").write_text("three = 3\n")
    assert is_dirty()
    (package / "room" / "new.py").unlink()
    (package / "room" / "module.py").write_text("two = 3\n")
    assert is_dirty()


def test_the_digest_of_the_code_is_that_of_sha256sum_and_changes_with_name_and_content(package: Path) -> None:
    digest = compute_code_digest(package)
    listed = subprocess.run(
        "LC_ALL=C find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum",
        shell=True, cwd=package, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert listed.split()[0] == digest
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "module.pyc").write_bytes(b"compiled")
    assert compute_code_digest(package) == digest
    (package / "room" / "module.py").rename(package / "room" / "renamed.py")
    renamed = compute_code_digest(package)
    (package / "room" / "renamed.py").write_text("two = 3\n")
    assert len({digest, renamed, compute_code_digest(package)}) == 3
