"""``heimdall models``: the released models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.posting import post_checkpoint
from heimdall_assets.cli.rules import canary, flag, rules, shadow, which
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
from heimdall_assets.stores.plain_files import write_named_file
from heimdall_assets.stores.releases.status import read_status

if TYPE_CHECKING:
    from heimdall_assets.variables import Places

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def models() -> None:
    """List and show released models."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List released models, oldest first."""
    stores = look_home()
    rows = stores.releases.list_releases() if stores else []
    ruled = _list_ruled(stores)
    rows = [{**row, "rules": ruled.get(row["version"], [])} for row in rows]
    if stores and not rows:
        write_notice(f"{show_home()}: no release yet; heimdall demo or heimdall train makes one")
    if as_json:
        write_json(rows)
        return
    names = ["version", "alias", "rules", "status", "trained", "sessions", "median m", "90 % m", "90 % ellipse covers"]
    names.append("made (UTC)")
    write_table(
        say_count(len(rows), "released model"),
        names,
        [
            [
                row["version"],
                ", ".join(row["aliases"]),
                ", ".join(row["rules"]),
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


@models.command(short_help="Sign a release as OpenSSF's model-signing does.")
@click.argument("model")
@click.option("--key", type=_FILE, required=True, help="Private key of an elliptic curve, such as P-256, in PEM.")
@click.option("--output", type=_FILE, required=True, help="Write the signature to this file, outside of the release.")
@json_option
def sign(model: str, key: Path, output: Path, as_json: bool) -> None:
    """Sign all files of MODEL in the format of OpenSSF's model-signing, for readers that know no other.

    It stands beside our own signatures, which are made with the release (heimdall keys).
    """
    places, stores = read_places(), open_home()
    version = find_model(stores, model)
    from heimdall_assets.stores.model_signatures import sign_files

    listed = stores.releases.find_record(version)["files"]
    files = {name: stores.releases.read_file(version, name) for name in listed}
    data = sign_files(stores.scratch, version, files, (key, places.signing_key_passphrase or ""))
    write_named_file(output, data)
    if as_json:
        write_json({"version": version, "file": str(output), "num_files": len(files)})
    else:
        write_text(f"wrote {output}: signature on {say_count(len(files), 'file')} of {version}")


@models.command(short_help="Check a signature of OpenSSF's model-signing.")
@click.argument("model")
@click.argument("signature", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="Public key of whom you expect to have signed, in PEM.")
@json_option
def check_signature(model: str, signature: Path, key: Path, as_json: bool) -> None:
    """Check SIGNATURE, made by heimdall models sign or another tool, against the files of MODEL; exit 1: it fails."""
    stores = open_home()
    version = find_model(stores, model)
    from heimdall_assets.pipeline.releases.reading import find_record, read_as_it_lies
    from heimdall_assets.stores.model_signatures import check_files

    record = find_record(stores, version)
    lying = {name: read_as_it_lies(stores, record, name) for name in stores.releases.files.list_files(version)}
    problem = check_files(
        stores.scratch, {name: data for name, data in lying.items() if data is not None}, signature, key
    )
    if as_json:
        write_json({"version": version, "holds": problem is None, "problem": problem})
    else:
        write_text(f"model {version}: the signature {'holds' if problem is None else 'does not hold: ' + problem}")
    if problem is not None:
        raise SystemExit(1)


for _command in (canary, flag, shadow, rules, which):
    models.add_command(_command)


def _list_ruled(stores: Stores | None) -> dict[str, list[str]]:
    """Return version -> the rules of serving that name it, as the ledger alone tells; those without effect say so."""
    if stores is None:
        return {}
    from heimdall_assets.pipeline.releases.standing_rules import read_standing_rules

    ruled: dict[str, list[str]] = {}
    for one in read_standing_rules(stores).judged:
        said = one.change.said
        share = "" if said.share is None else f" {said.share:.4g}"
        effect = "" if one.problem is None else " (without effect)"
        ruled.setdefault(str(said.version), []).append(f"{said.place}{share}{effect}")
    return ruled


def _tell_trained(record: Mapping[str, Any]) -> str:
    """Return yes or no; "-" for a release made before that was recorded."""
    return "-" if "trained" not in record else "yes" if record["trained"] else "no"


def _say_champion(places: "Places", stores: Stores, version: str, as_json: bool) -> None:
    """Print who is champion now and tell MLflow, whose absence costs one line: the ledger has decided already."""
    if as_json:
        write_json({"champion": version})
    else:
        write_text(f"champion: {version}")
    post_checkpoint(places, stores)
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
