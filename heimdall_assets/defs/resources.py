"""Resources: the doors through which assets reach the stores."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.io_manager import ManifestIOManager
from heimdall_assets.stores.home import Stores, open_stores


class StoresResource(dg.ConfigurableResource[Stores]):
    """The opened stores; assets receive the plain ``Stores``."""

    home: str
    database_url: str
    objects: str
    recordings: str
    models: str
    scratch: str

    def create_resource(self, context: dg.InitResourceContext) -> Stores:
        return open_stores(
            home=self.home,
            database_url=self.database_url,
            objects=self.objects,
            recordings=self.recordings,
            models=self.models,
            scratch=self.scratch,
        )


class LineagePages(dg.ConfigurableResource[Any]):
    """Where people read the lineage of a release; Dagster's page itself shows neither HTML nor files."""

    url: str

    def link(self, version: str, part: str = "") -> dg.UrlMetadataValue:
        """Return the address of the lineage of one release, or of its ``results`` or ``card``."""
        return dg.MetadataValue.url(f"{self.url}/{version}/{part}".rstrip("/"))

    def locate_results(self, evaluation: str) -> str:
        """Return the address of an evaluation's page: tables and figures together."""
        return f"{self.url}/results/{evaluation}"

    def locate_losses(self, checkpoint: str) -> str:
        """Return the address of the picture of a training's losses over epochs."""
        return f"{self.url}/trainings/{checkpoint}/losses.svg"


class ManifestIOResource(dg.ConfigurableIOManagerFactory[ManifestIOManager]):
    """Makes the IO manager on the same object store."""

    stores: dg.ResourceDependency[Stores]

    def create_io_manager(self, context: dg.InitResourceContext) -> ManifestIOManager:
        return ManifestIOManager(self.stores.objects)
