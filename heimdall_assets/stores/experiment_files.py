"""Files of experiment runs: where they rest, and getting them there.

Belongs here: an embedded store's folder beside its database, which holds no address, so that a home may be moved; the
upload to wherever a server says. Does not belong here: what the files say (``pipeline.experiments``).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from heimdall_assets.errors import StorageError
from heimdall_assets.stores.objects.files import FileWriter
from heimdall_assets.stores.scratch import lend_folder

SERVED = "mlflow-artifacts"
"""Scheme of files that a server of MLflow hands out; an embedded store's folder has that name too."""

EMBEDDED = "sqlite:"

_PATIENCE = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "300")
"""A server may pass a file on to a bucket before it answers: seconds, where a figure is told within five."""


def find_folder(tracking_uri: str) -> Path | None:
    """Return where an embedded store keeps files: beside its database, wherever that is now; None: it is a server.

    Examples:
        >>> find_folder("sqlite:////srv/home/mlflow.db")
        PosixPath('/srv/home/mlflow-artifacts')
        >>> find_folder("https://mlflow.example") is None
        True
    """
    if not tracking_uri.startswith(EMBEDDED):
        return None
    return Path(tracking_uri.removeprefix("sqlite:///")).parent / SERVED


def keep_files(client: Any, tracking_uri: str, run_id: str, files: Mapping[str, bytes]) -> None:
    """Keep files with a run, each at its path below it, in place of what was there.

    Args:
        client: MLflow's, of that store.
        tracking_uri: address of the store.
        run_id: the run.
        files: path below it -> bytes.

    Raises:
        StorageError: the run's place of files is a folder of another machine, or the disk refused.
        Exception: whatever MLflow and the network raise.
    """
    address = client.get_run(run_id).info.artifact_uri or ""
    scheme = urlsplit(address).scheme
    folder = find_folder(tracking_uri)
    if folder is not None and scheme == SERVED:
        _write(folder / urlsplit(address).path.lstrip("/"), files)
    elif scheme in ("", "file") or folder is not None:
        raise StorageError(
            f"files of MLflow run {run_id}: found the place {address!r:.140}, a folder of whoever began it; "
            "expected a server that hands out files, or a bucket"
        )
    else:
        _upload(client, run_id, files)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    writer = FileWriter(folder)
    for name, data in files.items():
        writer.write_file(folder / _check(name), [data])


def _upload(client: Any, run_id: str, files: Mapping[str, bytes]) -> None:
    with lend_folder() as folder, _be_patient():
        for name, data in files.items():
            path = folder / _check(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        client.log_artifacts(run_id, str(folder))


@contextmanager
def _be_patient() -> Iterator[None]:
    """Give a server time to take a file; MLflow reads the limit at each call."""
    name, seconds = _PATIENCE
    before = os.environ.get(name)
    os.environ[name] = seconds
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def _check(name: str) -> PurePosixPath:
    """Return the path of a file below its run.

    Raises:
        StorageError: it would lie elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise StorageError(f"file {name!r:.140} of a run: expected a path below it")
    return path
