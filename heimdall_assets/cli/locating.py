"""``heimdall locate``, ``predict`` and ``evaluate``: positions with their ellipses, and how good they are."""

from pathlib import Path
from typing import Any

import click

from heimdall_assets.cli.file_options import (
    clock_option,
    collect_receivers,
    frequency_option,
    rate_option,
    read_stated,
    receiver_option,
    start_option,
)
from heimdall_assets.cli.homes import check_campaigns, find_model, open_home
from heimdall_assets.cli.output import json_option, write_comparison, write_json, write_line
from heimdall_assets.cli.progress import show_progress, without_asset
from heimdall_assets.cli.settings import campaigns_option
from heimdall_assets.counts import say_count
from heimdall_assets.domain import ClockClass, Position
from heimdall_assets.errors import InvalidSetting, NotFound
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
        write_line(f"left out: {reason}")


@click.command(short_help="Locate a session classically, nothing learned.")
@click.argument("session")
@json_option
def locate(session: str, as_json: bool) -> None:
    """Locate the transmitter of SESSION (id or name) by classical estimation, nothing learned."""
    stores = open_home()
    stores.measurements.resolve_sessions([session])
    with show_progress(f"Locating session {session}") as listener:
        from heimdall_assets.pipeline.prediction.stored import locate_stored

        found = locate_stored(stores, session, without_asset(listener))
    write_position(found, as_json)


@click.command(short_help="Locate a session, or files, with a released model.")
@click.argument("model")
@click.argument("recordings", nargs=-1, required=True, metavar="SESSION|FILES")
@receiver_option(required=False)
@rate_option
@start_option
@frequency_option
@clock_option
@json_option
def predict(
    model: str,
    recordings: tuple[str, ...],
    receivers: tuple[tuple[str, Position], ...],
    rate_hz: float | None,
    start: str | None,
    frequency_hz: float | None,
    clock: str,
    as_json: bool,
) -> None:
    """Locate a transmitter with a released MODEL (version, latest or alias).

    SESSION is one of the database, by id or name; FILES are KiwiSDR, SigMF or NumPy recordings of one transmission,
    each station's position given with --receiver. What .npy files cannot say is given as for `heimdall import npy`:
    --rate-hz, --start, --frequency-hz, --clock.
    """
    stores, paths = open_home(), [Path(name) for name in recordings]
    version = find_model(stores, model)
    stated = read_stated(rate_hz, start, frequency_hz)
    if len(paths) > 1 or paths[0].is_file():
        for path in paths:
            if not path.is_file():
                raise NotFound(f"file {path}: there is none; expected one session, or recordings that exist")
        placed = collect_receivers(receivers)
        with show_progress(f"Asking model {version}") as listener:
            from heimdall_assets.pipeline.prediction.files import predict_files

            heard = without_asset(listener)
            found = predict_files(stores, version, paths, placed, stated, ClockClass(clock), heard)
        write_position(found, as_json)
        return
    if receivers or stated != read_stated(None, None, None) or clock != "none":
        raise InvalidSetting(f"session {recordings[0]}: found options about files, expected none or files that exist")
    stores.measurements.resolve_sessions(recordings)
    with show_progress(f"Asking model {version}") as listener:
        from heimdall_assets.pipeline.prediction.stored import predict_stored

        found = predict_stored(stores, version, recordings[0], without_asset(listener))
    write_position(found, as_json)


@click.command(short_help="Judge a released model on sessions it has not seen.")
@click.argument("model")
@campaigns_option
@json_option
def evaluate(model: str, campaigns: tuple[str, ...], as_json: bool) -> None:
    """Evaluate a released MODEL on approved sessions that it was not trained on."""
    stores = open_home()
    version = find_model(stores, model)
    check_campaigns(stores, campaigns)
    with show_progress(f"Evaluating model {version}") as listener:
        from heimdall_assets.evaluation.table import compare_methods
        from heimdall_assets.pipeline.prediction.stored import evaluate_stored

        heard = without_asset(listener)
        metrics = evaluate_stored(stores, version, list(campaigns), EvaluationSpec(), heard)
    if as_json:
        write_json(metrics)
        return
    title = f"model {metrics['version']} on {say_count(metrics['num_sessions'], 'session')}"
    write_comparison(title, compare_methods(metrics), metrics["worse_than"])
    if metrics["num_refused_trained_on"]:
        click.echo(f"left out: {say_count(metrics['num_refused_trained_on'], 'session')} that it was trained on")
