"""Homes: the stores that a command works on, and a word about a home that is new or where nothing is yet.

Belongs here: who may begin a home, and models looked for before anything slow is loaded. Does not belong here: what
homes are (``stores.home``), where they are (``places``), what a training asks of one (``running.trainable``).
"""

from typing import TYPE_CHECKING

import click

from heimdall_assets.cli.terminal.output import show_names, write_notice
from heimdall_assets.domain import check_name
from heimdall_assets.errors import NoHome, NotFound
from heimdall_assets.places import read_places
from heimdall_assets.running import trainable
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.home_format import read_format

if TYPE_CHECKING:
    from heimdall_assets.stores.home import Stores
    from heimdall_assets.variables import Places


def open_home() -> "Stores":
    """Return the stores of a home that somebody has begun.

    Raises:
        NoHome: nobody has; nothing is made.
    """
    places = read_places()
    _spread_work(places)
    stores = places.open_stores(begin=False)
    show_names(stores.read_names)
    return stores


def look_home() -> "Stores | None":
    """Return the stores of a home; None, and a line on stderr: nobody has begun it, so nothing is there to list."""
    try:
        return open_home()
    except NoHome as error:
        write_notice(str(error))
        return None


def begin_home() -> "tuple[Places, Stores]":
    """Return the places of a home and its stores, begun where there was none: that is told on stderr."""
    places = read_places()
    is_new = read_format(places.home) is None
    _spread_work(places)
    stores = places.open_stores()
    show_names(stores.read_names)
    if is_new and read_format(places.home) is not None:
        write_notice(f"{show_home()}: begun")
    return places, stores


def _spread_work(places: "Places") -> None:
    """Have the rest of this command do large amounts of work where the places say."""
    command = click.get_current_context(silent=True)
    if command is not None:
        command.with_resource(places.spread_work())


def show_home() -> str:
    """Return the home, for messages."""
    return f"home {read_places().home} (HEIMDALL_HOME)"


def find_model(stores: "Stores", model: str) -> str:
    """Return the version that ``model`` means.

    Raises:
        NotFound: nothing released is called so.
    """
    check_name(model, "model")
    if not stores.releases.list_releases():
        raise NotFound(f"model {model}: found none, for {show_home()} holds no release yet; heimdall train makes one")
    return stores.releases.resolve(model)


def check_trainable(stores: "Stores", dataset: DatasetSpec) -> None:
    """Do nothing where a run on ``dataset`` has at least one approved session.

    Raises:
        NotFound: a campaign has no sessions, or no session is approved; the message says how many wait for that.
    """
    trainable.check_trainable(stores, dataset, show_home())
