"""Second places: whether they can be reached, how much of the log they keep, and whether it still begins so."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from heimdall_assets.cli.probing.buckets import probe_bucket
from heimdall_assets.cli.probing.finding import Finding, State
from heimdall_assets.cli.probing.folders import probe_folder
from heimdall_assets.cli.probing.web import probe_web
from heimdall_assets.counts import say_count
from heimdall_assets.errors import HeimdallError
from heimdall_assets.stores.objects.addresses import BucketAddress, Place

if TYPE_CHECKING:
    from heimdall_assets.stores.home import Stores
    from heimdall_assets.variables import Places

VARIABLE = "HEIMDALL_WITNESS"


def probe_witnesses(places: "Places") -> Iterator[Finding]:
    """Give how each address of the second place is."""
    for number, address in enumerate(places.witness, 1):
        yield _probe_web(number, address) if isinstance(address, str) else _probe_place(places, address)


def _probe_place(places: "Places", address: Place) -> Finding:
    """Return how a folder or bucket is, and what it keeps of the log."""
    from heimdall_assets.stores.witness_places import open_witness

    if isinstance(address, BucketAddress):
        found = probe_bucket(VARIABLE, address, places.s3_endpoint)
    else:
        found = probe_folder(VARIABLE, address)
    if found.state is State.WRONG:
        return found
    from heimdall_assets.pipeline.releases.witnesses import audit_witnesses, read_last

    try:
        last = read_last(place := open_witness(address, places.s3_endpoint))
        stores = _open(places)
        disagreeing = [] if stores is None else list(audit_witnesses(stores, [place]))
    except HeimdallError as error:
        return Finding(VARIABLE, State.WRONG, str(error), "look what lies there, and who put it there")
    kept = "no checkpoint yet" if last is None else f"last checkpoint of {say_count(last[0].size, 'entry')}"
    told = f"{found.told}, {kept}"
    for said in disagreeing:
        if said.severity == "error":
            return Finding(VARIABLE, State.WRONG, f"{told}, which is not how the log begins", "heimdall verify latest")
        return Finding(VARIABLE, State.WARNING, f"{told}: found {said.found}", said.next_command)
    return Finding(VARIABLE, found.state, told, found.advice)


def _open(places: "Places") -> "Stores | None":
    """Return the opened stores; None: there is no home, or its own line says why it cannot be opened."""
    try:
        return places.open_stores(begin=False)
    except HeimdallError:
        return None


def _probe_web(number: int, url: str) -> Finding:
    """Return whether somebody answers at a web address, whose path may be a secret."""
    parts = urlsplit(url)
    return probe_web(VARIABLE, url, f"web address {number}, {parts.scheme}://{parts.netloc.rpartition('@')[2]}")
