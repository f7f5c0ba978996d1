"""Decisions in the page: they reach the ledger as the command's do, once, by who may, about what was seen."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.domain import ApprovalStatus, Role
from heimdall_assets.stores.computing import name_user
from heimdall_assets.web.guard import FORM
from heimdall_assets.web.login import OpenGate
from heimdall_assets.web.session_views import LONGEST_REASON
from heimdall_assets_tests.web.desks import fill_waiting, list_ids, make_gate, read_form, send, serve_desks
from heimdall_assets_tests.web.running import ask
from heimdall_assets_tests.web.toy_page import log_in


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return fill_waiting(tmp_path_factory.mktemp("decisions") / "home", 24)


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    return make_gate(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def port(places, gate):
    with serve_desks(places, gate) as port:
        yield port


@pytest.fixture(autouse=True)
def waiting(places):
    """Every test begins with sessions that are pending or were decided by tests before; the ledger is whole after."""
    yield
    assert places.open_stores().measurements.check_ledger() == []


def take(places, status=ApprovalStatus.PENDING):
    stores = places.open_stores()
    return stores.measurements, list_ids(stores, status)


def form(token, chosen, decision="approve", reason="position published", **more):
    return {
        "token": token,
        "chosen": chosen,
        "decision": decision,
        "reason": reason,
        "from": "list",
        "back": "",
        **more,
    }


def test_a_decision_is_the_command_s_in_ledger_and_log(places, port):
    store, (first, second, *_) = take(places)
    token, chosen = read_form(port, "/sessions", "ada")
    mine = [value for value in chosen if value.endswith(first)]
    status, _, headers = send(port, form(token, mine, reason="  heard, known mast "), "ada")
    assert (status, headers["location"]) == (303, "/sessions?done=approved-1")
    runner = CliRunner()
    told = ["sessions", "approve", second, "--by", "ada", "--reason", "heard, known mast"]
    assert runner.invoke(main, told, env={"HEIMDALL_HOME": str(places.home)}).exit_code == 0
    page, command = store.find_session(first), store.find_session(second)
    assert page["approval_status"] == command["approval_status"] == "approved"
    (by_page,), (by_command,) = page["approval_events"], command["approval_events"]
    for name in ("decision", "decided_by", "reason"):
        assert by_page[name] == by_command[name]
    assert store.read_names()[by_page["decided_by"]] == "ada"
    # Once more is no second event.
    token, chosen = read_form(port, f"/sessions/{first}?status=all", "ada")
    status, _, headers = send(port, form(token, chosen, **{"from": "look"}), "ada")
    assert status == 303
    assert "done=approved-0" in headers["location"]
    assert len(store.find_session(first)["approval_events"]) == 1


def test_many_at_once_are_one_transaction_and_a_withdrawal_is_said_so(places, port):
    store, waiting = take(places)
    token, chosen = read_form(port, "/sessions?tick=all", "ada")
    mine = [value for value in chosen if value.split(" ")[1] in waiting[:5]]
    assert send(port, form(token, mine), "ada")[0] == 303
    events = [store.find_session(one)["approval_events"][-1] for one in waiting[:5]]
    assert len({event["decided_at"] for event in events}) == 1
    assert sorted(event["id"] for event in events) == list(
        range(min(e["id"] for e in events), min(e["id"] for e in events) + 5)
    )
    page = ask(port, "/sessions?status=approved", headers=log_in("ada"))[1]
    assert ">Withdraw</button>" in page
    token, chosen = read_form(port, f"/sessions/{waiting[0]}?status=approved", "ada")
    status, _, headers = send(
        port, form(token, chosen, "reject", "wrong mast", back="status=approved", **{"from": "look"}), "ada"
    )
    assert status == 303
    # The next of those that are approved is shown.
    assert headers["location"].startswith("/sessions/")
    assert "status=approved&done=rejected-1" in headers["location"]
    assert store.find_session(waiting[0])["approval_status"] == "rejected"


def test_of_two_who_decide_at_once_the_second_is_told_and_loses_nothing(places, port):
    store, (first, second, *_) = take(places)
    token, chosen = read_form(port, "/sessions", "ada")
    mine = [value for value in chosen if value.split(" ")[1] in (first, second)]
    other, _ = read_form(port, "/sessions", "approver")
    only = [value for value in mine if value.endswith(first)]
    assert send(port, form(other, only, "reject", "carrier only"), "approver")[0] == 303
    status, page, _ = send(port, form(token, mine, reason="<b>my</b> reason"), "ada")
    assert status == 409
    name = store.find_session(first)["session_name"]
    assert (
        f"session {name}: changed after it was shown (1 of 2 sessions are so): it is rejected, decided by approver"
        in page
    )
    assert 'value="&lt;b&gt;my&lt;/b&gt; reason"' in page
    assert "<b>my" not in page
    assert page.count(" checked>") == 1  # the one that still waits
    assert store.find_session(second)["approval_status"] == "pending"
    fresh, chosen = read_form(port, "/sessions", "ada")
    assert send(port, form(fresh, [value for value in chosen if value.endswith(second)]), "ada")[0] == 303
    assert store.find_session(second)["approval_status"] == "approved"


def test_of_sixteen_decisions_at_the_same_time_one_counts(places, port):
    store, (first, *_) = take(places)
    sent = []
    for user, decision in (("ada", "approve"), ("approver", "reject")):
        token, chosen = read_form(port, f"/sessions/{first}", user)
        sent += [(form(token, chosen, decision, f"by {user}", **{"from": "look"}), user)] * 8
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda one: send(port, *one)[0], sent))
    assert sorted(answers) == [303] + [409] * 15
    assert len(store.find_session(first)["approval_events"]) == 1


def test_a_session_that_grew_or_went_since_it_was_seen_is_not_decided(places, port):
    store, waiting = take(places)
    first, second = waiting[:2]
    token, chosen = read_form(port, "/sessions", "ada")
    mine = {one: [value for value in chosen if value.endswith(one)] for one in (first, second)}
    with store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE known_sources SET latitude = latitude + 0.5 WHERE id = (SELECT "
                                   "known_source_id FROM recording_sessions WHERE id = ?)", (first,))  # fmt: skip
    status, page, _ = send(port, form(token, mine[first]), "ada")
    assert status == 409
    assert "changed after it was shown: it is pending; nothing was decided" in page
    store.erase_session(second, [], "ada", "asked for")
    status, page, _ = send(port, form(token, mine[second], **{"from": "look"}), "ada")
    assert status == 409
    assert "changed after it was shown: it is rejected, decided by ada" in page


@pytest.mark.parametrize("user", ["auditor", "operator"])
def test_who_may_not_decide_sees_everything_and_is_refused_with_a_line(places, port, user):
    store, (first, *_) = take(places)
    before = len(store.list_approval_events())
    token, chosen = read_form(port, f"/sessions/{first}", "ada")  # somebody else's
    for path in ("/sessions?tick=all", "/sessions?status=all", f"/sessions/{first}"):
        status, page, _ = ask(port, path, headers=log_in(user))
        assert status == 200
        assert f"You are {user} here: an approver decides." in page
        for word in ('method="post"', "Approve</button>", 'name="chosen"', 'name="token"'):
            assert word not in page
    for fields in (form(token, chosen), form("", chosen), {}, form(token, chosen, reason="x" * 900_000)):
        status, said, _ = send(port, fields, user)
        assert status == 403
        assert said.startswith(f"{user}: found a decision about sessions, expected")
        assert len(said.splitlines()) == 1
    assert len(store.list_approval_events()) == before


def test_without_users_the_local_user_decides_and_read_only_nobody(places):
    store, (first, *_) = take(places)
    with serve_desks(places) as port:
        token, chosen = read_form(port, f"/sessions/{first}")
        assert send(port, form(token, chosen, "reject", "no signal", **{"from": "look"}))[0] == 303
    event = store.find_session(first)["approval_events"][-1]
    assert store.read_names()[event["decided_by"]] == name_user()
    with serve_desks(places, OpenGate(Role.AUDITOR)) as port:
        assert send(port, form(token, chosen))[0] == 403


@pytest.mark.parametrize(
    ("change", "expected", "line"),
    [
        ({"reason": ""}, 400, "expected a reason"),
        ({"reason": "   "}, 400, "expected a reason"),
        ({"reason": "x" * (LONGEST_REASON + 1)}, 400, f"found {LONGEST_REASON + 1} characters"),
        ({"reason": "x" * 900_000}, 400, "found 900000 characters"),
        ({"reason": "two\nlines"}, 400, "expected one line"),
        ({"reason": "zero\x00"}, 400, "expected one line"),
        ({"chosen": []}, 400, "no session is ticked"),
        ({"chosen": ["nothing"]}, 400, "expected a mark and an id"),
        ({"chosen": [f"{'0' * 32} <script>alert(1)</script>"]}, 409, "is gone"),
        ({"chosen": [f"{'0' * 32} ../../etc/passwd"]}, 409, "is gone"),
        ({"chosen": [f"{'0' * 32} {'x' * 129}"]}, 400, "expected a mark and an id"),
        ({"chosen": [f"{'0' * 32} {number}" for number in range(80)]}, 400, "expected one of at most"),
        ({"decision": "erase"}, 400, "expected approve or reject"),
        ({"decision": ["approve", "reject"]}, 400, "found 'decision'"),
        ({"back": "status=nothing"}, 400, "found status 'nothing'"),
        ({"back": "https://evil.example/"}, 400, "query: found"),
        ({"other": "1"}, 400, "found 'other'"),
        ({"token": ""}, 403, "load its page again"),
        ({"token": "x.y.z"}, 403, "load its page again"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_what_is_no_decision_of_ours_is_refused_and_nothing_is_decided(places, port, change, expected, line):
    store, (first, *_) = take(places)
    before = store.list_approval_events()
    token, chosen = read_form(port, "/sessions", "ada")
    mine = [value for value in chosen if value.endswith(first)]
    status, said, _ = send(port, {**form(token, mine), **change}, "ada")
    assert (status, line in said) == (expected, True), said
    assert "<script>alert" not in said
    assert store.list_approval_events() == before


def test_a_form_of_more_than_a_megabyte_is_not_even_read(port):
    told = {"Content-Type": FORM, "Content-Length": "1000300", **log_in("ada")}
    status, said, _ = ask(port, "/sessions", "POST", told, b"reason=")
    assert (status, said) == (413, "body: found more than 1000000 bytes, expected at most these\n")


def test_a_form_of_another_user_or_another_page_is_none(places, port):
    store, (first, *_) = take(places)
    theirs, chosen = read_form(port, f"/sessions/{first}", "approver")
    assert send(port, form(theirs, chosen), "ada")[0] == 403
    token, chosen = read_form(port, f"/sessions/{first}", "ada")
    good = form(token, chosen)
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Sec-Fetch-Site": "same-site"}):  # fmt: skip
        assert send(port, good, "ada", **headers)[0] == 403
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x"):
        assert send(port, good, "ada", **{"Content-Type": kind})[0] == 415
    assert send(port, good, "ada", Host="evil.example")[0] == 421
    assert send(port, good)[0] == 401
    assert store.find_session(first)["approval_status"] == "pending"


def test_other_methods_and_other_addresses_take_no_form(places, port):
    _, (first, *_) = take(places)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(port, "/sessions", method, log_in("ada"))[0] == 405
    for path in (f"/sessions/{first}", "/", "/runs", "/sessions/"):
        assert ask(port, path, "POST", log_in("ada"), b"")[0] == 405


def test_a_waiver_goes_into_the_ledger_where_the_place_is_contradicted(places, port):
    store, (first, *_) = take(places)
    with store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE known_sources SET latitude = 20.0, longitude = -60.0 WHERE id = (SELECT "
                                   "known_source_id FROM recording_sessions WHERE id = ?)", (first,))  # fmt: skip
    page = ask(port, f"/sessions/{first}", headers=log_in("ada"))[1]
    assert "the place cannot be: " in page
    assert 'name="waiver"' in page
    assert "the place cannot be: " in ask(port, "/sessions", headers=log_in("ada"))[1]
    token, chosen = read_form(port, f"/sessions/{first}", "ada")
    assert send(port, form(token, chosen, waiver="sporadic E", **{"from": "look"}), "ada")[0] == 303
    assert store.find_session(first)["approval_events"][-1]["reason"] == "position published [truth waived: sporadic E]"
