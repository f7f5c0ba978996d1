"""Home: the opened stores of one installation, together."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heimdall_assets.errors import NoHome
from heimdall_assets.stores.home_format import FORMAT, begin_home, may_write, read_format, upgrade_home
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


def open_stores(
    *, home: str, database_url: str, objects: str, recordings: str, models: str, scratch: str, begin: bool = True
) -> Stores:
    """Return the stores at these addresses; an embedded database is created and upgraded on first use.

    A home of an older format is upgraded too; where it may not be written, its stores are opened read-only.

    Without ``begin`` nothing is made where nobody has made anything before.

    Raises:
        NoHome: nothing is there yet, and nothing was to be begun.
        Refused: a newer version of this project made the home.
        StorageError: a newer version made the database, or one of them cannot be opened.
        InvalidSetting: an address is of no kind that can be opened.
    """
    # Databases are slow to load: whoever only lists the graph, or asks for help, opens none.
    from heimdall_assets.stores.database.measurements import MeasurementStore
    from heimdall_assets.stores.objects.folder import open_object_store
    from heimdall_assets.stores.releases.folders import ReleaseStore

    place, released, work = parse_folder(home, "home"), parse_folder(models, "models"), parse_folder(scratch, "scratch")
    kept = open_object_store(objects, recordings=recordings)
    found = read_format(place)
    is_old = found is not None and found < FORMAT
    measurements = MeasurementStore(database_url, read_only=is_old and not may_write(place))
    if found is None and begin:
        begin_home(place)
    elif found is None and measurements.database.is_empty:
        raise NoHome(f"home {place} (HEIMDALL_HOME): nothing there yet; heimdall demo or heimdall import begins one")
    measurements.upgrade()
    if found is not None and is_old:
        upgrade_home(place, found)
    return Stores(
        measurements=measurements,
        objects=kept,
        releases=ReleaseStore(released, measurements),
        scratch=work,
    )
