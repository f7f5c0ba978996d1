"""Approving in a real browser that runs no script: list, look, approve 20, reject 1; then the sensor asks for a run.

With ``HEIMDALL_PICTURES`` set to a folder, the README's picture is taken into it.
"""

import os
from pathlib import Path

import dagster as dg
import pytest

from heimdall_assets.definitions import recover_at
from heimdall_assets.defs.sensors import build_approval_sensor
from heimdall_assets.specs import RetrainPolicy
from heimdall_assets_tests.browsers import open_browser
from heimdall_assets_tests.web.desks import fill_waiting, make_gate, serve_desks
from heimdall_assets_tests.web.toy_page import PASSWORD

pytestmark = pytest.mark.browser

PATIENCE_MS = 60_000
EAGER = RetrainPolicy(min_changed_sessions=20, quiet_period_s=0)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return fill_waiting(tmp_path_factory.mktemp("approving") / "home", 22, duration_s=0.8)


def ask_sensor(places):
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance, sensor_name="s")
        return build_approval_sensor(EAGER, places.open_stores, recover_at(places)).evaluate_tick(context)


def open_page(browser, port, user):
    """Return a page in which ``user`` logged in, and what it asked of other machines."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}, java_script_enabled=False).new_page()
    page.set_default_timeout(PATIENCE_MS)
    outside = []
    page.on("request", lambda request: None if f"127.0.0.1:{port}" in request.url else outside.append(request.url))
    page.goto(f"http://127.0.0.1:{port}/sessions")
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Sessions", exact=True).wait_for()
    return page, outside


def wait_for_pictures(page, count):
    """Wait until so many spectrograms are drawn, each larger than a thumb."""
    pictures = page.locator(".signals img")
    assert pictures.count() == count
    for index in range(count):
        picture = pictures.nth(index)
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 90


def look_at_first(page):
    answers = []
    page.on("response", lambda answer: answers.append((answer.url, answer.status, answer.headers.get("content-type"))))
    page.locator("td a").first.click()
    page.get_by_role("heading", name="Spectrograms").wait_for()
    page.wait_for_load_state("networkidle")
    drawn = [one for one in answers if "/signal?" in one[0]]
    assert [one[1:] for one in drawn] == [(200, "image/png")] * 3
    wait_for_pictures(page, 3)
    for name in ("The network", "Claim and estimate"):
        view = page.get_by_role("img", name=name)
        assert view.is_visible()
        assert view.locator("polygon").count() == 1  # the ellipse
    assert page.get_by_text("the claim lies").is_visible()
    assert page.get_by_role("cell", name="gnss_calibrated").count() == 3


def test_list_look_approve_twenty_reject_one_and_the_sensor_asks_for_a_run(places, tmp_path):
    before = ask_sensor(places)
    assert not before.run_requests
    assert "no session is approved" in before.skip_message
    with serve_desks(places, make_gate(tmp_path)) as port, open_browser() as browser:
        page, outside = open_page(browser, port, "ada")
        assert page.get_by_role("checkbox").count() == 22
        look_at_first(page)
        first = page.get_by_role("heading", level=1).inner_text().split()[0]
        page.evaluate("scrollTo(0, 0)")
        take(page, "approving")

        # Without a reason the browser itself refuses to send.
        page.get_by_role("button", name="Reject").click()
        assert page.get_by_role("heading", level=1).inner_text() == f"{first} pending"
        press_key(page, "y")
        page.keyboard.type("carrier only, no modulation")
        press_key(page, "r")
        page.get_by_role("status").wait_for()
        assert page.get_by_role("status").inner_text() == "Rejected: 1 session."
        assert page.get_by_role("heading", level=1).inner_text().split()[0] != first  # the next one that waits

        press_key(page, "l")
        page.get_by_role("heading", name="Sessions", exact=True).wait_for()
        boxes = page.get_by_role("checkbox")
        assert boxes.count() == 21
        for index in range(20):  # by keyboard: Tab leads from row to row, Space ticks
            boxes.nth(index).focus()
            page.keyboard.press("Space")
        page.get_by_label("Why").focus()
        page.keyboard.type("mast known by survey")
        page.keyboard.press("Enter")
        assert page.get_by_role("status").inner_text() == "Approved: 20 sessions."
        assert page.get_by_role("checkbox").count() == 1
        assert page.get_by_role("link", name="approved 20").is_visible()
        page.get_by_role("link", name="rejected 1").click()
        assert page.get_by_role("link", name=first).is_visible()
        assert outside == []
        check_auditor(browser, port)
    store = places.open_stores().measurements
    assert store.count_sessions() == {"field day": {"approved": 20, "pending": 1, "rejected": 1}}
    events = store.list_approval_events()
    assert {event["reason"] for event in events} == {"carrier only, no modulation", "mast known by survey"}
    assert {store.read_names()[event["decided_by"]] for event in events} == {"ada"}
    assert store.check_ledger() == []
    (request,) = ask_sensor(places).run_requests
    assert request.tags["heimdall/reason"].startswith("20 added")


def press_key(page, letter):
    """Press an access key, Alt with a letter, as a keyboard does: Chromium hears it as a character."""
    told = {"modifiers": 1, "key": letter, "windowsVirtualKeyCode": ord(letter.upper()), "unmodifiedText": letter}
    keyboard = page.context.new_cdp_session(page)
    for kind in ("rawKeyDown", "char", "keyUp"):
        keyboard.send("Input.dispatchKeyEvent", {"type": kind, **told, **({"text": letter} if kind == "char" else {})})
    keyboard.detach()


def check_auditor(browser, port):
    """An auditor looks at everything, and can do none of it, in the page or past it."""
    page, _ = open_page(browser, port, "auditor")
    assert page.get_by_role("checkbox").count() == 0
    page.locator("td a").first.click()
    page.get_by_text("You are auditor here: an approver decides.").wait_for()
    wait_for_pictures(page, 3)
    assert [one.inner_text() for one in page.get_by_role("button").all()] == []
    session = page.url.rpartition("/")[2].partition("?")[0]
    form = {"token": "", "chosen": f"{'0' * 32} {session}", "decision": "approve", "reason": "mine", "from": "look"}
    answer = page.context.request.post(
        f"http://127.0.0.1:{port}/sessions", form=form, headers={"Origin": f"http://127.0.0.1:{port}"}
    )
    assert answer.status == 403
    assert answer.text() == "auditor: found a decision about sessions, expected reading alone\n"


def take(page, name):
    """Keep a picture where the caller of the tests wants one."""
    folder = os.environ.get("HEIMDALL_PICTURES")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
