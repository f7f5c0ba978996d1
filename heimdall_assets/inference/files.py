"""Recordings in files, for receivers that somebody hands in.

Belongs here: one file to one recording. Does not belong here: formats (``formats``), recordings of several files and
names that tell their station (``pipeline.intake``).
"""

from pathlib import Path

from heimdall_assets.errors import InvalidRecording, MissingDependency, NotFound
from heimdall_assets.formats import FORMATS, Stated, decode_recording, tell_format
from heimdall_assets.formats.interface import HEAD_BYTES, NOTHING_STATED
from heimdall_assets.physical import Recording
from heimdall_assets.stores.objects.regular_files import read_regular_file


def read_recording(path: str | Path, stated: Stated = NOTHING_STATED, format_name: str | None = None) -> Recording:
    """Return the recording that one file holds.

    Args:
        path: of the file, no link.
        stated: what it does not say itself: rate, start, full scale, channel.
        format_name: one of ``formats.FORMATS``; None: its ending or its first bytes tell.

    Raises:
        NotFound: there is no such file.
        InvalidRecording: it is no regular file, of no known format, or not what it claims to be.
        MissingDependency: its format needs a package that is not installed here.
    """
    path = Path(path)
    try:
        data = read_regular_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path}: found no file, expected a recording") from None
    except OSError as error:
        raise InvalidRecording(f"{path}: cannot be read ({error.strerror}), expected a regular file") from None
    try:
        return decode_recording(data, format_name or find_format(path.name, data), name=path.name, stated=stated)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"{path.name}: its format needs {error.name}, which is not installed; expected the whole package"
        ) from error


def find_format(name: str, data: bytes) -> str:
    """Return the format of a file by its first bytes, or else by its ending.

    Raises:
        InvalidRecording: neither tells one.
    """
    found = tell_format(name, data[:HEAD_BYTES])
    if found is None:
        known = ", ".join(sorted(FORMATS))
        raise InvalidRecording(f"{name}: neither its first bytes nor its name tell its format, expected one of {known}")
    return found.name
