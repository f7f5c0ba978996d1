"""Folders: the trainings of a home, each a folder ``runs/ID`` of tables, metadata and curves.

Belongs here: beginning one, going on in one, reading them while others write, removing old ones. Does not belong here:
how a folder is written (``writing``), what is kept of it beside its checkpoint (``pipeline.runs``).
No folder names where it lies: a home is moved and copied as it is.
"""

import json
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from heimdall_assets.errors import NotFound, StorageError
from heimdall_assets.stores.objects.files import FileSystem, describe
from heimdall_assets.stores.runs.writing import (
    CHECKPOINTS,
    METADATA,
    PROGRESS,
    RUNNING,
    RunWriter,
    is_held,
    tell_moment,
)
from heimdall_assets.training_tables import TABLES, Row, decode_rows, name_file

FINISHED, FAILED, STOPPED, INTERRUPTED, DAMAGED = "finished", "failed", "stopped", "interrupted", "damaged"
"""How a training stands beside ``running``: ended well, with an error, by a signal, killed; or nobody can say."""

STATUSES = (RUNNING, FINISHED, FAILED, STOPPED, INTERRUPTED, DAMAGED)
ID_LENGTH = 12
_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")
DAY_S = 86_400.0


class RunFolders:
    """The folders of trainings below one folder, which is made with the first."""

    def __init__(self, root: Path, files: FileSystem | None = None) -> None:
        self.root = root
        self._files = files

    def begin(self, fit: str, told: Mapping[str, Any], goes_on: bool) -> RunWriter:
        """Return the writer of a new folder, or of the one in which an interrupted training of ``fit`` was told of.

        Args:
            fit: what is computed: the cache key of its result.
            told: metadata, JSON values.
            goes_on: it goes on from a checkpoint.

        Raises:
            StorageError: the disk refused.
        """
        moment = tell_moment()
        earlier = self._find_unfinished(fit) if goes_on else None
        if earlier is not None:
            told = {**told, "id": earlier["id"], "started": earlier["started"]}
            attempts = [*earlier.get("attempts", []), moment]
        else:
            told = {**told, "id": secrets.token_hex(ID_LENGTH // 2), "started": moment}
            attempts = [moment]
        metadata = {**told, "fit": fit, "status": RUNNING, "ended": None, "attempts": attempts}
        return RunWriter(self.root / str(told["id"]), metadata, self._files)

    def list_runs(self) -> list[dict[str, Any]]:
        """Return the metadata of all trainings, the newest first."""
        try:
            names = [path.name for path in self.root.iterdir() if _ID.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(f"{self.root}: could not be read ({describe(error)})") from error
        found = []
        for name in names:
            with suppress(NotFound):  # removed meanwhile, or begun just now
                found.append(self.read(name))
        return sorted(found, key=lambda one: str(one.get("started", "")), reverse=True)

    def read(self, name: str) -> dict[str, Any]:
        """Return the metadata of a training; ``status`` says ``interrupted`` where its process is gone.

        Raises:
            NotFound: there is no such folder.
            StorageError: the disk refused.
        """
        try:
            data = self._read_file(name, METADATA)
            told: dict[str, Any] = dict(json.loads(data))
            if told["id"] != name or told["status"] not in STATUSES:
                raise ValueError("of another training")
        except (ValueError, LookupError, TypeError):
            return {"id": name, "status": DAMAGED}
        if told["status"] == RUNNING and not is_held(self.root / name):
            told["status"] = INTERRUPTED
        return told

    def read_progress(self, name: str) -> dict[str, Any] | None:
        """Return the moment that a training was last in; None: it never told one."""
        try:
            return dict(json.loads(self._read_file(name, PROGRESS)))
        except (NotFound, ValueError, TypeError):
            return None

    def read_tables(self, name: str) -> dict[str, list[Row]]:
        """Return table -> its whole rows so far.

        Raises:
            InvalidInput: a file is no table.
            StorageError: the disk refused.
        """
        found: dict[str, list[Row]] = {}
        for table in TABLES:
            try:
                found[table] = decode_rows(table, self._read_file(name, name_file(table)))
            except NotFound:
                found[table] = []
        return found

    def locate(self, name: str) -> Path:
        """Return where the folder of a training lies."""
        return self.root / name

    def remove_old(self, max_runs: int, max_days: float, max_checkpoint_days: float) -> list[str]:
        """Remove the folders beyond the newest ``max_runs``, those older, and older checkpoints; return a line each.

        A folder that a process writes stays, whatever its age.

        Raises:
            StorageError: the disk refused.
        """
        now_s = time.time()
        lines = []
        for number, told in enumerate(self.list_runs()):
            folder = self.root / told["id"]
            if is_held(folder):
                continue
            age_days = (now_s - _find_newest(folder)) / DAY_S
            if number >= max_runs or age_days > max_days:
                _remove(folder)
                lines.append(f"training {told['id']}: its folder removed")
            elif age_days > max_checkpoint_days and (folder / CHECKPOINTS).is_dir():
                _remove(folder / CHECKPOINTS)
                lines.append(f"training {told['id']}: its checkpoints removed")
        return lines

    def _find_unfinished(self, fit: str) -> dict[str, Any] | None:
        """Return the metadata of the newest folder of ``fit`` that nobody writes and that did not end well."""
        for told in self.list_runs():
            if told.get("fit") == fit:
                return told if told["status"] in (FAILED, STOPPED, INTERRUPTED) else None
        return None

    def _read_file(self, name: str, part: str) -> bytes:
        path = self.root / name / part
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"training {name}: found no {part}") from error
        except OSError as error:
            raise StorageError(f"{path}: could not be read ({describe(error)})") from error


def _find_newest(folder: Path) -> float:
    """Return when a file of a folder was last written, Unix seconds; that one was removed makes it no younger."""
    times = [0.0]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if not path.is_dir():
                times.append(path.lstat().st_mtime)
    return max(times)


def _remove(folder: Path) -> None:
    """Remove a folder; its name is free in one step, so that nobody reads half of it."""
    aside = folder.with_name(f".{folder.name}.removed")
    try:
        if aside.exists():  # who removed it was killed
            shutil.rmtree(aside)
        folder.rename(aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise StorageError(f"{folder}: could not be removed ({describe(error)})") from error
