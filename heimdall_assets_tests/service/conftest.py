"""One home with two released models for all tests of this folder, and services on copies of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from heimdall_assets.stores.home import Stores
from heimdall_assets_tests.service.cases import make_home, open_home
from heimdall_assets_tests.service.running import Running, run_service


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with v1.0.0, which is champion, and v1.1.0."""
    return make_home(tmp_path_factory.mktemp("service") / "home", 2)


@pytest.fixture
def home(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "home", symlinks=True))


@pytest.fixture
def stores(home: Path) -> Stores:
    return open_home(home)


@pytest.fixture(scope="module")
def running(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with default bounds, for tests that change nothing."""
    home = Path(shutil.copytree(released, tmp_path_factory.mktemp("running") / "home", symlinks=True))
    with run_service(open_home(home)) as found:
        yield found
