"""Posting: the log's checkpoint goes to the second place after a decision, whose absence costs one line.

Belongs here: that one call for commands that decide. Does not belong here: the places (``defs.witnessing``).
"""

from typing import TYPE_CHECKING

from heimdall_assets.cli.terminal.output import write_text
from heimdall_assets.cli.terminal.progress import show_progress

if TYPE_CHECKING:
    from heimdall_assets.stores.home import Stores
    from heimdall_assets.variables import Places


def post_checkpoint(places: "Places", stores: "Stores") -> None:
    """Post the log's checkpoint to the second place."""
    if not places.witness:
        return
    from heimdall_assets.defs.witnessing import Witness

    with show_progress("Posting the log's checkpoint"):
        posted = Witness(places.witness, places.s3_endpoint).post(stores)
    for each in posted:
        if each.is_worth_a_word:
            write_text(f"Warning: {each.describe()}", err=True)
