"""History: Dagster's record of runs, opened for a command; where it goes away meanwhile, that is one line.

Belongs here: what Dagster's storage raises and logs, as our error. Does not belong here: where the history is kept
(``dagster_home``), the database of measurements, whose errors are ours already (``stores.database``).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from heimdall_assets.dagster_home import URL_VARIABLE
from heimdall_assets.defs.waiting import find_history_fault
from heimdall_assets.errors import HeimdallError, StorageError
from heimdall_assets.variables import Places

_RETRYING = "Retrying failed database"


@contextmanager
def open_history(places: Places, folder: Path) -> Iterator[dg.DagsterInstance]:
    """Give the instance of Dagster whose ``dagster.yaml`` lies in ``folder``.

    Raises:
        StorageError: the history could not be read or written, at first or later; what was stored before stands.
    """
    logging.getLogger().addFilter(_is_news)
    try:
        with dg.DagsterInstance.from_config(str(folder)) as instance:
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
