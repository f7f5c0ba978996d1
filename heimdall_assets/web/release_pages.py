"""Release pages: where a release comes from, its sessions, one of them, what changed, each drawn when asked for.

Belongs here: which part of which release an address means. Does not belong here: reading queries (``queries``), layout
(``lineage.pages``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from heimdall_assets.errors import NotFound
from heimdall_assets.lineage.difference import diff_provenances
from heimdall_assets.lineage.pages.served import (
    LONGEST_WORDS,
    PAGE_LENGTH,
    count_pages,
    render_changes,
    render_list,
    render_overview,
    render_session,
    render_sessions,
)
from heimdall_assets.pipeline.releases.browsing import (
    SessionList,
    compare_sessions,
    list_approvals,
    list_places,
    read_measurements,
    read_session_list,
    read_stations,
)
from heimdall_assets.pipeline.releases.reading import read_provenance
from heimdall_assets.pipeline.releases.standing_rules import JudgedRule, read_standing_rules
from heimdall_assets.pipeline.tracing.indexing import find_missing
from heimdall_assets.pipeline.tracing.uses import find_uses
from heimdall_assets.stores.database.decisions import find_signers, read_history
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.releases.status import read_status
from heimdall_assets.web.queries import parse_page, parse_query

MAX_NAMED = 100
"""Sessions of one change that are named; more are counted."""


def render_releases(stores: Stores, records: list[dict[str, Any]]) -> str:
    """Return the page of all releases, the newest first, and of the rules that say which of them answers whom."""
    figures = ("num_sessions", "median_m", "coverage_90")
    rows = [
        {
            **{name: record.get(name) for name in figures},
            **{name: record[name] for name in ("version", "aliases", "created_at")},
            "status": read_status(record),
        }
        for record in reversed(records)
    ]
    return render_list(rows, [_tell_rule(one) for one in read_standing_rules(stores).judged])


def _tell_rule(one: JudgedRule) -> dict[str, Any]:
    said, change = one.change.said, one.change
    told = {"place": said.place, "version": said.version, "share": said.share, "problem": one.problem}
    return {**told, "by": change.decided_by, "at": change.decided_at, "reason": change.reason}


def find_part(part: str) -> Callable[[Stores, dict[str, Any], str], str] | None:
    """Return what draws a part of a release of its record and the query asked with; None: there is no such part."""
    return {"": draw_overview, "sessions": draw_sessions, "session": draw_session, "changes": draw_changes}.get(part)


def draw_overview(stores: Stores, record: Mapping[str, Any], query: str) -> str:
    """Return the first page of a release."""
    parse_query(query, ())
    provenance = read_provenance(stores, str(record["version"]))
    sessions = read_session_list(stores, provenance)
    approvals, stations = list_approvals(stores, sessions), read_stations(stores, provenance)
    return render_overview(provenance, record.get("provenance"), approvals, list_places(sessions), stations)


def draw_sessions(stores: Stores, record: Mapping[str, Any], query: str) -> str:
    """Return one page of the sessions of a release, all of them or those that hold some words.

    Raises:
        NotFound: the query is none, or there is no such page.
    """
    asked, version = parse_query(query, ("q", "page")), str(record["version"])
    words, page = asked.get("q", "").strip(), parse_page(asked.get("page", "1"))
    if len(words) > LONGEST_WORDS:
        raise NotFound(f"query: found {len(words)} characters to search for, expected at most {LONGEST_WORDS}")
    sessions = read_session_list(stores, read_provenance(stores, version))
    found = _find_sessions(stores, sessions, words)
    last = count_pages(len(found))
    if page > last:
        raise NotFound(f"query: found page {page}, expected 1 to {last}")
    rows = sessions.take(found[(page - 1) * PAGE_LENGTH : page * PAGE_LENGTH])
    numbers = {row["approval_event_id"] for row in rows} - {None}
    signers = find_signers(stores.measurements.database, numbers)
    told = [{**row, "signed_by": signers.get(row["approval_event_id"])} for row in rows]
    return render_sessions(version, told, page, words, (len(found), sessions.rows.num_rows))


def _find_sessions(stores: Stores, sessions: SessionList, words: str) -> Sequence[int]:
    """Return the places of the sessions that hold some words, in the name of who approved them too."""
    if not words:
        return sessions.find(words)
    people = [one for one, name in stores.read_names().items() if words.casefold() in name.casefold()]
    return sorted({place for text in (words, *people) for place in sessions.find(text)})


def draw_session(stores: Stores, record: Mapping[str, Any], query: str) -> str:
    """Return the page of one session of a release.

    Raises:
        NotFound: the query is none, or the release has no such session.
    """
    asked, version = parse_query(query, ("id",)), str(record["version"])
    provenance = read_provenance(stores, version)
    sessions = read_session_list(stores, provenance)
    name = asked.get("id", "")
    places = sessions.find_id(name)
    if not places:
        raise NotFound(f"session {name!r:.60}: found none in {version}, expected the id of one of its sessions")
    history = read_history(stores.measurements.database, name)
    mine = [one for one in history if one["recording_session_id"] == name]
    index = stores.edges
    is_whole = index.is_there and not find_missing(stores, index.read_results())
    uses = find_uses(stores, index, session=name) if is_whole else None
    row = sessions.take(places)[0]
    return render_session(version, row, mine, read_measurements(stores, provenance, name), uses)


def draw_changes(stores: Stores, record: Mapping[str, Any], query: str) -> str:
    """Return the page of what changed since the release before."""
    parse_query(query, ())
    version = str(record["version"])
    versions = [str(one["version"]) for one in stores.releases.list_releases()]
    place = versions.index(version)
    if not place:
        return render_changes(version, None)
    previous = versions[place - 1]
    old, new = (read_provenance(stores, one) for one in (previous, version))
    changes = compare_sessions(read_session_list(stores, old), read_session_list(stores, new))
    rows = [{"change": what, "count": len(ids), "names": ids[:MAX_NAMED]} for what, ids in changes.items()]
    told = diff_provenances(old, new)
    metrics = {name: [row["first"], row["second"]] for name, row in told.pop("metrics").items()}
    tables = {name.capitalize(): rows for name, rows in {**told, "figures": metrics}.items()}
    return render_changes(version, previous, rows, tables)
