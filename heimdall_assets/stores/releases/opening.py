"""Opening releases: files in a folder or a bucket, with the ledger that numbers them.

Belongs here: which backend an address wants. Does not belong here: reading addresses (``objects.addresses``).
"""

from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.objects.addresses import BucketAddress, Place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets.stores.releases.bucket import BucketFiles
from heimdall_assets.stores.releases.folder import FolderFiles
from heimdall_assets.stores.releases.ledger import find_ledger
from heimdall_assets.stores.releases.store import ReleaseStore


def open_releases(
    models: Place, measurements: MeasurementStore, s3_endpoint: str | None = None, ledger_url: str = ""
) -> ReleaseStore:
    """Return the releases at ``models``; nothing is made until the first number is given.

    Args:
        models: folder, or address in S3.
        measurements: an upgraded store of sessions.
        s3_endpoint: of the service that holds a bucket; None: Amazon's.
        ledger_url: what HEIMDALL_LEDGER_URL says; empty: nothing.

    Raises:
        InvalidSetting: the ledger has no database, or a wrong one (``find_ledger``).
        StorageError: a database cannot be reached.
    """
    ledger = find_ledger(measurements.database, models, ledger_url)
    if isinstance(models, BucketAddress):
        return ReleaseStore(BucketFiles(Bucket(models, s3_endpoint)), ledger)
    return ReleaseStore(FolderFiles(models), ledger)
