"""``heimdall lineage``, ``verify`` and ``diff``: where a model comes from, whether that still holds, what changed."""

import csv
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.ledger import read_checkpoint_file
from heimdall_assets.cli.terminal.homes import find_model, open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_lines, write_text
from heimdall_assets.cli.terminal.progress import show_progress, without_asset
from heimdall_assets.cli.uses import rebuild_index, show_uses
from heimdall_assets.counts import say_count
from heimdall_assets.domain import check_name
from heimdall_assets.errors import InvalidInput, NotFound, OutOfReach, StorageError
from heimdall_assets.people import name_people_in_html
from heimdall_assets.places import read_places
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.home_format import may_write
from heimdall_assets.stores.plain_files import write_named_file
from heimdall_assets.stores.scratch import lend_copy

if TYPE_CHECKING:
    from heimdall_assets.variables import Places

TABLES = ("sessions", "sources", "stations", "measurements", "left_out")
"""Of ``RecordedData``, which loads pandas and so is not asked here."""

HISTORY = ("dagster.yaml", "history/runs.db*", "history/runs/index.db*", "schedules/*.db*")
"""What Dagster opens to say which events there were: not the log of each run."""

_LOG = logging.getLogger(__name__)


@click.command(short_help="Show where a model comes from, or which models used X.")
@click.argument("model", required=False)
@click.option("--session", help="Which models used this session (id or name)?")
@click.option("--measurement", help="Which models used this measurement (id)?")
@click.option("--source", help="Which models used this source (id or name)?")
@click.option("--station", help="Which models used this station (id or name)?")
@click.option("--object", "digest", help="Which models hang on this stored object (SHA-256)?")
@click.option("--table", type=click.Choice(TABLES), help="Print what it was made of, as CSV, or as JSON.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one page that opens offline.")
@click.option("--reindex", is_flag=True, help="Make the index that answers these questions anew.")
@json_option
def lineage(
    model: str | None, table: str | None, html: Path | None, reindex: bool, as_json: bool, **asked: str | None
) -> None:
    """Show where MODEL (version, latest or alias) comes from, or what used something and who decided about it."""
    given = [model, *asked.values(), reindex or None]
    if sum(one is not None for one in given) != 1:
        raise InvalidInput(
            "lineage: expected either a MODEL or one of --session, --measurement, --source, --station, --object, "
            "--reindex"
        )
    for what, name in asked.items():
        if name is not None:
            check_name(name, what)
    if model is None and (table or html):
        raise InvalidInput(f"lineage: found {'--table' if table else '--html'} without a MODEL, expected both")
    stores = open_home()
    if reindex:
        rebuild_index(stores, as_json)
        return
    if model is None:
        show_uses(stores, asked, as_json)
        return
    version = find_model(stores, model)
    from heimdall_assets.lineage.tree import render_tree
    from heimdall_assets.pipeline.releases.reading import read_decisions, read_provenance

    provenance = read_provenance(stores, version)
    digest = stores.releases.find_record(version).get("provenance")
    if html is not None:
        from heimdall_assets.lineage.pages.offline import render_html
        from heimdall_assets.pipeline.releases.audit import read_data

        page = render_html(provenance, read_data(stores, provenance), read_decisions(stores, provenance), digest)
        write_named_file(html, name_people_in_html(page, stores.read_names).encode())
        write_text(f"wrote {html}", err=as_json)
    if table is not None:
        _show_table(stores, provenance, table, as_json)
    elif as_json:
        write_json(provenance)
    elif html is None:
        write_lines(render_tree(provenance, read_decisions(stores, provenance)))


