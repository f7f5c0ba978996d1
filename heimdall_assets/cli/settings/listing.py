"""``heimdall settings``: every setting and every variable, as tables, as JSON or as the page of the documentation."""

from dataclasses import asdict
from typing import Any

import click

from heimdall_assets.cli.settings.catalogue import describe_use, find_spec, list_places, list_settings
from heimdall_assets.cli.settings.configuration_page import write_page
from heimdall_assets.cli.terminal.output import json_option, write_json, write_line, write_lines, write_table
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.specs import list_specs


@click.command("settings", short_help="List every setting: default, bounds, meaning.")
@click.argument("spec", required=False)
@click.option("--markdown", is_flag=True, help="Print the page of the documentation, all of it.")
@json_option
def list_all(spec: str | None, markdown: bool, as_json: bool) -> None:
    """List every setting (of SPEC, where one is named) and variable: default, bounds, meaning."""
    if markdown and (as_json or spec):
        raise InvalidSetting("--markdown: found SPEC or --json beside it, expected it alone")
    chosen = [find_spec(spec)] if spec else list(list_specs().values())
    if markdown:
        write_lines(write_page(chosen))
        return
    if as_json:
        told: dict[str, Any] = {"settings": {cls.__name__: list(map(asdict, list_settings(cls))) for cls in chosen}}
        write_json(told if spec else {**told, "variables": list(map(asdict, list_places()))})
        return
    for cls in chosen:
        rows = [[entry.name, entry.default, entry.bounds, entry.meaning] for entry in list_settings(cls)]
        write_table(f"{cls.__name__}: {describe_use(cls)}", ["setting", "default", "bounds", "meaning"], rows)
    if not spec:
        rows = [[entry.name, entry.default, entry.bounds, entry.meaning] for entry in list_places()]
        write_table("Variables of the environment", ["variable", "default", "holds", "meaning"], rows)
        write_line("heimdall settings SPEC shows one; docs/reference/configuration.md holds the same as a page.")
