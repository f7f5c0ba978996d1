"""Pages of sessions: the list finds and turns, the look shows what a decision rests on, strangeness is escaped."""

import struct

import pytest

from heimdall_assets.domain import ApprovalStatus, Role
from heimdall_assets.errors import NotFound
from heimdall_assets.web.lineage_pages import draw_page
from heimdall_assets.web.session_pages import PAGE_LENGTH, Desk
from heimdall_assets.web.session_queries import parse_asked
from heimdall_assets.web.visitors import Seals, Visitor
from heimdall_assets_tests.web.desks import SECRET, fill_waiting, list_ids, serve_desks
from heimdall_assets_tests.web.running import ask

DESK = Desk(Visitor(Role.APPROVER, "ada"), Seals(SECRET))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return fill_waiting(tmp_path_factory.mktemp("pages") / "home", 6)


@pytest.fixture(scope="module")
def stores(places):
    return places.open_stores()


def draw(stores, path, query=""):
    return draw_page(stores, path, query, DESK).data.decode()


def test_a_look_shows_claim_estimate_map_receivers_and_a_spectrogram_of_each(stores):
    session = stores.measurements.find_session(list_ids(stores)[0])
    page = draw(stores, f"/sessions/{session['id']}")
    source = session["source"]
    assert f"{source['latitude']:.5f}, {source['longitude']:.5f}, stated as exact" in page
    for word in ("tdoa_robust", "90 % ellipse", "the claim lies", "gnss_calibrated", "Nobody has decided about it."):
        assert word in page
    for station in session["stations"]:
        assert station["name"] in page
    assert page.count("<svg") == 2
    assert page.count("<polygon") == 2
    pictures = [part.split('"')[0] for part in page.split('<img src="')[1:]]
    assert len(pictures) == len(session["measurements"]) == 3
    for address in pictures:
        found = draw_page(stores, *address.split("?"), DESK)
        assert found.kind == "image/png"
        assert found.data.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", found.data[16:24])
        assert width > 300
        assert height > 150


def test_a_wrong_claim_is_told_by_its_distance(places, tmp_path):
    other = fill_waiting(tmp_path / "home", 1).open_stores()
    (name,) = list_ids(other)
    page = draw(other, f"/sessions/{name}")
    with other.measurements.database.writing() as connection:
        connection.exec_driver_sql("UPDATE known_sources SET latitude = latitude + 0.09, error_margin_meters = 30.0")
    moved = draw(other, f"/sessions/{name}")
    assert "the claim lies outside the ellipse" in moved
    assert "+- 30 m (one sigma)" in moved
    (apart,) = [float(part.split(" km")[0]) for part in moved.split("<b>")[1:] if " km</b>" in part[:12]]
    assert apart == pytest.approx(10.0, abs=2.0)  # 0.09 degrees of latitude
    assert page != moved


def test_what_has_no_recordings_is_shown_with_why_nothing_follows(places, tmp_path):
    other = fill_waiting(tmp_path / "home", 1).open_stores()
    (name,) = list_ids(other)
    with other.measurements.database.writing() as connection:
        connection.exec_driver_sql("UPDATE measurements SET iq_data_location = NULL, signal_strength_db = NULL")
    page = draw(other, f"/sessions/{name}")
    assert "No receiver has a recording." in page
    assert "none: session" in page


