"""Recordings that are in no database, and stay in none: where classical estimation or a released model puts their
transmitter."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heimdall_assets.domain import Position
from heimdall_assets.formats import Stated
from heimdall_assets.inference.told_signals import tell_signals
from heimdall_assets.locating.classical import locate_session
from heimdall_assets.locating.estimates import describe_estimate
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.files import import_recordings
from heimdall_assets.pipeline.intake.handed_in import Handed, gather_files, list_read
from heimdall_assets.pipeline.intake.identities import make_source
from heimdall_assets.pipeline.intake.iq_session import SessionClaim
from heimdall_assets.pipeline.intake.reference_timing import ReferenceClaim
from heimdall_assets.pipeline.prediction.outside import remark_outside
from heimdall_assets.pipeline.prediction.plausibility import remark_place
from heimdall_assets.pipeline.prediction.released import read_released
from heimdall_assets.pipeline.prediction.stored import (
    describe_refused,
    explain_refusals,
    keep_silent,
    keep_wanted,
    observe_stored,
)
from heimdall_assets.pipeline.prediction.used import PLACEHOLDERS, Used
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.scratch import lend_folder

if TYPE_CHECKING:
    import pandas as pd

_CALLED = "these recordings"
"""How messages call the session that they are, whose id nobody knows."""


def locate_files(
    stores: Stores,
    files: Sequence[Path | Handed],
    receivers: Mapping[str, Position],
    stated: Stated,
    clock_class: ClockClass = ClockClass.NONE,
    progress: Progress = keep_silent,
    format_name: str | None = None,
    reference: ReferenceClaim | None = None,
) -> dict[str, Any]:
    """Return where the classical estimators put the transmitter of recordings that are in no database.

    Args, and what is raised of files: as ``predict_files``.

    Raises:
        CannotLocate: no honest position follows from them.
    """
    claim = _claim(receivers, clock_class, reference)
    rows, remarks = _read_rows(stores, claim, files, stated, format_name)
    sessions, refused = observe_stored(stores, rows, progress)
    reasons = describe_refused(rows, keep_wanted(refused, None))
    with explain_refusals(reasons, rows, _CALLED):
        estimate = locate_session(sessions, 0)
    remarks += remark_place(rows, estimate)
    described = describe_estimate(estimate)
    return {"session_id": None, **described, "num_receivers": len(rows), "refused": reasons, "remarks": remarks}


def predict_files(
    stores: Stores,
    model: str,
    files: Sequence[Path | Handed],
    receivers: Mapping[str, Position],
    stated: Stated,
    clock_class: ClockClass = ClockClass.NONE,
    progress: Progress = keep_silent,
    format_name: str | None = None,
    reference: ReferenceClaim | None = None,
    used: Used | None = None,
) -> dict[str, Any]:
    """Return where a released model puts the transmitter of recordings that are in no database, and stay in none.

    Args:
        stores: of this home; it is given nothing but the recordings' bytes and what is computed of them.
        model: version, latest or alias.
        files: recordings of any format, one a receiver; a plain path is a file whose name tells its station.
        receivers: station code -> its position; may lack stations whose files say it.
        stated: what the files cannot say themselves.
        clock_class: how recordings were timed whose format does not say it.
        progress: told what is done.
        format_name: how all are written; None: each tells it.
        reference: the transmitter that clocks are set by; None: they were right when they were recorded.
        used: is told from what, for a receipt; None: nobody asks.

    Raises:
        InvalidInput: a file changed while it was read, and ``used`` is to say which bytes it held.
        InvalidRecording: a file that cannot be read, timed or used.
        InvalidSetting: a format that is not told, or something is stated that they say, or not stated that they cannot.
        CannotLocate: they hold nothing from which this model can tell a position.
    """
    released = read_released(stores, model)
    claim = _claim(receivers, clock_class, reference)
    if used is not None:
        used.unsaid = PLACEHOLDERS
        used.add_files(_list_read(files, stated, format_name, reference))
    rows, heard = _read_rows(stores, claim, files, stated, format_name)
    if used is not None:
        used.check_files()
    remarks = [*heard, *remark_outside(stores, released, rows)]
    sessions, refused = observe_stored(stores, rows, progress, released.manifest, used)
    reasons = describe_refused(rows, keep_wanted(refused, released))
    with explain_refusals(reasons, rows, _CALLED):
        estimate = released.predict_one(sessions)
    remarks += remark_place(rows, estimate)
    described = describe_estimate(estimate)
    said = {
        "signal": tell_signals(released.predict_signals(sessions), sessions),
        "refused": reasons,
        "remarks": remarks,
    }
    return {"version": released.version, "session_id": None, **described, **said}


def _claim(
    receivers: Mapping[str, Position], clock_class: ClockClass, reference: ReferenceClaim | None
) -> SessionClaim:
    # An import needs a source; what it says of the truth is not asked for.
    somewhere = make_source("unknown", Position(latitude=0.0, longitude=0.0))
    return SessionClaim(
        "files", somewhere, "files", receivers, clock_class, waiver="no place is claimed", reference=reference
    )


def _list_read(
    files: Sequence[Path | Handed], stated: Stated, format_name: str | None, reference: ReferenceClaim | None
) -> list[Path]:
    """Return every file that is read of these: as they were handed in, what they lead to, what holds a reference."""
    handed = [one if isinstance(one, Handed) else Handed(Path(one)) for one in files]
    found = [one.path for one in handed]
    found += [path for told in gather_files(handed, stated, format_name) for path in list_read(told)]
    return found + ([] if reference is None else [one.path for one in reference.files.values()])


def _read_rows(
    stores: Stores, claim: SessionClaim, files: Sequence[Path | Handed], stated: Stated, format_name: str | None
) -> tuple["pd.DataFrame", list[str]]:
    """Return the rows of recordings that are in no database, and remarks on them."""
    with lend_folder() as folder, closing(MeasurementStore(f"sqlite:///{folder}/files.db")) as database:
        database.upgrade()
        done = import_recordings(database, stores.objects, claim, files, stated, format_name)
        return database.read_session_rows(database.find_session(claim.name)["id"]), done.remarks
