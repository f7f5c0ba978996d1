"""``heimdall plan``: what would be computed now, and why."""

import atexit
import gc
import sys

import click

from heimdall_assets.cli.settings.choosing import Asked, find_dataset, settings_options
from heimdall_assets.cli.terminal.homes import check_trainable
from heimdall_assets.cli.terminal.output import json_option, write_json, write_table, write_text
from heimdall_assets.cli.terminal.progress import show_progress
from heimdall_assets.cli.training.starting import Starting, read_started, starting_options


@click.command(short_help="Say what train would compute now and what it would find.")
@settings_options
@starting_options
@json_option
def plan(asked: Asked, starting: Starting, as_json: bool) -> None:
    """Say what `heimdall train` with these settings would compute and what it would find, and why."""
    atexit.register(_leave_memory)
    stores, read, _ = read_started(asked, starting)
    chosen = read.specs
    check_trainable(stores, find_dataset(chosen))
    with show_progress("Looking for results that are there already"):
        from heimdall_assets.pipeline.planning import foresee_rejection, plan_materialization

        steps, rejection = plan_materialization(stores, chosen), foresee_rejection(chosen)
    if rejection is not None:
        write_text(f"Warning: {rejection}", err=True)
    if as_json:
        write_json([{"asset": step.asset, "action": step.action, "reason": step.reason} for step in steps])
    else:
        write_table("what would run now", ["asset", "would", "why"], [[s.asset, s.action, s.reason] for s in steps])


def _leave_memory() -> None:
    """Let what was loaded not be looked through for cycles at the end, which would take a third of a second.

    Not where torch is there as well, which planning never loads: its bindings would tell of leaks.
    """
    if "torch" not in sys.modules:
        gc.freeze()
