"""Work pool: parts come back in order whoever works on them, and workers elsewhere use the same store or say so."""

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joblib._parallel_backends import ThreadingBackend

from heimdall_assets.errors import MissingDependency, StorageError
from heimdall_assets.pipeline.work_pool import SEEN_BY_ALL, run_parts, spread_with
from heimdall_assets.places import read_places
from heimdall_assets.stores.objects.folder import FolderObjectStore

PARTS = list(range(10))


class OnThreads(ThreadingBackend):  # type: ignore[misc]
    """Another backend, whose workers can tell that they are not this thread."""

    supports_return_generator = True

    def effective_n_jobs(self, n_jobs: int) -> int:
        return 2


class Unshared(FolderObjectStore):
    """A store whose address leads elsewhere for whoever is not this thread, as on a machine without the mount."""

    def __init__(self, root: Path, elsewhere: Path):
        super().__init__(root)
        self._elsewhere, self._here = FolderObjectStore(elsewhere), threading.current_thread()

    def find_present(self, digests: Any) -> set[str]:
        is_here = threading.current_thread() is self._here
        return super().find_present(digests) if is_here else self._elsewhere.find_present(digests)


def tell(part: int, objects: FolderObjectStore) -> tuple[int, str]:
    return part, threading.current_thread().name


def count(built: list[str]) -> Callable[[], OnThreads]:
    def build() -> OnThreads:
        built.append("once")
        return OnThreads()

    return build


def test_parts_come_back_in_order_from_the_workers_that_are_said(tmp_path: Path):
    objects = FolderObjectStore(tmp_path)
    with spread_with(OnThreads):
        found = list(run_parts(tell, PARTS, len(PARTS), objects, parallel_from=2))
    assert [part for part, _ in found] == PARTS
    assert threading.current_thread().name not in {name for _, name in found}
    assert [objects.read_bytes(digest) for digest in objects.list_digests()] == [SEEN_BY_ALL]


def test_few_items_reach_for_nobody_and_neither_does_what_comes_after(tmp_path: Path):
    objects, built = FolderObjectStore(tmp_path), list[str]()
    with spread_with(count(built)):
        assert [part for part, _ in run_parts(tell, PARTS, 1, objects)] == PARTS
        assert built == []
        with spread_with(OnThreads):
            pass
        list(run_parts(tell, PARTS, len(PARTS), objects, parallel_from=2))
        assert built == ["once"]
    list(run_parts(tell, PARTS, 1, objects))
    assert built == ["once"]


def test_a_worker_that_sees_another_store_works_on_nothing(tmp_path: Path):
    objects = Unshared(tmp_path / "here", tmp_path / "there")
    with spread_with(OnThreads), pytest.raises(StorageError, match=r"objects, seen from \S+: found another store"):
        list(run_parts(tell, PARTS, len(PARTS), objects, parallel_from=2))


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_line_names_what_to_install(tmp_path: Path):
    places = read_places({"HEIMDALL_HOME": str(tmp_path), "HEIMDALL_WORK_POOL": "ray"})
    with places.spread_work(), pytest.raises(MissingDependency, match=r"install heimdall-assets\[ray\]"):
        run_parts(tell, PARTS, len(PARTS), FolderObjectStore(tmp_path), parallel_from=2)
