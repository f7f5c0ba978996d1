"""One piece of work on an object store, and what must hold whatever stops it."""

from collections.abc import Callable
from pathlib import Path

from heimdall_assets.errors import CorruptObject, NotFound
from heimdall_assets.stores.objects.folder import ObjectStore

BEFORE = b"stored long before" * 50
FIRST, SECOND, FILE = b"first " * 200, b"second " * 150, b"from a file " * 100
NAME, NEW_NAME = "results/known", "results/new"
TYPE = "application/octet-stream"


def prepare(store: ObjectStore) -> str:
    """Store what must never be lost; return its digest."""
    digest = store.put_bytes(BEFORE, TYPE).digest
    store.write_reference(NAME, digest)
    return digest


def work(store: ObjectStore, source: Path, tell: Callable[[str], None]) -> None:
    """Store two objects and a file, point new and known references at them; ``tell`` what the store said is stored."""
    first = store.put_bytes(FIRST, TYPE).digest
    tell(f"object {first}")
    store.write_reference(NEW_NAME, first)
    tell(f"reference {NEW_NAME} {first}")
    second = store.put_bytes(SECOND, TYPE).digest
    tell(f"object {second}")
    store.write_reference(NAME, second)
    tell(f"reference {NAME} {second}")
    tell(f"object {store.put_file(source, TYPE).digest}")
    store.put_bytes(FIRST, TYPE)


def find_broken(store: ObjectStore, told: list[str], before: str | None) -> list[str]:
    """Return which promises do not hold; ``before``: digest of what ``prepare`` stored, if it ran."""
    broken = []
    for line in [*told, *([f"object {before}"] if before else [])]:
        kind, *words = line.split()
        if kind == "object":
            broken += _check_object(store, words[0], line)
    references = {line.split()[1]: line.split()[2] for line in told if line.startswith("reference")}
    found: dict[str, str | None] = {}
    for name in store.list_references():
        try:
            found[name] = store.read_reference(name)
        except CorruptObject as error:
            broken.append(f"damaged: reference {name}: {error}")
        else:
            broken += _check_object(store, found[name] or "", f"what reference {name} points at")
    for name, digest in references.items():
        if found.get(name) != digest:
            broken.append(f"lost: reference {name}")
    if before and not found.get(NAME):
        broken.append(f"lost: reference {NAME}")
    for digest in store.list_digests():
        broken += _check_object(store, digest, f"listed object {digest}")
    return broken


def _check_object(store: ObjectStore, digest: str, what: str) -> list[str]:
    try:
        store.read_bytes(digest)
    except NotFound:
        return [f"lost: {what}"]
    except Exception as error:
        return [f"damaged: {what}: {error}"]
    return []


def find_leftovers(root: Path) -> list[Path]:
    """Return temporary files that still lie about."""
    return sorted(root.rglob(".tmp-*"))
