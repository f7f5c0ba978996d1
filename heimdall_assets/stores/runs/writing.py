"""Writing: the folder of one training while it runs, and after it was killed and goes on.

Belongs here: rows, moments and metadata into files that others read meanwhile; the clock of epochs. Does not belong
here: which folders there are (``folders``), what a row holds (``training_tables``).

A row is a line that is appended in one piece. A training that goes on after a kill repeats the epoch it was in: its
first row takes the place of all that the folder says of that epoch and of later ones.
"""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from heimdall_assets.errors import InvalidInput, StorageError
from heimdall_assets.stores.objects.files import FileSystem, FileWriter, describe
from heimdall_assets.stores.runs.event_files import EventFile, append_whole
from heimdall_assets.training_tables import (
    EPOCHS,
    FEATURES,
    POSITIONS,
    TABLES,
    Moment,
    Row,
    decode_rows,
    encode_head,
    encode_row,
    find_place,
    name_file,
)

METADATA, PROGRESS, LOCK = "metadata.json", "progress.json", "writer.lock"
TENSORBOARD, CHECKPOINTS = "tensorboard", "checkpoints"
FORMAT = 1
RUNNING = "running"
MOMENT_EVERY_S = 1.0
"""Between two moments that are written down."""


class RunWriter:
    """Writes the folder of one training, which it holds for as long as it is open."""

    def __init__(self, folder: Path, metadata: Mapping[str, Any], files: FileSystem | None = None) -> None:
        """Open the folder, which is made where there is none.

        Args:
            folder: its name is the training's id.
            metadata: what it says from now on; ``update`` changes it.

        Raises:
            StorageError: the disk refused, or another process writes it.
        """
        self.folder, self._metadata = folder, dict(metadata)
        self._files = FileWriter(folder, files)
        self._events: dict[str, EventFile] = {}
        self._began_s = time.monotonic()
        self._written_s = -MOMENT_EVERY_S
        self._moment: Moment | None = None
        self._is_cut = False
        self._lock = _hold(folder, self._files)
        try:
            for table in TABLES:
                path = folder / name_file(table)
                if not path.is_file() or not path.stat().st_size:
                    append_whole(path, encode_head(table))
            self.update()
        except BaseException:
            self.close()
            raise

    @property
    def id(self) -> str:
        """The training's id."""
        return self.folder.name

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints that are kept lie; it need not be there."""
        return self.folder / CHECKPOINTS

    def update(self, **changes: Any) -> None:
        """Write the metadata anew, with ``changes`` in it.

        Raises:
            StorageError: the disk refused; those before stand.
        """
        self._metadata.update(changes)
        text = json.dumps({"format": FORMAT, **self._metadata}, indent=1, ensure_ascii=False, allow_nan=False)
        self._files.write_file(self.folder / METADATA, [f"{text}\n".encode()])

    def append(self, table: str, row: Row) -> None:
        """Append a row; the first one also ends what a killed process said of its epoch and of later ones.

        Raises:
            StorageError: the disk refused; the table is as it was.
            InvalidInput: the row is none of that table.
        """
        place = find_place(row)
        if not self._is_cut:
            self._forget_from(place)
            self._is_cut = True
        if table == EPOCHS:
            row = {**row, **self._tell_time(row)}
        append_whole(self.folder / name_file(table), encode_row(table, row))
        self._draw(table, row)

    def note(self, moment: Moment) -> None:
        """Take note of where the training is; it is written down once a second.

        Raises:
            StorageError: the disk refused.
        """
        now_s = time.monotonic()
        if not moment.step:
            self._began_s = now_s
        self._moment = moment
        if now_s - self._written_s >= MOMENT_EVERY_S:
            self._written_s = now_s
            self._write_moment(moment, now_s)

    def _write_moment(self, moment: Moment, now_s: float) -> None:
        rate = moment.num_examples / (now_s - self._began_s) if moment.num_examples else None
        told = {
            "epoch": moment.epoch,
            "step": moment.step,
            "num_steps": moment.num_steps,
            "samples_per_s": rate,
            "at": tell_moment(),
        }
        self._replace(self.folder / PROGRESS, json.dumps(told).encode())

    def end(self, status: str, **changes: Any) -> None:
        """Say how the training ended, and let go of the folder.

        Raises:
            StorageError: the disk refused.
        """
        try:
            if self._moment is not None:
                self._write_moment(self._moment, time.monotonic())
            self.update(status=status, ended=tell_moment(), **changes)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _tell_time(self, row: Row) -> Row:
        now_s = time.monotonic()
        lasted_s, self._began_s = now_s - self._began_s, now_s
        told: Row = {"epoch_time": round(lasted_s, 3)}
        if row["part"] == POSITIONS and self._moment is not None and lasted_s > 0:
            told["samples_per_s"] = round(self._moment.num_examples / lasted_s, 1)
        return told

    def _forget_from(self, place: tuple[int, int]) -> None:
        for table in TABLES:
            path = self.folder / name_file(table)
            try:
                data = path.read_bytes()
            except OSError as error:
                raise StorageError(f"{path}: could not be read ({describe(error)})") from error
            try:
                kept = [row for row in decode_rows(table, data) if find_place(row) < place]
            except InvalidInput:
                kept = []  # somebody wrote into it: what it said cannot be told from what is new
            whole = encode_head(table) + b"".join(encode_row(table, row) for row in kept)
            if whole != data:
                self._files.write_file(path, [whole])

    def _draw(self, table: str, row: Row) -> None:
        """Append the numbers of a row to an event file, one for each part: each has epochs of its own."""
        if table == FEATURES:
            return
        part, epoch = str(row["part"]), int(row["epoch"] or 0)
        if part not in self._events:
            self._events[part] = EventFile(self.folder / TENSORBOARD / part, epoch)
        where = [table, *(str(row[name]) for name in ("phase", "layer") if name in row)]
        scalars = {
            "/".join([*where, name]): float(value)
            for name, value in row.items()
            if name != "epoch" and isinstance(value, int | float)
        }
        self._events[part].add(epoch, scalars)

    def _replace(self, path: Path, data: bytes) -> None:
        """Write a file that nobody misses after a power loss: whole at each moment, and not waited for."""
        aside = path.with_name(f".{path.name}")
        try:
            aside.write_bytes(data)
            os.replace(aside, path)
        except OSError as error:
            raise StorageError(f"{path}: could not be written ({describe(error)})") from error


def tell_moment() -> str:
    """Return the present in UTC, as metadata say it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def is_held(folder: Path) -> bool:
    """Return whether a process writes the folder now; where that cannot be found out, none does."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _hold(folder: Path, files: FileWriter) -> int | None:
    try:
        files.prepare_folder(folder)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise StorageError(f"{folder}: could not be opened ({describe(error)})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StorageError(f"{folder}: another process writes it") from error
    except OSError as error:
        with suppress(OSError):
            os.close(descriptor)
        raise StorageError(f"{folder}: could not be locked ({describe(error)})") from error
    return descriptor
