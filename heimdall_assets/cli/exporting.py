"""``heimdall export``: where a model comes from, in the formats of other tools."""

import json
from pathlib import Path
from typing import Any

import click

from heimdall_assets.cli.terminal.homes import find_model, open_home
from heimdall_assets.cli.terminal.output import json_option, write_document, write_json, write_text
from heimdall_assets.lineage.exports import EXPORTS
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.plain_files import write_named_file


@click.command(short_help="Write where a model comes from in other formats.")
@click.argument("model")
@click.argument("form", metavar="FORMAT", type=click.Choice(list(EXPORTS)))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@json_option
def export(model: str, form: str, output: Path | None, as_json: bool) -> None:
    """Write where MODEL (version, latest or alias) comes from in FORMAT, from its frozen evidence alone.

    prov: W3C PROV-JSON. openlineage: run events, a line each. cyclonedx: a bill of materials with model card.
    croissant: the data behind it. annex-iv: what the release shows for each item of Annex IV of the EU's AI Act, as
    Markdown.
    """
    stores = open_home()
    version = find_model(stores, model)
    from heimdall_assets.pipeline.releases.reading import read_released

    document = EXPORTS[form](read_released(stores, version))
    if output is not None:
        write_named_file(output, document)
        write_text(f"wrote {output}", err=as_json)
    if as_json:
        told: dict[str, Any] = {"version": version, "format": form, "sha256": compute_digest(document)}
        told |= {"document": _read(document)} if output is None else {"file": str(output)}
        write_json(told, as_kept=True)
    elif output is None:
        write_document(document.decode())


def _read(document: bytes) -> Any:
    """Return a document as JSON values: lines of JSON as a list, Markdown as a text."""
    text = document.decode()
    for parse in (json.loads, lambda lines: [json.loads(line) for line in lines.splitlines()]):
        try:
            return parse(text)
        except ValueError:
            continue
    return text
