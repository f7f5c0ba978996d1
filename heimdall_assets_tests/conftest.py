"""Fixtures that every room of tests may use."""

import copy
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from heimdall_assets.cli.terminal import progress
from heimdall_assets.libraries import keep_fonts, silence_libraries
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.variables import Places
from heimdall_assets_tests.memory import find_memory
from heimdall_assets_tests.s3_server import S3Server, run_s3
from heimdall_assets_tests.servers import NoServer, PostgresServer, run_postgres
from heimdall_assets_tests.variation import start_run

HERE = Path(__file__).parent
PLACES: dict[str, str] = {}
"""The variables that lead somewhere, as they are when the tests begin."""
SLOW = (
    "cli/intake/test_inspecting_tables",
    "cli/test_bad_files",
    "cli/test_commands",
    "running/test_history",
    "cli/test_newcomer",
    "cli/test_real_recordings",
    "cli/test_receipts",
    "cli/test_releases_elsewhere",
    "cli/test_witness",
    "defs/test_drift_sensors",
    "defs/test_executor",
    "defs/test_executor_k8s",
    "defs/test_graph",
    "defs/test_graph_on_pods",
    "defs/test_lineage_events",
    "defs/test_moved_home",
    "defs/test_one_table",
    "defs/test_orphans",
    "defs/test_page",
    "defs/test_retention",
    "defs/test_sensors",
    "defs/test_served_graph",
    "defs/test_signal_graph",
    "running/test_signals",
    "defs/test_stopping",
    "defs/test_tracked_graph",
    "defs/test_tracking",
    "deploy/test_services",
    "evaluation/test_diagnostics",
    "formats/test_expansion",
    "learning/test_export",
    "learning/test_level_model",
    "learning/test_level_real",
    "learning/test_network_export",
    "learning/test_network_model",
    "learning/test_network_real",
    "learning/test_pair_tokens",
    "learning/test_signal_tasks",
    "learning/test_training",
    "lineage/test_audit",
    "lineage/test_commands",
    "lineage/test_exports",
    "lineage/test_out_of_reach",
    "locating/test_tdoa",
    "pipeline/test_deviation",
    "pipeline/test_formats_to_positions",
    "pipeline/test_gates",
    "pipeline/test_golden",
    "pipeline/test_imports",
    "pipeline/test_judging",
    "pipeline/test_kills",
    "pipeline/test_level_tables",
    "pipeline/test_not_heard",
    "pipeline/test_observations",
    "pipeline/test_pairs",
    "pipeline/test_promotion",
    "pipeline/test_reference",
    "pipeline/test_reference_graph",
    "pipeline/test_rules",
    "pipeline/test_stages_s3",
    "pipeline/test_table_forms",
    "pipeline/test_tracing",
    "pipeline/test_trained_checkpoint",
    "pipeline/test_watching",
    "signals/test_delays",
    "signals/test_reference_clock",
    "stores/test_clock_set_back",
    "stores/test_database_away",
    "stores/test_kills",
    "stores/test_many_decisions",
    "stores/test_measurements",
    "stores/test_objects",
    "stores/test_objects_s3",
    "stores/test_one_table",
    "stores/test_release_ledgers",
    "stores/test_releases",
    "stores/test_releases_faults",
    "stores/test_releases_kills",
    "stores/test_session_list",
    "stores/test_snapshots",
    "stores/test_tables",
    "stores/test_waiting",
    "test_added_column",
    "test_examples",
    "test_site",
    "test_what_is_opened",
    "web/test_approving",
    "web/test_decision_forms",
    "web/test_real_page",
    "web/test_session_pages",
)
"""Modules that take ten seconds or more: they train, draw, serve, kill, average over many sessions, or ask two
databases everything. ``test_house`` takes as long and stays: what it guards is asked of every change."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed-offset", type=int, default=0, help="draw random worlds from other seeds")
    parser.addoption("--margins", type=Path, default=None, help="append how much room each statistical bound had")
    parser.addoption("--quick", action="store_true", help="leave out the modules that take ten seconds or more")


def pytest_configure(config: pytest.Config) -> None:
    if (
        signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    ):  # a shell's background: what is started here would be deaf to it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.basetemp is None and (memory := find_memory()) is not None:
        config.option.basetemp = tempfile.mkdtemp(prefix="heimdall-tests-", dir=memory)
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))
    silence_libraries()  # modules of tests that import one do not report either
    keep_fonts(Path.home() / ".cache" / "matplotlib")  # not in the first home that a test opens, which goes away
    start_run(config.getoption("--seed-offset"), config.getoption("--margins"))
    if missing := [name for name in SLOW if not (HERE / f"{name}.py").is_file()]:
        raise pytest.UsageError(f"SLOW of conftest.py: found no {', '.join(missing)}, expected modules that are there")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave slow modules out before they are imported."""
    is_slow = collection_path in {HERE / f"{name}.py" for name in SLOW}
    return True if is_slow and config.getoption("--quick") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow modules begin first: those that share a run then end at about the same time."""
    slow = {HERE / f"{name}.py" for name in SLOW}
    items.sort(key=lambda item: item.path not in slow)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their parameter: what packs them may write the time into them (gzip, ZIP), and the processes that
    share a run must collect the same names."""
    return argname if isinstance(val, bytes) else None


