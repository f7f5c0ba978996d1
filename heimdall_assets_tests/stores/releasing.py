"""Releases for tests: tiny ones, opened in a folder or a bucket, in this process or another."""

import os
import secrets
from collections.abc import Mapping

from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.objects.addresses import parse_place
from heimdall_assets.stores.releases.folder import FolderFiles
from heimdall_assets.stores.releases.opening import open_releases
from heimdall_assets.stores.releases.store import ReleaseStore

FILES = {"model.onnx": b"weights " * 500, "README.md": b"# a model\n", "metrics.json": b"{}"}
RECORD = {"manifest": "ab" * 32, "num_sessions": 7}


def read_s3_variables() -> dict[str, str]:
    """Return what a process needs to find the S3 service of this one: none is inherited by those started early."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def open_at(
    models: str, store: MeasurementStore, variables: Mapping[str, str] | None = None, ledger_url: str = ""
) -> ReleaseStore:
    """Return the releases at an address; ``variables`` are those of the service where they are not set yet."""
    os.environ.update(variables or {})
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3")
    return open_releases(parse_place(models, "models"), store, endpoint, ledger_url)


def reserve(releases: ReleaseStore, kind: str) -> str:
    """Return a new version, of a result that nobody else has."""
    return releases.reserve_version(kind, f"results/{secrets.token_hex(8)}")  # type: ignore[arg-type]


def publish(releases: ReleaseStore, kind: str = "patch", **files: bytes) -> str:
    """Return the version of a new release."""
    version = reserve(releases, kind)
    releases.publish(version, {**FILES, **files}, RECORD)
    return version


def read_files(releases: ReleaseStore, version: str) -> dict[str, bytes]:
    """Return everything that lies under a version, as it lies."""
    return {name: releases.files.read(version, name) for name in releases.files.list_files(version)}


def take_away(releases: ReleaseStore, version: str, name: str) -> None:
    """Remove one file, as somebody might who should not."""
    if isinstance(releases.files, FolderFiles):
        (releases.files.folder(version) / name).unlink()
    else:
        releases.files.remove(version, [name])
