"""What is said beside a table of levels: which column is what, and what its numbers mean.

Belongs here: the words of such a statement, and finding the columns that it names. Does not belong here: reading cells.
A statement never has a default that could be wrong: what it leaves open is found in the table, or asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from heimdall_assets.errors import InvalidSetting, InvalidTable
from heimdall_assets.suggestions import suggest_name


class LevelUnit(StrEnum):
    """What a table's levels are counted in. All but ``MW`` are dB up to a step and an offset that nobody needs."""

    DBM = "dbm"
    DB = "db"  # above whatever: noise, full scale, a microvolt
    RSSI = "rssi"  # units of a chip, each of a stated number of dB
    MW = "mw"  # power, turned into dBm


ROLES: dict[str, tuple[str, ...]] = {
    "time": ("timestamp", "time"),
    "latitude": ("latitude", "lat", "tx_x_coord"),
    "longitude": ("longitude", "lon", "lng", "tx_y_coord"),
    "source": ("source",),
    "session": ("session",),
    "frequency_hz": ("frequency_hz",),
    "frequency_khz": ("frequency_khz",),
    "frequency_mhz": ("frequency_mhz",),
    "receiver": ("receiver",),
    "level": ("level", "level_db", "level_dbm", "rssi"),
    "snr": ("snr", "snr_db"),
    "receiver_latitude": ("receiver_latitude",),
    "receiver_longitude": ("receiver_longitude",),
}
"""What a column can be -> the names by which it is known without being told."""

OBSERVED_ROLES: dict[str, tuple[str, ...]] = {
    "arrival": ("arrival", "arrival_unix_ns", "arrival_ns", "arrival_s", "arrival_time"),
    "arrival_sigma_s": ("arrival_sigma_s",),
    "arrival_sigma_us": ("arrival_sigma_us",),
    "arrival_sigma_ns": ("arrival_sigma_ns",),
    "bearing": ("bearing", "bearing_deg"),
    "bearing_sigma_deg": ("bearing_sigma_deg",),
}
"""What a column can be besides, in a table of arrival times or bearings."""

LONG_ROLES = ("receiver", "level", "snr", "receiver_latitude", "receiver_longitude")
"""What only a table with a row a receiver and transmission has."""


@dataclass(frozen=True)
class ObservedClaim:
    """What is said of a table's arrival times and bearings.

    Attributes:
        arrival_sigma_s: one-sigma error of every arrival; None: a column says it.
        bearing_sigma_deg: of every bearing; None: a column says it.
        north: ``true`` or ``magnetic``: where bearings count from; None: asked for.
        declination_deg: how far magnetic north lies to the east of true north; None: bearings count from true north.
        bearings_in: ``degrees`` or ``radians``; None: degrees, unless they look like radians, which is asked about.
        needs_truth: whether a row without the transmitter's position is left out.
    """

    arrival_sigma_s: float | None = None
    bearing_sigma_deg: float | None = None
    north: str | None = None
    declination_deg: float | None = None
    bearings_in: str | None = None
    needs_truth: bool = True


@dataclass(frozen=True)
class TableClaim:
    """What is said of a table that it does not say itself; what is left out is found in it, or asked for.

    Attributes:
        columns: role, or column that the table should have -> the name it has there; an empty one: none.
        not_heard: what stands for "not heard" beside an empty cell: numbers, or words.
        real_levels: numbers that look like such a code and are levels.
        no_position: coordinates that stand for "no position".
        unit: of the levels.
        db_per_unit: of RSSI units.
        time_zone: of times that carry none.
        time_format: how times are written, for ``datetime.strptime``; None: ISO 8601, or a count since 1970.
        frequency_hz: what was transmitted on.
        where: column -> value that a row must hold to be taken.
        observed: what is said of arrivals and bearings; None: it is a table of levels alone.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    not_heard: Sequence[str] = ()
    real_levels: Sequence[float] = ()
    no_position: Sequence[float] = ()
    unit: LevelUnit | None = None
    db_per_unit: float | None = None
    time_zone: str | None = None
    time_format: str | None = None
    frequency_hz: float | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    observed: ObservedClaim | None = None

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """What a column of such a table can be -> the names by which it is known."""
        return ROLES if self.observed is None else ROLES | OBSERVED_ROLES


def find_columns(header: Sequence[str], claim: TableClaim, name: str) -> dict[str, str]:
    """Return role -> column of all roles that the table has a column for.

    Raises:
        InvalidTable: a stated column is not there, or two columns may be the same thing.
    """
    found: dict[str, str] = {}
    for role, known in claim.roles.items():
        if role in claim.columns:
            if claim.columns[role]:
                found[role] = _check_column(claim.columns[role], header, role, name)
            continue
        there = [column for column in known if column in header]
        if len(there) > 1:
            raise InvalidTable(
                f"{name}: columns {there[0]} and {there[1]} may both be the {role}, expected --column {role}=ONE"
            )
        if there:
            found[role] = there[0]
    return found


def rename_column(expected: str, header: Sequence[str], claim: TableClaim, name: str) -> str:
    """Return the column that stands for ``expected``, which is a receiver's name or made of it.

    Raises:
        InvalidTable: it is not there.
    """
    return _check_column(claim.columns.get(expected, expected), header, expected, name)


def check_claim(claim: TableClaim, further: Sequence[str]) -> None:
    """Check that every stated column is of a role, or one of ``further`` that the table should have.

    Raises:
        InvalidSetting: one is not; or a unit of RSSI without its step, or a step without such a unit; or magnetic north
            without its declination, or a declination without it.
    """
    for role in claim.columns:
        if role not in claim.roles and role not in further:
            near = suggest_name(role, {known: known for known in (*claim.roles, *further)})
            meant = f" (did you mean {near}?)" if near else ""
            raise InvalidSetting(f"--column {role:.60}: expected one of {', '.join(claim.roles)}, or a receiver{meant}")
    if claim.observed is not None:
        _check_north(claim.observed)
    if (claim.unit is LevelUnit.RSSI) != (claim.db_per_unit is not None):
        raise InvalidSetting(
            f"--unit {claim.unit}, --db-per-unit {claim.db_per_unit}: expected both for RSSI, no step for another unit"
        )
    if claim.db_per_unit is not None and not 0.0 < abs(claim.db_per_unit) <= 100.0:
        raise InvalidSetting(f"--db-per-unit {claim.db_per_unit}: expected a step of up to 100 dB, not 0")


def _check_north(said: ObservedClaim) -> None:
    if (said.north == "magnetic") != (said.declination_deg is not None):
        raise InvalidSetting(
            f"--north {said.north}, --declination-deg {said.declination_deg}: expected a declination with magnetic "
            "north, and none with another"
        )
    if said.declination_deg is not None and not -180.0 <= said.declination_deg <= 180.0:
        raise InvalidSetting(f"--declination-deg {said.declination_deg:g}: expected -180 to 180, east of true north")


def _check_column(column: str, header: Sequence[str], what: str, name: str) -> str:
    if column not in header:
        near = suggest_name(column, {known: known for known in header}) if column else None
        meant = f"; did you mean {near!r:.60}?" if near else ""
        raise InvalidTable(
            f"{name}: no column {column!r:.60}, expected one for {what:.60} (--column {what:.60}=NAME){meant}"
        )
    return column
