"""Where used: what ``heimdall lineage --session``, ``--object`` and the like print, and the index made anew.

Belongs here: questions to the index of lineage and their answers for people. Does not belong here: a release's own
lineage (``lineage``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from heimdall_assets.cli.terminal.output import write_json, write_notice, write_table, write_text
from heimdall_assets.cli.terminal.progress import show_progress, without_asset
from heimdall_assets.counts import say_count
from heimdall_assets.errors import NotFound
from heimdall_assets.stores.home import Stores

DIGEST_LENGTH = 12
"""Characters of a digest that are shown to people."""

MAX_ROWS = 500
"""Of a table for people; more sessions of one release stand in it as their number."""


def show_uses(stores: Stores, asked: Mapping[str, str | None], as_json: bool) -> None:
    """Print which releases and other results used something, and what is told of it."""
    with show_progress("Asking the index of lineage") as listener:
        from heimdall_assets.pipeline.tracing.indexing import open_whole_index
        from heimdall_assets.pipeline.tracing.uses import find_origins, find_uses
        from heimdall_assets.stores.database.decisions import read_history

        with open_whole_index(stores, without_asset(listener)) as whole:
            told = find_uses(stores, whole.edges, **asked)
            digest, session = asked.get("digest"), asked.get("session")
            told["made_from"] = [] if digest is None else find_origins(stores, whole.edges, digest)
            told["decisions"] = [] if session is None else read_history(stores.measurements.database, session)
            told["unread"] = whole.unread
    if not told["releases"] and not told["results"]:
        _check_known(stores, asked)
    if as_json:
        write_json(told)
    else:
        _write_decisions(told["decisions"])
        _write_results("made from", told["made_from"])
        _write_releases(told["releases"])
        _write_results("used, and part of no release", told["results"])
    if told["unread"]:
        count = say_count(len(told["unread"]), "result")
        write_notice(f"of {count} at rest nobody can say what they used: {told['unread'][0]}")


def rebuild_index(stores: Stores, as_json: bool) -> None:
    """Make the index of lineage anew from the results at rest, and print what is in it."""
    with show_progress("Indexing lineage") as listener:
        from heimdall_assets.pipeline.tracing.indexing import rebuild

        whole = rebuild(stores, without_asset(listener))
        edges = whole.edges.count_edges()
    if as_json:
        write_json({"results": whole.num_added, "edges": edges, "unread": whole.unread})
        return
    write_text(f"indexed {say_count(whole.num_added, 'result')}, {say_count(edges, 'edge')}")
    for line in whole.unread:
        write_text(f"not indexed: {line}")


def _write_decisions(decisions: Sequence[Mapping[str, Any]]) -> None:
    if not decisions:
        return
    rows = [
        [row["recording_session_id"], row["decision"], row["decided_by"], row["decided_at"], row["reason"],
         row["signed_by"] or "not signed"]
        for row in decisions
    ]  # fmt: skip
    write_table("decisions", ["session", "decision", "by", "when", "why", "signed by"], rows)


def _write_releases(releases: Sequence[Mapping[str, Any]]) -> None:
    if not releases:
        write_text("no released model used it")
        return
    count = sum(len(use["sessions"]) for use in releases)
    rows = [row for use in releases for row in (_list_rows(use) if count <= MAX_ROWS else _count_rows(use))]
    columns = ["model", "status", "what", "split", "approved by", "when", "why"]
    write_table(f"used by {say_count(len(releases), 'released model')}", columns, rows)


def _list_rows(use: Mapping[str, Any]) -> list[list[Any]]:
    told = [use["version"], use["status"]]
    names = ("split", "approved_by", "approved_at", "approval_reason")
    rows = [
        [*told, row["session_name"] or row["session_id"], *(row[name] for name in names)] for row in use["sessions"]
    ]
    rows += [[*told, node, *[None] * len(names)] for node in use["nodes"]]
    return rows or [[*told, *[None] * (1 + len(names))]]


def _count_rows(use: Mapping[str, Any]) -> list[list[Any]]:
    sessions = f"{say_count(len(use['sessions']), 'session')} (all of them with --json)"
    return [[use["version"], use["status"], sessions, None, None, None, None]]


def _write_results(title: str, results: Sequence[Mapping[str, Any]]) -> None:
    if results:
        rows = [[row["kind"], row["digest"][:DIGEST_LENGTH]] for row in results]
        write_table(title, ["result", "digest"], rows)


def _check_known(stores: Stores, asked: Mapping[str, str | None]) -> None:
    """Raise ``NotFound`` where nobody knows what is asked about: that nothing used it would be no answer."""
    what, name = next((what, name) for what, name in asked.items() if name is not None)
    if not (stores.objects.exists(name) if what == "digest" else stores.measurements.is_known(what, name)):
        place = "the object store" if what == "digest" else "the database"
        raise NotFound(f"{what} {name}: found neither in {place} nor behind any released model")
