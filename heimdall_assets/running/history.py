"""History: Dagster's record of runs, opened for a command; where it goes away meanwhile, that is one line.

Belongs here: what Dagster's storage raises and logs, as our error. Does not belong here: where the history is kept
(``dagster_home``), the database of measurements, whose errors are ours already (``stores.database``).
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from heimdall_assets.dagster_home import URL_VARIABLE
from heimdall_assets.defs.waiting import find_history_fault
from heimdall_assets.errors import HeimdallError, StorageError
from heimdall_assets.stores.locks import hold_lock
from heimdall_assets.variables import Places

_RETRYING = "Retrying failed database"
_OPENING_S = 120.0
"""So long another command may take to open the same history: a second, or more on a slow disk."""


@contextmanager
def open_history(places: Places, folder: Path) -> Iterator[dg.DagsterInstance]:
    """Give the instance of Dagster whose ``dagster.yaml`` lies in ``folder``.

    Raises:
        StorageError: the history could not be read or written, at first or later; what was stored before stands.
        Refused: another command has been opening it for minutes.
    """
    logging.getLogger().addFilter(_is_news)
    try:
        with _open(places, folder) as instance:
            yield instance
    except HeimdallError:
        raise
    except Exception as error:
        said = find_history_fault(error)
        if said is None:
            raise
        raise StorageError(f"{_show(places, folder)}: {said}; what was done is kept") from error
    finally:
        logging.getLogger().removeFilter(_is_news)


def _open(places: Places, folder: Path) -> dg.DagsterInstance:
    """Return the instance; its tables are made where there are none, which in files only one process may do."""
    if places.dagster_url is not None:
        return dg.DagsterInstance.from_config(str(folder))
    with hold_lock(folder / "opening.lock", f"process {os.getpid()}", _OPENING_S):
        return dg.DagsterInstance.from_config(str(folder))


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the root logger is to be shown: Dagster tells six times in four lines what is told once."""
    return not str(record.msg).startswith(_RETRYING)


def _show(places: Places, folder: Path) -> str:
    """Return the history without what may be a password."""
    if places.dagster_url is None:
        return f"history of the graph in {folder}"
    from sqlalchemy import make_url

    from heimdall_assets.stores.database.connection import show_address

    return f"history of the graph {show_address(make_url(places.dagster_url))} ({URL_VARIABLE})"
