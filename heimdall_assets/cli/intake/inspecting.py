"""``heimdall inspect``: what files are, what they hold, and the command that imports them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.intake.file_options import (
    FILE,
    format_option,
    frequency_option,
    full_scale_option,
    rate_option,
    read_stated,
    start_option,
)
from heimdall_assets.cli.terminal.output import json_option, write_fields, write_json, write_line, write_text
from heimdall_assets.errors import InvalidSetting

if TYPE_CHECKING:
    from heimdall_assets.pipeline.intake.inspected import Inspection


@click.command(short_help="Say what files are, what they hold, and how to import them.")
@click.argument("files", nargs=-1, required=True, type=FILE)
@rate_option
@start_option
@frequency_option
@full_scale_option
@format_option
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the recording into this PNG.")
@json_option
def inspect(files: tuple[Path, ...], format_name: str | None, plot: Path | None, as_json: bool, **stated: Any) -> None:
    """Say of each of FILES what it is, what it holds, and what is missing to import it. No home is needed.

    With --plot, spectrum, spectrogram and level over time are drawn.
    """
    from heimdall_assets.pipeline.intake.inspection import inspect_file

    if plot is not None and len(files) != 1:
        raise InvalidSetting(f"--plot: found {len(files)} files, expected one")
    said = read_stated(**stated)
    found = [inspect_file(path, said, format_name) for path in files]
    if as_json:
        write_json([_describe(one) for one in found])
    else:
        for one in found:
            _write(one)
    if plot is not None:
        _draw(found[0], plot)


def _describe(found: "Inspection") -> dict[str, Any]:
    return {
        "file": str(found.path),
        "what": found.title,
        "facts": found.facts,
        "missing": found.missing,
        "command": found.command,
        "problem": found.problem,
    }


def _write(found: "Inspection") -> None:
    write_text(f"{found.path}: {found.title}")
    facts = dict(found.facts)
    start_ns = facts.pop("start_unix_ns", None)
    if start_ns is not None:
        seconds, ns = divmod(int(start_ns), 10**9)
        facts["start"] = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}Z"
    write_fields({name: value for name, value in facts.items() if value is not None})
    if found.problem is not None:
        write_line(f"cannot be used: {found.problem}")
    for line in found.missing:
        write_line(f"missing: {line}")
    if found.command is not None:
        write_line(f"to import it: {found.command}")


def _draw(found: "Inspection", plot: Path) -> None:
    from heimdall_assets.evaluation.figures.recording_picture import draw_recording
    from heimdall_assets.stores.plain_files import write_named_file

    if found.recording is None:
        raise InvalidSetting(f"--plot {plot}: {found.path.name} gave no samples to draw, expected a recording")
    write_named_file(plot, draw_recording(found.recording, found.path.name))
    write_text(f"drawn: {plot}")
