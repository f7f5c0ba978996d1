"""``heimdall``: the command line. Thin: every command is one call, its result as a table or as JSON."""

import click

from heimdall_assets.cli.answering import serve
from heimdall_assets.cli.doctor import doctor
from heimdall_assets.cli.exporting import export
from heimdall_assets.cli.intake.importing import importing
from heimdall_assets.cli.intake.inspecting import inspect
from heimdall_assets.cli.keeping import collect, erase, hold
from heimdall_assets.cli.keys import keys
from heimdall_assets.cli.ledger import ledger
from heimdall_assets.cli.lineage import diff, lineage, verify
from heimdall_assets.cli.locating import evaluate, locate, predict
from heimdall_assets.cli.models import models
from heimdall_assets.cli.preparing import prepare
from heimdall_assets.cli.receipts import receipt
from heimdall_assets.cli.reproducing import reproduce
from heimdall_assets.cli.service_keys import service_keys
from heimdall_assets.cli.serving import ui
from heimdall_assets.cli.sessions import sessions
from heimdall_assets.cli.settings.config import config
from heimdall_assets.cli.settings.listing import list_all
from heimdall_assets.cli.terminal.output import HeimdallGroup
from heimdall_assets.cli.training.crossvalidating import crossvalidate
from heimdall_assets.cli.training.planning import plan
from heimdall_assets.cli.training.running import demo, train
from heimdall_assets.cli.training.runs import runs
from heimdall_assets.cli.training.searching import search
from heimdall_assets.cli.users import users
from heimdall_assets.libraries import silence_libraries


@click.group(cls=HeimdallGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="heimdall-assets")
def main(debug: bool) -> None:
    """Locate transmitters from a network of receivers.

    HEIMDALL_HOME (default: .heimdall in the working folder) holds everything: database, objects, models and the graph's
    history. `heimdall demo` begins one with simulated sessions, `heimdall import` one with yours.
    """
    silence_libraries()


COMMANDS = (
    demo, inspect, importing, sessions, locate, config, plan, train, runs, crossvalidate, search, models, predict,
    evaluate, lineage, export, verify, receipt, ledger, keys, service_keys, collect, erase, hold, diff, reproduce,
    doctor, prepare, serve, ui, users, list_all,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)
