"""The graph's history where several commands open a new one at once: Dagster by itself fails all but one of them."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heimdall_assets.dagster_home import URL_VARIABLE, prepare_dagster_home
from heimdall_assets.defs.accelerator import GPU_POOL
from heimdall_assets.defs.waiting import make_pool
from heimdall_assets.places import read_places
from heimdall_assets.running.history import open_history
from heimdall_assets.variables import Places
from heimdall_assets_tests.forks import end_child, start_child
from heimdall_assets_tests.servers import PostgresServer

COMMANDS = 3
TOGETHER_S = 60.0


def open_at_once(find_places: Callable[[int], Places], door: Callable[[Places, Any], Any]) -> list[tuple[int, Any]]:
    """Return how each of some processes ended that went through ``door`` together, and what it said."""
    together = multiprocessing.get_context("fork").Barrier(COMMANDS)
    children = [start_child(door, find_places(number), together) for number in range(COMMANDS)]
    return [end_child(*child) for child in children]


def find_pool(places: Places, together: Any) -> int:
    """Return how many places the pool has, as whoever opens the history finds it."""
    folder = prepare_dagster_home(places)
    together.wait(TOGETHER_S)
    with open_history(places, folder) as instance:
        make_pool(instance)
        return int(instance.event_log_storage.get_concurrency_info(GPU_POOL).slot_count)


def test_commands_that_begin_one_history_in_files_all_have_it(quick_path: Path):
    for attempt in range(2):
        places = read_places({"HEIMDALL_HOME": str(quick_path / str(attempt))})
        assert open_at_once(lambda _, places=places: places, find_pool) == [(0, 1)] * COMMANDS


def find_pool_made(places: Places, together: Any) -> int:
    """Return what ``find_pool`` does where tables are there and nobody has asked for a place."""
    with open_history(places, prepare_dagster_home(places)) as instance:
        together.wait(TOGETHER_S)
        make_pool(instance)
        return int(instance.event_log_storage.get_concurrency_info(GPU_POOL).slot_count)


@pytest.mark.parametrize("door", [find_pool, find_pool_made])
def test_machines_that_begin_one_history_on_a_server_all_have_it(
    door: Callable[[Places, Any], Any], postgres: PostgresServer, quick_path: Path, monkeypatch: pytest.MonkeyPatch
):
    database = postgres.create_database()
    monkeypatch.setenv(URL_VARIABLE, postgres.url(database))

    def find_places(number: int) -> Places:
        return read_places({"HEIMDALL_HOME": str(quick_path / str(number)), URL_VARIABLE: postgres.url(database)})

    assert open_at_once(find_places, door) == [(0, 1)] * COMMANDS
    postgres.drop_database(database)
