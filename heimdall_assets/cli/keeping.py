"""``heimdall gc``, ``erase`` and ``hold``: what nobody needs, what somebody wants gone, what must stay."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from heimdall_assets.cli.terminal.homes import open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_notice, write_table, write_text
from heimdall_assets.cli.terminal.progress import show_progress, without_asset
from heimdall_assets.counts import say_count
from heimdall_assets.domain import check_name
from heimdall_assets.errors import InvalidInput, NotFound
from heimdall_assets.places import read_places
from heimdall_assets.stores.computing import name_user
from heimdall_assets.stores.home import Stores

if TYPE_CHECKING:
    import dagster as dg

    from heimdall_assets.pipeline.keeping.collecting import Collected
    from heimdall_assets.pipeline.keeping.erasing import Erased

_DAY_S = 86_400.0

_by = click.option("--by", required=True, help="Who decides.")
_reason = click.option("--reason", required=True, help="Why.")
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")


@click.command("gc", short_help="Remove stored objects that nobody needs.")
@_dry_run
@json_option
def collect(dry_run: bool, as_json: bool) -> None:
    """Remove stored objects that no release, result in use, recording or hold needs.

    What was stored or used within object_days (HEIMDALL_RETENTION, 30 days) stays, whoever may need it, and so does
    whatever work under way began with.
    """
    stores, days = open_home(), read_places().retention.object_days
    with show_progress("Looking for what nobody needs") as listener:
        from heimdall_assets.defs.keeping import find_in_use
        from heimdall_assets.pipeline.keeping.collecting import InUse, collect_garbage

        with _history() as instance:
            in_use = InUse() if instance is None else find_in_use(instance)
        used_before = time.time() - days * _DAY_S
        found = collect_garbage(stores, used_before, in_use, dry_run, without_asset(listener))
    num_bytes = sum(found.objects.values())
    if found.objects and not dry_run:
        stores.releases.note_collection(len(found.objects), num_bytes, name_user())
    if as_json:
        write_json({**found.dump(), "dry_run": dry_run})
        return
    _write_kept(found, days)
    done = "would go" if dry_run else "removed"
    write_text(
        f"{done}: {say_count(len(found.objects), 'object')} of {num_bytes / 1e6:,.1f} MB, "
        f"{say_count(len(found.references), 'reference')}"
    )


def _write_kept(found: "Collected", days: float) -> None:
    rows = [[why, number] for why, number in found.kept.items()]
    if found.young:
        rows.append([f"used within {days:g} days, or work under way began before", found.young])
    write_table("objects that stay", ["for", "objects"], rows)
    if found.lost:
        write_notice(
            f"damaged: {say_count(found.lost, 'reference')}; what they were of is computed again when asked for"
        )


@click.group(short_help="Erase a session's recordings, or a person's name.")
def erase() -> None:
    """Erase what somebody has a right to have erased; what is left still verifies, and says who erased what and why."""


@erase.command("session", short_help="Erase a session's recordings and rows.")
@click.argument("session")
@click.option("--features", is_flag=True, help="Also the files in which its spectrograms and delays lie.")
@_by
@_reason
@_dry_run
@json_option
def erase_one_session(session: str, features: bool, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Erase SESSION (id or name): recordings that no other session holds, its measurements, its name and place.

    It cannot be undone. Releases made with it stay, and verify tells of the erasure; the tables frozen behind them keep
    times, places and levels, and with --features they cannot be made again from the recordings that are left.
    """
    stores = open_home()
    from heimdall_assets.pipeline.keeping.erasing import erase_session, plan_erasure

    planned = plan_erasure(stores, session)
    if not dry_run:
        erase_session(stores, planned, features, by, reason)
    if as_json:
        write_json({**planned.dump(), "is_done": not dry_run, "with_features": features})
        return
    _tell_session(planned, features, "would erase" if dry_run else "erased")


def _tell_session(planned: "Erased", features: bool, done: str) -> None:
    write_text(
        f"{done}: session {planned.session}, {say_count(planned.num_measurements, 'measurement')}, "
        f"{say_count(len(planned.recordings), 'recording')}"
        + (f", {say_count(len(planned.features), 'file')} of features" if features else "")
    )
    if planned.shared:
        write_notice(f"kept: {say_count(len(planned.shared), 'recording')}, for another session holds the same")
    for name in planned.elsewhere:
        write_notice(f"{name}: a file of others, which is never touched; whoever keeps it must remove it")
    if planned.features and not features:
        write_notice(f"kept: {say_count(len(planned.features), 'file')} of features (--features takes them)")
    for version, aliases in planned.releases.items():
        called = f" ({', '.join(aliases)})" if aliases else ""
        write_notice(
            f"model {version}{called} learned or was judged with it and stays; heimdall train makes one without it"
        )
    for version in planned.judged_by:
        write_notice(f"kept: what model {version} said of it before it was trained on, and how far off that was")


