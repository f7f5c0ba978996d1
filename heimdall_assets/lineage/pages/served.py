"""Served: the pages of releases as a browser walks through them, each a part, so that all sessions can be reached.

Belongs here: layout and links. Does not belong here: reading what is shown (``pipeline.releases.browsing``), what an
address means (``web``).
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from heimdall_assets.kinds import APPROVED_MEASUREMENTS
from heimdall_assets.lineage.pages.map import Place, draw_map
from heimdall_assets.lineage.pages.rendering import describe_release, render
from heimdall_assets.lineage.tree import describe_data

PAGE_LENGTH = 100
"""Sessions on a page."""
LONGEST_WORDS = 200
"""Characters of what is searched for."""
PARTS = {"": "Lineage", "sessions": "Sessions", "changes": "Changes", "results": "Results", "card": "Card"}
"""Part of a release's address -> what it is called."""


def list_links(version: str, here: str | None = None) -> dict[str, str | None]:
    """Return text -> address of the pages of a release, None for the one that is ``here``."""
    parts = {text: None if part == here else f"/{version}/{part}".rstrip("/") for part, text in PARTS.items()}
    return {"All releases": "/", **parts}


def count_pages(found: int) -> int:
    """Return how many pages so many sessions fill; none of them fill one that says so."""
    return max(1, -(-found // PAGE_LENGTH))


def render_list(releases: Sequence[Mapping[str, Any]], rules: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of all releases, those given first, and the rules of serving that stand."""
    return render("list", releases=releases, rules=rules)


def render_overview(
    provenance: Mapping[str, Any],
    digest: str | None,
    approvals: Sequence[Mapping[str, Any]],
    places: Sequence[Place],
    stations: Sequence[Mapping[str, Any]],
) -> str:
    """Return the first page of a release: everything but its sessions.

    Args:
        provenance: of the release.
        digest: of its file; None: not told.
        approvals: ``by``, ``reason``, ``count``, ``first``, ``last``, ``signed`` of those that say the same.
        places: of sources, each once.
        stations: ``station_id``, ``station_name``, ``clock_class``, ``count`` and where each first was.
    """
    names = ("receiver_latitude", "receiver_longitude")
    receivers = sorted({tuple(row[name] for name in names) for row in stations if None not in map(row.get, names)})
    counts = {node["kind"]: node["summary"] for node in provenance["nodes"]}[APPROVED_MEASUREMENTS]
    return render(
        "overview",
        **describe_release(provenance),
        links=list_links(provenance["model"]["version"], ""),
        digest=digest,
        summary=describe_data(provenance, {str(row["by"]) for row in approvals if row["by"] is not None}),
        approvals=approvals,
        map=draw_map(places, [(latitude, longitude) for latitude, longitude in receivers]),
        stations=stations,
        num_sessions=counts["num_sessions"],
        num_left_out=counts.get("num_left_out", 0),
        longest=LONGEST_WORDS,
    )


def render_sessions(
    version: str, rows: Sequence[Mapping[str, Any]], page: int, words: str, counts: tuple[int, int]
) -> str:
    """Return one page of the sessions of a release.

    Args:
        rows: of the page, each with ``signed_by``.
        page: its number, from 1.
        words: that were searched for; empty: none were.
        counts: how many sessions were found, and how many there are.
    """
    found, total = counts
    last = count_pages(found)

    def locate(number: int) -> str:
        asked = {**({"q": words} if words else {}), **({"page": number} if number > 1 else {})}
        return f"/{version}/sessions" + (f"?{urlencode(asked)}" if asked else "")

    turns = {
        "first": locate(1) if page > 1 else None,
        "previous": locate(page - 1) if page > 1 else None,
        f"page {page} of {last}": None,
        "next": locate(page + 1) if page < last else None,
        "last": locate(last) if page < last else None,
    }
    shown = [{**row, "address": locate_session(version, str(row["session_id"]))} for row in rows]
    return render(
        "sessions", version=version, links=list_links(version, "sessions"), rows=shown, words=words, found=found,
        total=total, first=(page - 1) * PAGE_LENGTH + 1, num_pages=last, turns=turns, longest=LONGEST_WORDS,
    )  # fmt: skip


def locate_session(version: str, session_id: str) -> str:
    """Return the address of the page of a session."""
    return f"/{version}/session?id={quote(session_id, safe='')}"


def render_session(
    version: str,
    row: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    measurements: Sequence[Mapping[str, Any]],
    uses: Mapping[str, Any] | None,
) -> str:
    """Return the page of one session of a release: its decisions, what used it, its measurements.

    Args:
        row: the session as the release has it.
        history: every decision about it.
        measurements: as the release has them, each with the ``digest`` of its recording.
        uses: what ``find_uses`` says; None: the index is behind.
    """
    return render(
        "session", version=version, links=list_links(version), row=row, history=history, measurements=measurements,
        uses=uses,
    )  # fmt: skip


def render_changes(
    version: str,
    previous: str | None,
    sessions: Sequence[Mapping[str, Any]] = (),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Return the page of what changed since the release before.

    Args:
        sessions: ``change``, ``count`` and ``names``, the first of them.
        tables: title -> what changed -> (then, now).
    """
    links = list_links(version, "changes")
    return render("changes", version=version, links=links, previous=previous, sessions=sessions, tables=tables or {})
