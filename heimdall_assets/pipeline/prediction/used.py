"""Used: what a position was made from, gathered while it is predicted, for its receipt.

Belongs here: inputs by name, and their bytes or values; settings. Does not belong here: what a receipt says
(``lineage.receipts``), predicting.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import InvalidInput, NotFound
from heimdall_assets.lineage.recorded import list_rows
from heimdall_assets.specs import Spec
from heimdall_assets.stores.objects.regular_files import check_regular_file

if TYPE_CHECKING:
    import pandas as pd

PLACEHOLDERS = (
    "measurement_id", "session_id", "session_name", "campaign", "origin", "source_id", "source_name",
    "source_latitude", "source_longitude", "source_altitude_m", "source_error_margin_m", "station_id",
)  # fmt: skip
"""Columns of recordings that are in no database: nobody said what stands there."""

_CONTENT = "sha256:"
_UNREAD = "unread"


@dataclass
class Used:
    """What a position was made from.

    Attributes:
        unsaid: columns whose values nobody said; recordings are then called by their stations.
        settings: spec -> its fields.
        inputs: each its ``name``, and ``sha256`` of bytes or ``values`` that were used, JSON values.
    """

    unsaid: Collection[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    _files: dict[Path, str] = field(default_factory=dict)

    def add_files(self, paths: Iterable[Path]) -> None:
        """Take files as they lie now; what lies after they were read is for ``check_files``.

        Raises:
            NotFound: one is not there.
            InvalidInput: one is no regular file, or cannot be read.
        """
        for number, path in enumerate(dict.fromkeys(paths), start=1):
            self._files[path] = _hash_file(path)
            self.inputs.append({"name": f"file {number} {path.name}", "sha256": self._files[path]})

    def check_files(self) -> None:
        """Do nothing where each file still holds the bytes that it held before it was read.

        Raises:
            InvalidInput: one does not: nobody could say which of them the position is of.
        """
        for path, digest in self._files.items():
            if _hash_file(path) != digest:
                raise InvalidInput(f"{path.name}: changed while it was read, expected the same bytes for its receipt")

    def add_session(self, rows: "pd.DataFrame", checked: "pd.DataFrame | None", specs: Sequence[Spec]) -> None:
        """Take the rows of one session, and the recordings that were read for it.

        Args:
            rows: ``domain.APPROVED_COLUMNS``.
            checked: ``RECORDING_COLUMNS`` of its recordings; None: it has none.
            specs: with which it was computed.
        """
        is_loose = "session_id" in self.unsaid
        label = "the files" if is_loose else str(rows["session_id"].iloc[0])
        kept = rows[[name for name in rows.columns if name not in self.unsaid]]
        values = [{name: value for name, value in row.items() if value is not None} for row in list_rows(kept)]
        self.inputs.append({"name": f"values of {label}", "values": values})
        self.settings = {type(spec).__name__: spec.dump() for spec in specs}
        if checked is None:
            return
        by_id = {row["measurement_id"]: row for row in list_rows(rows)}
        for record in list_rows(checked):
            row = by_id[record["measurement_id"]]
            digest = _find_digest(record, str(row["iq_data_location"]))
            if digest is not None:
                called = row["station_name"] if is_loose else record["measurement_id"]
                self.inputs.append({"name": f"recording {called}", "sha256": digest})


def _find_digest(record: Mapping[str, Any], location: str) -> str | None:
    """Return the SHA-256 of a recording that was read, refused or not; None: it was not, or nobody kept its bytes."""
    if record["status"] == _UNREAD:
        return None
    if record["digest"] is not None:
        return str(record["digest"])
    return location.removeprefix(_CONTENT) if location.startswith(_CONTENT) else None


def _hash_file(path: Path) -> str:
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise NotFound(f"{path}: found no file, expected one") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None
