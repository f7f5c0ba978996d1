"""Session views: what the list of sessions and the look at one tell, as texts for people.

Belongs here: units, rounding, words. Does not belong here: layout (``lineage.pages``), reading
(``pipeline.deciding``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard
from urllib.parse import quote

from heimdall_assets.domain import ApprovalStatus, Role
from heimdall_assets.lineage.pages.rendering import render
from heimdall_assets.lineage.pages.served import locate_session
from heimdall_assets.pipeline.deciding.looking import Choice, Look
from heimdall_assets.web.session_queries import ALL, FILTERS, Asked, write_place

LONGEST_REASON = 2000
"""Characters; whatever needs more is a document, and the reason names it."""
_TABS = (*map(str, ApprovalStatus), ALL)
_SHOWN_REMARKS = 3


@dataclass(frozen=True)
class Form:
    """What a form for decisions holds beside sessions: its seal, who decides, where one comes back to, reasons."""

    token: str
    who: str
    back: str
    reasons: Sequence[str]


@dataclass(frozen=True)
class Draft:
    """What somebody wrote whose decision did not come about: nothing of it is lost.

    Attributes:
        line: why it did not; empty: nobody decided.
        ticked: ids of sessions.
    """

    line: str = ""
    reason: str = ""
    waiver: str = ""
    ticked: frozenset[str] = frozenset()
    longest: int = LONGEST_REASON


def say_why_not(role: Role, is_writable: bool) -> str:
    """Return why there are no buttons."""
    if role != Role.APPROVER:
        return f"You are {role} here: an {Role.APPROVER} decides."
    return "Nothing can be decided here: this database is somebody else's, or was opened to be read." * (
        not is_writable
    )


def render_choice(choice: Choice, asked: Asked, form: Form | None, draft: Draft, why_not: str) -> str:
    """Return the page of the list.

    Args:
        choice: the sessions.
        asked: by what query.
        form: None: whoever asks may not decide, and ``why_not`` says so.
        draft: what a decision before held that did not come about.
    """
    page, is_ticked = choice.page, "tick" in asked.given
    counts = {**choice.counts, ALL: sum(choice.counts.values())}
    tabs = {
        name: {
            "count": f"{counts.get(name, 0):,}",
            "address": None if name == asked.status else asked.locate_list(status=name),
        }
        for name in _TABS
    }
    places = {"previous": page.previous, "next": page.next}
    at = {asked.at[0]: write_place(asked.at[1])} if asked.at else {}
    rows = [_tell_row(row, choice, asked, is_ticked or str(row["id"]) in draft.ticked) for row in page.rows]
    return render(
        "choice",
        rows=rows,
        tabs=tabs,
        turns={name: place and asked.locate_list(**{name: write_place(place)}) for name, place in places.items()},
        ticking=asked.locate_list(**at, **({} if is_ticked else {"tick": "all"})),
        asked={name: asked.given.get(name, "") for name in FILTERS},
        status=asked.status,
        is_narrowed=asked.is_narrowed,
        is_ticked=is_ticked,
        campaigns=choice.campaigns,
        stations=choice.stations,
        done=asked.done,
        form=form,
        draft=draft,
        why_not=why_not,
    )


def _tell_row(row: Mapping[str, Any], choice: Choice, asked: Asked, is_ticked: bool) -> dict[str, Any]:
    name, heard, source = str(row["id"]), row["heard"], row["source"]
    doubts = choice.doubts[name]
    more = len(doubts) - _SHOWN_REMARKS
    return {
        "id": name,
        "mark": choice.marks.get(name, ""),
        "name": row["session_name"],
        "status": row["approval_status"],
        "start": row["session_start"],
        "campaign": row["campaign"],
        "origin": row["origin"],
        "source": None if source is None else source["name"],
        "place": "-" if source is None else say_place(source["latitude"], source["longitude"]),
        "mhz": _say_mhz(heard),
        "num_receivers": len({one["websdr_station_id"] for one in heard}),
        "num_iq": sum(bool(one["iq_data_location"]) for one in heard),
        "snr": _say_number(max((one["snr_db"] for one in heard if _is_number(one["snr_db"])), default=None), 1),
        "doubts": doubts if more <= 1 else [*doubts[:_SHOWN_REMARKS], f"and {more} more"],
        "address": asked.locate_look(name),
        "is_ticked": is_ticked,
    }


def render_look(
    look: Look, asked: Asked, form: Form | None, draft: Draft, told: tuple[str, Sequence[str] | None]
) -> str:
    """Return the page of one session; arguments as ``render_choice``.

    Args:
        told: why there are no buttons; and the releases that used it, None: nobody can tell now.
    """
    from heimdall_assets.evaluation.figures.session_map import draw_views

    why_not, uses = told
    session, name = look.session, str(look.session["id"])
    source = session["source"] or {"name": None, "source_type": None}
    claim = _find_claim(session["source"])
    receivers = [_tell_receiver(row, session["stations"], claim) for row in session["measurements"]]
    places = {one["name"]: one["degrees"] for one in receivers if one["degrees"]}
    found = look.found
    doubts = [*look.doubts, *(found["remarks"] + found["refused"] if found else [])]
    return render(
        "look",
        session=session,
        source=source,
        claim=_say_claim(session["source"]),
        found=None if found is None else _tell_found(found),
        refusal=look.refusal,
        doubts=doubts,
        views=draw_views(list(places.items()), claim, found),
        receivers=receivers,
        pictures=[
            {
                "name": one["name"],
                "address": f"/sessions/{quote(name, safe='')}/signal?of={quote(one['id'], safe='')}",
                "told": [
                    f"{what}{one[key]}{unit}"
                    for what, key, unit in (("SNR ", "snr", " dB"), ("", "distance", " km from the claim"))
                    if one[key] != "-"
                ],
            }
            for one in receivers
            if one["has_iq"]
        ],
        mhz=_say_mhz(session["measurements"]),
        history=look.history,
        uses=None if uses is None else [{"version": one, "address": locate_session(one, name)} for one in uses],
        mark=look.mark,
        list_address=asked.locate_list(),
        next_address=look.following and asked.locate_look(look.following),
        needs_waiver=any(one.startswith("the place cannot be") for one in look.doubts),
        done=asked.done,
        form=form,
        draft=draft,
        why_not=why_not,
    )


def say_place(latitude: Any, longitude: Any) -> str:
    """Return coordinates for people; ``-`` where one is none.

    Examples:
        >>> say_place(45.04412, 7.5), say_place(None, 7.5)
        ('45.04412, 7.50000', '-')
    """
    if not (_is_number(latitude) and _is_number(longitude)):
        return "-"
    return f"{latitude:.5f}, {longitude:.5f}"


def say_metres(metres: float) -> str:
    """Return a distance for people.

    Examples:
        >>> [say_metres(value) for value in (14.9, 940.0, 12_345.0)]
        ['15 m', '940 m', '12.3 km']
    """
    return f"{metres:,.0f} m" if metres < 1000.0 else f"{metres / 1000.0:,.1f} km"


def _find_claim(source: Mapping[str, Any] | None) -> Any:
    from heimdall_assets.evaluation.figures.session_map import Claim

    place = None if source is None else _find_place(source["latitude"], source["longitude"])
    if source is None or place is None:
        return None
    margin = source.get("error_margin_meters")
    return Claim(place, margin if _is_number(margin) and margin > 0 else 0.0)


def _say_claim(source: Mapping[str, Any] | None) -> str:
    if source is None:
        return "none: no transmitter is known"
    margin = source.get("error_margin_meters")
    doubt = f" +- {say_metres(margin)} (one sigma)" if _is_number(margin) and margin > 0 else ", stated as exact"
    checked = "" if source["is_validated"] else ", validated by nobody"
    return say_place(source["latitude"], source["longitude"]) + doubt + checked


def _tell_found(found: Mapping[str, Any]) -> dict[str, Any]:
    ellipse = found["ellipse_90"]
    axes = f"{say_metres(ellipse['semi_major_m'])} x {say_metres(ellipse['semi_minor_m'])} (half axes)"
    several = f"; {len(found['alternatives'])} places explain it" if found["alternatives"] else ""
    return {
        "place": say_place(found["latitude"], found["longitude"]),
        "method": found["method"],
        "ellipse": f"{axes}, major axis {ellipse['azimuth_deg']:.0f} deg from north{several}",
        "distance": None if found["error_m"] is None else say_metres(found["error_m"]),
        "is_inside": found["inside_90"],
    }


def _tell_receiver(row: Mapping[str, Any], stations: Sequence[Mapping[str, Any]], claim: Any) -> dict[str, Any]:
    from heimdall_assets.signals.geodesy import compute_distance_m

    station = next((one for one in stations if one["id"] == row["websdr_station_id"]), {})
    latitude, longitude = (
        row[f"receiver_{part}"] if row.get("receiver_latitude") is not None else station.get(part)
        for part in ("latitude", "longitude")
    )
    place = _find_place(latitude, longitude)
    away_m = (
        None
        if claim is None or place is None
        else float(compute_distance_m(claim.place[0], claim.place[1], place[0], place[1]))
    )
    sigma_s = row.get("arrival_sigma_s")
    return {
        "id": str(row["id"]),
        "name": str(station.get("name") or row["websdr_station_id"]),
        "degrees": place,
        "place": say_place(latitude, longitude),
        "distance": _say_number(None if away_m is None else away_m / 1000.0, 1),
        "clock": station.get("clock_class"),
        "level": _say_number(row.get("signal_strength_db"), 1),
        "snr": _say_number(row.get("snr_db"), 1),
        "has_iq": bool(row.get("iq_data_location")),
        "seconds": _say_number(row.get("duration_seconds") if row.get("iq_data_location") else None, 3),
        "begins": _say_ns(row.get("iq_start_unix_ns")),
        "arrival": "-" if not _is_number(sigma_s) else f"{_say_ns(row['arrival_unix_ns'])} +- {1e9 * sigma_s:.3g} ns",
        "bearing": "-"
        if not _is_number(row.get("bearing_deg"))
        else f"{row['bearing_deg']:.1f} +- {_say_number(row.get('bearing_sigma_deg'), 1)} deg",
    }


def _say_ns(time: Any) -> str:
    """Return a time of day in UTC to the microsecond.

    Examples:
        >>> _say_ns(1_767_225_600_000_348_691), _say_ns(None)
        ('00:00:00.000348', '-')
    """
    if not isinstance(time, int):
        return "-"
    seconds, rest = divmod(time, 10**9)
    day = seconds % 86_400
    return f"{day // 3600:02d}:{day // 60 % 60:02d}:{day % 60:02d}.{rest // 1000:06d}"


def _say_mhz(heard: Sequence[Mapping[str, Any]]) -> str:
    values = sorted({one["frequency_hz"] for one in heard if _is_number(one["frequency_hz"])})
    if not values:
        return "-"
    low, high = (f"{value / 1e6:.7g}" for value in (values[0], values[-1]))
    return low if low == high else f"{low} to {high}"


def _say_number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if _is_number(value) else "-"


def _find_place(latitude: Any, longitude: Any) -> tuple[float, float] | None:
    """Return a place of a database; None: it is none."""
    if not (_is_number(latitude) and _is_number(longitude)) or abs(latitude) > 90.0 or abs(longitude) > 180.0:
        return None
    return latitude, longitude


def _is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value of a database is one: somebody else's may hold anything."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) < 1e300
