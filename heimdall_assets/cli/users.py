"""``heimdall users``: who may open the page, and as what."""

import sys
from pathlib import Path

import click

from heimdall_assets.cli.terminal.output import json_option, write_json, write_table, write_text
from heimdall_assets.counts import say_count
from heimdall_assets.domain import Role
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.stores.users import User, UsersFile


@click.group()
def users() -> None:
    """Say who may open the page.

    They stand in the file that HEIMDALL_USERS names.
    """


@users.command()
@click.argument("name")
@click.option(
    "--role",
    required=True,
    type=click.Choice([str(role) for role in Role]),
    help="auditor: looks; operator: starts runs; approver: also decides which model is champion.",
)
@json_option
def add(name: str, role: str, as_json: bool) -> None:
    """Add NAME; the password is asked for, or read as the one line of the standard input."""
    file = _open()
    password = _ask_password()
    from heimdall_assets.web.passwords import hash_password

    file.add(User(name, Role(role), hash_password(password)))
    if as_json:
        write_json({"name": name, "role": role})
    else:
        write_text(f"{name}: {role}, in {file.path}")


@users.command("list")
@json_option
def list_users(as_json: bool) -> None:
    """List users and their roles."""
    rows = [{"name": user.name, "role": str(user.role)} for user in _open().list_users().values()]
    if as_json:
        write_json(rows)
        return
    write_table(say_count(len(rows), "user"), ["name", "role"], [[row["name"], row["role"]] for row in rows])


@users.command()
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove NAME, who is let in no more, a running page included."""
    file = _open()
    file.remove(name)
    if as_json:
        write_json({"removed": name})
    else:
        write_text(f"{name}: removed from {file.path}")


def _open() -> UsersFile:
    path: Path | None = read_places().users
    if path is None:
        raise InvalidSetting("HEIMDALL_USERS: found nothing, expected the path of the file of users")
    return UsersFile(path)


def _ask_password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")
