"""``heimdall export``: a model as ONNX, and where it comes from in the formats of other tools."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from heimdall_assets.cli.terminal.homes import find_model, open_home
from heimdall_assets.cli.terminal.output import json_option, write_document, write_json, write_text
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.evaluation.lengths import format_metres
from heimdall_assets.lineage.exports import EXPORTS
from heimdall_assets.manifests import compute_digest
from heimdall_assets.specs import VARIANTS
from heimdall_assets.stores.plain_files import write_named_file

ONNX = "onnx"


@click.command(short_help="Write a model as ONNX, or where it comes from in other formats.")
@click.argument("model")
@click.argument("form", metavar="FORMAT", type=click.Choice([*EXPORTS, ONNX]))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@click.option("--variant", type=click.Choice(VARIANTS), help="onnx: another variant than the one that was released.")
@json_option
def export(model: str, form: str, output: Path | None, variant: str | None, as_json: bool) -> None:
    """Write MODEL (version, latest or alias) in FORMAT; all but onnx from its frozen evidence alone.

    onnx: the model itself, as released or as another variant; MODEL may be the SHA-256 of a checkpoint's
    manifest too, or a file of weights that a training of this home left.
    prov: W3C PROV-JSON. openlineage: run events, a line each. cyclonedx: a bill of materials with model card.
    croissant: the data behind it. annex-iv: what the release shows for each item of Annex IV of the EU's AI Act, as
    Markdown.
    """
    if form == ONNX:
        _export_onnx(model, output, variant, as_json)
        return
    if variant is not None:
        raise InvalidSetting(f"--variant {variant}: found format {form}, expected {ONNX}")
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


def _export_onnx(model: str, output: Path | None, variant: str | None, as_json: bool) -> None:
    if output is None:
        raise InvalidSetting(f"{ONNX}: found no --output, expected a file to write the model to")
    stores = open_home()
    from heimdall_assets.pipeline.releases.files import export_file, export_stored, is_digest
    from heimdall_assets.pipeline.trainings.starting import find_checkpoint, names_file

    if names_file(model):
        found = export_stored(stores, find_checkpoint(stores, model).digest, variant)
    elif is_digest(model):
        found = export_stored(stores, model, variant)
    else:
        found = export_file(stores, find_model(stores, model), variant)
    write_named_file(output, found.data)
    if as_json:
        told: dict[str, Any] = {"version": found.version, "format": ONNX, "variant": found.variant}
        told |= {"manifest": found.manifest, "sha256": compute_digest(found.data), "size_bytes": len(found.data)}
        write_json({**told, "judged": found.judged, "file": str(output)})
        return
    write_text(f"wrote {output}: {found.variant}, {len(found.data) / 1e6:.1f} MB; {_tell_judged(found.judged)}")


def _tell_judged(judged: Mapping[str, Any] | None) -> str:
    """Return what is known of how good a file is."""
    if judged is None:
        return "not judged; ExportSpec.variants has it judged"
    figures = judged["test"]
    return (
        f"median error {format_metres(figures['median_m'])}, 90 % below {format_metres(figures['p90_m'])} (test split)"
    )


def _read(document: bytes) -> Any:
    """Return a document as JSON values: lines of JSON as a list, Markdown as a text."""
    text = document.decode()
    for parse in (json.loads, lambda lines: [json.loads(line) for line in lines.splitlines()]):
        try:
            return parse(text)
        except ValueError:
            continue
    return text
