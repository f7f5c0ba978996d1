"""``heimdall reproduce``: an old model made again, stage by stage, and compared with what was recorded of it."""

import dataclasses

import click

from heimdall_assets.cli.settings import read_settings
from heimdall_assets.cli.terminal.homes import find_model, open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_text
from heimdall_assets.cli.terminal.progress import show_progress, without_asset


@click.command(short_help="Make a model again from its frozen data and compare.")
@click.argument("model")
@click.option(
    "--set", "assignments", multiple=True, metavar="Spec.field=value", help="Another setting, to see what it changes."
)
@click.option("--repair", is_flag=True, help="Store again what is damaged or missing and came out the same.")
@json_option
def reproduce(model: str, assignments: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Make MODEL again from its frozen snapshot, settings and seeds; exit 1 where a stage comes out otherwise."""
    changed = read_settings(None, assignments)
    stores = open_home()
    version = find_model(stores, model)
    with show_progress(f"Making model {version} again") as listener:
        from heimdall_assets.pipeline.releases.reproduction import reproduce_release

        found = reproduce_release(
            stores,
            version,
            changed,
            without_asset(listener),
            repair,
        )
    first = found.first_difference
    if as_json:
        told = {"same": first is None, "first_difference": None if first is None else first.stage}
        write_json({**dataclasses.asdict(found), **told})
    else:
        for name, why in found.skipped.items():
            write_text(f"{name}: not made again, but taken as it was ({why})")
        for stage in found.stages:
            write_text(f"{stage.stage}: {'; '.join(stage.differences) or 'the same'}")
        for name, (then, now) in found.environment.items():
            write_text(f"environment: {name} {then} then, {now} now")
        for digest in found.restored:
            write_text(f"restored: object {digest}")
        write_text(f"model {version}: " + _conclude(None if first is None else first.stage, bool(found.environment)))
    if first is not None:
        raise SystemExit(1)


def _conclude(first: str | None, elsewhere: bool) -> str:
    if first is None:
        return "made again, the same bytes at every stage"
    reason = "; the environment is not the recorded one: other bits are to be expected" if elsewhere else ""
    return f"the first stage that comes out otherwise is {first}{reason}"
