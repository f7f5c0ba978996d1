"""Login: only users come in, as what the file says now; guesses wait, sessions end, nothing that was typed is told."""

import re
import time
from http.cookies import SimpleCookie
from urllib.parse import quote, urlencode

import pytest

from heimdall_assets.domain import Role
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.stores.users import User, UsersFile
from heimdall_assets.web.login import LoginGate, open_login
from heimdall_assets.web.passwords import Guesses, Passwords, hash_password
from heimdall_assets.web.refusals import Refusal
from heimdall_assets.web.sessions import Sessions
from heimdall_assets_tests.web.running import ask
from heimdall_assets_tests.web.toy_page import PASSWORD, STOP, log_in, query, read_sensor

SECRET = "another secret that only tests have"

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def send_form(port, name, password, path="/login", **headers):
    body = urlencode({"name": name, "password": password, "next": "/runs"}).encode()
    return ask(port, path, "POST", {**FORM, **headers}, body)


def read_cookie(headers) -> tuple[str, SimpleCookie]:
    cookie = SimpleCookie(headers["Set-Cookie"])
    (morsel,) = cookie.values()
    return f"{morsel.key}={morsel.value}", morsel


@pytest.fixture(scope="module")
def cookie(shared):
    status, _, headers = send_form(shared, "operator", PASSWORD)
    assert status == 303
    return {"Cookie": read_cookie(headers)[0]}


def test_the_form_gives_a_session_that_only_the_browser_and_this_site_see(shared):
    status, _, headers = send_form(shared, "operator", PASSWORD)
    assert (status, headers["Location"]) == (303, "/runs")
    told, morsel = read_cookie(headers)
    assert (morsel["httponly"], morsel["samesite"], morsel["path"], morsel["secure"]) == (True, "Strict", "/", "")
    assert PASSWORD not in str(headers)
    assert query(shared, "{ version }", headers={"Cookie": f"a=b; {told}; <c>"})[0] == 200
    for secure in ({"Origin": "https://models.example"}, {"X-Forwarded-Proto": "https"}):
        assert read_cookie(send_form(shared, "operator", PASSWORD, **secure)[2])[1]["secure"]


def test_a_browser_is_led_to_the_form_and_a_tool_is_told(shared):
    status, _, headers = ask(shared, "/assets/x?a=1", headers={"Accept": "text/html,*/*"})
    assert (status, headers["Location"]) == (303, f"/login?next={quote('/assets/x')}")
    status, page, _ = ask(shared, headers["Location"])
    assert status == 200
    assert 'value="/assets/x"' in page
    status, said, headers = ask(shared, "/server_info")
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="heimdall"')
    assert said.count("\n") == 1
    assert "WWW-Authenticate" not in ask(shared, "/server_info", headers={"Sec-Fetch-Site": "same-origin"})[2]


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "x", "", '/"><script>', "/a\r\nb", "/ü"]
)
def test_nobody_is_led_elsewhere_after_login(shared, target):
    body = urlencode({"name": "operator", "password": PASSWORD, "next": target}).encode()
    assert ask(shared, "/login", "POST", FORM, body)[2]["Location"] == "/"
    assert "evil" not in ask(shared, f"/login?next={quote(target)}")[1]


def test_a_changed_cookie_is_none(shared, cookie):
    name, _, token = cookie["Cookie"].partition("=")
    # Not the last letter, of which base64 says more than the bytes hold: another one may mean the same.
    other = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    for told in (f"{name}={other}", f"{name}=", f"{name}={token}.x", f"x={token}", token):
        assert query(shared, "{ version }", headers={"Cookie": told})[0] == 401


def test_logging_out_ends_the_session_and_not_the_browsers_copy_alone(shared):
    told = {"Cookie": read_cookie(send_form(shared, "auditor", PASSWORD)[2])[0]}
    assert query(shared, "{ version }", headers=told)[0] == 200
    assert "auditor" in ask(shared, "/logout", headers=told)[1]  # asking for the address alone ends nothing
    assert query(shared, "{ version }", headers=told)[0] == 200
    status, _, headers = ask(shared, "/logout", "POST", {**told, **FORM}, b"")
    assert (status, read_cookie(headers)[1]["max-age"]) == (303, "0")
    assert query(shared, "{ version }", headers=told)[0] == 401


def test_another_sites_form_logs_nobody_in(shared):
    for elsewhere in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        for path in ("/login", "/logout"):
            assert send_form(shared, "operator", PASSWORD, path, **elsewhere)[0] == 403
    assert ask(shared, "/login", "POST", {"Content-Type": "text/plain"}, b"name=operator")[0] == 415
    assert ask(shared, "/login", "POST", FORM, b"x" * 5000)[0] == 413
    assert ask(shared, "/login", "POST", FORM, b"a=1&" * 100)[0] == 400
    assert ask(shared, "/login", "DELETE")[0] == 405


