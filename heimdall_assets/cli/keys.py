"""``heimdall keys``: whose signatures count, since when, until when."""

from dataclasses import asdict
from pathlib import Path

import click

from heimdall_assets.cli.terminal.homes import open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_table, write_text
from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.stores.computing import name_user
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.keys import PASSPHRASE_VARIABLE, PEM_VARIABLE, VARIABLE, SigningKey, make_key

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(short_help="Whose signatures count.")
def keys() -> None:
    """Keys that sign releases. Which ones count stands in the log of decisions; private keys stay in your files.

    A release is signed where HEIMDALL_SIGNING_KEY names the file of a key that counts, or HEIMDALL_SIGNING_KEY_PEM
    holds it. HEIMDALL_SIGNING_KEY_PASSPHRASE opens one that is encrypted.
    """


@keys.command(short_help="Make a new key.")
@click.argument("file", type=_FILE)
@click.option("--owner", required=True, help="Whose it is: a person, a machine, an office.")
@click.option("--encrypt", is_flag=True, help="With the passphrase in HEIMDALL_SIGNING_KEY_PASSPHRASE.")
@json_option
def make(file: Path, owner: str, encrypt: bool, as_json: bool) -> None:
    """Make a new private key, store it as FILE, and have it count from now on."""
    passphrase = read_places().signing_key_passphrase if encrypt else ""
    if passphrase is None:
        raise InvalidSetting(f"--encrypt: found no {PASSPHRASE_VARIABLE}, expected the passphrase there")
    stores = open_home()  # first: a key that nobody knows would be left behind
    _register(stores, make_key(file, passphrase), owner, as_json, f"wrote {file}, which only you may read; ")


@keys.command(short_help="Have a key count that you made elsewhere.")
@click.argument("file", type=_FILE, required=False)
@click.option("--owner", required=True, help="Whose it is: a person, a machine, an office.")
@json_option
def add(file: Path | None, owner: str, as_json: bool) -> None:
    """Have the private key in FILE (Ed25519, PEM), or that of the environment, count from now on."""
    places = read_places()
    source = places.find_signing_key() if file is None else None
    if file is None and source is None:
        raise InvalidSetting(f"key: found no FILE, no {VARIABLE} and no {PEM_VARIABLE}, expected one of them")
    key = source.read() if source is not None else places.read_key(Path(str(file)), "key")
    _register(open_home(), key, owner, as_json)


@keys.command("list", short_help="List keys, retired ones too.")
@json_option
def list_keys(as_json: bool) -> None:
    """List keys: whose each is, since when, and whether it still counts."""
    rows = [asdict(key) for key in open_home().releases.list_keys().values()]
    if as_json:
        write_json(rows)
        return
    columns = ["id", "owner", "added_at", "retired_at", "reason"]
    write_table(say_count(len(rows), "key"), columns, [[row[name] for name in columns] for row in rows])


@keys.command(short_help="Have a key count no more.")
@click.argument("key")
@click.option("--by", required=True, help="Who says so.")
@click.option("--reason", required=True, help="Why.")
@json_option
def retire(key: str, by: str, reason: str, as_json: bool) -> None:
    """Have KEY (its id) count no more; what it signed before still does."""
    open_home().releases.retire_key(key, by, reason)
    if as_json:
        write_json({"retired": key})
    else:
        write_text(f"key {key}: retired")


def _register(stores: Stores, key: SigningKey, owner: str, as_json: bool, done: str = "") -> None:
    stores.releases.add_key(key.id, key.public_pem, owner, name_user())
    if as_json:
        write_json({"id": key.id, "owner": owner, "public_key": key.public_pem})
    else:
        write_text(f"{done}key {key.id} of {owner} counts from now on")
