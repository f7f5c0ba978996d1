"""Home: the opened stores of one installation, together."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heimdall_assets.errors import NoHome
from heimdall_assets.libraries import keep_fonts, silence_libraries
from heimdall_assets.stores.home_format import EMBEDDED, FORMAT, begin_home, may_write, read_format, upgrade_home
from heimdall_assets.stores.objects.addresses import parse_folder, parse_place

if TYPE_CHECKING:
    from heimdall_assets.stores.database.edges import EdgeIndex
    from heimdall_assets.stores.database.measurements import MeasurementStore
    from heimdall_assets.stores.keys import KeySource
    from heimdall_assets.stores.objects.folder import ObjectStore
    from heimdall_assets.stores.releases.store import ReleaseStore
    from heimdall_assets.stores.runs.folders import RunFolders

RUNS = "runs"
"""The folder of trainings, below a home."""


@dataclass(frozen=True)
class Stores:
    """The opened stores of one home."""

    measurements: "MeasurementStore"
    objects: "ObjectStore"
    releases: "ReleaseStore"
    scratch: Path
    """Local folder for work in progress: checkpoints of a training that may be resumed."""
    signing_key: "KeySource | None" = None
    """The private key that signs releases; None: they are not signed."""
    runs: "RunFolders | None" = None
    """The folders of trainings; None: nobody is told how a training goes."""

    def read_names(self) -> dict[str, str]:
        """Return pseudonym -> name of everybody who decided or started something and was not erased."""
        return {**self.measurements.read_names(), **self.releases.read_names()}

    @property
    def edges(self) -> "EdgeIndex":
        """The index of lineage, beside the ledger of releases."""
        from heimdall_assets.stores.database.edges import EdgeIndex

        return EdgeIndex(self.releases.database)


def open_stores(
    *,
    home: str,
    database_url: str,
    objects: str,
    recordings: str,
    models: str,
    scratch: str,
    cache: str,
    cache_gb: float,
    s3_endpoint: str = "",
    ledger_url: str = "",
    receivers: str = "",
    time_zone: str = "",
    signing_key: "KeySource | None" = None,
    begin: bool = True,
) -> Stores:
    """Return the stores at these addresses; an embedded database is created and upgraded on first use.

    A home of an older format is upgraded too; where it may not be written, its stores are opened read-only.

    ``cache`` is where copies of objects lie that rest in a bucket, and takes ``cache_gb`` at most; ``s3_endpoint`` is
    the address of an S3 service other than Amazon's.

    ``ledger_url`` is where releases are numbered if the database is the field's own (``releases.ledger``).

    ``receivers`` and ``time_zone`` say what a database of one table does not (``database.raw.stated_receivers``).

    ``signing_key`` is the private key that signs releases.

    Without ``begin`` nothing is made where nobody has made anything before: no home, and no database either, for an
    address that was mistyped would be a new empty one.

    Raises:
        NoHome: nothing is there yet, and nothing was to be begun.
        NotFound: the database that is stated is not there or holds no tables, and nothing was to be begun.
        Refused: a newer version of this project made the home.
        StorageError: a newer version made the database, or one of them cannot be opened.
        InvalidSetting: an address is of no kind that can be opened.
    """
    # Databases are slow to load: whoever only lists the graph, or asks for help, opens none.
    from heimdall_assets.stores.database.measurements import MeasurementStore
    from heimdall_assets.stores.database.raw.stated_receivers import Statement
    from heimdall_assets.stores.objects.cache import ObjectCache
    from heimdall_assets.stores.objects.opening import open_object_store
    from heimdall_assets.stores.releases.opening import open_releases
    from heimdall_assets.stores.runs.folders import RunFolders

    place, work = parse_folder(home, "home"), parse_folder(scratch, "scratch")
    released = parse_place(models, "models")
    copies = ObjectCache(parse_folder(cache, "cache"), round(cache_gb * 1e9))
    kept = open_object_store(
        parse_place(objects, "objects"), parse_place(recordings, "recordings"), s3_endpoint or None, copies
    )
    found = read_format(place)
    is_old = found is not None and found < FORMAT
    measurements = MeasurementStore(
        database_url, read_only=is_old and not may_write(place), statement=Statement(receivers, time_zone)
    )
    if found is None and begin:
        begin_home(place)
    elif found is None and database_url == f"sqlite:///{place / EMBEDDED}" and measurements.database.is_empty:
        raise NoHome(f"home {place} (HEIMDALL_HOME): nothing there yet; heimdall demo or heimdall import begins one")
    measurements.upgrade(begin=begin)
    if found is not None and is_old:
        upgrade_home(place, found)
    silence_libraries()
    if may_write(place):
        keep_fonts(parse_folder(cache, "cache") / "matplotlib")
    return Stores(
        measurements=measurements,
        objects=kept,
        releases=open_releases(released, measurements, s3_endpoint or None, ledger_url),
        scratch=work,
        signing_key=signing_key,
        runs=RunFolders(place / RUNS),
    )
