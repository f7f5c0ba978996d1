"""``heimdall ledger``: the log of all decisions and releases, and the checkpoint that somebody else should keep."""

from dataclasses import asdict
from pathlib import Path

import click

from heimdall_assets.cli.terminal.homes import open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_lines, write_text
from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput, NotFound, Refused
from heimdall_assets.lineage.notes import sign_note
from heimdall_assets.merkle import Checkpoint, decode_checkpoint
from heimdall_assets.stores.keys import read_key
from heimdall_assets.stores.plain_files import write_named_file


@click.group(short_help="The log of decisions and releases, and its checkpoint.")
def ledger() -> None:
    """Every approval, withdrawal, release and promotion, in one log that only grows.

    Who keeps a checkpoint elsewhere can tell later whether the log was cut or written anew:
    heimdall verify MODEL --checkpoint FILE.
    """


@ledger.command(short_help="Print the checkpoint over all entries.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="Sign it with this key, which must count.")
@json_option
def checkpoint(output: Path | None, key: Path | None, as_json: bool) -> None:
    """Print the checkpoint over all entries: the name of the log, how many entries it has, the root over them.

    Keep it where whoever may write the database may not: in a mail, on paper, in another machine's log. A signed one is
    a signed note (C2SP), as transparency logs write them.
    """
    signer = None if key is None else read_key(key, "--key")
    releases = open_home().releases
    found = releases.read_checkpoint()
    if found is None:
        raise NotFound("log: found no entry, expected one; the first approval or release begins it")
    note = found.encode()
    if signer is not None:
        known = releases.list_keys().get(signer.id)
        if known is None or known.retired_entry is not None:
            raise Refused(
                f"key {signer.id}: found one that does not count, expected one that does (heimdall keys list)"
            )
        note = sign_note(note, signer.public_pem, signer.sign_bytes)
    if output is not None:
        write_named_file(output, note.encode())
        write_text(f"wrote {output}: {say_count(found.size, 'entry')}", err=as_json)
    if as_json:
        write_json({**asdict(found), **({} if signer is None else {"key": signer.id})})
    elif output is None:
        write_lines(note)


@ledger.command(short_help="Write all entries as JSON lines.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def export(file: Path, as_json: bool) -> None:
    """Write every entry to FILE, oldest first, a line of canonical JSON each.

    The root over these lines, each without its line break, is that of the checkpoint (RFC 6962, SHA-256).
    """
    lines = open_home().releases.read_log()
    write_named_file(file, "".join(f"{line}\n" for line in lines).encode())
    if as_json:
        write_json({"file": str(file), "num_entries": len(lines)})
    else:
        write_text(f"wrote {file}: {say_count(len(lines), 'entry')}")


def read_checkpoint_file(file: Path) -> tuple[Checkpoint, str]:
    """Return the checkpoint that a file holds, and all of its text, signatures too.

    Raises:
        InvalidInput: it holds none.
    """
    try:
        note = file.read_text("utf-8")
        return decode_checkpoint(note), note
    except ValueError as error:
        raise InvalidInput(f"{file}: {error}") from error