def read_places_variables() -> dict[str, str]:
    """Return the variables of this process that lead somewhere."""
    leading = ("HEIMDALL_", "AWS_", "DAGSTER_HOME")  # not MLflow's own, which it sets itself
    return {name: value for name, value in os.environ.items() if name.startswith(leading)}


@pytest.fixture(scope="module", autouse=True)
def same_places(without_mlflow: None) -> Iterator[None]:
    """No module may lead those after it elsewhere: one that did sent their commands to its own history."""
    yield
    assert read_places_variables() == PLACES


@pytest.fixture(autouse=True)
def slow_titles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that takes longer than a second shows its title: on a slow machine each would, and none is meant."""
    monkeypatch.setattr(progress, "SPEAK_AFTER_S", 600.0)


@pytest.fixture(scope="session", autouse=True)
def without_mlflow() -> Iterator[None]:
    """Commands under test track nothing: MLflow costs seconds, and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEIMDALL_TRACKING", "off")
        PLACES.update(read_places_variables())
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real recordings, beside the checkout; the test skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real recordings here: expected a folder shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def released_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[Places, dict[str, Any]]]:
    """Makes a home at a path that is not there yet: its graph ran once, as ``homes.release`` lets it; and what it made.

    It ran once in this process: a home is a folder, and its copies are homes.
    """
    from heimdall_assets_tests.homes import fill_home, make_places, release  # Dagster costs each process seconds

    places = fill_home(tmp_path_factory.mktemp("released") / "home")
    summary = release(places)

    def make(folder: Path) -> tuple[Places, dict[str, Any]]:
        shutil.copytree(places.home, folder, symlinks=True)
        moved = folder / Path(summary["folder"]).relative_to(places.home)
        return make_places(folder), copy.deepcopy(summary) | {"folder": str(moved)}

    return make


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A fresh folder in memory, where an fsync costs nothing; an ordinary one where there is no such place."""
    with make_quick_folder() as folder:
        yield folder


@contextmanager
def make_quick_folder() -> Iterator[Path]:
    """Give what ``quick_path`` is, for a fixture of a whole module."""
    with tempfile.TemporaryDirectory(prefix="heimdall-", dir=find_memory()) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL; the test skips where there are no server binaries."""
    try:
        with run_postgres() as server:
            yield server
    except NoServer as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """Name of an upgraded, empty database to copy."""
    name = postgres.create_database()
    store = MeasurementStore(postgres.url(name))
    store.upgrade()
    store.close()
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[str]:
    """Address of a database without any table, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{quick_path / 'heimdall.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[str]:
    """Address of an upgraded, empty database, of each kind in turn."""
    if request.param == "sqlite":
        url = f"sqlite:///{quick_path / 'heimdall.db'}"
        MeasurementStore(url).upgrade()
        yield url
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create_database(request.getfixturevalue("postgres_template"))
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def store(database_url: str) -> Iterator[MeasurementStore]:
    """An upgraded, empty store on each kind of database in turn."""
    opened = MeasurementStore(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 service; the test skips where it is not installed."""
    try:
        with run_s3() as server:
            yield server
    except NoServer as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def bucket_of_module(s3: S3Server) -> Iterator[str]:
    """Address of a new bucket for a whole module, whose tests take a prefix each."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        yield f"s3://{s3.create_bucket()}"


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of a new bucket, which this process finds as every tool of S3 would."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.create_bucket()}"
