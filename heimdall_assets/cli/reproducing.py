"""``heimdall reproduce``: an old model made again, stage by stage, and compared with what was recorded of it."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from heimdall_assets.cli.settings.choosing import read_settings
from heimdall_assets.cli.terminal.homes import find_model, open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_text
from heimdall_assets.cli.terminal.progress import show_progress, without_asset

if TYPE_CHECKING:
    from heimdall_assets.pipeline.releases.deviation import Measure, Remade, Verdict

EXIT_DIFFERS, EXIT_WITHIN = 1, 3


@click.command(short_help="Make a model again from its frozen data and compare.")
@click.argument("model")
@click.option(
    "--set", "assignments", multiple=True, metavar="Spec.field=value", help="Another setting, to see what it changes."
)
@click.option("--repair", is_flag=True, help="Store again what is damaged or missing and came out the same.")
@json_option
def reproduce(model: str, assignments: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Make MODEL again from its frozen snapshot, settings and seeds, and say by how much it differs.

    Exit status: 0, the same bits at every stage; 3, other bits, by no more than another thread count or instruction set
    makes (docs: lineage); 1, it differs; 2, it could not be made.
    """
    changed = read_settings(None, assignments)
    stores = open_home()
    version = find_model(stores, model)
    with show_progress(f"Making model {version} again") as listener:
        from heimdall_assets.pipeline.releases.deviation import TOLERANCES, Verdict
        from heimdall_assets.pipeline.releases.reproduction import reproduce_release

        found = reproduce_release(
            stores,
            version,
            changed,
            without_asset(listener),
            repair,
        )
    verdict, first = found.verdict, found.first_difference
    if as_json:
        write_json(
            {
                "version": found.version,
                "verdict": verdict.value,
                "same": first is None,
                "first_difference": None if first is None else first.stage,
                "stages": [stage.to_json() for stage in found.stages],
                "environment": found.environment,
                "restored": found.restored,
                "skipped": found.skipped,
                "tolerances": TOLERANCES,
            }
        )
    else:
        for name, why in found.skipped.items():
            write_text(f"{name}: not made again, but taken as it was ({why})")
        for stage in found.stages:
            write_text(f"{stage.stage}: {'; '.join(stage.differences) or 'the same'}")
            for measure in _pick_shown(stage.measures):
                write_text(f"  {measure.describe()}")
        for name, (then, now) in found.environment.items():
            write_text(f"environment: {name} {then} then, {now} now")
        for digest in found.restored:
            write_text(f"restored: object {digest}")
        kept = f" ({', '.join(found.skipped)} taken as they were)" if found.skipped else ""
        write_text(f"model {version}: " + _conclude(first, verdict, bool(found.environment)) + kept)
    if first is not None:
        raise SystemExit(EXIT_WITHIN if verdict is Verdict.WITHIN else EXIT_DIFFERS)


def _pick_shown(measures: "list[Measure]") -> "Iterator[Measure]":
    """Give those that are judged; of the others, which --json lists, the one that differs most."""
    yield from (measure for measure in measures if measure.tolerance is not None)
    told = [measure for measure in measures if measure.tolerance is None and math.isfinite(measure.difference)]
    if told:
        yield max(told, key=lambda measure: measure.difference)


def _conclude(first: "Remade | None", verdict: "Verdict", elsewhere: bool) -> str:
    if first is None:
        return "made again, the same bytes at every stage"
    then, now = first.node
    named = f"the first node that comes out otherwise is {first.stage} ({then[:16]} then, {now[:16]} now)"
    if verdict == "within":
        return f"{named}; every figure is within what another thread count or instruction set makes"
    return named + ("; the environment is not the recorded one: other bits are to be expected" if elsewhere else "")
