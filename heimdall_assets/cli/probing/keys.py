"""The key that signs: whether it can be read, is known to the log, and counts."""

from typing import TYPE_CHECKING

from heimdall_assets.cli.probing.finding import Finding, State
from heimdall_assets.errors import HeimdallError, InvalidSetting
from heimdall_assets.people import name_people

if TYPE_CHECKING:
    from heimdall_assets.stores.keys import KeySource
    from heimdall_assets.variables import Places


def probe_signing_key(places: "Places", source: "KeySource") -> Finding:
    """Return how the key is that signs releases; nothing of it is shown but its public id.

    Args:
        places: whose log knows which keys count.
        source: where the key comes from.
    """
    from heimdall_assets.pipeline.stages.model_release import find_signing_key

    where = "in the environment" if source.path is None else str(source.path)
    try:
        key = source.read()
    except InvalidSetting as error:
        return Finding(source.variable, State.WRONG, str(error).removeprefix(f"{source.variable}: "))
    try:
        stores = places.open_stores(begin=False)
    except HeimdallError:  # its own line says why
        advice = "heimdall keys add --owner NAME, once there is a home"
        return Finding(source.variable, State.WARNING, f"{where}: key {key.id}, which no log knows yet", advice)
    try:
        find_signing_key(stores)
    except HeimdallError as error:
        told = str(error).removeprefix(f"{source.variable}: ")
        return Finding(source.variable, State.WRONG, f"{where}: {told}")
    owner = name_people(stores.releases.list_keys()[key.id].owner, stores.read_names)
    return Finding(source.variable, State.OK, f"{where}: key {key.id} of {owner}, which counts")
