"""``heimdall ui`` as it is: its doors are shut, its sensor runs on, and a browser works behind the login."""

import json
import socket
import urllib.request
from urllib.parse import quote, urlsplit

import pytest

from heimdall_assets.domain import Role
from heimdall_assets.stores.users import User, UsersFile
from heimdall_assets.web.passwords import hash_password
from heimdall_assets_tests.browsers import open_browser
from heimdall_assets_tests.homes import make_places
from heimdall_assets_tests.serving import run_page
from heimdall_assets_tests.web.running import ask
from heimdall_assets_tests.web.toy_page import PASSWORD, log_in, query

SENSORS = "{ sensorsOrError(repositorySelector: %s) { ... on Sensors { results { name sensorState { id status } } } } }"
PLACE = '{repositoryLocationName: "heimdall_assets.definitions", repositoryName: "__repository__"}'
WAIT_MS = 180_000

ATTACK = """async address => {
    const said = [];
    for (const kind of ['text/plain', 'application/x-www-form-urlencoded']) {
        const headers = {'Content-Type': kind};
        const sent = {method: 'POST', mode: 'no-cors', credentials: 'include', body: '', headers};
        await fetch(address, sent).catch(() => null);
        said.push('tried');
    }
    const frame = document.createElement('iframe');
    frame.src = new URL('/', address);
    document.body.append(frame);
    await new Promise(done => { frame.onload = done; setTimeout(done, 5000); });
    return [...said, 'framed'];
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """An empty home whose page asks for names."""
    places = make_places(tmp_path_factory.mktemp("real"))
    places.open_stores()
    users = UsersFile(places.home / "users.json")
    for role in Role:
        users.add(User(str(role), role, hash_password(PASSWORD)))
    settings = {"HEIMDALL_USERS": str(users.path), "HEIMDALL_ALLOWED_HOSTS": "models.example"}
    with run_page(places.home, settings) as opened:
        yield opened


def read_sensors(port: int) -> dict[str, dict[str, str]]:
    status, said = query(port, SENSORS % PLACE, headers=log_in("auditor"))
    assert status == 200, said
    return {row["name"]: row["sensorState"] for row in said["data"]["sensorsOrError"]["results"]}


def test_what_broke_in_is_refused_on_both_ports_and_the_sensors_run_on(page):
    port, releases = (int(urlsplit(address).port) for address in (page.address, page.lineage_address))
    before = read_sensors(port)
    running = {name: state for name, state in before.items() if state["status"] == "RUNNING"}
    assert running
    for state in running.values():
        stop = quote(f"mutation {{ stopSensor(id: {json.dumps(state['id'])}) {{ __typename }} }}")
        for who in ({}, log_in("approver")):
            for kind in ("text/plain", "application/json"):
                told = {"Content-Type": kind, **who}
                assert ask(port, f"/graphql?query={stop}", "POST", told, b"")[0] == 403
            body = json.dumps({"query": "{ version }"}).encode()
            assert ask(port, "/graphql", "POST", {"Content-Type": "text/plain", **who}, body)[0] in (401, 415)
    assert read_sensors(port) == before
    for asked in (port, releases):
        assert ask(asked, "/", headers={"Host": "evil.example", **log_in("approver")})[0] == 421
        assert ask(asked, "/")[0] == 401
        assert ask(asked, "/", headers={"Host": "models.example", **log_in("auditor")})[0] == 200
    assert ask(releases, "/", "POST", {"Content-Type": "application/json", **log_in("approver")}, b"{}")[0] == 405
    assert urllib.request.urlopen(f"{page.address}/login", timeout=60).status == 200


def test_it_listens_on_loopback_alone(page):
    """Another address of this very machine is not answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; says by which address this machine would
        other = probe.getsockname()[0]
    if other.startswith("127."):
        pytest.skip("this machine has no other address than its own loopback")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((other, urlsplit(page.address).port), timeout=10)


@pytest.mark.browser
def test_a_browser_logs_in_works_and_logs_out(page):
    with open_browser() as browser:
        context = browser.new_context(viewport={"width": 1600, "height": 1000})
        tab = context.new_page()
        tab.set_default_timeout(WAIT_MS)
        wrong = []
        tab.on("response", lambda answer: wrong.append((answer.status, answer.url)) if answer.status >= 400 else None)
        tab.on("websocket", lambda opened: opened.on("socketerror", lambda error: wrong.append(("socket", error))))
        tab.goto(f"{page.address}/asset-groups")
        assert "/login" in tab.url
        tab.get_by_label("Name").fill("operator")
        tab.get_by_label("Password").fill(PASSWORD)
        tab.get_by_role("button", name="Log in").click()
        tab.get_by_text("champion_model").first.wait_for()
        assert tab.url.endswith("/asset-groups")
        tab.goto(f"{page.address}/automation")
        tab.get_by_text(next(iter(read_sensors(int(urlsplit(page.address).port))))).first.wait_for()
        cookies = context.cookies()
        assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Strict")]
        other = context.new_page()
        other.goto(page.lineage_address)
        other.get_by_text("Released models").wait_for()  # one login for both ports
        assert wrong == []

        tab.goto(f"{page.address}/logout")
        tab.get_by_role("button", name="Log out").click()
        tab.get_by_label("Password").wait_for()
        tab.goto(f"{page.address}/runs")
        assert "/login?next=/runs" in tab.url


@pytest.mark.browser
def test_another_sites_page_can_neither_frame_nor_change_it(page):
    """A page of another origin, in a browser that is logged in."""
    port = int(urlsplit(page.address).port)
    before = read_sensors(port)
    stop = quote(f"mutation {{ stopSensor(id: {json.dumps(next(iter(before.values()))['id'])}) {{ __typename }} }}")
    with open_browser() as browser:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(f"{page.address}/login")
        tab.get_by_label("Name").fill("approver")
        tab.get_by_label("Password").fill(PASSWORD)
        tab.get_by_role("button", name="Log in").click()
        tab.wait_for_url(f"{page.address}/")
        elsewhere = {"body": "<h1>elsewhere</h1>", "content_type": "text/html"}
        context.route("http://evil.example/**", lambda route: route.fulfill(**elsewhere))
        tab.goto("http://evil.example/")
        found = tab.evaluate(ATTACK, f"{page.address}/graphql?query={stop}")
        assert found == ["tried", "tried", "framed"]
        assert all("Dagster" not in frame.title() for frame in tab.frames[1:])
    assert read_sensors(port) == before
