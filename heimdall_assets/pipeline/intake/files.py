"""Recordings of strangers to pending sessions: all is decoded and checked first, then stored, then one transaction.

Belongs here: the one import of IQ files. Does not belong here: tables (``level_files``), formats (``formats``), what is
known of files before they are read (``handed_in``), what the files of a session must have in common (``iq_session``),
rows at rest (``database.additions``), decisions about sessions.

One bad file refuses its whole import: nothing is half added. An import is idempotent: the same files add nothing twice.
"""

from collections.abc import Sequence
from pathlib import Path

from heimdall_assets.formats import Stated
from heimdall_assets.pipeline.intake.handed_in import Handed, gather_files
from heimdall_assets.pipeline.intake.iq_session import ImportedSession, SessionClaim, add_iq_session
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.objects.folder import ObjectStore

_DEFAULTS = RecordingSpec()


def import_recordings(
    measurements: MeasurementStore,
    objects: ObjectStore,
    claim: SessionClaim,
    files: Sequence[Path | Handed],
    stated: Stated,
    format_name: str | None = None,
    spec: RecordingSpec = _DEFAULTS,
) -> ImportedSession:
    """Return what was added of one pending session made of recordings, one a receiver, of any formats.

    Files are stored as they are; those of several parts are packed into one that holds the bytes of all.

    Args:
        measurements: where the rows go.
        objects: where the files go.
        claim: the session.
        files: the recordings; a plain path is a file whose name, sidecar or place says its station.
        stated: what files cannot say themselves, and nothing else.
        format_name: how all of them are written (a name or command of ``formats.FORMATS``); None: each tells it.
        spec: limits of a usable recording.

    Raises:
        InvalidSetting: a format that is not told; something is stated that the files say themselves, or nothing where
            they cannot.
        InvalidRecording: a file that cannot be read, timed or used, twice the same station, an unknown one, or files
            that do not overlap in time. Nothing is added.
    """
    handed = [one if isinstance(one, Handed) else Handed(Path(one)) for one in files]
    return add_iq_session(measurements, objects, claim, gather_files(handed, stated, format_name), spec)
