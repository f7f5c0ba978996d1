"""Receiver lists: where the receivers of a table of levels stand, as JSON.

Belongs here: the list's own form. Does not belong here: tables, which may say the positions themselves
(``long_levels``); the list of a database of one table (``stores.database.raw.stated_receivers``), which says more.
"""

from pydantic import ValidationError

from heimdall_assets.domain import Position, check_name
from heimdall_assets.errors import InvalidIdentifier, InvalidTable
from heimdall_assets.fields import describe_invalid
from heimdall_assets.formats.strict_json import parse_strict_json

_MAX_RECEIVERS = 10_000
_SUCH_AS = 'such as {"A": {"latitude": 45.07, "longitude": 7.69}, "B": null}, null for a moving receiver'


def decode_receivers(data: bytes, *, name: str) -> dict[str, Position | None]:
    """Return receivers from JSON ``{NAME: {"latitude": ..., "longitude": ...} or null}``; None: it moves.

    Raises:
        InvalidTable: not strict JSON of that form, a name that is none, or coordinates out of range.
    """
    try:
        listed = parse_strict_json(data, max_depth=4)
    except ValueError as error:
        raise InvalidTable(f"{name}: {error!s:.120}, expected a JSON object of receivers {_SUCH_AS}") from None
    if not isinstance(listed, dict) or not 0 < len(listed) <= _MAX_RECEIVERS:
        raise InvalidTable(f"{name}: expected a JSON object of 1 to {_MAX_RECEIVERS} receivers {_SUCH_AS}")
    receivers: dict[str, Position | None] = {}
    for receiver, position in listed.items():
        try:
            check_name(receiver, "receiver")
            receivers[receiver] = None if position is None else Position.model_validate(position, strict=True)
        except InvalidIdentifier as error:
            raise InvalidTable(f"{name}: {error}") from None
        except ValidationError as error:
            told = describe_invalid(error, Position)
            raise InvalidTable(f"{name}: receiver {receiver}: {told}; {_SUCH_AS}") from None
    return receivers
