"""Run pages: a training that runs is drawn and looks again, one that ended does not; an address is no path."""

import http.client
from pathlib import Path

import pytest

from heimdall_assets.errors import NotFound
from heimdall_assets.media_types import SVG_MEDIA_TYPE
from heimdall_assets.pipeline.runs import keep_tables
from heimdall_assets.places import read_places
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.runs.folders import FINISHED
from heimdall_assets.web.lineage_pages import POLICY, find_page
from heimdall_assets.web.sites import build_lineage_site
from heimdall_assets_tests.told_runs import begin_run, tell_epochs
from heimdall_assets_tests.web.running import serve_site

REFRESH = '<meta http-equiv="refresh" content="5">'


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return read_places({"HEIMDALL_HOME": str(tmp_path / "home")}).open_stores()


def read(stores: Stores, path: str) -> str:
    page = find_page(stores, path)
    assert page.kind == "text/html"
    return page.data.decode()


def test_a_training_that_runs_is_drawn_and_looks_again(stores: Stores):
    writer = begin_run(stores, "a")
    assert REFRESH in read(stores, f"/runs/{writer.id}")  # before its first epoch
    tell_epochs(writer, range(3))
    page = read(stores, f"/runs/{writer.id}")
    assert REFRESH in page
    assert page.count("data:image/svg+xml;base64,") == 1
    for said in (f"Training {writer.id}", "running", "3 of at most 20", "a &lt;b&gt;try&lt;/b&gt;"):
        assert said in page
    assert "<script" not in page
    picture = find_page(stores, f"/runs/{writer.id}/losses.svg")
    assert picture.kind == SVG_MEDIA_TYPE
    tell_epochs(writer, range(3, 5))
    assert find_page(stores, f"/runs/{writer.id}/losses.svg").data != picture.data
    writer.end(FINISHED, checkpoint="c" * 64, initial_val_loss=3.0, best_val_loss=1.2, best_epoch=4)
    page = read(stores, f"/runs/{writer.id}")
    assert REFRESH not in page
    assert "finished" in page


def test_trainings_are_listed_the_newest_first(stores: Stores):
    ids = []
    for fit in "abc":
        writer = begin_run(stores, fit)
        tell_epochs(writer, range(2))
        writer.end(FINISHED)
        ids.append(writer.id)
    page = read(stores, "/runs")
    places = [page.index(f'<a href="/runs/{run_id}">') for run_id in reversed(ids)]
    assert places == sorted(places)
    assert REFRESH not in page
    assert '<a href="/runs">' in read(stores, "/")


def test_a_training_of_another_machine_is_shown_from_what_is_kept_of_it(stores: Stores, tmp_path: Path):
    writer = begin_run(stores, "a")
    tell_epochs(writer, range(4))
    writer.end(FINISHED, checkpoint="c" * 64)
    keep_tables(stores, writer.id, "c" * 64)
    before = read(stores, f"/runs/{writer.id}")
    writer.folder.rename(tmp_path / "gone")
    assert read(stores, f"/runs/{writer.id}") == before


@pytest.mark.parametrize(
    "path", ["/runs/", "/runs/latest", "/runs/..", "/runs/0000000000000", "/runs/000000000000", "/runs/metadata.json"]
)
def test_what_is_no_training_is_not_found(stores: Stores, path: str):
    begin_run(stores, "a").end(FINISHED)
    with pytest.raises(NotFound):
        find_page(stores, path)
    with pytest.raises(NotFound):
        find_page(stores, "/runs", "page=2")


def test_it_is_served_behind_the_guard_of_the_lineage_pages(tmp_path: Path):
    places = read_places({"HEIMDALL_HOME": str(tmp_path / "home")})
    writer = begin_run(places.open_stores(), "a")
    tell_epochs(writer, range(2))
    with serve_site(lambda bound: build_lineage_site(bound, places.open_stores, "https://models.example")) as port:
        for host, expected in ((f"localhost:{port}", 200), ("evil.example", 421)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", f"/runs/{writer.id}", headers={"Host": host})
            answer = connection.getresponse()
            assert answer.status == expected
            answer.read()
            if expected == 200:
                assert answer.headers["Content-Security-Policy"] == POLICY
                assert answer.headers["Cache-Control"] == "no-store"
            connection.close()
