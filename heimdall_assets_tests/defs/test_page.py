"""The page in a real browser: materialize everything from it, watch it succeed, look at the lineage and a plot.

With ``HEIMDALL_PICTURES`` set to a folder, the README's pictures are taken into it.
"""

import os
import shutil
from pathlib import Path

import pytest

from heimdall_assets_tests.homes import fill_home, release
from heimdall_assets_tests.serving import find_free_port, run_page

pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 180_000  # two busy cores start the page, a run and its steps in a minute or more


@pytest.fixture(scope="module")
def browser(page_address):
    # After the page: a graph cannot run in this process once playwright's event loop does.
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no browser here: expected chromium (on Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


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


GROUPS = ",".join(f"global@global:{name}" for name in ("measurements", "features", "dataset", "training", "release"))


def test_a_run_asked_for_in_the_page_succeeds_and_lineage_and_plots_are_there(browser, page_address):
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    outside = []
    page.on("request", lambda request: None if "127.0.0.1" in request.url else outside.append(request.url))
    page.goto(f"{page_address}/asset-groups?expanded={GROUPS}")
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

    page.goto(f"{page_address}/assets/evaluation_metrics")
    page.get_by_text("error_cdf").first.wait_for()
    assert page.get_by_text("median_m").count()
    page.get_by_text("[Show Markdown]").nth(1).click()
    page.locator('img[src^="data:image/svg+xml"]').first.wait_for()
    take(page, "evaluation")

    page.goto(f"{page_address}/assets/trained_checkpoint")
    for said in ("An interrupted training resumes", "training", "heimdall", "PyTorch", "best_val_loss"):
        page.get_by_text(said).first.wait_for()  # description, group, owner, kind, figures
    page.get_by_text("Plots", exact=True).click()
    page.get_by_text("val_loss", exact=True).first.wait_for()  # one observation per epoch
    page.locator("canvas").first.wait_for()
    take(page, "curves")

    page.goto(f"{page_address}/assets/iq_files")
    page.get_by_text("measurement_id").first.wait_for()  # a table
    assert not [url for url in outside if not url.startswith(("data:", "blob:"))]

    page.goto(f"{page_address}/assets/model_release")
    with context.expect_page() as opened:
        page.get_by_role("link", name="/v1.0.0").first.click()
    opened.value.get_by_text("Where v1.0.0 comes from").wait_for()
    assert opened.value.locator("svg circle").count()  # its map
    take(opened.value, "provenance")
    context.close()
