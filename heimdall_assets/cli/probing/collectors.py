"""Collectors of lineage events: whether their library is installed, and somebody answers."""

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from heimdall_assets.cli.probing.finding import Finding, State
from heimdall_assets.cli.probing.folders import probe_folder
from heimdall_assets.cli.probing.web import probe_web

VARIABLE = "HEIMDALL_OPENLINEAGE"


def probe_collector(target: str | Path) -> Finding:
    """Return how the place is that is told of runs; nothing is sent there.

    Args:
        target: web address, which may hold a user and a password: neither is shown; or a folder.
    """
    if find_spec("openlineage") is None:
        advice = "install heimdall-assets[exports]"
        return Finding(VARIABLE, State.WRONG, "found no package openlineage-python", advice)
    if isinstance(target, Path):
        return probe_folder(VARIABLE, target)
    parts = urlsplit(target)
    return probe_web(VARIABLE, target, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
