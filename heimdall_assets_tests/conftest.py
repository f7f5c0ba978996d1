"""Fixtures that every room of tests may use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from heimdall_assets_tests.variation import start_run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed-offset", type=int, default=0, help="draw random worlds from other seeds")
    parser.addoption("--margins", type=Path, default=None, help="append how much room each statistical bound had")


def pytest_configure(config: pytest.Config) -> None:
    start_run(config.getoption("--seed-offset"), config.getoption("--margins"))


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
