"""``heimdall locate``, ``predict`` and ``evaluate``: positions with their ellipses, and how good they are."""

from pathlib import Path
from typing import Any

import click

from heimdall_assets.cli.importing import ReceiverType, collect_receivers
from heimdall_assets.cli.output import json_option, show_progress, write_json, write_table
from heimdall_assets.domain import Position
from heimdall_assets.errors import NotFound
from heimdall_assets.places import read_places
from heimdall_assets.specs import EvaluationSpec


def write_position(found: dict[str, Any], as_json: bool) -> None:
    """Print one position."""
    if as_json:
        write_json(found)
        return
    ellipse = found["ellipse_90"]
    click.echo(f"{found['latitude']:.6f}, {found['longitude']:.6f}   ({found['method']})")
    click.echo(
        f"90 % ellipse: {ellipse['semi_major_m']:,.0f} m x {ellipse['semi_minor_m']:,.0f} m, "
        f"major axis {ellipse['azimuth_deg']:.0f} deg from north"
    )
    if found["error_m"] is not None:
        inside = "inside" if found["inside_90"] else "outside"
        click.echo(f"error: {found['error_m']:,.0f} m, the truth lies {inside} the ellipse")
    for reason in found["refused"]:
        click.echo(f"left out: {reason}")


@click.command()
@click.argument("session")
@json_option
def locate(session: str, as_json: bool) -> None:
    """Locate the transmitter of SESSION (id or name) by classical estimation, nothing learned."""
    from heimdall_assets.stores.observing import locate_stored

    write_position(locate_stored(read_places().open_stores(), session), as_json)


@click.command()
@click.argument("model")
@click.argument("recordings", nargs=-1, required=True, metavar="SESSION|FILES")
@click.option("--receiver", "receivers", type=ReceiverType(), multiple=True, help="Position of a file's station.")
@json_option
def predict(
    model: str, recordings: tuple[str, ...], receivers: tuple[tuple[str, Position], ...], as_json: bool
) -> None:
    """Locate a transmitter with a released MODEL (version, latest or alias).

    SESSION is one of the database, by id or name; FILES are KiwiSDR or SigMF recordings of one transmission, each
    station's position given with --receiver.
    """
    from heimdall_assets.stores.observing import predict_files, predict_stored

    stores, paths = read_places().open_stores(), [Path(name) for name in recordings]
    if len(paths) > 1 or paths[0].is_file():
        for path in paths:
            if not path.is_file():
                raise NotFound(f"file {path}: there is none; expected one session, or recordings that exist")
        write_position(predict_files(stores, model, paths, collect_receivers(receivers)), as_json)
        return
    write_position(predict_stored(stores, model, recordings[0]), as_json)


@click.command()
@click.argument("model")
@click.option("--campaign", "campaigns", multiple=True, help="Only sessions of this campaign; may be repeated.")
@json_option
def evaluate(model: str, campaigns: tuple[str, ...], as_json: bool) -> None:
    """Judge a released MODEL on approved sessions that it was not trained on."""
    from heimdall_assets.defs.running import compare_methods
    from heimdall_assets.stores.observing import evaluate_stored

    stores = read_places().open_stores()
    with show_progress(f"Judging model {model}") as listener:
        metrics = evaluate_stored(
            stores, model, list(campaigns), EvaluationSpec(), lambda what, done, total: listener("", what, done, total)
        )
    if as_json:
        write_json(metrics)
        return
    rows = [[row["method"], row["median_m"], row["p90_m"], row["coverage_90"]] for row in compare_methods(metrics)]
    title = f"model {metrics['version']} on {metrics['num_sessions']} sessions: error in metres"
    write_table(title, ["method", "median", "90 %", "90 % ellipse covers"], rows)
    if metrics["num_refused_trained_on"]:
        click.echo(f"left out: {metrics['num_refused_trained_on']} sessions that it was trained on")
    if metrics["worse_than"]:
        click.echo(f"The model is worse than: {', '.join(metrics['worse_than'])}.")
