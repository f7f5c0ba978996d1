"""Repair: what an audit found damaged, put right from its twin where there is one, else moved out of the way.

A release's files are objects too, so each is the other's copy. Whatever else is damaged is set aside: the next run
that needs it finds it missing and computes it again, and ``reproduction`` makes again what an old release hangs on.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from heimdall_assets.errors import CorruptObject, HeimdallError, NotFound, OutOfReach, StorageError
from heimdall_assets.media_types import BINARY_MEDIA_TYPE
from heimdall_assets.pipeline.releases.audit import list_hung
from heimdall_assets.pipeline.releases.reading import read_provenance
from heimdall_assets.stores.home import Stores


def heal_release(stores: Stores, version: str, digests: Iterable[str]) -> list[str]:
    """Return what was done, one line each.

    Args:
        stores: the opened stores.
        version: of a published release.
        digests: objects that an audit found damaged.

    Raises:
        NotFound: no such release.
        StorageError: something could not be written.
    """
    record = stores.releases.find_record(version)
    done = _heal_files(stores, version, record["files"])
    if stores.releases.point_at_latest():
        done.append("latest.json: written again")
    whole = {entry["sha256"]: name for name, entry in record["files"].items()}
    for digest in digests:
        if digest in whole and _heal_object(stores, version, whole[digest]):
            done.append(f"object {digest}: stored again from {version}/{whole[digest]}")
        elif stores.objects.set_aside(digest):
            done.append(
                f"object {digest}: damaged bytes moved to damaged/{digest}; heimdall reproduce {version} makes it again"
            )
    return done


def list_damaged_objects(stores: Stores, version: str) -> list[str]:
    """Return the objects behind a release, its own files' twins included, whose bytes are missing or damaged."""
    wanted = {entry["sha256"] for entry in stores.releases.find_record(version)["files"].values()}
    try:
        wanted |= list_hung(stores, read_provenance(stores, version))
    except OutOfReach:
        raise
    except StorageError:
        pass  # without its provenance nothing says which other objects there are
    damaged, objects = [], stores.objects.at_rest()
    for digest in sorted(wanted):
        try:
            objects.read_bytes(digest)
        except OutOfReach:
            raise
        except HeimdallError:
            damaged.append(digest)
    return damaged


def _heal_files(stores: Stores, version: str, listed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write damaged or missing files of the release again from their twins."""
    done = []
    for name, entry in sorted(listed.items()):
        with suppress(CorruptObject):
            stores.releases.read_file(version, name)
            continue
        try:
            data = stores.objects.read_bytes(entry["sha256"])
        except OutOfReach:
            raise
        except (NotFound, StorageError):
            done.append(f"file {version}/{name}: no whole copy; restore it from a backup of the release")
            continue
        stores.releases.restore_file(version, name, data)
        done.append(f"file {version}/{name}: written again from object {entry['sha256']}")
    return done


def _heal_object(stores: Stores, version: str, name: str) -> bool:
    try:
        stores.objects.put_bytes(stores.releases.read_file(version, name), BINARY_MEDIA_TYPE)
    except OutOfReach:
        raise
    except HeimdallError:
        return False
    return True
