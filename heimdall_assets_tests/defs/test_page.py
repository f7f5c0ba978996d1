"""The page in a real browser: materialize everything from it, watch it succeed, look at the lineage and a plot.

With ``HEIMDALL_PICTURES`` set to a folder, the README's pictures are taken into it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from heimdall_assets_tests.homes import fill_home, release

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
    """A home that was released once, and its page on a free port, in a process group of its own."""
    home = tmp_path_factory.mktemp("page")
    places = fill_home(home)
    release(places)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = Path(home / "page.log").open("wb")  # noqa: SIM115 - closed when the page has ended
    process = subprocess.Popen(
        [*f"{sys.executable} -m dagster dev -m heimdall_assets.definitions --host 127.0.0.1 --port {port}".split()],
        env={**os.environ, "HEIMDALL_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")},
        cwd=home,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/server_info", process, home / "page.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        for name in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, name)
            except ProcessLookupError:
                break
            time.sleep(2)
        process.wait(timeout=30)
        log.close()


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the page did not open: {log.read_text()[-3000:]}")


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
    assert not [url for url in outside if not url.startswith(("data:", "blob:"))]
    context.close()
