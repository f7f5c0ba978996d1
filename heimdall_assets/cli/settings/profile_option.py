"""How a profile is named on the command line: by the name of one of the package's, or by a file."""

from pathlib import Path
from typing import Any

import click

from heimdall_assets.profiles.reading import list_profiles
from heimdall_assets.stores.objects.regular_files import check_regular_file


class ProfileType(click.ParamType[str]):
    """A profile's name, or a file that can be read to its end; what is in it is judged when it is read."""

    name = "NAME|FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in list_profiles() and Path(value).exists():
            check_regular_file(Path(value))
        return str(value)


PROFILE = ProfileType()
