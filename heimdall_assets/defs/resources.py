"""Resources: the doors through which assets reach the stores.

None has configuration: Dagster keeps a resource's configuration with the code location and shows it in the page and
in GraphQL to whoever asks, and an address may hold a password. What is shown is text that says where to look.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import dagster as dg

from heimdall_assets.defs.io_manager import ManifestIOManager
from heimdall_assets.defs.origins import describe_origin, hide_person
from heimdall_assets.pipeline.results import tell_results
from heimdall_assets.stores.computing import originate
from heimdall_assets.stores.home import Stores


def build_stores(
    open_stores: Callable[[], Stores], description: str, spread_work: Callable[[], AbstractContextManager[None]]
) -> dg.ResourceDefinition:
    """Return the resource whose value is the opened stores.

    Args:
        open_stores: opens them.
        description: all that the page shows of it.
        spread_work: entered while a step has them: where its large amounts of work are done.
    """

    def open_for_step(context: dg.InitResourceContext) -> Iterator[Stores]:
        from heimdall_assets.pipeline.tracing.indexing import build_listener

        stores = open_stores()
        origin = hide_person(describe_origin(context.run), stores)
        with spread_work(), originate(origin), tell_results(build_listener(stores)):
            yield stores

    return dg.ResourceDefinition(open_for_step, description=description)


class LineagePages(dg.ConfigurableResource[Any]):
    """Where people read the lineage of a release; Dagster's page itself shows neither HTML nor files."""

    url: str

    def link(self, version: str, part: str = "") -> dg.UrlMetadataValue:
        """Return the address of the lineage of one release, or of its ``results`` or ``card``."""
        return dg.MetadataValue.url(f"{self.url}/{version}/{part}".rstrip("/"))

    def locate_results(self, evaluation: str) -> str:
        """Return the address of an evaluation's page: tables and figures together."""
        return f"{self.url}/results/{evaluation}"

    def locate_search(self, search: str) -> str:
        """Return the address below which a search's figures are."""
        return f"{self.url}/searches/{search}"

    def locate_run(self, run_id: str) -> str:
        """Return the address of the page of a training, which draws how it goes while it runs."""
        return f"{self.url}/runs/{run_id}"

    def locate_losses(self, checkpoint: str) -> str:
        """Return the address of the picture of a training's losses over epochs."""
        return f"{self.url}/trainings/{checkpoint}/losses.svg"


@dg.io_manager(required_resource_keys={"stores"}, description="Manifests, by digest, in the stores' objects.")
def manifest_io_manager(context: dg.InitResourceContext) -> ManifestIOManager:
    """Return the IO manager on the object store of the resource ``stores``."""
    return ManifestIOManager(context.resources.stores.objects)
