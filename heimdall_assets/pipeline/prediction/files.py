"""Recordings that are in no database, and stay in none: where a released model puts their transmitter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heimdall_assets.domain import ClockClass, Position
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.locating.estimates import describe_estimate, take_estimate
from heimdall_assets.pipeline.intake.files import Stated, import_recordings
from heimdall_assets.pipeline.intake.identities import make_source
from heimdall_assets.pipeline.intake.iq_session import SessionClaim
from heimdall_assets.pipeline.prediction.released import read_released
from heimdall_assets.pipeline.prediction.stored import (
    describe_refused,
    explain_refusals,
    keep_silent,
    observe_stored,
)
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.scratch import lend_folder


def predict_files(
    stores: Stores,
    model: str,
    files: Sequence[Path],
    receivers: Mapping[str, Position],
    stated: Stated,
    clock_class: ClockClass = ClockClass.NONE,
    progress: Progress = keep_silent,
) -> dict[str, Any]:
    """Return where a released model puts the transmitter of recordings that are in no database, and stay in none.

    Args:
        stores: of this home; it is given nothing but the recordings' bytes and what is computed of them.
        model: version, latest or alias.
        files: GNSS-stamped KiwiSDR recordings (.wav), SigMF (.sigmf, .sigmf-meta) or NumPy (.npy), one a receiver, all
            of one kind.
        receivers: station part of a file's name -> its position.
        stated: what files of this kind cannot say themselves.
        clock_class: how .npy and SigMF recordings were timed; KiwiSDR recordings say it.
        progress: told what is done.

    Raises:
        InvalidRecording: a file that cannot be read, timed or used.
        InvalidSetting: files of another kind, or something is stated that they say, or not stated that they cannot.
        CannotLocate: they hold nothing from which this model can tell a position.
    """
    released = read_released(stores, model)
    if not receivers:
        raise InvalidSetting("files: found no --receiver, expected CODE,LAT,LON of each file's station")
    # An import needs a source; what it says of the truth is not asked for below.
    somewhere = make_source("unknown", next(iter(receivers.values())))
    with lend_folder() as folder:
        database = MeasurementStore(f"sqlite:///{folder}/files.db")
        database.upgrade()
        claim = SessionClaim("files", somewhere, "files", receivers, clock_class)
        import_recordings(database, stores.objects, claim, files, stated)
        rows = database.read_session_rows(database.find_session("files")["id"])
        database.close()
    sessions, refused = observe_stored(stores, rows, progress, released.manifest)
    reasons = describe_refused(rows, refused)
    with explain_refusals(reasons):
        estimate = take_estimate(released.predict(sessions), 0)
    return {"version": released.version, "session_id": None, **describe_estimate(estimate), "refused": reasons}
