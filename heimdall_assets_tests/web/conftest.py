"""One toy page for all tests of this folder: its code server takes seconds to start."""

import pytest

from heimdall_assets_tests.web.toy_page import open_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    with open_toy(tmp_path_factory.mktemp("toy")) as opened:
        yield opened


@pytest.fixture(scope="module")
def laptop(toy):
    """The port of the page as a laptop shows it: nobody is asked for a name."""
    with toy.serve() as port:
        yield port


@pytest.fixture(scope="module")
def shared(toy):
    """The port of the page whose users log in."""
    with toy.serve(toy.open_gate()) as port:
        yield port
