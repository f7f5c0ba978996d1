"""Pages of a release in parts: every session is on one page, search finds it, queries are read strictly."""

import re
import sqlite3
from html import unescape
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import CorruptObject, NotFound
from heimdall_assets.lineage.pages.served import PAGE_LENGTH, count_pages, render_changes
from heimdall_assets.pipeline.tracing.indexing import rebuild
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.stores.database.keys import add_key
from heimdall_assets.stores.database.rules import SaidRule
from heimdall_assets.stores.keys import make_key
from heimdall_assets.web.lineage_pages import draw_page, find_page
from heimdall_assets.web.queries import LONGEST, parse_page, parse_query
from heimdall_assets.web.sites import build_lineage_site
from heimdall_assets_tests.browsers import open_browser
from heimdall_assets_tests.lineage.world import REASON, make_world
from heimdall_assets_tests.web.running import serve_site

NUM_SESSIONS = 2 * PAGE_LENGTH + 7


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = make_world(tmp_path_factory.mktemp("pages"), NUM_SESSIONS)
    made.release(made.make_chain())
    made.withdraw(["session-0001", "session-0002"])
    made.approve(made.add_sessions(NUM_SESSIONS, 3), "heard by a second station")
    made.measurements.decide(["session-0002"], ApprovalStatus.APPROVED, "Eve", "right after all")
    made.release(made.make_chain(TrainingSpec(seed=3), median_m=90.0), status="rejected", rejected=["median error"])
    rebuild(made.stores)
    return made


def read(world, path, query=""):
    return draw_page(world.stores, path, query).data.decode()


def list_shown(page):
    """Return the ids of the sessions in the rows of a page."""
    return [unescape(name) for name in re.findall(r'<td title="([^"]*)"><a href="[^"]*/session\?id=', page)]


def find_links(page):
    return [unescape(address) for address in re.findall(r'href="([^"]*)"', page)]


def test_pages_cover_each_session_exactly_once(world):
    seen, address = [], "/v1.0.0/sessions"
    while address is not None:
        page = read(world, *address.split("?"))
        seen += list_shown(page)
        following = re.search(r'<a href="([^"]*)">next</a>', page)
        address = unescape(following.group(1)) if following else None
    assert len(seen) == NUM_SESSIONS
    assert set(seen) == {f"session-{index:04d}" for index in range(NUM_SESSIONS)}
    assert f"page 3 of {count_pages(NUM_SESSIONS)}" in page


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("night 17", {17, *range(170, 180)}),
        ("NIGHT 17", {17, *range(170, 180)}),
        ("session-0042", {42}),
        ("Source 99", {99}),
        ("source-205", {205}),
        ("Eve", {2}),
        ("north", set(range(NUM_SESSIONS + 3)) - {1}),
        ("%", set()),
        (".*", set()),
        ("<script>", set()),
    ],
)
def test_search_finds_by_name_id_source_and_approver(world, words, expected):
    found, page = set(), 1
    while page <= count_pages(len(expected)):
        shown = read(world, "/v1.0.1/sessions", f"q={quote(words)}&page={page}")
        assert "<script>" not in shown
        found |= {int(name.removeprefix("session-")) for name in list_shown(shown)}
        page += 1
    assert found == expected


def test_an_empty_search_is_none(world):
    assert list_shown(read(world, "/v1.0.0/sessions", "q=")) == list_shown(read(world, "/v1.0.0/sessions"))


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1.0.0/sessions", "page=0"), ("/v1.0.0/sessions", "page=-1"), ("/v1.0.0/sessions", "page=1e3"),
        ("/v1.0.0/sessions", "page=4"), ("/v1.0.0/sessions", "page=99999999999"), ("/v1.0.0/sessions", "page="),
        ("/v1.0.0/sessions", "page=1&page=2"), ("/v1.0.0/sessions", "q=a&q=b"), ("/v1.0.0/sessions", "sort=name"),
        ("/v1.0.0/sessions", "q"), ("/v1.0.0/sessions", "&"), ("/v1.0.0/sessions", "q=%"),
        ("/v1.0.0/sessions", "q=%zz"), ("/v1.0.0/sessions", "q=%ff"), ("/v1.0.0/sessions", "q=%00"),
        ("/v1.0.0/sessions", "q=a%0d%0aSet-Cookie:x"), ("/v1.0.0/sessions", "q=" + "a" * 201),
        ("/v1.0.0/sessions", "Q=a"), ("/v1.0.0/sessions", "q[]=a"), ("/v1.0.0/sessions", "%71=a"),
        ("/v1.0.0/sessions", "q=" + "%61" * 2000), ("/v1.0.0/session", ""), ("/v1.0.0/session", "id="),
        ("/v1.0.0/session", "id=nobody"), ("/v1.0.0/session", "id=night+1"), ("/v1.0.0/session", "id=session-0209"),
        ("/v1.0.0/session", "id=session-0001&id=session-0002"), ("/v1.0.0", "q=a"), ("/", "q=a"),
        ("/v1.0.0/changes", "page=1"), ("/v1.0.0/card", "x"), ("/v1.0.0/", ""), ("/v1.0.0/sessions/", ""),
        ("/v1.0.0/sessions/session-0001", ""), ("/v9.9.9/sessions", ""), ("/v1.0.0/Sessions", ""),
        ("/v1.0.0/find_part", ""), ("sessions", ""),
    ],
)  # fmt: skip
def test_what_is_no_query_of_a_page_is_not_found(world, path, query):
    with pytest.raises(NotFound) as refused:
        find_page(world.stores, path, query)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 300


