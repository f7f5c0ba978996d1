"""Tables of strangers to pending sessions: everything is decoded and checked first, then stored in one transaction.

Belongs here: the one import of a table of levels. Does not belong here: formats (``tables.levels``), rows and
identities (``level_table``), IQ recordings (``intake.files``).

What cannot be believed refuses the whole table; what merely repeats, or knows no position, is left out and counted. An
import is idempotent: the same table adds nothing twice.
"""

from dataclasses import dataclass
from pathlib import Path

from heimdall_assets.errors import InvalidTable
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.level_table import (
    DEFAULT_ERROR_MARGIN_M,
    DEFAULT_SOURCE_TYPE,
    build_level_batch,
)
from heimdall_assets.pipeline.intake.observed_truth import compare_truth
from heimdall_assets.pipeline.intake.sidecars import read_bounded
from heimdall_assets.pipeline.truth import check_truth
from heimdall_assets.stores.database.measurements import ImportReport, MeasurementStore
from heimdall_assets.tables.claim import TableClaim
from heimdall_assets.tables.level_table import LevelTable
from heimdall_assets.tables.levels import decode_levels, decode_observed
from heimdall_assets.tables.receiver_list import decode_receivers

_MAX_BYTES = 1_000_000_000


@dataclass(frozen=True)
class TableImport:
    """What came in of a table.

    Attributes:
        report: the rows that were added.
        left_out: reason -> number of rows of the table.
        taken_as: what was believed of it, a phrase each.
        remarks: what is worth knowing beside that.
    """

    report: ImportReport
    left_out: dict[str, int]
    taken_as: list[str]
    remarks: list[str]


def import_levels(
    measurements: MeasurementStore,
    *,
    table: Path,
    receivers: Path | None,
    campaign: str,
    claim: TableClaim,
    error_margin_m: float = DEFAULT_ERROR_MARGIN_M,
    source_type: str = DEFAULT_SOURCE_TYPE,
    waiver: str | None = None,
    clock_class: ClockClass = ClockClass.NONE,
) -> TableImport:
    """Return what came in: one pending session for each transmission of a table of levels, arrivals or bearings.

    Args:
        measurements: where the rows go.
        table: CSV, JSON lines or Parquet (see ``tables.levels``).
        receivers: JSON with the receivers' positions, null for moving ones; None: the table says them.
        campaign: the campaign that the sessions belong to; part of their identity.
        claim: what the table does not say itself.
        error_margin_m: one-sigma error of the transmitter's position. Default: a handheld's GNSS receiver.
        source_type: what kind of transmitters these are.
        waiver: why sources are there although who heard them contradicts that (see ``pipeline.truth``).
        clock_class: whose error adds to the stated sigma of arrivals; ``none``: that is all of it.

    Raises:
        InvalidTable: the table or the receiver list is not what it should be, or leaves something open that must be
            stated; nothing is added.
        Refused: no receiver can have heard a source where it is said to be; nothing is added.
    """
    levels = read_table(table, receivers, claim)
    batch = build_level_batch(
        levels, campaign=campaign, error_margin_m=error_margin_m, source_type=source_type, clock_class=clock_class
    )
    report = measurements.add(check_truth(batch, waiver))
    remarks = [] if claim.observed is None else compare_truth(measurements, batch)
    return TableImport(report, levels.left_out, levels.taken_as, remarks)


def read_table(table: Path, receivers: Path | None, claim: TableClaim) -> LevelTable:
    """Return what a table says, of arrivals and bearings where the claim speaks of them, else of levels alone.

    Raises:
        InvalidTable: as ``import_levels``.
    """
    table = Path(table)
    listed = {}
    if receivers is not None:
        listed = decode_receivers(read_bounded(Path(receivers), _MAX_BYTES, InvalidTable), name=Path(receivers).name)
    decode = decode_levels if claim.observed is None else decode_observed
    return decode(read_bounded(table, _MAX_BYTES, InvalidTable), listed, name=table.name, claim=claim)
