"""Users at rest: one private file, replaced whole; whatever else lies there is refused in one line."""

import json
import os
import stat
from pathlib import Path

import pytest

from heimdall_assets.domain import Role
from heimdall_assets.errors import HeimdallError, InvalidIdentifier, InvalidSetting, NotFound, Refused, StorageError
from heimdall_assets.stores.users import User, UsersFile, make_secret

ADA = User("ada", Role.APPROVER, "$argon2id$x")
BOB = User("bob@site.example", Role.AUDITOR, "$argon2id$y")


@pytest.fixture
def file(tmp_path: Path) -> UsersFile:
    users = UsersFile(tmp_path / "users.json")
    for user in (BOB, ADA):
        users.add(user)
    return users


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        UsersFile(tmp_path / "users.json").add(ADA)
        make_secret(tmp_path / "secret")
    finally:
        os.umask(before)
    assert mode(tmp_path / "users.json") == mode(tmp_path / "secret") == 0o600


def test_what_was_added_is_found_by_whoever_opens_it_and_what_was_removed_is_not(file: UsersFile):
    other = UsersFile(file.path)
    assert other.list_users() == {"ada": ADA, BOB.name: BOB}
    with pytest.raises(Refused, match="user ada: is there already; heimdall users remove ada comes first"):
        file.add(ADA)
    file.remove("ada")
    assert other.list_users() == {BOB.name: BOB}
    with pytest.raises(NotFound, match="user 'ada': found no such user in "):
        file.remove("ada")


@pytest.mark.parametrize("name", ["", "a:b", "a b", "-a", "é", "a" * 65, "a\n", "../a"])
def test_a_name_that_a_header_or_a_line_cannot_hold_is_none(file: UsersFile, name: str):
    with pytest.raises(InvalidIdentifier, match="user name "):
        file.add(User(name, Role.AUDITOR, "$argon2id$x"))
    assert len(file.list_users()) == 2


ROW = {"name": "ada", "role": "auditor", "password": "$argon2id$x"}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"users": 1}', '{"users": [1]}', "\0", *(
        json.dumps({"users": rows}) for rows in (
            [{**ROW, "role": "root"}], [{**ROW, "password": "plain"}], [{**ROW, "name": "a:b"}], [{**ROW, "name": 1}],
            [{"name": "ada"}], [ROW, ROW],
        )
    )],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(file: UsersFile, content: str):
    file.path.write_text(content)
    with pytest.raises(InvalidSetting, match=r"^users .*found (something else|a name twice), expected .*$"):
        file.list_users()


@pytest.mark.parametrize("wrong", [0o644, 0o640, 0o602, 0o700 | 0o077])
def test_a_file_that_others_may_read_is_not_used(file: UsersFile, tmp_path: Path, wrong: int):
    secret = tmp_path / "secret"
    make_secret(secret)
    for path, read in ((file.path, file.list_users), (secret, lambda: make_secret(secret))):
        read()
        path.chmod(wrong)
        with pytest.raises(InvalidSetting, match=f"found mode {wrong:o}, expected 600"):
            read()


def test_no_file_a_link_and_no_folder_are_said(tmp_path: Path, file: UsersFile):
    with pytest.raises(NotFound, match="found no file; heimdall users add NAME --role ROLE makes it"):
        UsersFile(tmp_path / "none.json").list_users()
    (tmp_path / "link.json").symlink_to(file.path)
    with pytest.raises(StorageError, match="could not be read"):
        UsersFile(tmp_path / "link.json").list_users()
    with pytest.raises(HeimdallError):
        UsersFile(tmp_path / "no folder" / "users.json").list_users()


def test_the_secret_is_made_once_and_is_no_other_homes(tmp_path: Path):
    first = make_secret(tmp_path / "a")
    assert len(first) == 64
    assert make_secret(tmp_path / "a") == first != make_secret(tmp_path / "b")
    (tmp_path / "a").write_text("short")
    with pytest.raises(InvalidSetting, match="found 5 characters, expected at least 32"):
        make_secret(tmp_path / "a")
