"""Held recordings: a recording is in one session only, else it would be trained on and judged with at once.

Belongs here: who holds a recording already. Does not belong here: adding rows (``additions``), decisions
(``measurements``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, select

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import Refused
from heimdall_assets.stores.database.schema import measurements, recording_sessions

_CHUNK = 10_000

_HELD = (
    select(
        measurements.c.iq_data_location.label("location"),
        measurements.c.iq_channel.label("channel"),
        measurements.c.iq_first_sample.label("first_sample"),
        measurements.c.iq_samples_count.label("num_samples"),
        measurements.c.recording_session_id.label("session_id"),
        recording_sessions.c.session_name.label("name"),
        recording_sessions.c.campaign.label("campaign"),
    )
    .select_from(measurements.join(recording_sessions, recording_sessions.c.id == measurements.c.recording_session_id))
    .where(measurements.c.iq_data_location.is_not(None))
)


@dataclass(frozen=True)
class Held:
    """A recording, or a part of it, and the session that holds it or is to hold it.

    Attributes:
        location, channel: of the recording.
        first_sample, num_samples: of the part; ``first_sample`` None: all of it.
        session_id, name, campaign: of the session; the campaign is empty where it is not asked for.
    """

    location: str
    channel: int | None
    first_sample: int | None
    num_samples: int | None
    session_id: str
    name: str
    campaign: str = ""

    @property
    def recording(self) -> tuple[str, int | None]:
        return self.location, self.channel

    def shares(self, other: "Held") -> bool:
        """Return whether another session's part of the same recording has samples in common with this one."""
        if self.session_id == other.session_id or self.recording != other.recording:
            return False
        if self.first_sample is None or other.first_sample is None or None in (self.num_samples, other.num_samples):
            return True
        ends = [one.first_sample + one.num_samples for one in (self, other)]  # type: ignore[operator]  # none is None
        return self.first_sample < ends[1] and other.first_sample < ends[0]


def check_added(connection: Connection, wanted: Sequence[Held]) -> None:
    """Check that no session holds a recording, or a part of it, that is to be added to another.

    A rejected session does not count: whoever mistook something imports again under another name.

    Args:
        connection: within the transaction that adds.
        wanted: what is to be added.

    Raises:
        Refused: another session holds it.
    """
    by_recording = _group(wanted)
    standing = recording_sessions.c.approval_status != str(ApprovalStatus.REJECTED)
    for found in _walk(connection, sorted({one.location for one in wanted}), standing):
        for one in by_recording.get(found.recording, ()):
            if one.shares(found):
                raise Refused(_say(one, found))


def check_approved(connection: Connection, session_ids: Sequence[str]) -> None:
    """Check that no approved session, nor another of these, holds a recording of the sessions about to be approved.

    Raises:
        Refused: one does: a session that was rejected when its recordings were imported again, for instance.
    """
    holders: dict[tuple[str, int | None], list[Held]] = {}
    for start in range(0, len(session_ids), _CHUNK):
        chosen = measurements.c.recording_session_id.in_(session_ids[start : start + _CHUNK])
        for row in connection.execute(_HELD.where(chosen)):
            own = Held(*row)
            others = holders.setdefault(own.recording, [])
            for other in others:
                if own.shares(other):
                    raise Refused(_say(own, other))
            others.append(own)
    approved = recording_sessions.c.approval_status == str(ApprovalStatus.APPROVED)
    for found in _walk(connection, sorted({location for location, _ in holders}), approved):
        for one in holders.get(found.recording, ()):
            if one.shares(found):
                raise Refused(_say(one, found))


def _walk(connection: Connection, locations: Sequence[str], which: ColumnElement[bool]) -> Iterator[Held]:
    """Yield who holds something of ``locations``, of the sessions ``which``."""
    for start in range(0, len(locations), _CHUNK):
        chosen = measurements.c.iq_data_location.in_(locations[start : start + _CHUNK])
        for row in connection.execute(_HELD.where(chosen, which)):
            yield Held(*row)


def _group(wanted: Sequence[Held]) -> dict[tuple[str, int | None], list[Held]]:
    grouped: dict[tuple[str, int | None], list[Held]] = {}
    for one in wanted:
        grouped.setdefault(one.recording, []).append(one)
    return grouped


def _say(one: Held, holder: Held) -> str:
    return (
        f"session {one.name}: its recording {one.location:.20} is in session {holder.name} (campaign "
        f"{holder.campaign}) already, expected one that no other session holds; reject that one first if it was "
        "mistaken"
    )
