"""Homes: the stores that a command works on, and a word about a home that is new or where nothing is yet.

Belongs here: who may begin a home, and models and campaigns looked for before anything slow is loaded. Does not belong
here: what homes are (``stores.home``), where they are (``places``).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from heimdall_assets.cli.terminal.output import show_names, write_notice
from heimdall_assets.counts import say_count
from heimdall_assets.domain import ApprovalStatus, check_name
from heimdall_assets.errors import NoHome, NotFound
from heimdall_assets.places import read_places
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.home_format import read_format
from heimdall_assets.suggestions import suggest_name

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


def check_campaigns(stores: "Stores", campaigns: Iterable[str]) -> None:
    """Do nothing where every one of ``campaigns`` has sessions.

    Raises:
        NotFound: one has none; the message names the nearest one and those that there are.
    """
    known = sorted(stores.measurements.count_sessions())
    for campaign in campaigns:
        if campaign not in known:
            meant = suggest_name(campaign, {name: name for name in known})
            there = f"expected one of {', '.join(known)}" if known else "expected some, but there are no sessions yet"
            hint = f"did you mean {meant}? ({there})" if meant else there
            raise NotFound(f"campaign {campaign}: found no sessions, {hint}")


def check_trainable(stores: "Stores", dataset: DatasetSpec) -> None:
    """Do nothing where a run on ``dataset`` has at least one approved session.

    Raises:
        NotFound: a campaign has no sessions, or no session is approved; the message says how many wait for that.
    """
    check_campaigns(stores, dataset.campaigns)
    counts = stores.measurements.count_sessions(dataset)
    if any(row.get(ApprovalStatus.APPROVED) for row in counts.values()):
        return
    where = f"campaign {', '.join(dataset.campaigns)}" if dataset.campaigns else show_home()
    pending = sum(row.get(ApprovalStatus.PENDING, 0) for row in counts.values())
    todo = (
        f"{say_count(pending, 'session')} pending: heimdall sessions approve ... --by NAME --reason TEXT"
        if pending
        else "none pending: heimdall demo or heimdall import adds some"
    )
    raise NotFound(f"{where}: found 0 approved sessions, expected at least 1 to train on ({todo})")
