"""Event files: what TensorBoard draws, one file a start of a training, a record an epoch.

Belongs here: the form of a record. Does not belong here: what is measured. TensorBoard's own writer keeps a thread and
a queue, from which a killed process loses what it had; here each record is in the file when ``add`` returns.
"""

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path

from heimdall_assets.errors import StorageError
from heimdall_assets.stores.objects.files import describe

_VERSION = "brain.Event:2"


class EventFile:
    """Appends scalars by step to a new event file below ``folder``."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Begin a file; of those beside it, TensorBoard leaves out what they say of ``first_step`` and later.

        Raises:
            StorageError: the disk refused.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # Neither host nor process in its name, as TensorBoard's own writer has it: a home may be handed on.
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.heimdall"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: could not be made ({describe(error)})") from error
        self._write(Event(wall_time=time.time(), file_version=_VERSION))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=first_step, session_log=start))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append one record with these scalars.

        Raises:
            StorageError: the disk refused.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: "object") -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        RecordWriter(buffer).write(event.SerializeToString())  # type: ignore[attr-defined]
        append_whole(self._path, buffer.getvalue())


def append_whole(path: Path, data: bytes) -> None:
    """Append ``data`` to a file, made where there is none, in one piece: a reader sees all of it or nothing.

    Raises:
        StorageError: the disk refused; the file is as it was.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            taken = os.write(descriptor, data)
            if taken < len(data):
                os.ftruncate(descriptor, before)
                raise StorageError(f"{path}: could not be appended to (the disk took {taken} of {len(data)} bytes)")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"{path}: could not be appended to ({describe(error)})") from error
