"""Fixtures that every room of tests may use."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets_tests.servers import NoServer, PostgresServer, run_postgres


@pytest.fixture(scope="session", autouse=True)
def without_mlflow() -> Iterator[None]:
    """Commands under test track nothing: MLflow costs seconds, and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEIMDALL_TRACKING", "off")
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real recordings, beside the checkout; the test skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real recordings here: expected a folder shared/data beside the checkout")
    return folder


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A fresh folder in memory, where an fsync costs nothing; the ordinary one where there is no such place."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="heimdall-", dir=memory) as folder:
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