@settings(deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_any_query_is_read_or_refused(query):
    try:
        found = parse_query(query, ("q", "page"))
    except NotFound:
        return
    assert found.keys() <= {"q", "page"}
    assert all(value.isprintable() for value in found.values())


@given(st.text(max_size=50).filter(str.isprintable))
def test_what_a_browser_writes_is_read_back(words):
    assert parse_query(f"q={quote(words)}&page=2", ("q", "page")) == {"q": words, "page": "2"}
    assert parse_page("2") == 2


def test_a_query_has_a_length():
    assert parse_query(f"q={'a' * (LONGEST - 2)}", ("q",))
    with pytest.raises(NotFound, match=f"expected at most {LONGEST}"):
        parse_query(f"q={'a' * (LONGEST - 1)}", ("q",))


def test_a_session_shows_its_decisions_uses_and_measurements(world):
    page = read(world, "/v1.0.0/session", "id=session-0002")
    told = re.findall(r'<td class="number">\d+</td><td>(approved|rejected)</td><td>(\w+)</td>', page)
    assert told == [("approved", "Ada"), ("rejected", "Bob"), ("approved", "Eve")]
    assert page.count("not signed") == 3
    assert {"/v1.0.0", "/v1.0.1"} <= set(find_links(page))
    assert "rejected</td><td>" in page[page.index("Used by") :]
    assert "Measurements (3)" in page
    digest = world.read_data(world.read_provenance("v1.0.0")).measurements.set_index("measurement_id")["iq_digest"]
    assert digest["session-0002-station-a"] in page
    assert "&lt;script&gt;" in page


def test_a_session_of_an_index_that_is_behind_says_so(world):
    world.stores.edges.clear()
    try:
        assert "The index of lineage is behind" in read(world, "/v1.0.0/session", "id=session-0003")
    finally:
        rebuild(world.stores)
    assert "is behind" not in read(world, "/v1.0.0/session", "id=session-0003")


def test_changes_since_the_release_before_are_told(world):
    assert "the first release" in read(world, "/v1.0.0/changes")
    page = read(world, "/v1.0.1/changes")
    rows = dict(re.findall(r'<tr><td>([\w ]+)</td><td class="number">(\d+)</td>', page))
    old, new = (world.read_data(world.read_provenance(version)).sessions for version in ("v1.0.0", "v1.0.1"))
    assert int(rows["added"]) == len(set(new["session_id"]) - set(old["session_id"])) == 3
    assert int(rows["removed"]) == 1
    assert int(rows["approved anew"]) == 1
    both = old.merge(new, on="session_id")
    moved = int((both["split_x"] != both["split_y"]).sum())
    assert sum(int(count) for change, count in rows.items() if " to " in change) == moved > 100
    many = render_changes("v1.0.1", "v1.0.0", [{"change": "added", "count": 250, "names": ["a", "b"]}])
    assert "a, b and 248 more: <code>heimdall diff v1.0.0 v1.0.1 --json</code>" in many
    assert "TrainingSpec.seed" in page
    assert "median_m" in page


def test_approvals_are_counted_by_who_and_why(world):
    page = read(world, "/v1.0.1")
    rows = re.findall(r'<tr><td>(\w+)</td><td>([^<]*)</td><td class="number">(\d+)</td>', page)
    assert {(by, unescape(why), int(count)) for by, why, count in rows[:3]} == {
        ("Ada", REASON, NUM_SESSIONS - 2), ("Ada", "heard by a second station", 3), ("Eve", "right after all", 1)
    }  # fmt: skip


def test_the_list_says_what_was_rejected(world):
    page = read(world, "/")
    assert page.index("v1.0.1") < page.index("v1.0.0")
    assert '<td class="failed">rejected</td>' in page
    assert "system-ui" in page  # the style of all pages


def test_the_list_shows_rules_that_stand_and_which_are_without_effect(tmp_path):
    made = make_world(tmp_path, 3)
    for seed in (1, 2):
        made.release(made.make_chain(TrainingSpec(seed=seed)))
    releases = made.stores.releases
    assert "Who is answered" not in read(made, "/")
    releases.change_rule(SaidRule("canary", "v1.0.1", 0.05, "spring"), 0, "Ada", "a twentieth")
    releases.change_rule(SaidRule("flag", "v1.0.1", user="<b>Eve</b>"), 1, "Ada", "<i>asked</i>")
    page = read(made, "/")
    assert '<td>canary</td><td><a href="/v1.0.1">v1.0.1</a></td><td class="number">0.05</td><td>yes</td>' in page
    assert "<td>flag of user &lt;b&gt;Eve&lt;/b&gt;</td>" in page
    assert "<td>Ada</td>" in page
    assert "&lt;i&gt;asked&lt;/i&gt;" in page
    releases.set_alias("champion", "v1.0.1", "Ada", "good")
    assert '<td class="failed">release v1.0.1: became champion since, the canary is over</td>' in read(made, "/")


def test_signatures_are_shown_where_they_hold(tmp_path):
    made = make_world(tmp_path, 3)
    key = make_key(tmp_path / "bea.pem")
    with made.measurements.database.writing() as connection:
        add_key(connection, key.id, key.public_pem, "Bea", "Bea")
    made.measurements.decide(made.add_sessions(3, 2), ApprovalStatus.APPROVED, "Bea", "heard", key=key)
    made.release(made.make_chain())
    shown = read(made, "/v1.0.0/sessions")
    assert re.findall(r"<td>(Bea|not signed)</td></tr>", shown) == ["not signed"] * 3 + ["Bea"] * 2
    assert {"0 of 3", "2 of 2"} == set(re.findall(r"<td>(\d of \d)</td></tr>", read(made, "/v1.0.0")))
    assert "<td>Bea</td></tr>" in read(made, "/v1.0.0/session", "id=session-0004")
    with sqlite3.connect(made.database) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("UPDATE log_entries SET leaf = ? WHERE body LIKE '%session-0004%'", ("0" * 64,))
    connection.close()
    assert re.findall(r"<td>(Bea|not signed)</td></tr>", read(made, "/v1.0.0/sessions")) == ["not signed"] * 5


class Checker(HTMLParser):
    """Collects what runs, what is loaded and what is left open."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.names = [], set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        if tag not in {"meta", "input", "circle", "path"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("path", "query"),
    [("/", ""), ("/v1.0.1", ""), ("/v1.0.1/sessions", "q=night&page=2"), ("/v1.0.1/session", "id=session-0002"),
     ("/v1.0.1/changes", ""), ("/v1.0.0/changes", "")],
)  # fmt: skip
def test_each_page_is_whole_and_runs_nothing(world, path, query):
    page = read(world, path, query)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert not checker.tags & {"script", "iframe", "img", "link", "object"}
    assert not any(name.startswith("on") for name in checker.names)
    assert all(address.startswith("/") for address in find_links(page))


def test_every_link_leads_to_a_page(world):
    addresses = {address for path in ("/", "/v1.0.1", "/v1.0.1/sessions") for address in find_links(read(world, path))}
    for address in sorted(addresses)[:60]:
        if not address.endswith(("/results", "/card")):
            assert read(world, *address.split("?")).startswith("<!doctype html>")


def test_a_table_that_was_taken_away_is_not_shown_from_memory(tmp_path):
    made = make_world(tmp_path, 4)
    made.release(made.make_chain())
    assert len(list_shown(read(made, "/v1.0.0/sessions"))) == 4
    node = made.read_provenance("v1.0.0")["nodes"][0]
    made.objects.local_path(node["artifacts"]["table"]["digest"]).unlink()
    with pytest.raises((NotFound, CorruptObject), match="object"):
        find_page(made.stores, "/v1.0.0/sessions")


@pytest.mark.browser
def test_a_browser_searches_turns_pages_and_opens_a_session_and_nothing_runs(world):
    with (
        serve_site(lambda bound: build_lineage_site(bound, lambda: world.stores, "http://127.0.0.1")) as port,
        open_browser() as browser,
    ):
        page = browser.new_page()
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("link", name="v1.0.1", exact=True).click()
        page.get_by_label("search").fill("source-20 <&>")
        page.get_by_role("button", name="Search").click()
        page.get_by_text('0 of 209 sessions with "source-20 <&>"').wait_for()
        page.get_by_label("search").fill("NIGHT")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="next").first.click()
        page.get_by_text("page 2 of 3").first.wait_for()
        assert page.url.endswith("/v1.0.1/sessions?q=NIGHT&page=2")
        page.get_by_role("link", name="night 150", exact=True).click()
        page.get_by_role("heading", name="night 150").wait_for()
        assert page.locator("script").count() == 0
        assert refused == []  # nothing that the policy forbids was tried
