"""The commands: ``heimdall users`` shows no password, and ``heimdall ui`` opens no door by mistake."""

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.domain import Role
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.stores.users import UsersFile
from heimdall_assets.web.passwords import hash_password
from heimdall_assets_tests.web.toy_page import PASSWORD


@pytest.fixture
def run(tmp_path: Path):
    """Run a command of ``heimdall`` on a home and a file of users."""
    environ = {"HEIMDALL_HOME": str(tmp_path / "home"), "HEIMDALL_USERS": str(tmp_path / "users.json")}

    def call(*arguments: str, typed: str = "", code: int = 0, **more: str) -> str:
        result = CliRunner().invoke(main, arguments, input=typed, env={**environ, **more})
        assert result.exit_code == code, result.output
        assert PASSWORD not in result.output
        return result.stderr if code else result.stdout

    return call


def test_users_are_added_listed_and_removed(run, tmp_path: Path):
    assert run("users", "add", "ada", "--role", "approver", typed=f"{PASSWORD}\n").startswith("ada: approver, in ")
    run("users", "add", "bob", "--role", "auditor", typed=PASSWORD)
    assert run("users", "list").startswith("2 users ")
    assert json.loads(run("users", "list", "--json")) == [
        {"name": "ada", "role": "approver"},
        {"name": "bob", "role": "auditor"},
    ]
    assert json.loads(run("users", "remove", "ada", "--json")) == {"removed": "ada"}
    assert list(UsersFile(tmp_path / "users.json").list_users()) == ["bob"]
    assert PASSWORD not in (tmp_path / "users.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        (["add", "ada", "--role", "root"], "", "Invalid value for '--role'"),
        (["add", "ada"], "", "Missing option '--role'"),
        (["add", "a:b", "--role", "auditor"], f"{PASSWORD}\n", "user name 'a:b': expected"),
        (["add", "ada", "--role", "auditor"], "short\n", "password: found 5 characters, expected 12 to 256"),
        (["add", "ada", "--role", "auditor"], "", "password: found 0 characters, expected 12 to 256"),
        (["remove", "ada"], "", "user 'ada': found no such user"),
        (["list"], "", "found no file; heimdall users add NAME --role ROLE makes it"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line_and_makes_no_file(run, tmp_path: Path, arguments, typed, said):
    line = run("users", *arguments, typed=typed, code=2)
    assert said in line
    assert line.count("\n") == 1
    assert "HEIMDALL_USERS: found nothing" in run("users", "list", code=2, HEIMDALL_USERS="")
    if arguments[0] != "remove":
        assert not (tmp_path / "users.json").exists()


def take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(tmp_path: Path):
    environ = {**os.environ, "HEIMDALL_USERS": str(tmp_path / "users.json"), "HEIMDALL_HOME": str(tmp_path / "home")}
    ours, theirs = pty.openpty()
    program = [sys.executable, "-c", "from heimdall_assets.cli import main; main()"]
    process = subprocess.Popen(
        [*program, "users", "add", "ada", "--role", "operator"],
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    shown = b""
    for _ in range(2):
        while not shown.endswith(b": "):
            shown += os.read(ours, 1000)
        os.write(ours, f"{PASSWORD}\n".encode())
        shown += b"."
    assert process.wait(60) == 0
    os.close(ours)
    assert PASSWORD.encode() not in shown
    assert UsersFile(tmp_path / "users.json").list_users()["ada"].role == Role.OPERATOR


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_no_other_machine_is_shown_a_page_without_a_login(run, host: str):
    for more in ((), ("--read-only",)):
        line = run("ui", "--host", host, *more, code=2, HEIMDALL_USERS="")
        assert line.startswith(f"Error: page: --host {host} shows it to other machines, expected a login before that")
        assert line.count("\n") == 1


@pytest.mark.parametrize("host", ["localhost", "evil.example", "", "127.0.0.1:80", "256.0.0.1"])
def test_a_host_is_an_address(run, host: str):
    assert f"--host: found {host!r}, expected an address" in run("ui", "--host", host, code=2, HEIMDALL_USERS="")


def test_a_login_by_which_nobody_could_come_in_is_said_before_anything_starts(run, tmp_path: Path):
    assert "found no file; heimdall users add" in run("ui", code=2)
    path = tmp_path / "users.json"
    path.write_text('{"users": []}')
    path.chmod(0o600)
    assert "found nobody, expected a user" in run("ui", "--host", "0.0.0.0", code=2)
    path.chmod(0o604)
    assert "found mode 604, expected 600" in run("ui", code=2)
    assert not (tmp_path / "home").exists()


def test_the_pages_variables_are_read_and_its_secret_is_not_shown():
    read = read_places({"HEIMDALL_ALLOWED_HOSTS": "Models.example, heimdall:3000,[::1]:3000,192.0.2.1"})
    assert read.allowed_hosts == ("models.example", "heimdall:3000", "[::1]:3000", "192.0.2.1")
    assert read_places({}).allowed_hosts == ()
    for wrong in ("*", "a,,b", "http://a", "a/b", "a b", "a:b", "-a", "ada@a", ","):
        with pytest.raises(InvalidSetting, match="HEIMDALL_ALLOWED_HOSTS: found"):
            read_places({"HEIMDALL_ALLOWED_HOSTS": wrong})
    secret = "a secret of more than thirty-two characters"
    assert secret not in repr(read_places({"HEIMDALL_SESSION_SECRET": secret}))
    with pytest.raises(InvalidSetting, match="HEIMDALL_SESSION_SECRET: found 5 characters, expected at least 32"):
        read_places({"HEIMDALL_SESSION_SECRET": "short"})


def test_a_hash_is_argon2s():
    assert hash_password(PASSWORD).startswith("$argon2id$")