@pytest.fixture
def users(tmp_path):
    """A file of one user, ada."""
    file = UsersFile(tmp_path / "users.json")
    file.add(User("ada", Role.APPROVER, hash_password(PASSWORD)))
    return file


@pytest.fixture
def own(toy, users):
    """That file, and the port of a page that only she may open."""
    with toy.serve(open_login(users, SECRET)) as port:
        yield users, port


def test_a_user_who_was_removed_or_changed_has_no_session(own):
    users, port = own
    told = {"Cookie": read_cookie(send_form(port, "ada", PASSWORD)[2])[0]}
    assert query(port, "{ version }", headers=told)[0] == 200
    assert query(port, "{ version }", headers=log_in("ada"))[0] == 200
    users.remove("ada")
    for headers in (told, log_in("ada")):
        assert query(port, "{ version }", headers=headers)[0] == 401
    users.add(User("ada", Role.AUDITOR, hash_password(PASSWORD)))
    assert query(port, "{ version }", headers=told)[0] == 401  # of her password before
    assert query(port, STOP, {"id": "x"}, log_in("ada"))[0] == 403
    users.path.chmod(0o644)
    status, said = query(port, "{ version }", headers=log_in("ada"))
    assert status == 503
    assert "found mode 644, expected 600" in said


def test_guesses_are_counted_and_wait_and_a_right_one_is_let_in_after(toy, users, caplog):
    now_s = [0.0]  # stands still: on a busy machine the waits would pass between two requests
    with toy.serve(LoginGate(Passwords(users, lambda: now_s[0]), Sessions(users, SECRET), False)) as port:
        for _ in range(5):
            assert send_form(port, "ada", "a wrong password!")[0] == 401
        status, said, headers = send_form(port, "ada", PASSWORD)
        assert status == 429
        assert "5 wrong passwords of late" in said
        assert query(port, "{ version }", headers=log_in("ada"))[0] == 429
        now_s[0] += int(headers["Retry-After"])
        assert send_form(port, "ada", PASSWORD)[0] == 303
        for name in ("my secret typed as a name", "bob"):
            assert send_form(port, name, "another guess of mine")[0] == 401
    told = caplog.text
    assert "wrong password for ada, 5 of late" in told
    assert told.count("a name that nobody has") == 2
    assert not re.search("secret typed|guess of mine|a wrong password!|bob", told)


def test_waits_double_up_to_a_minute_and_are_forgotten():
    now = 0.0
    guesses = Guesses(lambda: now)
    waits = []
    for _ in range(12):
        waits.append(0)
        while not is_taken(guesses, "a"):
            waits[-1] += 1
            now += 1.0
    assert waits == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60]
    assert not is_taken(guesses, "a")
    assert is_taken(guesses, "b")  # from elsewhere she may still come in
    now += 1000.0
    assert all(is_taken(guesses, "a") for _ in range(5))


def is_taken(guesses: Guesses, address: str) -> bool:
    try:
        guesses.begin("ada", address)
    except Refusal:
        return False
    return True


def test_a_name_that_nobody_has_takes_as_long(tmp_path):
    import anyio

    users = UsersFile(tmp_path / "users.json")
    users.add(User("ada", Role.AUDITOR, hash_password(PASSWORD)))
    passwords = Passwords(users)

    def measure(name: str) -> float:
        times = []
        for number in range(2):
            began = time.monotonic()
            assert anyio.run(passwords.find_user, name, "a wrong password!", f"from {number}") is None
            times.append(time.monotonic() - began)
        return min(times)

    known, unknown = measure("ada"), measure("nobody")
    assert 0.4 < known / unknown < 2.5
    assert unknown > 0.005  # a hash was computed


def test_passwords_are_neither_short_nor_endless():
    for wrong in ("", "eleven char", "x" * 257):
        with pytest.raises(InvalidSetting, match=r"password: found \d+ characters, expected 12 to 256"):
            hash_password(wrong)
    assert hash_password(PASSWORD) != hash_password(PASSWORD)


def test_read_only_makes_everybody_an_auditor(toy):
    with toy.serve(toy.open_gate(read_only=True)) as port:
        sensor = read_sensor(port, log_in("approver"))
        assert query(port, STOP, {"id": sensor["id"]}, log_in("approver"))[0] == 403
        assert read_sensor(port, log_in("approver"))["status"] == "RUNNING"
