"""The page in a real browser: materialize from it, watch it succeed, look at graph, figures and the sensor's reasons.

With ``HEIMDALL_PICTURES`` set to a folder, the README's pictures are taken into it.
"""

import os
from pathlib import Path

import pytest

from heimdall_assets_tests.browsers import open_browser
from heimdall_assets_tests.homes import fill_home, release
from heimdall_assets_tests.servers import find_free_port
from heimdall_assets_tests.serving import run_page

pytestmark = pytest.mark.browser

PATIENCE_MS = 180_000  # two busy cores start the page, a run and its steps in a minute or more


@pytest.fixture(scope="module")
def browser(page_address):
    # After the page: a graph cannot run in this process once playwright's event loop does.
    with open_browser() as started:
        yield started


@pytest.fixture(scope="module")
def page_address(tmp_path_factory):
    """A home that was released once, and its page as `make ui` opens it."""
    lineage_port = find_free_port()
    places = fill_home(tmp_path_factory.mktemp("page"))
    release(places.model_copy(update={"lineage_url": f"http://127.0.0.1:{lineage_port}"}))
    with run_page(places.home, lineage_port=lineage_port) as page:
        yield page.address


def take(page, name: str) -> None:
    """Keep a picture where the caller of the tests wants one."""
    folder = os.environ.get("HEIMDALL_PICTURES")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def open_asset(page, address: str, name: str) -> None:
    """Open an asset's page and wait for its metadata, all of which must be there without a click."""
    page.goto(f"{address}/assets/{name}")
    page.get_by_text("Filter metadata keys").or_(page.get_by_placeholder("Filter metadata keys")).first.wait_for()
    page.get_by_text("manifest", exact=True).first.wait_for()
    assert not page.get_by_text("[Show Markdown]").count()
    assert not page.get_by_text("[Show JSON]").count()


def wait_for_pictures(page, names: list[str]) -> None:
    """Wait until each picture named is drawn where it stands, no wider than the cell that it stands in."""
    for name in names:
        picture = page.locator(f'img[alt^="{name}"]').first
        picture.wait_for()
        found = picture.evaluate("image => image.decode().then(() => [image.naturalWidth, image.clientWidth])")
        assert 300 < found[1] <= found[0] < 700, (name, found)


def test_a_run_asked_for_in_the_page_succeeds_and_lineage_and_plots_are_there(browser, page_address):
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    outside = []
    page.on("request", lambda request: None if "127.0.0.1" in request.url else outside.append(request.url))
    page.goto(f"{page_address}/asset-groups")
    # As a newcomer opens it: nothing is folded, each asset stands there with its status.
    for name in ("iq_files", "train_split", "trained_checkpoint", "onnx_model", "model_release", "champion_model"):
        page.get_by_text(name).first.wait_for()
    page.wait_for_timeout(2000)
    take(page, "lineage")

    page.goto(f"{page_address}/assets/iq_files")
    page.get_by_role("button", name="Materialize").first.click()
    page.wait_for_timeout(2000)
    page.goto(f"{page_address}/runs")
    # The release that was made before the page was opened, and the run asked for here.
    page.wait_for_function("() => document.body.innerText.split('Success').length > 2", timeout=PATIENCE_MS)

    page.set_viewport_size({"width": 1600, "height": 3000})
    open_asset(page, page_address, "evaluation_metrics")
    wait_for_pictures(page, ["error vectors", "error map", "error cdf", "reliability"])
    assert page.get_by_text("physical bound").count()  # the table of all methods
    take(page, "evaluation")
    page.get_by_role("link", name="all tables and figures on one page").click()
    page.get_by_text("Results of evaluation").first.wait_for()
    assert page.locator("img").count() == 5
    take(page, "results")

    page.set_viewport_size({"width": 1600, "height": 1600})
    open_asset(page, page_address, "trained_checkpoint")
    wait_for_pictures(page, ["losses over epochs"])
    for said in ("An interrupted training resumes", "heimdall", "PyTorch", "best_val_loss", "weights"):
        page.get_by_text(said).first.wait_for()  # description, group, kind, figures, facts
    take(page, "checkpoint")
    parent = page.get_by_role("link", name="train_split").and_(page.locator('a[href="/assets/train_split"]'))
    assert parent.count()  # within Dagster's own page
    page.get_by_text("Plots", exact=True).click()
    page.locator("canvas").first.wait_for()
    drawn = [name for name in ("best_val_loss", "num_weights", "epoch") if page.get_by_text(name, exact=True).count()]
    assert drawn == ["best_val_loss"]  # one point a materialization: no constants, and no epochs over the clock
    take(page, "curves")

    for name in ("approved_measurements", "iq_files", "spectrogram_features"):
        open_asset(page, page_address, name)
        page.get_by_text("reused").first.wait_for()
        take(page, name)
    page.goto(f"{page_address}/assets/measurement_database")
    page.get_by_text("nothing changed since the latest release").first.wait_for()  # why the sensor asks for no run
    take(page, "sensor")
    assert not [url for url in outside if not url.startswith(("data:", "blob:"))]

    page.goto(f"{page_address}/assets/model_release")
    with context.expect_page() as opened:
        page.locator('a[href$="/v1.0.0"]').first.click()
    opened.value.get_by_text("Where v1.0.0 comes from").wait_for()
    assert opened.value.locator("svg circle").count()  # its map
    take(opened.value, "provenance")
    for part, said in (("results", "Results of v1.0.0"), ("card", "Intended use")):
        with context.expect_page() as opened:
            page.get_by_role("link", name=f"/v1.0.0/{part}").first.click()
        opened.value.get_by_text(said).first.wait_for()
        take(opened.value, f"release-{part}")
    context.close()
