"""File systems that fail, die or remember: the ground on which the stores' promises are tried."""

import errno
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from heimdall_assets.stores.objects.files import FileSystem

CHANGES = ("make_folder", "create", "write", "sync_file", "close", "replace", "remove", "remove_folder", "sync_folder")


class Watched(FileSystem):
    """Passes every state-changing call through ``_around``."""

    def _around(self, name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        return call()


def _watch(name: str) -> Callable[..., Any]:
    plain = getattr(FileSystem, name)

    def method(self: Watched, *arguments: Any) -> Any:
        return self._around(name, lambda: plain(self, *arguments), arguments)

    return method


for _name in CHANGES:
    setattr(Watched, _name, _watch(_name))


class Faulty(Watched):
    """Makes call ``at`` fail once: ``EIO``, ``ENOSPC`` (a write first takes half), ``short`` (a write takes half)."""

    def __init__(self, fault: str, at: int):
        self.fault, self.at, self.count = fault, at, 0

    @property
    def happened(self) -> bool:
        return self.count >= self.at

    def _around(self, name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        self.count += 1
        if self.count != self.at:
            return call()
        if name == "write":
            taken = os.write(arguments[0], arguments[1][: max(len(arguments[1]) // 2, 1)])
            if self.fault == "short":
                return taken
        elif self.fault == "short":
            return call()
        number = getattr(errno, self.fault)
        raise OSError(number, os.strerror(number))


class Deadly(Watched):
    """Kills its own process, as if by the power button, at call ``at``: before it, or right after it."""

    def __init__(self, at: int, after: bool):
        self.at, self.after, self.count = at, after, 0

    def _around(self, name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        self.count += 1
        if self.count != self.at:
            return call()
        if self.after:
            call()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("survived SIGKILL")


class Died(BaseException):
    """The process ended here; nothing it would do afterwards happens."""


@dataclass
class Disk:
    """What the calls did, and which of it a power loss may undo.

    Names live in folders, bytes in files, both numbered when made. A name is safe once its folder was synced, bytes
    once their file was. What is not safe may be there, be missing, or (bytes) be there in part, in any combination.
    """

    root: Path
    numbers: dict[int, int] = field(default_factory=dict)  # inode -> file
    folders: dict[Path, int] = field(default_factory=dict)  # present path -> folder
    safe_names: dict[int, dict[str, tuple[str, int]]] = field(default_factory=dict)
    changes: dict[int, list[dict[str, tuple[str, int] | None]]] = field(default_factory=dict)
    names: dict[int, dict[str, tuple[str, int]]] = field(default_factory=dict)
    safe_bytes: dict[int, bytes] = field(default_factory=dict)
    bytes: dict[int, bytearray] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        self._add_folder(self.root)
        self.folders[self.root.parent] = self._new()
        self.names[self.folders[self.root.parent]] = {}

    def _new(self) -> int:
        self.count += 1
        return self.count

    def _add_folder(self, path: Path) -> int:
        number = self.folders[path] = self._new()
        self.safe_names[number], self.changes[number], self.names[number] = {}, [], {}
        return number

    def _change(self, folder: Path, change: dict[str, tuple[str, int] | None]) -> None:
        if folder == self.root.parent:
            return
        number = self.folders[folder]
        self.changes[number].append(change)
        _apply(self.names[number], change)

    def make_folder(self, path: Path) -> None:
        if path not in self.folders:
            self._change(path.parent, {path.name: ("folder", self._add_folder(path))})

    def create(self, path: Path, inode: int) -> None:
        number = self.numbers[inode] = self._new()
        self.bytes[number], self.safe_bytes[number] = bytearray(), b""
        self._change(path.parent, {path.name: ("file", number)})

    def write(self, inode: int, data: bytes) -> None:
        self.bytes[self.numbers[inode]] += data

    def sync_file(self, inode: int) -> None:
        self.safe_bytes[self.numbers[inode]] = bytes(self.bytes[self.numbers[inode]])

    def replace(self, source: Path, target: Path) -> None:
        node = self.names[self.folders[source.parent]][source.name]
        if node[0] == "folder":
            self.folders[target] = self.folders.pop(source)
        if source.parent == target.parent:
            self._change(source.parent, {source.name: None, target.name: node})
        else:
            self._change(target.parent, {target.name: node})
            self._change(source.parent, {source.name: None})

    def remove(self, path: Path) -> None:
        self._change(path.parent, {path.name: None})
        self.folders.pop(path, None)

    def sync_folder(self, path: Path) -> None:
        if path in self.folders and path != self.root.parent:
            number = self.folders[path]
            self.safe_names[number], self.changes[number] = dict(self.names[number]), []

    def list_outcomes(self, limit: int, seed: int) -> Iterator[dict[str, Any]]:
        """Give trees (name -> bytes or tree) that a power loss now may leave; at most ``limit``, the extremes first."""
        pending = [(number, index) for number, changes in self.changes.items() for index in range(len(changes))]
        torn = [number for number, data in self.bytes.items() if bytes(data) != self.safe_bytes[number]]
        space = 2 ** len(pending) * 3 ** len(torn)
        if space <= limit:
            choices: Any = product(product((0, 1), repeat=len(pending)), product((0, 1, 2), repeat=len(torn)))
        else:
            dice = random.Random(seed)
            extremes = [((bit,) * len(pending), (part,) * len(torn)) for bit in (0, 1) for part in (0, 1, 2)]
            choices = extremes + [
                (tuple(dice.choices((0, 1), k=len(pending))), tuple(dice.choices((0, 1, 2), k=len(torn))))
                for _ in range(limit - len(extremes))
            ]
        for kept, parts in choices:
            yield self._build(
                {key for key, bit in zip(pending, kept, strict=True) if bit}, dict(zip(torn, parts, strict=True))
            )

    def _build(self, kept: set[tuple[int, int]], parts: dict[int, int]) -> dict[str, Any]:
        def grow(number: int) -> dict[str, Any]:
            names = dict(self.safe_names[number])
            for index, change in enumerate(self.changes[number]):
                if (number, index) in kept:
                    _apply(names, change)
            return {name: grow(node) if kind == "folder" else content(node) for name, (kind, node) in names.items()}

        def content(number: int) -> bytes:
            data, safe = bytes(self.bytes[number]), self.safe_bytes[number]
            return (safe, data[: len(data) // 2], data)[parts.get(number, 2)]

        return grow(self.folders[self.root])


def _apply(names: dict[str, tuple[str, int]], change: dict[str, tuple[str, int] | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Recorded(Watched):
    """Does every call and tells the disk; dies before call ``die_at``; only pretends to do those ``without``."""

    def __init__(
        self, disk: Disk, die_at: int = 0, without: tuple[str, ...] = (), on_call: Callable[[], None] | None = None
    ):
        self.disk, self.die_at, self.without, self.on_call, self.count = disk, die_at, without, on_call, 0

    def _around(self, name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        self.count += 1
        if self.die_at and self.count >= self.die_at:
            raise Died
        if name in self.without:
            return None
        inode = os.fstat(arguments[0]).st_ino if name in {"write", "sync_file"} else None
        result = call()
        if name in {"make_folder", "sync_folder"}:
            getattr(self.disk, name)(arguments[0])
        elif name in {"remove", "remove_folder"}:
            self.disk.remove(arguments[0])
        elif name == "create":
            self.disk.create(arguments[0], os.fstat(result).st_ino)
        elif name == "write":
            self.disk.write(inode or 0, bytes(arguments[1][:result]))
        elif name == "sync_file":
            self.disk.sync_file(inode or 0)
        elif name == "replace":
            self.disk.replace(*arguments)
        if self.on_call:
            self.on_call()
        return result


def write_tree(tree: dict[str, Any], folder: Path) -> None:
    """Write ``tree`` as files below the new ``folder``."""
    folder.mkdir()
    for name, node in tree.items():
        if isinstance(node, dict):
            write_tree(node, folder / name)
        else:
            (folder / name).write_bytes(node)
