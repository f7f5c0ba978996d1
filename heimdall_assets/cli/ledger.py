"""``heimdall ledger``: the log of all decisions and releases, the checkpoint that somebody else should keep, proofs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.terminal.homes import open_home
from heimdall_assets.cli.terminal.output import json_option, write_json, write_lines, write_text
from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput, InvalidSetting, NotFound
from heimdall_assets.merkle import Checkpoint, decode_checkpoint
from heimdall_assets.places import read_places
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.keys import read_public_key
from heimdall_assets.stores.objects.regular_files import check_regular_file
from heimdall_assets.stores.plain_files import write_named_file

if TYPE_CHECKING:
    from heimdall_assets.lineage.log_proofs import JudgedProof, LogProof

_FILE = click.Path(dir_okay=False, path_type=Path)

_MAX_BYTES = 10_000_000
"""Of a file of a proof or a checkpoint: an entry of the log, two checkpoints and 64 hashes stay far below."""

_output_option = click.option("--output", type=_FILE, help="Write it to this file.")


@click.group(short_help="The log of decisions and releases, and its checkpoint.")
def ledger() -> None:
    """Every approval, withdrawal, release, promotion and rule of serving, in one log that only grows.

    Who keeps a checkpoint elsewhere can tell later whether the log was cut or written anew:
    heimdall verify MODEL --checkpoint FILE.
    """


@ledger.command(short_help="Print the checkpoint over all entries.")
@_output_option
@click.option("--key", type=_FILE, help="Sign it with this key, which must count.")
@json_option
def checkpoint(output: Path | None, key: Path | None, as_json: bool) -> None:
    """Print the checkpoint over all entries: the name of the log, how many entries it has, the root over them.

    Keep it where whoever may write the database may not: in a mail, on paper, in another machine's log. A signed one is
    a signed note (C2SP), as transparency logs write them.
    """
    from heimdall_assets.pipeline.releases.witnesses import take_checkpoint

    signer = None if key is None else read_places().read_key(key, "--key")
    found, note = take_checkpoint(open_home(), signer)
    if output is not None:
        write_named_file(output, note.encode())
        write_text(f"wrote {output}: {say_count(found.size, 'entry')}", err=as_json)
    if as_json:
        write_json({**asdict(found), **({} if signer is None else {"key": signer.id})})
    elif output is None:
        write_lines(note)


@ledger.command(short_help="Post the checkpoint to the second place.")
@json_option
def post(as_json: bool) -> None:
    """Post the checkpoint of now to each address of HEIMDALL_WITNESS; exit 1 where one could not be told.

    Each release, promotion and rule of serving does it by itself; what was out of reach has it from this command on.
    """
    places = read_places()
    if not places.witness:
        raise InvalidSetting(
            "HEIMDALL_WITNESS: found none, expected a folder, s3://BUCKET/PREFIX or an https:// address"
        )
    from heimdall_assets.defs.witnessing import Witness

    posted = Witness(places.witness, places.s3_endpoint).post(open_home())
    failed = [each for each in posted if each.problem is not None]
    if as_json:
        write_json({"ok": not failed, "posted": [asdict(each) for each in posted]})
    else:
        for each in posted:
            write_text(each.describe())
    if failed:
        raise SystemExit(1)


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


@ledger.command(short_help="Prove that an entry is in the log.")
@click.argument("entry")
@click.option("--checkpoint", "kept", type=_FILE, help="Under this one, not under that of now.")
@_output_option
@json_option
def prove(entry: str, kept: Path | None, output: Path | None, as_json: bool) -> None:
    """Prove that ENTRY is in the log: its number, or a model (version, latest or alias), whose release it then is.

    The proof is one JSON file for somebody who has a checkpoint and no access to the database; heimdall ledger
    check-proof, or ten lines of any language, check it.
    """
    from heimdall_assets.lineage.log_proofs import prove_entry
    from heimdall_assets.pipeline.releases.witnesses import take_checkpoint

    stores = open_home()
    note = take_checkpoint(stores)[1] if kept is None else read_checkpoint_file(kept)[1]
    _give_proof(prove_entry(stores.releases.read_log(), _find_entry(stores, entry), note), output, as_json)


@ledger.command(short_help="Prove that the log only grew since a checkpoint.")
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE, required=False)
@_output_option
@json_option
def prove_growth(old: Path, new: Path | None, output: Path | None, as_json: bool) -> None:
    """Prove that the log under checkpoint NEW, or that of now, begins with all entries under checkpoint OLD."""
    from heimdall_assets.lineage import log_proofs
    from heimdall_assets.pipeline.releases.witnesses import take_checkpoint

    stores = open_home()
    notes = [read_checkpoint_file(old)[1], take_checkpoint(stores)[1] if new is None else read_checkpoint_file(new)[1]]
    _give_proof(log_proofs.prove_growth(stores.releases.read_log(), notes[0], notes[1]), output, as_json)


@ledger.command(short_help="Check a proof, from files alone.")
@click.argument("file", type=_FILE)
@click.option("--checkpoint", "kept", type=_FILE, help="What you kept: the proof must be about this one.")
@click.option("--key", "keys", type=_FILE, multiple=True, help="Public key (PEM) of whom you expect a signature.")
@json_option
def check_proof(file: Path, kept: Path | None, keys: tuple[Path, ...], as_json: bool) -> None:
    """Check the proof FILE, without home or database; exit 1 where it does not hold."""
    from heimdall_assets.lineage.log_proofs import InclusionProof, decode_proof, judge_proof

    proof = decode_proof(_read_bounded(file), str(file))
    known = dict(read_public_key(key, "--key") for key in keys)
    judged = judge_proof(proof, None if kept is None else read_checkpoint_file(kept)[0], known)
    entry = proof.entry if isinstance(proof, InclusionProof) else None
    if as_json:
        write_json(_describe(file, proof, judged))
    else:
        for problem in judged.problems:
            write_text(f"error: {problem}")
        if entry is not None and not judged.problems:
            write_text(entry)
        signed = f"; signed by {', '.join(judged.signers)}" if judged.signers else ""
        holds = "does not hold" if judged.problems else f"holds: {judged.says}"
        write_text(f"proof {file}: {holds}{signed}")
    if judged.problems:
        raise SystemExit(1)


def read_checkpoint_file(file: Path) -> tuple[Checkpoint, str]:
    """Return the checkpoint that a file holds, and all of its text, signatures too.

    Raises:
        InvalidInput: it holds none.
    """
    try:
        note = _read_bounded(file).decode()
        return decode_checkpoint(note), note
    except ValueError as error:
        raise InvalidInput(f"{file}: {error}") from error


def _find_entry(stores: Stores, entry: str) -> int:
    if entry.isascii() and entry.isdigit() and len(entry) <= 16:
        return int(entry)
    version = stores.releases.resolve(entry)
    found = stores.releases.find_log_entry(version)
    if found is None:
        raise NotFound(f"release {version}: found no entry of it in the log, expected one")
    return found[0]


def _give_proof(proof: "LogProof", output: Path | None, as_json: bool) -> None:
    said: dict[str, Any] = proof.model_dump()
    if output is not None:
        write_named_file(output, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())
        write_text(f"wrote {output}: proof of {proof.proof}", err=as_json)
    if as_json or output is None:
        write_json(said)


def _describe(file: Path, proof: "LogProof", judged: "JudgedProof") -> dict[str, Any]:
    entry = {"entry": proof.entry} if proof.proof == "inclusion" else {}
    checkpoints = [asdict(checkpoint) for checkpoint in judged.checkpoints]
    told = {"file": str(file), "proof": proof.proof, "holds": not judged.problems, "says": judged.says}
    return {**told, **entry, "checkpoints": checkpoints, "signed_by": judged.signers, "problems": judged.problems}


def _read_bounded(file: Path) -> bytes:
    check_regular_file(file)
    size = file.stat().st_size
    if size > _MAX_BYTES:
        raise InvalidInput(f"{file}: found {size} bytes, expected at most {_MAX_BYTES}")
    return file.read_bytes()
