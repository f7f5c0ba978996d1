"""Opening: which backend an object store and the recordings of others have, by the kind of place they rest in.

Belongs here: choosing. Does not belong here: reading addresses (``addresses``), the backends (``folder``, ``s3``).
"""

from heimdall_assets.stores.objects.addresses import BucketAddress, Place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets.stores.objects.cache import ObjectCache
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.other_recordings import BucketRecordings, FolderRecordings, OtherRecordings
from heimdall_assets.stores.objects.s3 import BucketObjectStore


def open_object_store(objects: Place, recordings: Place, endpoint: str | None, cache: ObjectCache) -> ObjectStore:
    """Return the object store at a place; nothing is asked of a service yet.

    Args:
        objects: where objects and references rest.
        recordings: where those of others do.
        endpoint: of the S3 service; None: Amazon's.
        cache: for copies of objects of a bucket; one in a folder has none.
    """
    others: OtherRecordings
    if isinstance(recordings, BucketAddress):
        others = BucketRecordings(Bucket(recordings, endpoint))
    else:
        others = FolderRecordings(recordings)
    if isinstance(objects, BucketAddress):
        return BucketObjectStore(Bucket(objects, endpoint), cache, others)
    return FolderObjectStore(objects, others)