@erase.command("person", short_help="Erase a person's name.")
@click.argument("name")
@_by
@_reason
@json_option
def erase_one_person(name: str, by: str, reason: str, as_json: bool) -> None:
    """Destroy the name of a person (NAME, or a pseudonym) and the secret that ties it to their pseudonym.

    Entries of the log, snapshots and releases keep the pseudonym, which nobody can turn into a name any more. Copies of
    the database that were made before still can.
    """
    stores = open_home()
    from heimdall_assets.pipeline.keeping.erasing import count_mentions

    names = stores.read_names()
    pseudonym, known = next((pair for pair in names.items() if name in pair), ("", name))
    with _history() as instance:  # first: whoever is interrupted can still say who is meant
        from heimdall_assets.defs.keeping import count_reasons, forget_person

        num_runs = 0 if instance is None else forget_person(instance, known, pseudonym or "erased")
        mentions = 0 if instance is None else count_reasons(instance, known)
    if pseudonym or not num_runs:
        pseudonym = stores.releases.erase_person(known, by, reason)
    mentions += count_mentions(stores, known)
    if as_json:
        write_json({"person": pseudonym, "num_runs": num_runs, "num_mentions": mentions})
        return
    write_text(f"erased: who {pseudonym} was; the name is gone from {say_count(num_runs, 'run')} of the graph too")
    if mentions:
        write_notice(
            f"the name stands in clear in {say_count(mentions, 'entry')} of the log, facts of results and reasons of "
            "runs: what was written there cannot be forgotten"
        )


@click.group(short_help="Hold something against gc and erase.")
def hold() -> None:
    """Say that a session or an object must stay, whoever wants it gone: a dispute, an audit."""


@hold.command("place", short_help="Hold a session or an object.")
@click.argument("name")
@click.option("--session", help="A session, by id or name.")
@click.option("--object", "digest", help="A stored object (SHA-256); of a result, all that it hangs on.")
@_by
@_reason
@json_option
def place(name: str, session: str | None, digest: str | None, by: str, reason: str, as_json: bool) -> None:
    """Place a hold called NAME."""
    check_name(name, "hold")
    if (session is None) == (digest is None):
        raise InvalidInput("hold: expected either --session or --object")
    stores = open_home()
    thing = _find_thing(stores, session, digest)
    stores.measurements.place_hold(name, thing, by, reason)
    if as_json:
        write_json({"name": name, "what": thing[0], "thing": thing[1]})
    else:
        write_text(f"held: {' '.join(thing)}, by {name}")


def _find_thing(stores: Stores, session: str | None, digest: str | None) -> tuple[str, str]:
    if session is not None:
        return "session", stores.measurements.resolve_sessions([session])[0]
    if digest is None or not stores.objects.exists(digest):
        raise NotFound(f"object {digest}: found none in the object store")
    return "object", digest


@hold.command("list", short_help="List what is held.")
@json_option
def list_held(as_json: bool) -> None:
    """List what is held, since when, by whom and why."""
    rows = [asdict(one) for one in open_home().measurements.list_holds()]
    if as_json:
        write_json(rows)
        return
    columns = ["name", "what", "thing", "placed_by", "placed_at", "reason"]
    write_table(say_count(len(rows), "hold"), columns, [[row[name] for name in columns] for row in rows])


@hold.command("end", short_help="End a hold.")
@click.argument("name")
@_by
@_reason
@json_option
def end(name: str, by: str, reason: str, as_json: bool) -> None:
    """End the hold called NAME."""
    open_home().measurements.end_hold(name, by, reason)
    if as_json:
        write_json({"ended": name})
    else:
        write_text(f"hold {name}: ended")


@contextmanager
def _history() -> "Iterator[dg.DagsterInstance | None]":
    """Give Dagster's instance of this home; None: nothing was ever run there."""
    places = read_places()
    if not (places.dagster_home / "dagster.yaml").is_file():
        yield None
        return
    from heimdall_assets.running.history import open_history

    with open_history(places, places.dagster_home) as instance:
        yield instance
