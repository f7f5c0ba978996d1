"""Tables of arrivals or bearings that are in no database, and stay in none: where their transmitters are.

Belongs here: sessions of a table, located by the classical estimators or by a released model. Does not belong here:
what a table says (``tables.observed``), sessions of the database (``stored``).
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heimdall_assets.counts import say_count
from heimdall_assets.errors import CannotLocate
from heimdall_assets.locating.classical import locate_session
from heimdall_assets.locating.estimates import describe_estimate
from heimdall_assets.physical import ClockClass, Estimate
from heimdall_assets.pipeline.intake.level_files import read_table
from heimdall_assets.pipeline.intake.level_table import build_level_batch
from heimdall_assets.pipeline.prediction.outside import Outside, find_outside, read_trained, tell_outside
from heimdall_assets.pipeline.prediction.plausibility import remark_place
from heimdall_assets.pipeline.prediction.released import read_released
from heimdall_assets.pipeline.prediction.stored import find_truth_of, observe_rows, observe_stored
from heimdall_assets.pipeline.prediction.used import Used
from heimdall_assets.session_set import SessionSet
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.scratch import lend_folder
from heimdall_assets.tables.claim import TableClaim

if TYPE_CHECKING:
    import pandas as pd


def locate_table(
    table: Path, receivers: Path | None, claim: TableClaim, clock_class: ClockClass = ClockClass.NONE
) -> list[dict[str, Any]]:
    """Return where the classical estimators put each session of a table, or why they cannot (``refused``).

    Args:
        table: CSV, JSON lines or Parquet, a row a receiver and session.
        receivers: JSON with the receivers' positions; None: the table says them.
        claim: what the table does not say itself, of arrivals and bearings too.
        clock_class: whose error adds to the stated sigma of arrivals; ``none``: that is all of it.

    Raises:
        InvalidTable: the table is not what it should be, or leaves something open that must be stated.
    """
    found = []
    read, left_out = _read_rows(table, receivers, claim, clock_class)
    for name, rows in read:
        sessions = observe_rows(rows)

        def locate(sessions: SessionSet = sessions) -> tuple[Estimate, list[str]]:
            return locate_session(sessions, 0), left_out

        found.append(_describe(name, sessions, rows, locate))
    return found


def predict_table(
    stores: Stores,
    model: str,
    table: Path,
    receivers: Path | None,
    claim: TableClaim,
    clock_class: ClockClass = ClockClass.NONE,
    used: Used | None = None,
) -> list[dict[str, Any]]:
    """Return where a released model puts each session of a table, or why it cannot; args as ``locate_table``.

    Args:
        used: is told from what, for a receipt; None: nobody asks.

    Raises:
        NotFound: there is no such model.
        InvalidTable: as ``locate_table``.
    """
    released = read_released(stores, model)
    trained, found = read_trained(stores, released), []
    if used is not None:
        used.add_files([table] if receivers is None else [table, receivers])
    read, left_out = _read_rows(table, receivers, claim, clock_class)
    if used is not None:
        used.check_files()
    for name, rows in read:
        outside = find_outside(trained, rows)
        sessions, _ = observe_stored(stores, rows, model=released.manifest, used=used)

        def locate(outside: Outside = outside, sessions: SessionSet = sessions) -> tuple[Estimate, list[str]]:
            remarks = tell_outside(outside, released.version, released.graph.kind)
            return released.predict_one(sessions), [*remarks, *left_out]

        found.append({"version": released.version, **_describe(name, sessions, rows, locate)})
    return found


def _describe(
    name: str, sessions: SessionSet, rows: "pd.DataFrame", locate: Callable[[], tuple[Estimate, list[str]]]
) -> dict[str, Any]:
    said: dict[str, Any] = {"session": name, "num_receivers": len(rows), "refused": [], "remarks": []}
    try:
        estimate, said["remarks"] = locate()
    except CannotLocate as error:
        return said | {"refused": [str(error)]}
    said["remarks"] = [*(f"{name}: {remark}" for remark in remark_place(rows, estimate)), *said["remarks"]]
    return said | describe_estimate(estimate, find_truth_of(sessions, 0), float(sessions.error_margin_m[0]))


def _read_rows(
    table: Path, receivers: Path | None, claim: TableClaim, clock_class: ClockClass
) -> tuple[list[tuple[str, "pd.DataFrame"]], list[str]]:
    """Return name and rows (``domain.APPROVED_COLUMNS``) of a table's sessions in its order, and what was left out."""
    levels = read_table(table, receivers, claim)
    batch = build_level_batch(
        levels, campaign="table", error_margin_m=0.0, source_type="unknown", clock_class=clock_class
    )
    with lend_folder() as folder, closing(MeasurementStore(f"sqlite:///{folder}/table.db")) as database:
        database.upgrade()
        database.add(batch)
        rows = [
            (session.name, _name_rows(database.read_session_rows(session.id), session.name))
            for session in batch.sessions
        ]
    return rows, [f"left out: {say_count(number, 'row')}: {reason}" for reason, number in levels.left_out.items()]


def _name_rows(rows: "pd.DataFrame", name: str) -> "pd.DataFrame":
    """Return the rows of one session under its name: the table's reader knows no id of a database that is gone."""
    return rows.assign(session_id=name).astype({"session_id": rows["session_id"].dtype})
