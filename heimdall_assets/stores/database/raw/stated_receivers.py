"""Stated receivers: what a database of one table does not say itself: where its receivers stand, how they record.

Belongs here: the file that says it, the offset of times without a zone. Does not belong here: the table itself
(``one_table``), receiver lists of tables that are imported (``tables.receiver_list``).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heimdall_assets.domain import Altitude, Latitude, Longitude, SampleRate, Word, check_name
from heimdall_assets.errors import HeimdallError, InvalidInput, InvalidSetting, NotFound
from heimdall_assets.fields import describe_invalid
from heimdall_assets.physical import ClockClass
from heimdall_assets.stores.objects.regular_files import check_regular_file

RECEIVERS_VARIABLE, OFFSET_VARIABLE = "HEIMDALL_RECEIVERS", "HEIMDALL_TIME_ZONE"
OFFSET_EXPECTED = "UTC, or an offset such as +01:00"

MAX_RECEIVERS = 10_000
_MAX_BYTES = 10_000_000
EXAMPLE = '{"1": {"latitude": 45.044, "longitude": 7.672, "iq_sample_rate_hz": 24000}}'
"""A list as it should be: id of a receiver as the table writes it -> where it stands, and how it records."""

_OFFSET = re.compile(r"[+-](0\d|1[0-4]):[0-5]\d")


class StatedReceiver(Word):
    """A receiver as the file says it; ``iq_sample_rate_hz`` is of its NumPy recordings, which do not say it."""

    latitude: Latitude
    longitude: Longitude
    altitude_m: Altitude = 0.0
    clock_class: ClockClass = ClockClass.NONE
    iq_sample_rate_hz: SampleRate | None = None


@dataclass(frozen=True)
class Statement:
    """What is stated beside a database, as the variables give it; nothing is read before it is needed.

    Attributes:
        receivers: JSON file, id of a receiver -> ``StatedReceiver``; empty: none.
        time_zone: of times that carry none: UTC or an offset; empty: nobody says.
    """

    receivers: str = ""
    time_zone: str = ""

    @property
    def offset(self) -> str | None:
        """How times without a zone go on to have one, such as ``+01:00``; None: nobody says.

        Raises:
            InvalidSetting: neither UTC nor an offset.
        """
        return parse_offset(self.time_zone, OFFSET_VARIABLE) if self.time_zone else None

    def read_receivers(self) -> dict[str, StatedReceiver]:
        """Return the stated receivers by id, as the table writes it.

        Raises:
            NotFound: there is no such file.
            InvalidInput: no regular file, no JSON object of receivers, one twice, or a value out of range.
        """
        path = Path(self.receivers)
        name = f"{RECEIVERS_VARIABLE}: {path}"
        check_regular_file(path, name)
        try:
            with path.open("rb") as stream:
                data = stream.read(_MAX_BYTES + 1)
        except OSError as error:
            raise NotFound(f"{name}: could not be read ({error.strerror}), expected a JSON file of receivers") from None
        if len(data) > _MAX_BYTES:
            raise InvalidInput(f"{name}: found more than {_MAX_BYTES} bytes, expected a list of receivers")
        expected = f"expected a JSON object of receivers, 1 to {MAX_RECEIVERS}, such as {EXAMPLE}"
        try:
            listed = json.loads(data.decode(), object_pairs_hook=_take_each_once)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{name}: {error!s:.120}, {expected}") from None
        if not isinstance(listed, dict) or not 0 < len(listed) <= MAX_RECEIVERS:
            raise InvalidInput(f"{name}: found {listed!r:.60}, {expected}")
        return {receiver: _read_receiver(receiver, said, name) for receiver, said in listed.items()}


def parse_offset(text: str, what: str) -> str:
    """Return the offset that ``text`` names, as ISO 8601 writes it.

    Raises:
        InvalidSetting: neither UTC nor an offset. A zone whose clocks change is none: it has one hour twice.

    Examples:
        >>> parse_offset("UTC", "zone"), parse_offset("-05:30", "zone")
        ('+00:00', '-05:30')
    """
    if text == "UTC":
        return "+00:00"
    if not _OFFSET.fullmatch(text):
        raise InvalidSetting(f"{what}: found {text!r:.60}, expected {OFFSET_EXPECTED}")
    return text


def _take_each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
        raise ValueError(f"{twice!r:.60} is there twice")
    return found


def _read_receiver(receiver: str, said: Any, name: str) -> StatedReceiver:
    try:
        check_name(receiver, "receiver")
        # JSON has no enumerations: strict but for the texts of one.
        return StatedReceiver.model_validate_json(json.dumps(said), strict=True)
    except ValidationError as error:
        told = describe_invalid(error, StatedReceiver)
        raise InvalidInput(f"{name}: receiver {receiver}: {told}; such as {EXAMPLE}") from None
    except HeimdallError as error:
        raise InvalidInput(f"{name}: {error}") from None