def test_the_list_turns_by_its_own_links_forth_and_back_and_misses_nobody(tmp_path):
    places = fill_waiting(tmp_path / "home", 1)
    stores = places.open_stores()
    copy_sessions(stores, 2 * PAGE_LENGTH + 7)
    seen, address, pages = [], "/sessions?order=oldest", []
    while address:
        page = draw(stores, *address.split("?"))
        pages.append(page)
        seen += list_shown(page)
        address = find_link(page, "next")
    ids = list_ids(stores)
    assert len(pages) == 3
    assert len(ids) == 2 * PAGE_LENGTH + 8
    assert len(set(seen)) == len(seen) == len(ids)
    starts = {row["id"]: (row["session_start"], row["id"]) for row in stores.measurements.list_sessions()}
    assert seen == sorted(ids, key=starts.__getitem__)
    for before in (pages[1], pages[0]):
        page = draw(stores, *find_link(page, "previous").split("?"))
        assert list_shown(page) == list_shown(before)
    assert find_link(page, "previous") is None
    # Decided ones leave the list; where one stood, the next page still begins.
    stores.measurements.decide(seen[:PAGE_LENGTH], ApprovalStatus.APPROVED, "ada", "known")
    after = draw(stores, *find_link(pages[0], "next").split("?"))
    assert all(f'title="{name}"' in after for name in seen[PAGE_LENGTH : 2 * PAGE_LENGTH])
    assert f"approved {PAGE_LENGTH}" in after
    assert f"pending {PAGE_LENGTH + 8}" in after


def list_shown(page):
    """Return the ids of the sessions on a page of the list."""
    return [part.split('"')[0] for part in page.split('title="')[1:] if len(part.split('"')[0]) == 36]


def copy_sessions(stores, count):
    """Add sessions of the first one's source, some of which start in the same moment, in no order of their ids."""
    kept = "campaign, origin, status, approval_status, attributes, known_source_id"
    with stores.measurements.database.writing() as connection:
        for number in range(count):
            connection.exec_driver_sql(
                f"INSERT INTO recording_sessions (id, session_name, session_start, {kept}) SELECT ?, ?, ?, {kept} "
                "FROM recording_sessions ORDER BY session_start LIMIT 1",
                (
                    f"{number * 7919 % 10**4:08d}-0000-0000-0000-000000000000",
                    f"copy {number}",
                    f"2026-02-01 {number // 5:02d}:00:00.000000",
                ),
            )


def find_link(page, name):
    for part in page.split('<a href="')[1:]:
        address, _, rest = part.partition('"')
        if f">{name} page</a>" in rest[:40]:
            return address.replace("&amp;", "&")
    return None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("campaign=field+day", 6), ("campaign=nothing", 0), ("status=approved", 0), ("status=all", 6),
        ("since=2026-01-01&until=2026-01-01", 6), ("since=2026-01-02", 0), ("until=2025-12-31", 0),
        ("low=145.4&high=145.6", 6), ("low=145,6", 0), ("high=100", 0), ("station=nobody", 0),
    ],
)  # fmt: skip
def test_filters_find_what_they_say(stores, query, expected):
    page = draw(stores, "/sessions", query)
    assert page.count('type="checkbox"') == expected
    assert (f"all {expected}" in page) == (expected > 0 or "status=approved" not in query)


def test_a_station_finds_the_sessions_that_it_heard(stores):
    sessions = [stores.measurements.find_session(name) for name in list_ids(stores)]
    for station in stores.measurements.list_stations():
        heard = [one["id"] for one in sessions if station["id"] in [row["id"] for row in one["stations"]]]
        page = draw(stores, "/sessions", f"station={station['id']}")
        assert page.count('type="checkbox"') == len(heard)
        assert all(f'title="{name}"' in page for name in heard)


@pytest.mark.parametrize(
    "query",
    ["status=x", "status=", "order=up", "since=yesterday", "since=2026-13-01", "until=9999-12-31", "low=x", "low=-1",
     "low=nan", "high=inf", "next=x", "next=|", "previous=a|", "next=a|b&previous=a|b", "done=x", "done=approved-x",
     "campaign=" + "x" * 300, "other=1", "status=all&status=all", "status=%ff", "campaign=%00", "tick"],
)  # fmt: skip
def test_a_query_that_is_none_is_said(query):
    if query == "status=":
        assert parse_asked(query).wanted.status is ApprovalStatus.PENDING
        return
    with pytest.raises(NotFound, match=r"^query: found"):
        parse_asked(query)


