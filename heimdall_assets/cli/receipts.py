"""``heimdall receipt``, and ``--receipt`` of ``heimdall predict``: what was answered, from what, by which model."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.intake.given_files import GivenFiles, GivenTable
from heimdall_assets.cli.terminal.homes import open_home
from heimdall_assets.cli.terminal.output import json_option, to_plain, write_json, write_text
from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput, InvalidSetting, NotFound
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.regular_files import check_regular_file
from heimdall_assets.stores.plain_files import write_named_file

if TYPE_CHECKING:
    from heimdall_assets.pipeline.prediction.used import Used
    from heimdall_assets.stores.keys import SigningKey

_MAX_BYTES = 1_000_000_000
"""Of a receipt that is read: a table of a million rows stays far below."""

_FILE = click.Path(dir_okay=False, path_type=Path)

receipt_option = click.option(
    "--receipt", type=_FILE, help="Write what was answered, from what, by which model, for heimdall receipt to check."
)


@dataclass(frozen=True)
class Slip:
    """A receipt that is to be written: where, for which home, by whom it is signed, and what tells it of the inputs."""

    stores: Stores
    file: Path
    key: "SigningKey | None"
    used: "Used"

    def keep(self, version: str, answer: Any) -> None:
        """Write the receipt of an answer of a release, whole or not at all."""
        from heimdall_assets.pipeline.prediction.receipts import make_receipt

        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        write_named_file(self.file, make_receipt(self.stores, version, to_plain(answer), self.used, time, self.key))

    def tell(self, as_json: bool) -> None:
        """Say where the receipt is and whether it is signed; on stderr beside JSON."""
        signed = "not signed" if self.key is None else f"signed by key {self.key.id}"
        write_text(f"wrote {self.file}: receipt, {signed}", err=as_json)


def begin_receipt(stores: Stores, file: Path, given: "str | GivenFiles | GivenTable") -> Slip:
    """Return the receipt that ``file`` is to be, before anything is computed.

    Raises:
        InvalidSetting: the key that should sign does not count, the file is one of those given, or no folder is there.
    """
    from heimdall_assets.pipeline.prediction.used import Used
    from heimdall_assets.pipeline.stages.model_release import find_signing_key

    read: list[Path | None] = []
    if isinstance(given, GivenTable):
        read = [given.table, given.receiver_list]
    elif isinstance(given, GivenFiles):
        read = [one if isinstance(one, Path) else one.path for one in given.files]
    if any(path is not None and path.resolve() == file.resolve() for path in read):
        raise InvalidSetting(f"--receipt {file}: found a file to be located, expected another one")
    if not file.resolve().parent.is_dir():
        raise InvalidSetting(f"--receipt {file}: found no folder {file.parent}, expected one")
    return Slip(stores, file, find_signing_key(stores), Used())


@click.command(short_help="Check the receipt of a position that was given out.")
@click.argument("file", type=_FILE)
@json_option
def receipt(file: Path, as_json: bool) -> None:
    """Check the receipt FILE of a position that was given out; exit 1 where anything disagrees.

    Compared are its signatures with the keys of the log, the model with the release of this home, the answer and each
    input with their digests, and the recordings that lie in the store with their bytes.
    """
    stores = open_home()
    data = _read(file)
    from heimdall_assets.pipeline.releases.receipts import audit_receipt

    judged = audit_receipt(stores, data, str(file))
    errors = [finding for finding in judged.findings if finding.severity == "error"]
    if as_json:
        listed = [finding.to_json() for finding in judged.findings]
        held = {"num_named": judged.num_named, "num_held": judged.num_held}
        told = {"file": str(file), "ok": not errors, "signed_by": judged.signers, **held, "findings": listed}
        write_json({**told, "receipt": judged.said or None})
    else:
        for finding in judged.findings:
            write_text(finding.describe())
        if judged.said:
            write_text(f"{_describe(judged.said)}; heimdall lineage {judged.said['release']['version']} says the rest")
        agrees = say_count(len(errors), "error") if errors else "all agrees"
        unsigned = "no signature that holds" if judged.is_signed or not judged.said else "not signed"
        signed = f"signed by {', '.join(judged.signers)}" if judged.signers else unsigned
        kept = f"{judged.num_held} of {say_count(judged.num_named, 'input')} in the store" if judged.num_named else ""
        write_text("; ".join(part for part in (f"receipt {file}: {agrees}", signed, kept) if part))
    if errors:
        raise SystemExit(1)


def _describe(said: Mapping[str, Any]) -> str:
    """Return in a line what was given out, when, and by which model; what a receipt says may be anything."""
    answer, version = said["answer"], said["release"]["version"]
    if isinstance(answer, dict) and {"latitude", "longitude"} <= set(answer):
        what = f"{answer['latitude']}, {answer['longitude']}"
    else:
        what = say_count(len(answer), "session") if isinstance(answer, list) else "an answer"
    return f"{what}, given out by {version} at {said.get('time')}"


def _read(file: Path) -> bytes:
    """Return the bytes of a receipt.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is no regular file, or too long for a receipt.
    """
    check_regular_file(file, f"receipt {file}")
    if not file.exists():
        raise NotFound(f"receipt {file}: found no file, expected one that heimdall predict --receipt wrote")
    if file.stat().st_size > _MAX_BYTES:
        raise InvalidInput(f"receipt {file}: found {file.stat().st_size} bytes, expected at most {_MAX_BYTES}")
    return file.read_bytes()
