"""``heimdall crossvalidate``: how good a model with some settings is, told without the test split."""

from typing import Any

import click

from heimdall_assets.cli.settings.choosing import Asked, find_dataset, read_chosen, settings_options
from heimdall_assets.cli.terminal.homes import check_trainable, open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_line, write_table
from heimdall_assets.cli.terminal.progress import show_progress
from heimdall_assets.counts import say_count
from heimdall_assets.places import read_places


@click.command(short_help="Train and judge a model fold by fold; release nothing.")
@settings_options
@click.option("--folds", "num_folds", default=5, show_default=True, type=click.IntRange(2, 100), help="How many.")
@click.option("--reason", metavar="TEXT", help="Why you ask; it stands in the lineage of what is made.")
@json_option
def crossvalidate(asked: Asked, num_folds: int, reason: str | None, as_json: bool) -> None:
    """Train a model for each fold on the others, and judge it on the fold itself.

    Test sessions take no part: they stay unseen for the one model that is released. Each fold also chose its model's
    epoch and calibrated its ellipses, so that the figures are a little too good; they compare settings with each other.
    """
    chosen = read_chosen(asked)
    check_trainable(open_home(), find_dataset(chosen.specs))
    with show_progress(f"Training {say_count(num_folds, 'fold')}") as listener:
        from heimdall_assets.running.folds import cross_validate

        found = cross_validate(read_places(), chosen.specs, num_folds, listener, reason)
    if as_json:
        write_json(found)
        return
    _write(found)


def _write(found: dict[str, Any]) -> None:
    write_table(
        say_count(found["num_folds"], "fold"),
        ["fold", "train", "val", "median m", "90 % m", "90 % ellipse covers", "best val_loss", "trained"],
        [
            [
                row["fold"],
                row["num_train_sessions"],
                row["num_val_sessions"],
                row["median_m"],
                row["p90_m"],
                row["coverage_90"],
                row["best_val_loss"],
                "yes" if row["trained"] else "no",
            ]
            for row in found["folds"]
        ],
    )
    pooled, median = found["pooled"], found["figures"]["median_m"]
    if median is not None:
        write_line(
            f"median error over folds: {median['mean']:,.0f} m +- {median['sd']:,.0f} m "
            f"({median['min']:,.0f} to {median['max']:,.0f})"
        )
    if pooled["median_m"] is not None:
        where = f"{say_count(pooled['num_sessions'], 'session')} at {say_count(pooled['num_sites'], 'site')}"
        write_line(f"together: {pooled['median_m']:,.0f} m{_say_interval(pooled)}, {where}")
    trained = say_count(found["num_trained_now"], "fold")
    write_line(f"{trained} trained now, the others found again; no test session was looked at.")


def _say_interval(pooled: dict[str, Any]) -> str:
    if pooled["median_low_m"] is None or pooled["median_high_m"] is None:
        return ""
    return f" ({pooled['median_low_m']:,.0f} to {pooled['median_high_m']:,.0f} at {100 * pooled['confidence']:g} %)"
