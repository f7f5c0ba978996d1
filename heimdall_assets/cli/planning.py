"""``heimdall plan``: what would be computed now, and why."""

import click

from heimdall_assets.cli.output import json_option, write_json, write_table
from heimdall_assets.cli.settings import read_settings
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.specs import DatasetSpec


@click.command()
@click.option("--campaign", "campaigns", multiple=True, help="Only sessions of this campaign; may be repeated.")
@click.option("--set", "assignments", multiple=True, metavar="Spec.field=value", help="One field; may be repeated.")
@json_option
def plan(campaigns: tuple[str, ...], assignments: tuple[str, ...], as_json: bool) -> None:
    """Say what `heimdall train` with these settings would compute and what it would find, and why."""
    from heimdall_assets.pipeline.planning import plan_materialization

    chosen = read_settings(None, assignments)
    if campaigns:
        if any(isinstance(spec, DatasetSpec) for spec in chosen):
            raise InvalidSetting("--campaign and DatasetSpec: expected one of them")
        chosen.append(DatasetSpec(campaigns=list(campaigns)))
    steps = plan_materialization(read_places().open_stores(), chosen)
    if as_json:
        write_json([{"asset": step.asset, "action": step.action, "reason": step.reason} for step in steps])
    else:
        write_table("what would run now", ["asset", "would", "why"], [[s.asset, s.action, s.reason] for s in steps])