@pytest.mark.parametrize(
    "path",
    ["/sessions/", "/sessions/nothing", "/sessions/%00", "/sessions/..%2f..%2fetc%2fpasswd", "/sessions/%ff",
     "/sessions/%zz", "/sessions/" + "x" * 129, "/sessions/" + "x" * 500, "/sessions/a/b", "/sessions/a/signal",
     "/sessions/%3Cscript%3E", "/Sessions", "/sessions/a/signal/b", "/sessions//signal"],
)  # fmt: skip
def test_what_is_no_session_is_not_found(places, path):
    with serve_desks(places) as port:
        status, said, headers = ask(port, path)
    assert status == 404
    assert len(said.splitlines()) == 1
    assert headers["content-type"].startswith("text/plain")


def test_a_name_is_no_address_and_a_picture_wants_a_measurement(stores):
    session = stores.measurements.find_session(list_ids(stores)[0])
    for path, query in ((f"/sessions/{session['session_name']}", ""), (f"/sessions/{session['id']}/signal", ""),
                        (f"/sessions/{session['id']}/signal", "of=other")):  # fmt: skip
        with pytest.raises(NotFound):
            draw(stores, path, query)


def test_a_recording_that_is_damaged_costs_its_picture_alone(tmp_path):
    stores = fill_waiting(tmp_path / "home", 1).open_stores()
    (name,) = list_ids(stores)
    rows = stores.measurements.find_session(name)["measurements"]
    wrong = stores.objects.put_bytes(b"no recording", "application/octet-stream").digest
    with stores.measurements.database.writing() as connection:
        connection.exec_driver_sql("UPDATE measurements SET iq_data_location = ? WHERE id = ?",
                                   (f"sha256:{wrong}", rows[0]["id"]))  # fmt: skip
    page = draw(stores, f"/sessions/{name}")
    assert "left out: " in page
    with pytest.raises(NotFound, match="cannot be drawn"):
        draw(stores, f"/sessions/{name}/signal", f"of={rows[0]['id']}")
    assert draw_page(stores, f"/sessions/{name}/signal", f"of={rows[1]['id']}", DESK).data.startswith(b"\x89PNG")


def test_names_of_anybody_are_escaped_and_nothing_runs(tmp_path):
    places = fill_waiting(tmp_path / "home", 2)
    stores, script = places.open_stores(), "<script>alert(1)</script>"
    first, second = list_ids(stores)
    stores.measurements.decide([first], ApprovalStatus.REJECTED, script, f'"{script}')
    with stores.measurements.database.writing() as connection:
        for table in ("known_sources", "websdr_stations"):
            connection.exec_driver_sql(f"UPDATE {table} SET name = ?", (f"'\">{script}",))
        connection.exec_driver_sql("UPDATE recording_sessions SET session_name = ?, campaign = ?", (script, script))
    with serve_desks(places) as port:
        for path in ("/sessions", "/sessions?status=all", f"/sessions/{first}", f"/sessions/{second}"):
            status, page, headers = ask(port, path)
            assert status == 200
            assert "<script" not in page
            assert "&lt;script&gt;alert(1)" in page
            policies = headers.get_all("content-security-policy")
            assert any("default-src 'none'" in one and "script-src" not in one for one in policies)
            assert "http://" not in page
            assert "https://" not in page


def test_a_database_of_others_is_looked_at_and_never_decided_in(tmp_path, places):
    from heimdall_assets.places import read_places

    copy = places.home / "heimdall.db"
    theirs = tmp_path / "theirs.db"
    import sqlite3

    with sqlite3.connect(copy) as source, sqlite3.connect(theirs) as target:
        source.backup(target)
        for table in ("heimdall_schema_version", "approval_events", "log_entries", "people"):
            target.execute(f"DROP TABLE {table}")
    told = {"HEIMDALL_HOME": str(places.home), "HEIMDALL_DATABASE_URL": f"sqlite:///{theirs}"}
    stores = read_places(told).open_stores()
    page = draw(stores, "/sessions")
    assert "Nothing can be decided here: this database is somebody else&#39;s" in page
    assert 'method="post"' not in page
    assert page.count("field day") >= 6
    assert "tdoa_robust" in draw(stores, f"/sessions/{list_ids(stores)[0]}")
