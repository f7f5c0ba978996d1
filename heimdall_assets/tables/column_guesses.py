"""What the columns of a strange table look like: guesses for people, who then say it; nothing is read by them.

Belongs here: other names of columns, and receivers that have a column each. Does not belong here: columns that are
known without being told (``claim``), reading.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.tables.cells import MISSING, parse_number
from heimdall_assets.tables.claim import ROLES
from heimdall_assets.tables.text import TextTable

ALSO_CALLED: dict[str, str] = {
    "time": "time timestamp datetime date utc timeutc receivedat rxtime measuredat recordedat ts zeit",
    "latitude": "latitude lat txlat txlatitude sourcelat sourcelatitude devicelat gpslat targetlat txxcoord breite",
    "longitude": "longitude lon lng long txlon txlng txlongitude sourcelon sourcelongitude devicelon gpslon gpslng "
    "targetlon txycoord länge",
    "source": "source transmitter emitter beacon device deviceid deveui tx",
    "session": "session sessionid uplink uplinkid message messageid msgid packetid transmission transmissionid",
    "receiver": "receiver receiverid gateway gatewayid gatewayeui gweui gw station stationid websdr websdrid sensor "
    "sensorid anchor rx",
    "level": "level leveldb leveldbm rssi rssidbm rss power powerdbm signal signaldbm signalstrength dbm",
    "snr": "snr snrdb lsnr lorasnr",
    "receiver_latitude": "receiverlatitude receiverlat gatewaylat gatewaylatitude gwlat rxlat rxlatitude stationlat",
    "receiver_longitude": "receiverlongitude receiverlon receiverlng gatewaylon gatewaylng gatewaylongitude gwlon "
    "gwlng rxlon rxlng rxlongitude stationlon",
    "frequency_hz": "frequencyhz freqhz hz",
    "frequency_khz": "frequencykhz freqkhz khz",
    "frequency_mhz": "frequencymhz freqmhz mhz",
}
"""Role -> names that columns have elsewhere, in small letters and digits alone."""

_BARE_FREQUENCY = ("frequency", "freq", "frequenz", "channelfrequency")
_MHZ, _HZ = (10.0, 6000.0), 1e6
"""A frequency without a unit is in MHz within the first, in Hz above the second; anything else may be kHz."""

_LEVELS = (-160.0, 30.0)
_LEVEL_SHARE = 0.9
_SHOWN_ROWS = 2000


@dataclass(frozen=True)
class ColumnGuess:
    """What columns look like.

    Attributes:
        roles: role -> the columns that may have it, one or several; those that the importer finds itself included.
        told: role -> column, of those that it finds only when told.
        receivers: names of receivers that have a column each; a moving one has three.
        moving: those of them that move.
    """

    roles: dict[str, list[str]]
    told: dict[str, str]
    receivers: list[str]
    moving: list[str]


def guess_columns(table: TextTable) -> ColumnGuess:
    """Return what the columns of a table look like."""
    header = list(table.columns)
    roles: dict[str, list[str]] = {}
    for role, known in ROLES.items():
        exact = [column for column in known if column in header]
        others = [column for column in header if _plain(column) in ALSO_CALLED[role].split()]
        if exact or others:
            roles[role] = exact or others
    if not any(role.startswith("frequency_") for role in roles):
        roles |= _guess_frequency(table)
    told = {role: columns[0] for role, columns in roles.items() if len(columns) == 1 and columns[0] not in ROLES[role]}
    moving = [column[:-4] for column in header if column.endswith("_rss") and _has_place(column[:-4], header)]
    used = {column for columns in roles.values() for column in columns}
    used |= {f"{name}_{part}" for name in moving for part in ("rss", "x", "y")}
    is_long = {"receiver", "level"} <= roles.keys()
    fixed = [] if is_long else [name for name in header if name not in used and _holds_levels(table.columns[name])]
    return ColumnGuess(roles, told, [*fixed, *([] if is_long else moving)], moving)


def _plain(column: str) -> str:
    return re.sub(r"[\W_]", "", column).lower()


def _has_place(receiver: str, header: Sequence[str]) -> bool:
    return f"{receiver}_x" in header and f"{receiver}_y" in header


def _guess_frequency(table: TextTable) -> dict[str, list[str]]:
    for column, cells in table.columns.items():
        if _plain(column) in _BARE_FREQUENCY:
            numbers = read_numbers(cells)
            middle = float(np.median(numbers)) if len(numbers) else 0.0
            if middle >= _HZ or _MHZ[0] <= middle <= _MHZ[1]:
                return {"frequency_hz" if middle >= _HZ else "frequency_mhz": [column]}
    return {}


def _holds_levels(cells: Sequence[str]) -> bool:
    """Tell whether a column holds numbers, most of which could be levels in dB, some of them below zero."""
    numbers = read_numbers(cells)
    filled = sum(cell.strip() not in MISSING for cell in cells[:_SHOWN_ROWS])
    if not len(numbers) or len(numbers) < _LEVEL_SHARE * filled:
        return False
    inside = (numbers >= _LEVELS[0]) & (numbers <= _LEVELS[1])
    return bool(inside.mean() >= 0.3 and (numbers < -10.0).any())


def read_numbers(cells: Sequence[str]) -> NDArray[np.float64]:
    """Return the finite numbers among the first cells of a column, float64 (N,); a comma is a decimal comma."""
    values = np.array([parse_number(cell.strip().replace(",", ".")) for cell in cells[:_SHOWN_ROWS]], dtype=np.float64)
    return values[np.isfinite(values)]


def looks_like_levels(guess: ColumnGuess) -> bool:
    """Return whether a table looks like one of levels: it says something of time or place, and levels of receivers."""
    has_levels = "level" in guess.roles or bool(guess.receivers)
    return has_levels and bool({"time", "latitude", "longitude", "receiver", "session"} & guess.roles.keys())