def _show_table(stores: Stores, provenance: Mapping[str, Any], name: str, as_json: bool) -> None:
    from heimdall_assets.lineage.recorded import list_rows
    from heimdall_assets.pipeline.releases.audit import read_data

    data = read_data(stores, provenance)
    rows = list_rows(getattr(data, name))
    if as_json:
        write_json(list(rows))
        return
    file = io.StringIO()
    writer = csv.DictWriter(file, [str(column) for column in getattr(data, name)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_lines(file.getvalue())


@click.command(short_help="Hash everything behind a model again.")
@click.argument("model")
@click.option(
    "--repair", is_flag=True, help="First write damaged files again from their copies; set damaged objects aside."
)
@click.option(
    "--checkpoint", "kept", type=click.Path(dir_okay=False, path_type=Path),
    help="What heimdall ledger checkpoint printed then: was the log cut or written anew since?",
)  # fmt: skip
@json_option
def verify(model: str, repair: bool, kept: Path | None, as_json: bool) -> None:
    """Hash everything behind MODEL again and compare it with ledger and events; exit 1 where anything disagrees."""
    known = None if kept is None else read_checkpoint_file(kept)
    places, stores = read_places(), open_home()
    version = find_model(stores, model)
    with show_progress(f"Verifying model {version}") as listener:
        from heimdall_assets.pipeline.releases.audit import audit_log, audit_release, read_signers
        from heimdall_assets.pipeline.releases.repair import heal_release, list_damaged_objects
        from heimdall_assets.pipeline.releases.witnesses import audit_witnesses

        done = heal_release(stores, version, list_damaged_objects(stores, version)) if repair else []
        findings = audit_release(
            stores,
            version,
            _read_events(places, stores, version),
            without_asset(listener),
        )
        findings += [] if known is None else audit_log(stores, *known)
        findings += audit_witnesses(stores, places.open_witnesses())
        signers, approvals = read_signers(stores, version), _count_approvals(stores, version)
    errors = [finding for finding in findings if finding.severity == "error"]
    if as_json:
        listed = [finding.to_json() for finding in findings]
        told = {"version": version, "ok": not errors, "signed_by": signers, "approvals": approvals}
        write_json({**told, "repaired": done, "findings": listed})
    else:
        for line in done:
            write_text(f"repair: {line}")
        for finding in findings:
            write_text(finding.describe())
        said = say_count(len(errors), "error") if errors else "all is as it was released"
        if len(findings) > len(errors):
            said += f", {say_count(len(findings) - len(errors), 'notice')}"
        signed = f"signed by {', '.join(signers)}" if signers else "not signed"
        write_text(f"model {version}: {said}; {signed}; {_describe_approvals(approvals)}")
    if errors:
        raise SystemExit(1)


def _count_approvals(stores: Stores, version: str) -> dict[str, Any] | None:
    """Return how many decisions approved a model's data, and who signed how many; None: a finding says why."""
    from heimdall_assets.pipeline.releases.reading import count_signed, read_provenance

    try:
        number, signed = count_signed(stores, read_provenance(stores, version))
    except OutOfReach:
        raise
    except (StorageError, NotFound):
        return None
    return {"number": number, "signed": signed}


def _describe_approvals(approvals: Mapping[str, Any] | None) -> str:
    if approvals is None:
        return "approvals cannot be read"
    if not approvals["number"]:
        return "no approval is on record"
    signed = [f"{count} by {owner}" for owner, count in approvals["signed"].items()]
    return f"{say_count(approvals['number'], 'approval')}, signed of them: {', '.join(signed) or 'none'}"


@contextmanager
def _find_history(places: "Places") -> Iterator[Path]:
    """Yield the folder of the Dagster instance, or of a copy of what it says of assets where it may only be read."""
    if may_write(places.dagster_home):
        yield places.dagster_home
        return
    with lend_copy(places.dagster_home, HISTORY) as folder:
        yield folder


def _read_events(places: "Places", stores: Stores, version: str) -> dict[int, dict[str, Any]] | None:
    """Return what Dagster says today of the events that a release names; None: no instance, or none that opens.

    The release's own file is the evidence and Dagster's history a cross-check. Of a home that may only be read a copy
    of that history is asked, for Dagster writes wherever it opens one.
    """
    from heimdall_assets.errors import CorruptObject, StorageError
    from heimdall_assets.pipeline.releases.reading import list_recorded_events, read_provenance

    if not (places.dagster_home / "dagster.yaml").is_file():
        return None
    try:
        recorded = list_recorded_events(read_provenance(stores, version))
    except CorruptObject:
        return None
    from heimdall_assets.defs.events import read_events
    from heimdall_assets.running.history import open_history

    try:
        with _find_history(places) as folder, open_history(places, folder) as instance:
            return read_events(instance, recorded)
    except StorageError as error:
        said = "Dagster's history in %s: not compared, for it does not open (%s)"
        _LOG.warning(said, places.dagster_home, error)
        return None


@click.command(short_help="Show what changed from one model to another.")
@click.argument("first")
@click.argument("second")
@json_option
def diff(first: str, second: str, as_json: bool) -> None:
    """Show what changed from model FIRST to model SECOND: data, settings, code, environment, figures."""
    stores = open_home()
    versions = [find_model(stores, model) for model in (first, second)]
    from heimdall_assets.lineage.difference import diff_models, render_difference
    from heimdall_assets.pipeline.releases.audit import read_data
    from heimdall_assets.pipeline.releases.reading import read_provenance

    old, new = (read_provenance(stores, version) for version in versions)
    found = diff_models(old, new, (read_data(stores, old), read_data(stores, new)))
    if as_json:
        write_json(found)
    else:
        write_lines(render_difference(found))
