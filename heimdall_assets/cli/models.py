"""``heimdall models``: the released models."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.terminal.homes import find_model, look_home, open_home, show_home
from heimdall_assets.cli.terminal.output import (
    format_share,
    json_option,
    write_json,
    write_lines,
    write_notice,
    write_table,
    write_text,
)
from heimdall_assets.cli.terminal.progress import show_progress
from heimdall_assets.counts import say_count
from heimdall_assets.places import read_places
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.releases.status import read_status

if TYPE_CHECKING:
    from heimdall_assets.variables import Places


@click.group()
def models() -> None:
    """List and show released models."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List released models, oldest first."""
    stores = look_home()
    rows = stores.releases.list_releases() if stores else []
    if stores and not rows:
        write_notice(f"{show_home()}: no release yet; heimdall demo or heimdall train makes one")
    if as_json:
        write_json(rows)
        return
    names = ["version", "alias", "status", "trained", "sessions", "median m", "90 % m", "90 % ellipse covers"]
    names.append("made (UTC)")
    write_table(
        say_count(len(rows), "released model"),
        names,
        [
            [
                row["version"],
                ", ".join(row["aliases"]),
                read_status(row),
                _tell_trained(row),
                row.get("num_sessions"),
                row.get("median_m"),
                row.get("p90_m"),
                format_share(row.get("coverage_90")),
                row["created_at"][:16].replace("T", " "),
            ]
            for row in rows
        ],
    )


@models.command()
@click.argument("model")
@json_option
def show(model: str, as_json: bool) -> None:
    """Show a released MODEL (version, latest or alias): figures, settings and card."""
    stores = open_home()
    releases, version = stores.releases, find_model(stores, model)
    record = releases.find_record(version)
    if as_json:
        write_json({**record, "folder": releases.locate(version)})
        return
    write_lines(releases.read_file(version, "README.md").decode())
    write_text(f"Folder: {releases.locate(version)}")


@models.command()
@click.argument("model")
@click.option("--by", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
@json_option
def promote(model: str, by: str, reason: str, as_json: bool) -> None:
    """Make MODEL the champion; refused where its files or checks do not hold."""
    stores = open_home()
    version = find_model(stores, model)
    with show_progress(f"Checking model {version}"):
        from heimdall_assets.pipeline.releases.promotion import promote_release

        champion = promote_release(stores, version, by, reason)
    _say_champion(read_places(), stores, champion, as_json)


@models.command()
@click.option("--by", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
@json_option
def rollback(by: str, reason: str, as_json: bool) -> None:
    """Make the champion before this one champion again."""
    stores = open_home()
    with show_progress("Checking the champion before this one"):
        from heimdall_assets.pipeline.releases.promotion import roll_back

        champion = roll_back(stores, by, reason)
    _say_champion(read_places(), stores, champion, as_json)


def _tell_trained(record: Mapping[str, Any]) -> str:
    """Return yes or no; "-" for a release made before that was recorded."""
    return "-" if "trained" not in record else "yes" if record["trained"] else "no"


def _say_champion(places: "Places", stores: Stores, version: str, as_json: bool) -> None:
    """Print who is champion now and tell MLflow, whose absence costs one line: the ledger has decided already."""
    if as_json:
        write_json({"champion": version})
    else:
        write_text(f"champion: {version}")
    _post_checkpoint(places, stores)
    if not places.tracking:
        return
    try:
        with show_progress("Telling MLflow of it"):
            from heimdall_assets.pipeline.releases.promotion import read_aliases
            from heimdall_assets.stores.experiments import ExperimentStore

            store = ExperimentStore(places.mlflow_uri)
            store.mirror_aliases(stores.objects, read_aliases(stores))
    except Exception as error:  # whatever MLflow and the network raise
        write_text(f"Warning: MLflow could not be told: {' '.join(str(error).split()):.300}", err=True)


def _post_checkpoint(places: "Places", stores: Stores) -> None:
    """Post the log's checkpoint to the second place, whose absence costs one line."""
    if not places.witness:
        return
    from heimdall_assets.defs.witnessing import Witness

    with show_progress("Posting the log's checkpoint"):
        posted = Witness(places.witness, places.s3_endpoint).post(stores)
    for each in posted:
        if each.is_worth_a_word:
            write_text(f"Warning: {each.describe()}", err=True)
