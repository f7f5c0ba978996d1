"""``heimdall prepare``: what servers find when they start is made once, by one process.

Belongs here: beginning a home and the tables of both databases. Does not belong here: whether places answer, and users.
"""

import sys
from contextlib import redirect_stdout

import click

from heimdall_assets.cli.terminal.homes import begin_home
from heimdall_assets.cli.terminal.output import json_option, write_fields, write_json


@click.command(short_help="Begin or upgrade what servers start on: home, tables, dagster.yaml.")
@json_option
def prepare(as_json: bool) -> None:
    """Begin or upgrade the home, the tables of the databases and dagster.yaml; once more changes nothing.

    Servers that start together on an empty database would each make its tables: run this before them, alone.
    """
    places, _ = begin_home()
    from heimdall_assets.dagster_home import prepare_dagster_home
    from heimdall_assets.running.history import open_history

    folder = prepare_dagster_home(places)
    with open_history(places, folder) as instance:
        # Opening a storage makes its tables where there are none; older ones are upgraded, which SQLite's prints.
        with redirect_stdout(sys.stderr):
            instance.upgrade()
        storage = type(instance.run_storage).__name__
    made = {"home": str(places.home), "dagster_home": str(folder), "history": storage}
    if as_json:
        write_json(made)
    else:
        write_fields(made)
