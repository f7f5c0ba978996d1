"""Predictors: released models, each opened once and kept, as the ledger says that they were published.

Belongs here: opening and keeping them. Does not belong here: which of them answers (``serving.standing``), what they do
(``inference``).
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from heimdall_assets.errors import HeimdallError, StorageError
from heimdall_assets.inference import Predictor
from heimdall_assets.inference.release import MODEL_FILE, PROVENANCE_FILE
from heimdall_assets.lineage.release_files import SUMS_FILE
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.plain_files import make_plain_folder, write_missing_file
from heimdall_assets.stores.scratch import lend_folder

_LOG = logging.getLogger(__name__)

RETRY_S = 5.0
"""A model that could not be opened is tried again after this."""

NUM_KEPT = 8
"""Opened models; the one that answered longest ago makes room, unless it is needed."""


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    predictor: Predictor | None = None
    failed_at: float | None = None


class Predictors:
    """Opened models of a home, for threads."""

    def __init__(self, stores: Stores):
        self._stores = stores
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    def take(self, version: str) -> Predictor:
        """Return an opened model; whoever asks while it is opened waits for it.

        One that is open goes on answering, whatever becomes of its files.

        Raises:
            StorageError: it cannot be opened; why is in the log, for that names places.
        """
        with self._lock:
            slot = self._slots.setdefault(version, _Slot())
            self._slots.move_to_end(version)
        with slot.lock:
            if slot.predictor is not None:
                return slot.predictor
            if slot.failed_at is not None and time.monotonic() - slot.failed_at < RETRY_S:
                raise _refuse(version)
            try:
                slot.predictor = _open(self._stores, version)
            except (HeimdallError, OSError) as error:
                slot.failed_at = time.monotonic()
                _LOG.warning("release %s cannot be opened: %s", version, error)
                raise _refuse(version) from error
            return slot.predictor

    def list_open(self) -> list[str]:
        """Return the versions that are open."""
        with self._lock:
            return sorted(version for version, slot in self._slots.items() if slot.predictor is not None)

    def list_failed(self) -> frozenset[str]:
        """Return the versions that could not be opened a moment ago."""
        now = time.monotonic()
        with self._lock:
            slots = list(self._slots.items())
        recent = [(version, slot.failed_at) for version, slot in slots if slot.predictor is None]
        return frozenset(version for version, at in recent if at is not None and now - at < RETRY_S)

    def keep(self, needed: Iterable[str]) -> None:
        """Let go of opened models beyond ``NUM_KEPT`` that are not needed; who answers with one keeps it till then."""
        wanted = set(needed)
        with self._lock:
            spare = [version for version in self._slots if version not in wanted]
            for version in spare[: max(0, len(self._slots) - NUM_KEPT)]:
                del self._slots[version]


def _open(stores: Stores, version: str) -> Predictor:
    """Return a model whose files are those that the ledger says were published, in a folder or a bucket."""
    with lend_folder() as lent:
        folder = lent / version
        make_plain_folder(folder)
        for name in (SUMS_FILE, MODEL_FILE, PROVENANCE_FILE):
            write_missing_file(folder / name, stores.releases.read_file(version, name))
        return Predictor(folder)


def _refuse(version: str) -> StorageError:
    return StorageError(
        f"release {version}: found no model that can be opened, expected one; the service's log says why"
    )
