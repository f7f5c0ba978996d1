"""Buckets: whether keys are found and accepted, objects can be read and written, and what time it is there."""

import secrets
from contextlib import suppress
from datetime import datetime

from heimdall_assets.cli.probing.finding import Finding, State, compare_clocks, judge_clock
from heimdall_assets.errors import NotFound, StorageError
from heimdall_assets.stores.objects.addresses import BucketAddress
from heimdall_assets.stores.objects.buckets import Bucket, describe_keys

PROBE = ".heimdall-doctor"
"""Begins with a dot: no object, reference, release or recording is named so."""


def probe_bucket(place: str, address: BucketAddress, endpoint: str | None, is_written: bool = True) -> Finding:
    """Return how a bucket is; where work writes there, a small object is written and removed again.

    Args:
        place: the variable that names it.
        address: where.
        endpoint: of the service; None: Amazon's.
        is_written: whether work needs to write there.
    """
    where = f"{address} at {endpoint}" if endpoint else str(address)
    bucket = Bucket(address, endpoint, max_retries=0)
    told = [where, f"keys from {describe_keys()}"]
    try:
        if not is_written:
            with suppress(NotFound):  # what is not there tells that we may ask
                bucket.get(f"{PROBE}-{secrets.token_hex(8)}")
            return Finding(place, State.OK, ", ".join([*told, "readable"]))
        skew_s, clock = compare_clocks(_write_and_remove(bucket))
    except StorageError as error:
        return Finding(place, State.WRONG, f"{error}, {told[1]}", _advise(str(error)))
    return judge_clock(place, [*told, "readable and writable", clock], skew_s)


def _write_and_remove(bucket: Bucket) -> datetime:
    key = f"{PROBE}-{secrets.token_hex(8)}"
    bucket.put(key, key.encode())
    try:
        if bucket.get(key) != key.encode():
            raise StorageError(f"{bucket.address}/{key}: found other bytes than were just put there")
        head = bucket.head(key)
        if head is None:
            raise StorageError(f"{bucket.address}/{key}: found nothing where bytes were just put")
        return head.stored_at
    finally:
        bucket.remove([key])


def _advise(error: str) -> str:
    for word, advice in _ADVICE.items():
        if word in error:
            return advice
    return "set AWS_ENDPOINT_URL_S3 to the service's address, and start it if it is down"


_ADVICE = {
    "found no bucket": "make the bucket, or correct its name",
    "found no keys": "export them, or name a profile in AWS_PROFILE",
    "SignatureDoesNotMatch": "the secret does not belong to the key: set AWS_SECRET_ACCESS_KEY anew",
    "InvalidAccessKeyId": "the service does not know the key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY anew",
    "ExpiredToken": "the session's keys have ended: ask for new ones",
    "RequestTimeTooSkewed": "set this machine's clock by NTP",
    "AccessDenied": "let the keys read, write, list and delete below the prefix",
    "403": "let the keys read, write, list and delete below the prefix",
}
