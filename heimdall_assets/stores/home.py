"""Home: the opened stores of one installation, together."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heimdall_assets.stores.objects.addresses import parse_folder

if TYPE_CHECKING:
    from heimdall_assets.stores.database.measurements import MeasurementStore
    from heimdall_assets.stores.objects.folder import ObjectStore
    from heimdall_assets.stores.releases.folders import ReleaseStore


@dataclass(frozen=True)
class Stores:
    """The opened stores of one home."""

    measurements: "MeasurementStore"
    objects: "ObjectStore"
    releases: "ReleaseStore"
    scratch: Path
    """Local folder for work in progress: checkpoints of a training that may be resumed."""


def open_stores(*, database_url: str, objects: str, recordings: str, models: str, scratch: str) -> Stores:
    """Return the stores at these addresses; an embedded database is created and upgraded on first use."""
    # Databases are slow to load: whoever only lists the graph, or asks for help, opens none.
    from heimdall_assets.stores.database.measurements import MeasurementStore
    from heimdall_assets.stores.objects.folder import open_object_store
    from heimdall_assets.stores.releases.folders import ReleaseStore

    measurements = MeasurementStore(database_url)
    measurements.upgrade()
    return Stores(
        measurements=measurements,
        objects=open_object_store(objects, recordings=recordings),
        releases=ReleaseStore(parse_folder(models, "models"), measurements),
        scratch=parse_folder(scratch, "scratch"),
    )
