"""``heimdall config``: profiles listed, shown as what they come to, and somebody's own judged field by field."""

from dataclasses import asdict
from typing import Any

import click

from heimdall_assets.cli.settings.described import list_parts, list_settings, say, say_needs
from heimdall_assets.cli.settings.profile_option import PROFILE
from heimdall_assets.cli.terminal.output import json_option, write_json, write_line, write_lines, write_table
from heimdall_assets.counts import say_count
from heimdall_assets.profiles.machines import Machine, describe_lack
from heimdall_assets.profiles.reading import Read, check_profile, list_profiles, read_profile
from heimdall_assets.stores.capacity import find_machine

EXIT_WRONG = 2


@click.group(short_help="Profiles: settings for kinds of machines.")
def config() -> None:
    """Profiles: settings for kinds of machines, and what each needs. `heimdall train --profile` takes one."""


@config.command("list", short_help="List the profiles of the package.")
@click.option("--markdown", is_flag=True, help="Print the page of the documentation, all of it.")
@json_option
def list_all(markdown: bool, as_json: bool) -> None:
    """List the profiles of the package, what each needs, and whether this machine has it."""
    from heimdall_assets.cli.settings.profiles_page import write_page

    if markdown:
        write_lines(write_page())
        return
    machine = find_machine()
    rows = [(read, _describe(read, machine)) for read in map(read_profile, list_profiles())]
    if as_json:
        write_json([told for _, told in rows])
        return
    cells = [
        [told["name"], say_needs(read.profile.needs), told["lacks"] or "yes", told["purpose"]] for read, told in rows
    ]
    write_table("Profiles", ["profile", "needs", "runs here", "for"], cells)


@config.command(short_help="Show every setting of a profile, and who says it.")
@click.argument("profile", type=PROFILE)
@json_option
def show(profile: str, as_json: bool) -> None:
    """Show every setting that PROFILE, one of the package's or a file, comes to on this machine, and who says it."""
    read, machine = read_profile(profile), find_machine()
    about = _describe(read, machine)
    # Where the machine is not enough, what it would come to on one that is.
    settings = list_settings(read, None if about["lacks"] else machine.gpu_memory_gib)
    parts = list_parts(read)
    if as_json:
        told = {path: {"value": one.value, "source": one.source} for path, one in settings.items()}
        else_ = {path: {"value": value, "source": source} for path, value, source in parts}
        write_json({**about, "settings": told, "parts": else_})
        return
    write_line(f"{about['name']}: {about['purpose']}")
    write_line(f"Needs {say_needs(read.profile.needs)}. This machine: {about['lacks'] or 'enough'}.")
    cells = [[path, say(setting.value), setting.source] for path, setting in settings.items()]
    write_table("Settings", ["setting", "value", "who says it"], cells)
    write_table(
        "Beside them", ["field", "value", "who says it"], [[path, say(value), source] for path, value, source in parts]
    )


@config.command(short_help="Name everything that is wrong with a profile.")
@click.argument("file", type=PROFILE)
@json_option
def validate(file: str, as_json: bool) -> None:
    """Name each field of FILE, a profile of yours, that is wrong: its path, what was found, what is allowed.

    Exit status: 0, it holds; 2, something is wrong with it.
    """
    read = check_profile(file)
    if as_json:
        write_json({"file": file, "valid": not read.problems, "problems": list(map(asdict, read.problems))})
    elif read.problems:
        for problem in read.problems:
            write_line(str(problem))
        write_line(f"{file}: {say_count(len(read.problems), 'problem')}")
    else:
        write_line(f"{file}: holds, as profile {read.title}")
    if read.problems:
        raise SystemExit(EXIT_WRONG)


def _describe(read: Read, machine: Machine) -> dict[str, Any]:
    """Return name, purpose and needs of a profile, and what a machine lacks of them."""
    return {
        "name": read.profile.name,
        "title": read.title,
        "purpose": read.profile.purpose,
        "needs": read.profile.needs.model_dump(mode="json"),
        "lacks": describe_lack(machine, read.profile.needs),
    }
